//! The closed list of reasons for which a peer's certificates are refused.
//!
//! The words are at once the reason in the access log and a metric label, so they are few, fixed and
//! never made from what a peer sent. One row per reason: the reference page is made from the same table.

use crate::{grammar::IdFault, leaf::LeafError};

/// Why a peer's certificates were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerReason {
    /// A signature in the path does not verify under the key of the issuer it names: a foreign root of
    /// the same name, or a forgery.
    BadSignature,
    /// The leaf is an authority's certificate.
    CaCertificate,
    /// One certificate is larger than the limit.
    CertificateTooLarge,
    /// More certificates than the limit.
    ChainTooLong,
    /// A certificate of the path, most often the leaf, has expired.
    Expired,
    /// The leaf has no extended key usage.
    ExtendedKeyUsageMissing,
    /// The identity is of another trust domain, though a trusted root signed it.
    ForeignTrustDomain,
    /// The identity holds a control character, such as NUL.
    IdControlByte,
    /// The identity's path holds a segment `.` or `..`.
    IdDotSegment,
    /// The identity's path holds two slashes in a row.
    IdEmptySegment,
    /// The identity has no trust domain.
    IdEmptyTrustDomain,
    /// The identity holds a printable character outside the grammar.
    IdForbiddenByte,
    /// The identity carries a fragment.
    IdFragment,
    /// The identity is a trust domain's and no workload's.
    IdNoPath,
    /// The identity holds a byte outside ASCII.
    IdNotAscii,
    /// The URI does not begin with `spiffe://` in lower case.
    IdNotSpiffe,
    /// The identity holds a `%`; nothing is ever decoded.
    IdPercentEncoding,
    /// The identity carries a port.
    IdPort,
    /// The identity carries a query.
    IdQuery,
    /// The identity is longer than 2048 bytes.
    IdTooLong,
    /// The identity's path ends with a slash.
    IdTrailingSlash,
    /// The identity's trust domain is longer than 255 bytes.
    IdTrustDomainTooLong,
    /// The identity's trust domain holds an upper-case letter.
    IdUpperCase,
    /// The identity carries user information.
    IdUserInfo,
    /// The identity holds a `*`.
    IdWildcard,
    /// A certificate of the path signed another without being an authority's.
    IssuerNotAuthority,
    /// The leaf's public key is too weak, too large or of another kind than EC P-256, EC P-384 and RSA.
    KeyAlgorithm,
    /// The leaf has no key usage.
    KeyUsageMissing,
    /// The leaf's key usage is not critical.
    KeyUsageNotCritical,
    /// The leaf's key usage allows signing certificates or revocation lists.
    KeyUsageSigns,
    /// A certificate cannot be read.
    Malformed,
    /// An authority of the path may not sign for the names in the leaf.
    NameConstraint,
    /// The peer presented no certificate.
    NoCertificate,
    /// The leaf's key usage does not allow digital signatures.
    NoDigitalSignature,
    /// A certificate of the path is not valid yet.
    NotYetValid,
    /// The leaf has no URI SAN, hence no identity.
    NoUriSan,
    /// The leaf carries a name of another kind, such as an IP address, beside its identity.
    OtherSan,
    /// The path to a root was refused for a rare reason; the error says which.
    PathRefused,
    /// The path is longer than an authority in it allows.
    PathTooLong,
    /// The root that would vouch for the peer has expired or is not valid yet.
    RootOutsideValidity,
    /// The leaf has more than one URI SAN.
    SeveralUriSans,
    /// A signature algorithm in the path is not accepted.
    SignatureAlgorithm,
    /// No trusted root issued the certificate.
    UnknownIssuer,
    /// A certificate has a critical extension that is not known.
    UnsupportedCriticalExtension,
    /// The extended key usage does not allow the side that the peer plays.
    WrongExtendedKeyUsage,
}

