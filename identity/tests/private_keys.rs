//! Private keys: what is read, what is refused, what they sign, and that they stay secret. The keys in
//! `keys/` were made by OpenSSL for these tests and protect nothing.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use proptest::{collection::vec, prelude::*};
use rcgen::{CertificateSigningRequestParams, KeyPair, PublicKeyData, SanType, SigningKey};
use ringmail_identity::{KeyAlgorithm, KeyAlgorithmError, KeyError, PemError, PrivateKey, SpiffeId};

use crate::authority::rsa_spki;

const EC_P256: &[u8] = include_bytes!("keys/ec-p256-sec1-with-parameters.pem");
const EC_P256_ENCRYPTED: &[u8] = include_bytes!("keys/ec-p256-encrypted.pem");
const EC_P384: &[u8] = include_bytes!("keys/ec-p384-pkcs8.pem");
const EC_P521: &[u8] = include_bytes!("keys/ec-p521-sec1.pem");
const ED25519: &[u8] = include_bytes!("keys/ed25519-pkcs8.pem");
const RSA_1024: &[u8] = include_bytes!("keys/rsa-1024-pkcs1.pem");
const RSA_2048_PKCS1: &[u8] = include_bytes!("keys/rsa-2048-pkcs1.pem");
const RSA_2048_PKCS8: &[u8] = include_bytes!("keys/rsa-2048-pkcs8.pem");

const GOOD: [(&[u8], KeyAlgorithm); 4] = [
    (EC_P256, KeyAlgorithm::EcP256),
    (EC_P384, KeyAlgorithm::EcP384),
    (RSA_2048_PKCS1, KeyAlgorithm::Rsa { bits: 2048 }),
    (RSA_2048_PKCS8, KeyAlgorithm::Rsa { bits: 2048 }),
];

fn verifier(key: &PrivateKey) -> UnparsedPublicKey<&[u8]> {
    let algorithm: &dyn VerificationAlgorithm = match key.key_algorithm() {
        KeyAlgorithm::EcP256 => &ECDSA_P256_SHA256_ASN1,
        KeyAlgorithm::EcP384 => &ECDSA_P384_SHA384_ASN1,
        KeyAlgorithm::Rsa { .. } => &RSA_PKCS1_2048_8192_SHA256,
    };
    UnparsedPublicKey::new(algorithm, key.der_bytes())
}

#[test]
fn keys_are_read_in_every_usual_encoding_and_written_as_they_came() {
    let generated = KeyPair::generate().unwrap().serialize_pem();
    let all = GOOD.into_iter().chain([(generated.as_bytes(), KeyAlgorithm::EcP256)]);
    for (pem, algorithm) in all {
        let key = PrivateKey::from_pem(pem).unwrap();
        assert_eq!(key.key_algorithm(), algorithm);
        let written = key.to_pem();
        let own_block = str::from_utf8(pem).unwrap().ends_with(written.as_str());
        assert!(own_block, "the key's own block is the end of the file it came from");
        assert_eq!(PrivateKey::from_pem(written.as_bytes()).unwrap().der(), key.der());
        assert_eq!(written.capacity(), written.len(), "the text grew, which leaves a copy behind");
    }
}

#[test]
fn both_encodings_of_one_rsa_key_have_one_public_key() {
    let [one, two] = [RSA_2048_PKCS1, RSA_2048_PKCS8].map(|pem| PrivateKey::from_pem(pem).unwrap());
    assert_eq!(one.subject_public_key_info(), two.subject_public_key_info());
}

#[test]
fn keys_of_another_kind_or_too_short_are_refused() {
    for pem in [EC_P521, ED25519, RSA_1024] {
        let error = PrivateKey::from_pem(pem).unwrap_err();
        assert!(matches!(error, KeyError::Refused { .. }), "{error}");
    }
}

#[test]
fn a_damaged_key_is_refused() {
    let text = str::from_utf8(EC_P384).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without_a_line = [&lines[..2], &lines[3..]].concat().join("\n");
    let error = PrivateKey::from_pem(without_a_line.as_bytes()).unwrap_err();
    assert!(matches!(error, KeyError::Refused { .. }), "{error}");
}

#[test]
fn a_file_must_hold_exactly_one_key_in_the_clear() {
    let two = [EC_P256, EC_P384].concat();
    assert!(matches!(PrivateKey::from_pem(&two), Err(KeyError::Pem(PemError::SecondKey { block: 2 }))));
    for pem in [&b""[..], b"-----BEGIN", EC_P256_ENCRYPTED] {
        assert!(matches!(PrivateKey::from_pem(pem), Err(KeyError::Pem(PemError::NoKey))));
    }
    let cut = &EC_P384[..EC_P384.len() - 10];
    let error = PrivateKey::from_pem(cut).unwrap_err().to_string();
    assert!(error.ends_with("block \"PRIVATE KEY\" does not end"), "{error}");
    assert!(matches!(PrivateKey::from_pem(cut), Err(KeyError::Pem(PemError::Malformed { block: 1, .. }))));
}

