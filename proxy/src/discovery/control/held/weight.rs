//! What a resource takes of memory, beside its bytes: an empty part is two bytes on the wire and hundreds here.

use ringmail_xds::{
    Resource, ringmail,
    security::{self, Authorization, Match},
    workload::{Address, address::Type},
};

/// Bytes that an element of a list takes, with what is made of it, rounded up.
const PART: usize = 192;
/// Bytes that a condition of a policy takes, which is mostly empty lists.
const MATCH: usize = 384;
/// Bytes that a value of such a list takes.
const VALUE: usize = 64;

/// A message whose parts can be weighed.
pub(super) trait Weighed: Resource {
    /// Bytes of one resource, looked at before it is decoded: whatever is in them, that takes some tens of MiB at the worst.
    const MAX_BYTES: usize;

    /// Bytes that the elements of its lists take, and those of lists in lists.
    fn parts(&self) -> usize;
}

impl Weighed for Address {
    const MAX_BYTES: usize = 256 * 1024;

    fn parts(&self) -> usize {
        match &self.r#type {
            Some(Type::Workload(workload)) => {
                let ports: usize = workload.services.values().map(|list| 1 + list.ports.len()).sum();
                let own = workload.addresses.len() + workload.extensions.len();
                PART * (own + workload.authorization_policies.len() + ports)
            }
            Some(Type::Service(service)) => PART * (service.addresses.len() + service.ports.len()),
            None => 0,
        }
    }
}

impl Weighed for ringmail::Destination {
    const MAX_BYTES: usize = 256 * 1024;

    fn parts(&self) -> usize {
        PART * (self.ports.len() + self.port_tls.len() + self.labels.len() + self.left_alone.len())
    }
}

impl Weighed for Authorization {
    /// Thousands of principals.
    const MAX_BYTES: usize = 512 * 1024;

    fn parts(&self) -> usize {
        let clauses = self.rules.iter().flat_map(|rule| &rule.clauses);
        let of_rules: usize = clauses.map(|clause| VALUE + of_clause(clause)).sum();
        VALUE * self.rules.len() + PART * self.extensions.len() + of_rules
    }
}

fn of_clause(clause: &security::Clause) -> usize {
    let values = |found: &Match| {
        found.namespaces.len()
            + found.not_namespaces.len()
            + found.principals.len()
            + found.not_principals.len()
            + found.source_ips.len()
            + found.not_source_ips.len()
            + found.destination_ips.len()
            + found.not_destination_ips.len()
            + found.service_accounts.len()
            + found.not_service_accounts.len()
            + found.extensions.len()
    };
    clause.matches.iter().map(|found| MATCH + VALUE * values(found)).sum()
}

impl Weighed for ringmail::Inbound {
    const MAX_BYTES: usize = 512 * 1024;

    fn parts(&self) -> usize {
        let ranges = self.mesh.as_ref().map_or(0, |mesh| mesh.ranges.len());
        let plaintext = self.plaintext.as_ref().map_or(0, |plaintext| plaintext.ports.len());
        PART * (self.ports.len() + self.authorizations.len() + self.reports.len() + ranges + plaintext)
    }
}