impl PeerReason {
    /// Every reason, in alphabetical order of the variants.
    pub const ALL: &'static [Self] = &[
        Self::BadSignature,
        Self::CaCertificate,
        Self::CertificateTooLarge,
        Self::ChainTooLong,
        Self::Expired,
        Self::ExtendedKeyUsageMissing,
        Self::ForeignTrustDomain,
        Self::IdControlByte,
        Self::IdDotSegment,
        Self::IdEmptySegment,
        Self::IdEmptyTrustDomain,
        Self::IdForbiddenByte,
        Self::IdFragment,
        Self::IdNoPath,
        Self::IdNotAscii,
        Self::IdNotSpiffe,
        Self::IdPercentEncoding,
        Self::IdPort,
        Self::IdQuery,
        Self::IdTooLong,
        Self::IdTrailingSlash,
        Self::IdTrustDomainTooLong,
        Self::IdUpperCase,
        Self::IdUserInfo,
        Self::IdWildcard,
        Self::IssuerNotAuthority,
        Self::KeyAlgorithm,
        Self::KeyUsageMissing,
        Self::KeyUsageNotCritical,
        Self::KeyUsageSigns,
        Self::Malformed,
        Self::NameConstraint,
        Self::NoCertificate,
        Self::NoDigitalSignature,
        Self::NotYetValid,
        Self::NoUriSan,
        Self::OtherSan,
        Self::PathRefused,
        Self::PathTooLong,
        Self::RootOutsideValidity,
        Self::SeveralUriSans,
        Self::SignatureAlgorithm,
        Self::UnknownIssuer,
        Self::UnsupportedCriticalExtension,
        Self::WrongExtendedKeyUsage,
    ];

    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// What the reason means, for the reference page.
    pub fn doc(self) -> &'static str {
        self.row().1
    }

    pub(crate) fn of_leaf(error: &LeafError) -> Self {
        match error {
            LeafError::CaCertificate => Self::CaCertificate,
            LeafError::ExtendedKeyUsageMissing => Self::ExtendedKeyUsageMissing,
            LeafError::Id(error) => Self::of_id(error.fault()),
            LeafError::Key(_) => Self::KeyAlgorithm,
            LeafError::KeyUsageMissing => Self::KeyUsageMissing,
            LeafError::KeyUsageNotCritical => Self::KeyUsageNotCritical,
            LeafError::KeyUsageSigns { .. } => Self::KeyUsageSigns,
            LeafError::Malformed { .. } => Self::Malformed,
            LeafError::NoDigitalSignature => Self::NoDigitalSignature,
            LeafError::NoUriSan => Self::NoUriSan,
            LeafError::OtherSan { .. } => Self::OtherSan,
            LeafError::SeveralUriSans { .. } => Self::SeveralUriSans,
        }
    }

    fn of_id(fault: IdFault) -> Self {
        match fault {
            IdFault::ControlByte { .. } => Self::IdControlByte,
            IdFault::DotSegment => Self::IdDotSegment,
            IdFault::EmptySegment => Self::IdEmptySegment,
            IdFault::EmptyTrustDomain => Self::IdEmptyTrustDomain,
            IdFault::ForbiddenByte { .. } => Self::IdForbiddenByte,
            IdFault::Fragment { .. } => Self::IdFragment,
            IdFault::NoPath => Self::IdNoPath,
            IdFault::NotAscii { .. } => Self::IdNotAscii,
            IdFault::NotSpiffe => Self::IdNotSpiffe,
            IdFault::PercentEncoding { .. } => Self::IdPercentEncoding,
            IdFault::Port => Self::IdPort,
            IdFault::Query { .. } => Self::IdQuery,
            IdFault::TooLong { .. } => Self::IdTooLong,
            IdFault::TrailingSlash => Self::IdTrailingSlash,
            IdFault::TrustDomainTooLong { .. } => Self::IdTrustDomainTooLong,
            IdFault::UpperCase { .. } => Self::IdUpperCase,
            IdFault::UserInfo => Self::IdUserInfo,
            IdFault::Wildcard { .. } => Self::IdWildcard,
        }
    }

    #[rustfmt::skip]
    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::BadSignature => ("certificate_bad_signature", "a signature in the path does not verify under the key of the issuer it names: a foreign root of the same name, or a forgery"),
            Self::CaCertificate => ("certificate_is_ca", "the leaf is an authority's certificate"),
            Self::CertificateTooLarge => ("certificate_too_large", "one certificate is larger than the limit"),
            Self::ChainTooLong => ("certificate_chain_too_long", "more certificates than the limit"),
            Self::Expired => ("certificate_expired", "a certificate of the path, most often the leaf, has expired"),
            Self::ExtendedKeyUsageMissing => ("certificate_no_extended_key_usage", "the leaf has no extended key usage"),
            Self::ForeignTrustDomain => ("certificate_foreign_trust_domain", "the identity is of another trust domain, though a trusted root signed it"),
            Self::IdControlByte => ("spiffe_id_control_byte", "the identity holds a control character, such as NUL"),
            Self::IdDotSegment => ("spiffe_id_dot_segment", "the identity's path holds a segment `.` or `..`"),
            Self::IdEmptySegment => ("spiffe_id_empty_segment", "the identity's path holds two slashes in a row"),
            Self::IdEmptyTrustDomain => ("spiffe_id_empty_trust_domain", "the identity has no trust domain"),
            Self::IdForbiddenByte => ("spiffe_id_forbidden_byte", "the identity holds a printable character outside the grammar"),
            Self::IdFragment => ("spiffe_id_fragment", "the identity carries a fragment"),
            Self::IdNoPath => ("spiffe_id_no_path", "the identity is a trust domain's and no workload's"),
            Self::IdNotAscii => ("spiffe_id_not_ascii", "the identity holds a byte outside ASCII"),
            Self::IdNotSpiffe => ("spiffe_id_not_spiffe", "the URI does not begin with `spiffe://` in lower case"),
            Self::IdPercentEncoding => ("spiffe_id_percent_encoding", "the identity holds a `%`; nothing is ever decoded"),
            Self::IdPort => ("spiffe_id_port", "the identity carries a port"),
            Self::IdQuery => ("spiffe_id_query", "the identity carries a query"),
            Self::IdTooLong => ("spiffe_id_too_long", "the identity is longer than 2048 bytes"),
            Self::IdTrailingSlash => ("spiffe_id_trailing_slash", "the identity's path ends with a slash"),
            Self::IdTrustDomainTooLong => ("spiffe_id_trust_domain_too_long", "the identity's trust domain is longer than 255 bytes"),
            Self::IdUpperCase => ("spiffe_id_upper_case", "the identity's trust domain holds an upper-case letter"),
            Self::IdUserInfo => ("spiffe_id_user_info", "the identity carries user information"),
            Self::IdWildcard => ("spiffe_id_wildcard", "the identity holds a `*`"),
            Self::IssuerNotAuthority => ("certificate_issuer_not_authority", "a certificate of the path signed another without being an authority's"),
            Self::KeyAlgorithm => ("certificate_key_refused", "the leaf's public key is too weak, too large or of another kind than EC P-256, EC P-384 and RSA"),
            Self::KeyUsageMissing => ("certificate_no_key_usage", "the leaf has no key usage"),
            Self::KeyUsageNotCritical => ("certificate_key_usage_not_critical", "the leaf's key usage is not critical"),
            Self::KeyUsageSigns => ("certificate_key_usage_signs", "the leaf's key usage allows signing certificates or revocation lists"),
            Self::Malformed => ("certificate_malformed", "a certificate cannot be read"),
            Self::NameConstraint => ("certificate_name_constraint", "an authority of the path may not sign for the names in the leaf"),
            Self::NoCertificate => ("certificate_none", "the peer presented no certificate"),
            Self::NoDigitalSignature => ("certificate_no_digital_signature", "the leaf's key usage does not allow digital signatures"),
            Self::NotYetValid => ("certificate_not_yet_valid", "a certificate of the path is not valid yet"),
            Self::NoUriSan => ("certificate_no_uri_san", "the leaf has no URI SAN, hence no identity"),
            Self::OtherSan => ("certificate_other_san", "the leaf carries a name of another kind, such as an IP address, beside its identity"),
            Self::PathRefused => ("certificate_path_refused", "the path to a root was refused for a rare reason; the error says which"),
            Self::PathTooLong => ("certificate_path_too_long", "the path is longer than an authority in it allows"),
            Self::RootOutsideValidity => ("certificate_root_outside_validity", "the root that would vouch for the peer has expired or is not valid yet"),
            Self::SeveralUriSans => ("certificate_several_uri_sans", "the leaf has more than one URI SAN"),
            Self::SignatureAlgorithm => ("certificate_signature_algorithm", "a signature algorithm in the path is not accepted"),
            Self::UnknownIssuer => ("certificate_unknown_issuer", "no trusted root issued the certificate"),
            Self::UnsupportedCriticalExtension => ("certificate_unknown_critical_extension", "a certificate has a critical extension that is not known"),
            Self::WrongExtendedKeyUsage => ("certificate_wrong_extended_key_usage", "the extended key usage does not allow the side that the peer plays"),
        }
    }
}
