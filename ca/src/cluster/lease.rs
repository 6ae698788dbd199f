//! Who of several replicas writes: the holder of a Lease, as the field's controllers agree on it.
//!
//! Times in the Lease are for people. Whether a holder is gone is judged by this clock alone: its Lease did
//! not change for its whole duration. Two holders at once are possible for a moment when a holder stalls
//! between its last look and its write; what is written under this lease stands that.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::fault::{bounded, found};
use super::{ApiFault, Cluster};

/// Name of the Lease.
const NAME: &str = "ringmail-ca";
/// The field's default: long enough for a slow API server, and a rotation waits no longer than that.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long stops before somebody else begins.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(2);
/// For giving the lease back at the end.
const RELEASE: Duration = Duration::from_secs(1);

/// A candidate for the lease.
pub(crate) struct Election {
    leases: Api<Lease>,
    identity: String,
    seen: Option<Seen>,
}

/// The Lease as last seen, and since when it has looked like that.
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Election {
    /// `identity` is the replica's own name.
    pub(crate) fn new(cluster: &Cluster, identity: String) -> Self {
        let leases = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        Self { leases, identity, seen: None }
    }

    /// Says in `leading` whether this replica holds the lease, until `shutdown` turns true.
    pub(crate) async fn run(mut self, leading: watch::Sender<bool>, mut shutdown: watch::Receiver<bool>) {
        let (mut renewed, mut fault) = (Instant::now(), None);
        loop {
            match self.round().await {
                Ok(holds) => {
                    renewed = Instant::now();
                    fault = None;
                    self.say(&leading, holds);
                }
                // Somebody else was faster: what they wrote is seen in the next round.
                Err(ApiFault::Conflict(_) | ApiFault::AlreadyExists) => {}
                Err(error) => {
                    if fault.as_ref() != Some(&error) {
                        tracing::warn!(%error, "the lease cannot be read or written");
                        fault = Some(error);
                    }
                }
            }
            if renewed.elapsed() > RENEW_WITHIN {
                self.say(&leading, false);
            }
            tokio::select! {
                _ = shutdown.wait_for(|ending| *ending) => break,
                () = sleep(LOOK) => {}
            }
        }
        if leading.send_replace(false) {
            let _ = timeout(RELEASE, self.release()).await;
        }
    }

    fn say(&self, leading: &watch::Sender<bool>, holds: bool) {
        let changed = leading.send_if_modified(|leads| std::mem::replace(leads, holds) != holds);
        if changed {
            let said =
                if holds { "this replica writes the bundle" } else { "another replica may write the bundle" };
            tracing::info!(identity = self.identity, "{said}");
        }
    }

    /// Whether the lease is held after this round.
    async fn round(&mut self) -> Result<bool, ApiFault> {
        let Some(lease) = found(bounded(self.leases.get(NAME)).await)? else {
            bounded(self.leases.create(&PostParams::default(), &self.claim(Lease::default()))).await?;
            return Ok(true);
        };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.is_stale(&lease) {
            return Ok(false);
        }
        bounded(self.leases.replace(NAME, &PostParams::default(), &self.claim(lease))).await?;
        Ok(true)
    }

    fn is_stale(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone();
        match &self.seen {
            Some(seen) if seen.version == version => seen.since.elapsed() > DURATION,
            Some(_) | None => {
                self.seen = Some(Seen { version, since: Instant::now() });
                false
            }
        }
    }

    fn claim(&self, lease: Lease) -> Lease {
        let now = Some(MicroTime(Timestamp::now()));
        let old = lease.spec.unwrap_or_default();
        let is_new = old.holder_identity.as_ref() != Some(&self.identity);
        let transitions = old.lease_transitions.unwrap_or_default() + i32::from(is_new);
        Lease {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), ..lease.metadata },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if is_new { now.clone() } else { old.acquire_time },
                renew_time: now,
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    /// An empty holder: the next replica need not wait for the end of the lease.
    async fn release(&self) -> Result<(), ApiFault> {
        let mut lease = bounded(self.leases.get(NAME)).await?;
        if let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_ref() == Some(&self.identity))
        {
            spec.holder_identity = Some(String::new());
            bounded(self.leases.replace(NAME, &PostParams::default(), &lease)).await?;
        }
        Ok(())
    }
}
