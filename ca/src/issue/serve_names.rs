//! DNS names for the servers of the mesh's own: who gets them is the operator's word alone.
//!
//! A proxy verifies the control plane by DNS name, as the field does, while everything else in the mesh
//! goes by SPIFFE ID. The names stand beside the ID in the leaf of exactly the service account they were
//! given to, and nothing in a request can add one.

use std::collections::BTreeMap;

use ringmail_identity::SpiffeId;
use rustls_pki_types::DnsName;

/// The names of each service account that is a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeNames {
    by_account: BTreeMap<(String, String), Vec<String>>,
}

impl ServeNames {
    /// Reads `<namespace>/<service account>=<name>,<name>`; several for one account add up.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let expected = || "<namespace>/<service account>=<DNS name>,<DNS name>".to_owned();
        let (account, names) = text.split_once('=').ok_or_else(expected)?;
        let (namespace, account) = account.split_once('/').ok_or_else(expected)?;
        if namespace.is_empty() || account.is_empty() || account.contains('/') {
            return Err(expected());
        }
        let held = self.by_account.entry((namespace.to_owned(), account.to_owned())).or_default();
        for name in names.split(',').map(str::trim) {
            // A wildcard would make one leaf the server of names nobody thought of.
            if name.contains('*') || DnsName::try_from(name).is_err() {
                return Err(format!("{}: {name:?} is no DNS name", expected()));
            }
            if !held.iter().any(|known| known == name) {
                held.push(name.to_owned());
            }
        }
        Ok(())
    }

    /// The names of `identity`; none for nearly everybody.
    pub fn of(&self, identity: &SpiffeId) -> &[String] {
        let (Some(namespace), Some(account)) = (identity.namespace(), identity.service_account()) else {
            return &[];
        };
        self.by_account.get(&(namespace.to_owned(), account.to_owned())).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_one_service_account_alone() {
        let mut names = ServeNames::default();
        names.add("ringmail-system/ringmail-control=ringmail-control.ringmail-system.svc,localhost").unwrap();
        names.add("ringmail-system/ringmail-control=localhost,other").unwrap();
        let of = |id: &str| names.of(&id.parse().unwrap()).to_vec();
        assert_eq!(
            of("spiffe://cluster.local/ns/ringmail-system/sa/ringmail-control"),
            ["ringmail-control.ringmail-system.svc", "localhost", "other"]
        );
        for other in [
            "spiffe://cluster.local/ns/ringmail-system/sa/ringmail-ca",
            "spiffe://cluster.local/ns/default/sa/ringmail-control",
            "spiffe://cluster.local/ns/ringmail-system/sa/ringmail-control/more",
        ] {
            assert!(of(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn what_is_no_name_of_an_account_is_refused() {
        for text in ["", "a=b", "a/b", "a/b=", "a/b=c,", "a/b=*.svc", "a/b/c=d", "/b=c", "a/=c", "a/b=c d"] {
            assert!(ServeNames::default().add(text).is_err(), "{text}");
        }
    }
}