#[test]
fn a_key_whose_lines_were_folded_into_one_is_refused_and_not_shown() {
    let text = str::from_utf8(EC_P256).unwrap().trim_end();
    let body = text.lines().nth(1).unwrap();
    let as_numbers = format!("{:?}", &body.as_bytes()[..8]);
    let folded = [text.replace('\n', ""), text.replace('\n', " "), text.replace('\n', "\\n")];
    for pem in folded.iter().flat_map(|pem| [pem.clone(), pem[..pem.len() - 9].to_owned()]) {
        let error = PrivateKey::from_pem(pem.as_bytes()).unwrap_err();
        for said in
            [error.to_string(), format!("{error:?}"), format!("{:?}", std::error::Error::source(&error))]
        {
            assert!(
                !said.contains(&body[..8]) && !said.contains(as_numbers.trim_matches(['[', ']'])),
                "{said}"
            );
        }
    }
}

#[test]
fn debug_shows_the_kind_of_a_key_and_nothing_else() {
    let key = PrivateKey::generate().unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(EC P-256, redacted)");
    assert_eq!(format!("{key:#?}"), "PrivateKey(EC P-256, redacted)");
}

#[test]
fn public_keys_are_told_apart_and_weak_ones_named() {
    for (pem, algorithm) in GOOD {
        let spki = PrivateKey::from_pem(pem).unwrap().subject_public_key_info();
        assert_eq!(KeyAlgorithm::from_spki_der(&spki), Ok(algorithm));
        let longer = [spki, vec![0]].concat();
        assert!(matches!(KeyAlgorithm::from_spki_der(&longer), Err(KeyAlgorithmError::Malformed(_))));
    }
    for bits in [2048, 2049, 4095, 4096] {
        assert_eq!(KeyAlgorithm::from_spki_der(&rsa_spki(bits)), Ok(KeyAlgorithm::Rsa { bits }));
    }
    let too_few = KeyAlgorithmError::RsaBits { bits: 2047 };
    assert_eq!(KeyAlgorithm::from_spki_der(&rsa_spki(2047)), Err(too_few));
    let p521 = KeyPair::from_pem(str::from_utf8(EC_P521).unwrap()).unwrap().subject_public_key_info();
    let curve = KeyAlgorithmError::Curve { curve: "1.3.132.0.35".to_owned() };
    assert_eq!(KeyAlgorithm::from_spki_der(&p521), Err(curve));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_key_signs_verifies_under_its_public_key(message in vec(any::<u8>(), 0..200), which in 0..GOOD.len()) {
        let key = PrivateKey::from_pem(GOOD[which].0).unwrap();
        let signature = key.sign(&message).unwrap();
        prop_assert!(verifier(&key).verify(&message, &signature).is_ok());
        let other = [message, vec![0]].concat();
        prop_assert!(verifier(&key).verify(&other, &signature).is_err());
    }

    #[test]
    fn a_generated_key_survives_its_pem(message in vec(any::<u8>(), 0..200)) {
        let key = PrivateKey::generate().unwrap();
        let read = PrivateKey::from_pem(key.to_pem().as_bytes()).unwrap();
        prop_assert_eq!(read.der_bytes(), key.der_bytes());
        prop_assert!(verifier(&key).verify(&message, &read.sign(&message).unwrap()).is_ok());
    }

    #[test]
    fn a_request_carries_the_public_key_and_the_id_and_proves_the_key(
        namespace in "[a-z0-9]{1,20}", account in "[a-z0-9]{1,20}", which in 0..GOOD.len()
    ) {
        let key = PrivateKey::from_pem(GOOD[which].0).unwrap();
        let id: SpiffeId = format!("spiffe://td/ns/{namespace}/sa/{account}").parse().unwrap();
        // Reading it checks the signature as well.
        let read = CertificateSigningRequestParams::from_pem(&key.csr_pem(Some(&id)).unwrap()).unwrap();
        prop_assert_eq!(read.public_key.der_bytes(), key.der_bytes());
        prop_assert_eq!(read.params.subject_alt_names, [SanType::URI(id.as_str().try_into().unwrap())]);
        prop_assert_eq!(read.params.distinguished_name.iter().count(), 0);
    }
}

#[test]
fn a_request_without_an_id_carries_no_name() {
    let key = PrivateKey::generate().unwrap();
    let read = CertificateSigningRequestParams::from_pem(&key.csr_pem(None).unwrap()).unwrap();
    assert!(read.params.subject_alt_names.is_empty());
    assert_eq!(read.public_key.der_bytes(), key.der_bytes());
}
