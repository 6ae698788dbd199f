//! The identity of a workload.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{
    grammar::{IdError, IdFault, check_id, check_segment},
    trust_domain::TrustDomain,
};

/// Bytes before the trust domain.
const SCHEME_LEN: usize = "spiffe://".len();

/// A workload's SPIFFE ID, valid by construction: `spiffe://<trust domain>/<path>` in its one form.
///
/// Two IDs are equal where their bytes are. A path is required: the bare ID of a trust domain is no
/// workload's. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    uri: Arc<str>,
    path_at: usize,
}

impl SpiffeId {
    /// The ID of a Kubernetes service account, as Istio writes it:
    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    ///
    /// # Errors
    /// [`IdError`] where a part is empty, is not one path segment, or the whole is too long.
    pub fn for_service_account(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdError> {
        for (what, part) in [("namespace", namespace), ("service account", service_account)] {
            check_segment(part.as_bytes(), 0).map_err(|fault| IdError::new(what, part.as_bytes(), fault))?;
        }
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// Reads the ID from bytes of unknown origin, such as a certificate's.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        let refused = |fault| IdError::new("spiffe id", bytes, fault);
        let path_at = check_id(bytes).map_err(refused)?;
        let uri = str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            refused(IdFault::NotAscii { byte: bytes[at], at })
        })?;
        Ok(Self { uri: uri.into(), path_at })
    }

    /// The whole ID, `spiffe://` included.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME_LEN..self.path_at]
    }

    /// The path, beginning with a slash.
    pub fn path(&self) -> &str {
        &self.uri[self.path_at..]
    }

    /// The ID without `spiffe://`: what policies write as a principal.
    pub fn principal(&self) -> &str {
        &self.uri[SCHEME_LEN..]
    }

    /// The Kubernetes namespace, where the path is exactly `/ns/<namespace>/sa/<service account>`.
    pub fn namespace(&self) -> Option<&str> {
        self.workload().map(|(namespace, _)| namespace)
    }

    /// The Kubernetes service account, where the path is exactly `/ns/<namespace>/sa/<service account>`.
    pub fn service_account(&self) -> Option<&str> {
        self.workload().map(|(_, service_account)| service_account)
    }

    fn workload(&self) -> Option<(&str, &str)> {
        let (namespace, rest) = self.path().strip_prefix("/ns/")?.split_once('/')?;
        let service_account = rest.strip_prefix("sa/")?;
        (!service_account.contains('/')).then_some((namespace, service_account))
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::from_bytes(id.as_bytes())
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.uri)
    }
}
