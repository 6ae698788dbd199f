//! What is told of the pod that would come after: by its template, with another version's injector, and without any.

use ringmail_control::inject::{Namespace, STATUS_ANNOTATION};
use serde_json::{Value, json};

use super::surroundings::Template;
use super::*;
use crate::cluster::Supposed;
use crate::cluster::fixture::{CLUSTER, Fixture, namespace};

const OWN: &str = env!("CARGO_PKG_VERSION");

/// A namespace that asks, and an injector that would be asked.
fn asking() -> Surroundings {
    Surroundings {
        namespace: Some(namespace()),
        cluster: CLUSTER,
        registered: Some(true),
        ..Surroundings::default()
    }
}

/// A namespace in which nobody asks.
fn silent() -> Surroundings {
    Surroundings { namespace: Some(Namespace { name: "ignite".into(), ..Namespace::default() }), ..asking() }
}

fn described(fixture: &Fixture, surroundings: &Surroundings) -> Description {
    in_mesh(&fixture.mesh(&Supposed::default()), "ignite-0", surroundings)
}

fn in_mesh(mesh: &Mesh, name: &str, surroundings: &Surroundings) -> Description {
    describe(Subject::new(mesh, mesh.pod("ignite", name).unwrap()).unwrap(), surroundings)
}

/// The first pods of the ring, each with the version of its injector; the later the younger.
fn injected_by(versions: &[&str]) -> Fixture {
    let mut fixture = Fixture::new();
    for (number, pod) in fixture.pods.iter_mut().enumerate() {
        let metadata = &mut pod["metadata"];
        metadata["creationTimestamp"] = json!("2024-01-01T00:00:00Z");
        if let Some(version) = versions.get(number) {
            metadata["creationTimestamp"] = json!(format!("2024-02-0{}T00:00:00Z", number + 1));
            let status = metadata["annotations"][STATUS_ANNOTATION].as_str().unwrap();
            let mut status: Value = serde_json::from_str(status).unwrap();
            status["version"] = json!(version);
            metadata["annotations"][STATUS_ANNOTATION] = json!(status.to_string());
            pod["spec"]["initContainers"][1]["image"] = json!(format!("ringmail/proxy:{version}"));
        }
    }
    fixture
}

#[test]
fn a_pod_whose_template_carries_the_sidecar_does_not_lose_it() {
    let fixture = Fixture::new();
    let controller = |template: &Value| json!({"kind": "ReplicaSet", "spec": {"template": template}});
    let template = Template::of(&controller(&fixture.pods[0]));
    assert_eq!(template, Template::Carries);
    let said = described(&fixture, &Surroundings { template, ..silent() });
    assert!(said.injection.injected && said.warnings.is_empty(), "{:?}", said.warnings);
    assert_eq!(said.injection.why, "its template carries the sidecar, as `ringmail inject` puts it in");

    let template = Template::of(&controller(&fixture.pods[4]));
    assert_eq!(template, Template::Lacks);
    let said = described(&fixture, &Surroundings { template, ..silent() });
    let expected = "a pod like it would be made without a sidecar now, so the next restart";
    assert!(said.warnings[0].starts_with(expected), "{:?}", said.warnings);

    assert_eq!(Template::of(&json!({"spec": {}})), Template::Unknown);
    let mesh = fixture.mesh(&Supposed::default());
    let rests = |name, surroundings: &Surroundings| {
        let pod = mesh.pod("ignite", name).unwrap();
        next::rests_on_template(&Subject::new(&mesh, pod).unwrap(), surroundings)
    };
    let unregistered = Surroundings { registered: Some(false), ..asking() };
    assert!(rests("ignite-0", &silent()) && rests("ignite-0", &unregistered));
    assert!(!rests("ignite-0", &asking()) && !rests("bare", &silent()));
    let said = described(&fixture, &silent());
    assert!(said.warnings[0].contains("now, unless its manifest carries one"), "{:?}", said.warnings);
}

#[test]
fn where_the_injector_is_of_another_version_no_image_is_claimed_and_both_versions_are_told() {
    let fresh = described(&injected_by(&["9.9.9-next"]), &asking()).warnings;
    assert_eq!(fresh.len(), 1, "{fresh:?}");
    let expected = format!("this ringmail is of version {OWN}, and the injector was of 9.9.9-next");
    assert!(fresh[0].starts_with(&expected), "{fresh:?}");

    let old = described(&injected_by(&[OWN, "9.9.9-next"]), &asking()).warnings;
    assert_eq!(old.len(), 2, "{old:?}");
    let expected = format!("its sidecar was put in by version {OWN}, and a younger pod's by 9.9.9-next");
    assert!(old[1].starts_with(&expected), "{old:?}");
}

#[test]
fn an_image_that_the_settings_name_is_claimed_whatever_the_version_and_the_default_for_the_own() {
    let fixture = injected_by(&["9.9.9-next"]);
    let mut mesh = fixture.mesh(&Supposed::default());
    // An image of its own, though its name begins like the default.
    mesh.injection.proxy_image = format!("ringmail/proxy:{OWN}-next");
    let said = in_mesh(&mesh, "ignite-0", &asking()).warnings;
    let expected = format!("a new pod would get ringmail/proxy:{OWN}-next: restart");
    assert!(said.len() == 2 && said[1].contains(&expected), "{said:?}");

    let outdated = described(&injected_by(&["0.0.1", OWN]), &asking()).warnings;
    let expected =
        format!("its sidecar is ringmail/proxy:0.0.1, and a new pod would get ringmail/proxy:{OWN}");
    assert!(outdated.len() == 1 && outdated[0].starts_with(&expected), "{outdated:?}");
}

#[test]
fn without_the_meshs_settings_no_injector_seems_to_be_there_and_a_new_pod_gets_no_sidecar() {
    let mut mesh = Fixture::new().mesh(&Supposed::default());
    mesh.is_installed = false;
    let of = |surroundings: &Surroundings| in_mesh(&mesh, "ignite-0", surroundings).warnings;
    for registered in [None, Some(false)] {
        let said = of(&Surroundings { registered, ..asking() });
        let expected = "no injector seems to be installed (the mesh's ConfigMap ringmail is not there): a new pod would \
                        get no sidecar";
        assert_eq!(said, [expected]);
        let template = Template::Carries;
        let said = of(&Surroundings { registered, template, ..asking() });
        assert!(said[0].ends_with("would have the sidecar of its template, and no other"), "{said:?}");
        assert_eq!(of(&Surroundings { registered, ..silent() }), [expected]);
    }
    let said = of(&asking());
    assert!(said[0].contains("is --mesh-namespace right?), though one is still registered"), "{said:?}");
    let bare = in_mesh(&mesh, "bare", &asking());
    assert!(bare.warnings.is_empty(), "{:?}", bare.warnings);
}

#[test]
fn a_word_that_nobody_can_read_is_named_also_where_the_injector_is_never_asked() {
    let labels = [("linkerd.io/inject".to_owned(), "true".to_owned())];
    let expected = "the namespace's label linkerd.io/inject: \"true\": expected enabled, ingress or disabled";
    for name in ["ignite", "kube-system"] {
        let namespace =
            Namespace { name: name.into(), labels: labels.clone().into(), ..Namespace::default() };
        let said = described(&Fixture::new(), &Surroundings { namespace: Some(namespace), ..asking() });
        assert!(said.warnings.iter().any(|one| one.starts_with(expected)), "{name}: {:?}", said.warnings);
    }
}
