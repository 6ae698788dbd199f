//! What a pod in the place of this one would be: the injector's own decision today, as far as this program can tell it.
//!
//! It can tell less where no injector is there to decide, where that is of another version, and where the pod's template
//! brings a sidecar of its own.

use ringmail_control::inject::{
    InjectConfig, Namespace, Outcome, Request, STATUS_ANNOTATION, Sidecar, inject, sidecar_of, unread,
};

use super::Subject;
use super::surroundings::{Surroundings, Template};
use crate::cluster::Mesh;

/// What is told of the injector is what the injector of this version does.
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why a pod has a sidecar that it would not get now.
const ASKED_BEFORE: &str = "somebody asked when it was made, or `ringmail inject` put the sidecar in";

/// Why the pod is as it is, and what to know of the next one.
pub(super) struct Next {
    pub(super) why: String,
    pub(super) warnings: Vec<String>,
}

impl Next {
    pub(super) fn of(
        subject: &Subject<'_>,
        surroundings: &Surroundings,
        namespace: &Namespace,
        sidecar: Option<&Sidecar>,
    ) -> Self {
        let request = request(subject, surroundings, namespace);
        let outcome = inject(&request, &subject.mesh.injection);
        let absent = absent(subject.mesh, surroundings.registered);
        let mut next = Self { why: String::new(), warnings: Vec::new() };
        next.why = match sidecar {
            Some(_) => next.with_sidecar(&outcome, surroundings, absent.as_deref()),
            None => next.without_sidecar(&outcome, absent.as_deref()),
        };
        if absent.is_none() {
            next.versions(subject.mesh, sidecar, &outcome);
        }
        next.warnings.extend(unread(&request).iter().map(ToString::to_string));
        next
    }

    fn with_sidecar(
        &mut self,
        outcome: &Outcome,
        surroundings: &Surroundings,
        absent: Option<&str>,
    ) -> String {
        if let Some(absent) = absent {
            let new = match surroundings.template {
                Template::Carries => "a new pod would have the sidecar of its template, and no other",
                Template::Lacks | Template::Unknown => "a new pod would get no sidecar",
            };
            self.warnings.push(format!("{absent}: {new}"));
        }
        match outcome {
            Outcome::Injected(injected) => {
                self.warnings.extend(injected.warnings.iter().map(ToString::to_string));
                format!("{} asks for it", injected.asked_in)
            }
            Outcome::Skipped(_) if surroundings.template == Template::Carries => {
                "its template carries the sidecar, as `ringmail inject` puts it in".to_owned()
            }
            Outcome::Skipped(skip) => {
                let then = match surroundings.template {
                    Template::Unknown => "unless its manifest carries one (`ringmail inject`)",
                    Template::Carries | Template::Lacks => "so the next restart takes it out of the mesh",
                };
                if absent.is_none() {
                    self.warnings
                        .push(format!("a pod like it would be made without a sidecar now, {then}: {skip}"));
                }
                ASKED_BEFORE.to_owned()
            }
            Outcome::Refused(refusal) => {
                if absent.is_none() {
                    self.warnings.push(format!("a pod like it would be refused now: {refusal}"));
                }
                ASKED_BEFORE.to_owned()
            }
        }
    }

    fn without_sidecar(&mut self, outcome: &Outcome, absent: Option<&str>) -> String {
        match outcome {
            Outcome::Injected(injected) => {
                let cause =
                    absent.unwrap_or("it was made before that, or while the injector could not be asked");
                let source = &injected.asked_in;
                self.warnings.push(format!("{source} asks for a sidecar, and the pod has none: {cause}; once that is right, delete the pod to have it made anew"));
                format!("{cause}, though {source} asks")
            }
            Outcome::Skipped(skip) => skip.to_string(),
            Outcome::Refused(refusal) => {
                self.warnings.push(format!("a pod like it would be refused now: {refusal}"));
                format!("it was made before it could be refused: {refusal}")
            }
        }
    }

    /// Another version may decide otherwise, and has another image.
    fn versions(&mut self, mesh: &Mesh, sidecar: Option<&Sidecar>, outcome: &Outcome) {
        let injector = injector_version(mesh).filter(|version| version != OWN_VERSION);
        if let Some(injector) = &injector {
            self.warnings.push(format!(
                "this ringmail is of version {OWN_VERSION}, and the injector was of {injector} when it made the \
                 cluster's youngest sidecar: what is said here of a new pod is this version's decision, the injector's \
                 own may differ"
            ));
        }
        let (Some(sidecar), Outcome::Injected(injected)) = (sidecar, outcome) else { return };
        let Some(new) = sidecar_of(&injected.pod) else { return };
        // Settings and annotations name an image for every version; the default is each version's own.
        let own_default = InjectConfig::default().proxy_image;
        let is_own_default =
            new.image.strip_prefix(&own_default).is_some_and(|rest| ["", "-distroless"].contains(&rest));
        match injector {
            Some(injector) if is_own_default => {
                let old = &sidecar.version;
                if *old != injector {
                    self.warnings.push(format!(
                        "its sidecar was put in by version {old}, and a younger pod's by {injector}: restart the \
                         workload to update"
                    ));
                }
            }
            Some(_) | None if new.image != sidecar.image => {
                let (old, new) = (&sidecar.image, new.image);
                self.warnings.push(format!(
                    "its sidecar is {old}, and a new pod would get {new}: restart the workload to update"
                ));
            }
            Some(_) | None => {}
        }
    }
}

fn request<'a>(
    subject: &'a Subject<'_>,
    surroundings: &Surroundings,
    namespace: &'a Namespace,
) -> Request<'a> {
    Request { pod: &subject.json, namespace, workload: None, cluster: surroundings.cluster }
}

/// Whether a new pod's sidecar can only come from its template; the template is not asked for where it does not matter.
pub(super) fn rests_on_template(subject: &Subject<'_>, surroundings: &Surroundings) -> bool {
    let Some(namespace) = &surroundings.namespace else { return false };
    if sidecar_of(&subject.json).is_none() {
        return false;
    }
    let outcome = inject(&request(subject, surroundings, namespace), &subject.mesh.injection);
    absent(subject.mesh, surroundings.registered).is_some() || matches!(outcome, Outcome::Skipped(_))
}

/// Why there seems to be no injector that would be asked about a new pod.
fn absent(mesh: &Mesh, registered: Option<bool>) -> Option<String> {
    let told = match (mesh.is_installed, registered) {
        (true, None | Some(true)) => return None,
        (true, Some(false)) => {
            "Ringmail's injector is not registered (MutatingWebhookConfiguration ringmail-injector)"
        }
        (false, None | Some(false)) => {
            "no injector seems to be installed (the mesh's ConfigMap ringmail is not there)"
        }
        (false, Some(true)) => {
            "no injector seems to be installed (the mesh's ConfigMap ringmail is not there; is --mesh-namespace right?), \
             though one is still registered"
        }
    };
    Some(told.to_owned())
}

/// By the sidecar that it made last: nothing else in the cluster tells it.
fn injector_version(mesh: &Mesh) -> Option<String> {
    let annotated = mesh.objects.pods.iter().filter(|pod| {
        pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(STATUS_ANNOTATION))
    });
    let mut youngest_first: Vec<_> = annotated.collect();
    youngest_first
        .sort_by_key(|pod| std::cmp::Reverse(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)));
    let sidecars = youngest_first.into_iter().filter_map(|pod| sidecar_of(&serde_json::to_value(pod).ok()?));
    sidecars.map(|sidecar| sidecar.version).next()
}
