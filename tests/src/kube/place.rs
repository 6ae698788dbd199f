//! A namespace of one scenario.

use std::{thread::panicking, time::Duration};

use anyhow::Result;

use super::stage::Stage;

/// Pods that do not listen to SIGTERM take their grace period; grids have two minutes of it.
const GONE_WITHIN: &str = "--timeout=180s";

/// A grid of three starts one after the other.
pub const READY_WITHIN: Duration = Duration::from_secs(180);

/// The PeerAuthentication that a namespace of Istio's is closed with.
pub const STRICT: &str = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default}, \
                          spec: {mtls: {mode: STRICT}}}";

/// A PeerAuthentication with a spec of its own.
pub fn peer_authentication(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, \
         metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{spec}}}}}"
    )
}

/// A namespace, taken away at the end; what was in it is printed where the scenario failed.
pub struct Place<'a> {
    stage: &'a Stage,
    name: String,
}

impl<'a> Place<'a> {
    /// Makes the namespace; one of the same name is waited for to go.
    pub fn new(stage: &'a Stage, name: &str) -> Result<Self> {
        stage.kubectl(&["delete", "namespace", name, "--ignore-not-found", GONE_WITHIN])?;
        stage.kubectl(&["create", "namespace", name])?;
        Ok(Self { stage, name: name.to_owned() })
    }

    /// The same with Istio's label.
    pub fn in_mesh(stage: &'a Stage, name: &str) -> Result<Self> {
        let place = Self::new(stage, name)?;
        place.label("istio-injection=enabled")?;
        Ok(place)
    }

    /// `kubectl label namespace <this>`: `name=value`, or `name-` to take it away.
    pub fn label(&self, label: &str) -> Result<()> {
        self.stage.kubectl(&["label", "--overwrite", "namespace", &self.name, label]).map(drop)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn stage(&self) -> &'a Stage {
        self.stage
    }

    /// `kubectl -n <this>`.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.stage.kubectl(&[&["-n", &self.name], args].concat())
    }

    /// `kubectl apply -n <this> -f -`.
    pub fn apply(&self, text: &str) -> Result<String> {
        self.stage.cluster().kubectl_stdin(&["apply", "-n", &self.name, "-f", "-"], text)
    }

    /// One `jsonpath` of one object.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={path}")])
    }

    /// The first address of a pod.
    pub fn address(&self, pod: &str) -> Result<String> {
        self.field(&format!("pod/{pod}"), "{.status.podIP}")
    }

    /// What a shell in a container of a pod printed.
    pub fn sh(&self, pod: &str, container: &str, script: &str) -> Result<String> {
        self.stage.cluster().exec(&self.name, pod, container, &["sh", "-c", script])
    }

    /// Waits for a pod to be ready.
    pub fn ready(&self, pod: &str) -> Result<()> {
        self.stage.cluster().wait_condition(
            &self.name,
            &format!("pod/{pod}"),
            "condition=Ready",
            READY_WITHIN,
        )
    }

    /// Waits until `look` gives something.
    pub fn until<T>(
        &self,
        within: Duration,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        self.stage.cluster().wait_for(within, what, |_| look())
    }

    /// Takes it away now, and everything in it.
    pub fn remove(self) -> Result<()> {
        self.kubectl(&["delete", "namespace", &self.name, "--ignore-not-found", GONE_WITHIN]).map(drop)
    }

    fn print(&self) {
        for args in [
            &["get", "pods,services,endpointslices", "-o", "wide"][..],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &["get", "peerauthentications,authorizationpolicies,destinationrules", "-o", "yaml"],
        ] {
            println!("-- {}: kubectl {}\n{}", self.name, args.join(" "), self.said(args));
        }
        for pod in self.said(&["get", "pods", "-o", "name"]).lines() {
            let log = self.said(&["logs", pod, "--all-containers", "--prefix", "--tail=30"]);
            println!("-- {}: kubectl logs {pod}\n{log}", self.name);
        }
    }

    fn said(&self, args: &[&str]) -> String {
        self.kubectl(args).unwrap_or_else(|error| format!("{error:#}"))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.print();
        }
        // Nobody waits for what it does at its end, and a grid takes its last key to nobody for two minutes.
        let pods = ["delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false"];
        let delete = ["delete", "namespace", &self.name, "--ignore-not-found", "--wait=false"];
        let gone = self.stage.kubectl(&delete).and_then(|_| self.kubectl(&pods));
        if let Err(error) = gone {
            println!("namespace {} stays behind: {error:#}", self.name);
        }
    }
}
