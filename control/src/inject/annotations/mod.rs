//! What the user's annotations ask of the sidecar.
//!
//! Annotations of both meshes are honoured where a sidecar that reads no protocol can honour them. One that is known but
//! cannot be honoured is a warning, so is one that cannot be read; but where it says which traffic is captured, a
//! guess could leave a port in plaintext or cut it off, so the pod is refused.

mod istio;
mod linkerd;
mod unhonoured;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::capture::Capture;
use super::decide::AskedBy;
use super::pod::TypedPod;
use super::quantity::Quantity;
use super::refuse::Malformed;
use super::warning::Warning;
use super::{Namespace, Refusal, values};

/// More threads than any sidecar has use for.
const MAX_WORKERS: u32 = 64;

/// Everything that annotations change; what is `None` is left to the settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides {
    pub(super) capture: Capture,
    pub(super) resources: Resources,
    pub(super) log_level: Option<String>,
    pub(super) log_format: Option<&'static str>,
    pub(super) access_log: Option<&'static str>,
    /// The annotation and the image it names.
    pub(super) image: Option<String>,
    pub(super) image_type: Option<ImageType>,
    pub(super) pull_policy: Option<&'static str>,
    /// The annotation and what it says.
    pub(super) native: Option<(String, bool)>,
    pub(super) rewrite_probes: Option<bool>,
    /// The annotation and what it says.
    pub(super) drain: Option<(String, Duration)>,
    pub(super) workers: Option<u32>,
    pub(super) readiness: Readiness,
    pub(super) user_volumes: Vec<Value>,
    pub(super) user_mounts: Vec<Value>,
}

/// Requests and limits of the sidecar.
#[derive(Clone, Debug, Default)]
pub(super) struct Resources {
    pub(super) cpu: Range,
    pub(super) memory: Range,
    pub(super) ephemeral_storage: Range,
}

/// A request and a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) request: Option<Quantity>,
    pub(super) limit: Option<Quantity>,
}

/// Which image of the proxy's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageType {
    /// With a shell's tools, as `kubectl exec` in the guides needs.
    #[default]
    Default,
    /// The binary alone.
    Distroless,
}

/// When the sidecar's readiness is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Readiness {
    pub(super) initial_delay: Option<i32>,
    pub(super) period: Option<i32>,
    pub(super) failures: Option<i32>,
}

/// Reads all annotations; of one setting, the word of the mesh that asked for the sidecar counts.
pub(super) fn read(
    pod: &TypedPod,
    namespace: &Namespace,
    asked_by: AskedBy,
    warnings: &mut Vec<Warning>,
) -> Result<Overrides, Refusal> {
    let inherited = namespace.annotations.iter().filter(|(name, _)| linkerd::is_inherited(name));
    let all: BTreeMap<&String, &String> = inherited.chain(&pod.meta.annotations).collect();
    let mut reader = Reader { overrides: Overrides::default(), warnings, malformed: Vec::new() };
    let (first, second): (Read, Read) = match asked_by {
        AskedBy::Istio | AskedBy::Ringmail => (linkerd::annotation, istio::annotation),
        AskedBy::Linkerd => (istio::annotation, linkerd::annotation),
    };
    // Read in turn, so that the second overwrites the first.
    for (name, value) in &all {
        first(&mut reader, name, value);
    }
    for (name, value) in &all {
        second(&mut reader, name, value);
    }
    if reader.malformed.is_empty() {
        Ok(reader.overrides)
    } else {
        Err(Refusal::Annotations(reader.malformed))
    }
}

/// Reads one annotation, if it is one of a mesh's: its name and its value.
type Read = fn(&mut Reader<'_>, &str, &str);

pub(super) struct Reader<'a> {
    overrides: Overrides,
    warnings: &'a mut Vec<Warning>,
    malformed: Vec<Malformed>,
}

impl Reader<'_> {
    /// The value, or a warning that says what holds in its place.
    fn or_warn<T>(
        &mut self,
        name: &str,
        value: &str,
        read: Option<T>,
        (expected, instead): (&str, &str),
    ) -> Option<T> {
        if read.is_none() {
            self.warnings.push(Warning::annotation(name, value, expected, instead));
        }
        read
    }

    /// The value, or the pod is refused.
    fn or_refuse<T>(&mut self, name: &str, value: &str, read: Option<T>, expected: &str) -> Option<T> {
        if read.is_none() {
            let (name, value, expected) = (name.to_owned(), value.to_owned(), expected.to_owned());
            self.malformed.push(Malformed { name, value, expected });
        }
        read
    }

    fn quantity(&mut self, name: &str, value: &str, place: fn(&mut Resources) -> &mut Option<Quantity>) {
        let expected = ("a quantity above zero, such as 100m or 64Mi", "the injector's setting holds");
        if let Some(quantity) = self.or_warn(name, value, values::quantity(value), expected) {
            *place(&mut self.overrides.resources) = Some(quantity);
        }
    }

    fn image(&mut self, name: &str, value: &str) {
        let expected = ("an image of ringmail-proxy", "the injector's setting holds");
        // Manifests that were written for another mesh name its proxy, which would not be one here.
        let repository = value.split(['@', ':']).next().unwrap_or_default();
        let is_foreign =
            repository.ends_with("proxyv2") || repository.ends_with("linkerd/proxy") || value == "auto";
        let image = values::image(value).filter(|_| !is_foreign).map(str::to_owned);
        if let Some(image) = self.or_warn(name, value, image, expected) {
            self.overrides.image = Some(image);
        }
    }

    pub(super) fn image_type(&mut self, name: &str, value: &str) {
        let kind = match value {
            "default" => Some(ImageType::Default),
            "distroless" => Some(ImageType::Distroless),
            _ => None,
        };
        let expected = ("default or distroless", "the injector's setting holds");
        if let Some(kind) = self.or_warn(name, value, kind, expected) {
            self.overrides.image_type = Some(kind);
        }
    }

    pub(super) fn drain(&mut self, name: &str, value: &str) {
        let expected = ("a duration such as 20s", "the pod's grace period less 5 s holds");
        if let Some(drain) = self.or_warn(name, value, values::duration(value), expected) {
            self.overrides.drain = Some((name.to_owned(), drain));
        }
    }

    fn native(&mut self, name: &str, value: &str) {
        let expected = ("true or false", "the injector's setting holds");
        if let Some(native) = self.or_warn(name, value, values::switch(value), expected) {
            self.overrides.native = Some((name.to_owned(), native));
        }
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    /// Threads of the sidecar; Istio's zero means one for each CPU of the node.
    pub(super) fn workers(&mut self, name: &str, value: &str) {
        let workers = value.parse().ok().filter(|workers| (1..=MAX_WORKERS).contains(workers));
        let expected = ("a number from 1 to 64", "one for each CPU of the limit holds, else one");
        self.overrides.workers = self.or_warn(name, value, workers, expected);
    }

    /// The application is always held back until the sidecar is ready; only the wish not to be is told.
    pub(super) fn hold(&mut self, name: &str, value: &str) {
        if values::switch(value) != Some(true) {
            let instead = "the application always waits for the sidecar";
            self.warnings.push(Warning::annotation(name, value, "true or enabled", instead));
        }
    }
}
