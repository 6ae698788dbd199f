//! The name of a trust domain: everything that one set of roots vouches for.

use std::{fmt, str::FromStr, sync::Arc};

use crate::grammar::{IdError, check_trust_domain};

/// A trust domain's name, such as `cluster.local`: lower-case letters, digits, `.`, `-` and `_`, at most
/// [`MAX_TRUST_DOMAIN_LEN`](crate::MAX_TRUST_DOMAIN_LEN) bytes. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name as it stands between `spiffe://` and the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;

    /// Takes the bare name, without `spiffe://`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        check_trust_domain(name.as_bytes(), 0)
            .map_err(|fault| IdError::new("trust domain", name.as_bytes(), fault))?;
        Ok(Self(name.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}
