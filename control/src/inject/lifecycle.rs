//! When the sidecar starts and ends beside the application.

use std::time::Duration;

use super::annotations::Overrides;
use super::pod::TypedPod;
use super::warning::Warning;
use super::{Cluster, InjectConfig, NativeSidecar};

/// What Kubernetes gives a pod that says nothing.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// What is left of the pod's grace period after the drain: for the last connections' ends, and the process's own.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// Some drain there always is, even in a pod that is given no time.
const MIN_DRAIN: Duration = Duration::from_secs(1);

/// How the sidecar lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// An init container that goes on running; else an ordinary one with a wait.
    pub(super) native: bool,
    /// How long connections are served after the pod is told to end.
    pub(super) drain: Duration,
}

pub(super) fn shape(
    pod: &TypedPod,
    overrides: &Overrides,
    cluster: Cluster,
    config: &InjectConfig,
    warnings: &mut Vec<Warning>,
) -> Shape {
    let native = native(overrides, cluster, config, warnings);
    if !native {
        fallback_warnings(pod, warnings);
    }
    surroundings(pod, warnings);
    Shape { native, drain: drain(pod, overrides, warnings) }
}

fn native(
    overrides: &Overrides,
    cluster: Cluster,
    config: &InjectConfig,
    warnings: &mut Vec<Warning>,
) -> bool {
    let by_config = match config.native_sidecar {
        NativeSidecar::Always => true,
        NativeSidecar::Auto => cluster.native_sidecars,
        NativeSidecar::Never => false,
    };
    match &overrides.native {
        Some((name, true)) if !cluster.native_sidecars && !by_config => {
            let instead = "the sidecar is an ordinary container that the others wait for";
            warnings.push(Warning::annotation(name, "true", "Kubernetes 1.29 or later", instead));
            false
        }
        Some((_, chosen)) => *chosen,
        None => by_config,
    }
}

/// What an ordinary container cannot do.
fn fallback_warnings(pod: &TypedPod, warnings: &mut Vec<Warning>) {
    if !pod.init_containers().is_empty() {
        let text = "they have no network: the sidecar starts after them, since this cluster has no native sidecars \
                    or they are switched off";
        warnings.push(Warning::field("spec.initContainers", text));
    }
    if pod.spec.restart_policy.as_deref().is_some_and(|policy| policy != "Always") {
        let text = "the pod does not end by itself: the sidecar is an ordinary container and goes on running";
        warnings.push(Warning::field("spec.restartPolicy", text));
    }
}

/// What around the containers keeps the sidecar from what it promises.
fn surroundings(pod: &TypedPod, warnings: &mut Vec<Warning>) {
    if pod.spec.share_process_namespace == Some(true) {
        let text = "true: what runs as root in the pod can read the sidecar's private key";
        warnings.push(Warning::field("spec.shareProcessNamespace", text));
    }
    // Only the cluster's own DNS knows the addresses of the CA and of control.
    if let Some(policy) = pod.spec.dns_policy.as_deref()
        && (policy == "Default" || policy == "None")
    {
        let text = format!(
            "{policy}: the sidecar must be able to resolve the names of ringmail-ca and ringmail-control"
        );
        warnings.push(Warning::field("spec.dnsPolicy", text));
    }
}

fn drain(pod: &TypedPod, overrides: &Overrides, warnings: &mut Vec<Warning>) -> Duration {
    let grace = pod.spec.termination_grace_period_seconds;
    let grace = grace.map_or(DEFAULT_GRACE, |seconds| Duration::from_secs(seconds.try_into().unwrap_or(0)));
    let longest = grace.saturating_sub(DRAIN_MARGIN).max(MIN_DRAIN);
    match &overrides.drain {
        Some((name, wanted)) if *wanted > longest => {
            let expected = format!(
                "at most {} s, the pod's grace period less {} s",
                longest.as_secs(),
                DRAIN_MARGIN.as_secs()
            );
            let instead = format!("{} s hold", longest.as_secs());
            warnings.push(Warning::annotation(name, &format!("{}s", wanted.as_secs()), &expected, &instead));
            longest
        }
        Some((_, wanted)) => (*wanted).max(MIN_DRAIN),
        None => longest,
    }
}
