//! Which of several replicas writes: the holder of a Lease, as the field's controllers agree on it.
//!
//! The times in the Lease are for people. Whether a holder is gone is judged by the own clock alone: its Lease did not
//! change for its whole duration. Two holders at once are possible for a moment; what is written under this Lease
//! stands that.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{Settings, watch::cause};

const NAME: &str = "ringmail-control";
/// The field's default: long enough for a slow API server.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long stops before somebody else begins.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(5);
/// For giving the lease back at the end.
const RELEASE: Duration = Duration::from_secs(1);

struct Election {
    leases: Api<Lease>,
    identity: String,
    /// The version that was seen last, and since when.
    seen: Option<(Option<String>, Instant)>,
}

/// Whether this replica leads, from now until `shutdown` turns true; the task ends once the lease is given back.
pub(crate) fn start(
    client: Client,
    settings: &Settings,
    mut shutdown: watch::Receiver<bool>,
) -> (watch::Receiver<bool>, JoinHandle<()>) {
    let (say, leading) = watch::channel(false);
    let mut election = Election {
        leases: Api::namespaced(client, &settings.namespace),
        identity: settings.identity.clone(),
        seen: None,
    };
    let task = tokio::spawn(async move {
        let (mut renewed, mut fault) = (Instant::now(), None);
        loop {
            match timeout(REQUEST, election.round()).await {
                Ok(Ok(holds)) => {
                    (renewed, fault) = (Instant::now(), None);
                    election.say(&say, holds);
                }
                // Somebody else was faster: what they wrote is seen in the next round.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
                failed => {
                    let text = match failed {
                        Ok(Err(error)) => cause(&error),
                        Ok(Ok(_)) | Err(_) => format!("nothing within {REQUEST:?}"),
                    };
                    if fault.as_ref() != Some(&text) {
                        tracing::warn!(error = text, "the lease cannot be read or written");
                        fault = Some(text);
                    }
                }
            }
            if renewed.elapsed() > RENEW_WITHIN {
                election.say(&say, false);
            }
            tokio::select! {
                _ = shutdown.wait_for(|ending| *ending) => break,
                () = say.closed() => break,
                () = sleep(LOOK) => {}
            }
        }
        if say.send_replace(false) {
            let _ = timeout(RELEASE, election.release()).await;
        }
    });
    (leading, task)
}

impl Election {
    fn say(&self, say: &watch::Sender<bool>, holds: bool) {
        if say.send_if_modified(|leads| std::mem::replace(leads, holds) != holds) {
            tracing::info!(identity = self.identity, leads = holds, "leader election");
        }
    }

    /// Whether the lease is held after this round.
    async fn round(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.leases.get_opt(NAME).await? else {
            self.leases.create(&PostParams::default(), &self.claim(Lease::default())).await?;
            return Ok(true);
        };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.is_stale(&lease) {
            return Ok(false);
        }
        self.leases.replace(NAME, &PostParams::default(), &self.claim(lease)).await?;
        Ok(true)
    }

    fn is_stale(&mut self, lease: &Lease) -> bool {
        let version = &lease.metadata.resource_version;
        match &self.seen {
            Some((seen, since)) if seen == version => since.elapsed() > DURATION,
            Some(_) | None => {
                self.seen = Some((version.clone(), Instant::now()));
                false
            }
        }
    }

    fn claim(&self, lease: Lease) -> Lease {
        let now = Some(MicroTime(Timestamp::now()));
        let old = lease.spec.unwrap_or_default();
        let is_new = old.holder_identity.as_ref() != Some(&self.identity);
        Lease {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), ..lease.metadata },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if is_new { now.clone() } else { old.acquire_time },
                renew_time: now,
                lease_transitions: Some(old.lease_transitions.unwrap_or_default() + i32::from(is_new)),
                ..LeaseSpec::default()
            }),
        }
    }

    /// An empty holder: the next replica need not wait for the end of the lease.
    async fn release(&self) -> Result<(), kube::Error> {
        let mut lease = self.leases.get(NAME).await?;
        let own = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        if let Some(spec) = own {
            spec.holder_identity = Some(String::new());
            self.leases.replace(NAME, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}
