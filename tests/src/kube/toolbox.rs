//! Pods of the toolbox image: small things that listen, dial, and have curl.

use std::time::Duration;

use anyhow::Result;

use super::{place::Place, stage::VERSION};

/// The ports of a grid, on which a server listens too.
pub const GRID_PORTS: [u16; 5] = [47500, 47100, 10800, 11211, 8080];

/// Longer than a sidecar waits for what it does not know, and for a peer that does not answer. Who answers has as long
/// after the end of what was asked: socat by itself gives half a second, which a busy machine may take.
const DIAL_SECONDS: u32 = 20;

/// A pod to be.
#[derive(Clone, Debug)]
pub struct Toolbox {
    name: String,
    script: String,
    labels: String,
    annotations: String,
    spec: String,
}

impl Toolbox {
    /// Listens on every port of a grid, on both families, and says its name to whoever says anything.
    pub fn server(name: &str) -> Self {
        let listen = "socat -t$patience TCP6-LISTEN:$port,fork,reuseaddr,ipv6only=0,backlog=256 SYSTEM:'read line; echo $HOSTNAME'";
        let ports = GRID_PORTS.map(|port| port.to_string()).join(" ");
        Self::of(name, &format!("patience={DIAL_SECONDS}; for port in {ports}; do {listen} & done; wait"))
    }

    /// Sends back what it gets, on 47100.
    pub fn echo(name: &str) -> Self {
        let listen = "TCP6-LISTEN:47100,fork,reuseaddr,ipv6only=0";
        Self::of(name, &format!("exec socat -t{DIAL_SECONDS} {listen} EXEC:cat"))
    }

    /// Does nothing until it is asked to.
    pub fn idle(name: &str) -> Self {
        Self::of(name, "exec sleep infinity")
    }

    /// Runs this script.
    pub fn of(name: &str, script: &str) -> Self {
        let [labels, annotations, spec] = [const { String::new() }; 3];
        Self { name: name.to_owned(), script: script.to_owned(), labels, annotations, spec }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Labels besides `app`, as YAML (`a: b, c: d`).
    #[must_use]
    pub fn labels(mut self, labels: &str) -> Self {
        self.labels = format!(", {labels}");
        self
    }

    /// Annotations, as YAML (`a: b, c: d`).
    #[must_use]
    pub fn annotations(mut self, annotations: &str) -> Self {
        self.annotations = annotations.to_owned();
        self
    }

    /// One more field of the pod's spec (`hostNetwork: true`).
    #[must_use]
    pub fn spec(mut self, field: &str) -> Self {
        self.spec.push_str(&format!("\n  {field}"));
        self
    }

    /// The manifest.
    pub fn manifest(&self) -> String {
        let Self { name, script, labels, annotations, spec } = self;
        format!(
            r"apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}{labels}}}, annotations: {{{annotations}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: docker.io/ringmail/toolbox:{VERSION}
    command: [bash, -c, {script:?}]
    resources: {{requests: {{cpu: 5m, memory: 8Mi}}}}{spec}
"
        )
    }

    /// Makes the pod and waits until it is ready.
    pub fn start(&self, place: &Place) -> Result<()> {
        self.begin(place)?;
        place.ready(&self.name)
    }

    /// Makes the pod.
    pub fn begin(&self, place: &Place) -> Result<()> {
        place.apply(&self.manifest()).map(drop)
    }
}

/// What a server says to a pod that dials it, or nothing where the connection brings nothing.
pub fn dial(place: &Place, pod: &str, host: &str, port: u16) -> Result<Option<String>> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let options = format!("connect-timeout={DIAL_SECONDS}");
    let script = format!(
        "echo hello | socat -T{DIAL_SECONDS} -t{DIAL_SECONDS} - 'TCP:{host}:{port},{options}' || true"
    );
    let said = place.sh(pod, "main", &script)?;
    Ok(Some(said.trim().to_owned()).filter(|said| !said.is_empty()))
}

/// Dials until the outcome is as expected, and says what it was last where it never is.
pub fn dials(
    place: &Place,
    pod: &str,
    (host, port): (&str, u16),
    expected: Option<&str>,
    within: Duration,
) -> Result<()> {
    let what = format!("{pod} of {} dials {host}:{port} and hears {expected:?}", place.name());
    place.until(within, &what, || Ok((dial(place, pod, host, port)?.as_deref() == expected).then_some(())))
}
