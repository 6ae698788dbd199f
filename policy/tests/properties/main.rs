//! Properties of decisions over generated sets of resources, against oracles that are slow and obvious.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod authorization;
mod left_alone;
mod modes;
mod outbound;
mod text;

use ringmail_policy::{Inbound, Pod, Resources, Settings};

/// When a resource was made: a day of a month, or unknown as in a file.
type Day = Option<u8>;

fn document(kind: &str, namespace: &str, name: &str, created: Day, spec: &str) -> String {
    let created = created.map_or_else(|| "null".to_owned(), |day| format!("'2024-01-{day:02}T00:00:00Z'"));
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: \
         {{name: {name}, namespace: {namespace}, creationTimestamp: {created}}}\nspec: {spec}\n"
    )
}

fn compile(documents: &[String]) -> Inbound {
    let set = Resources::parse([("set.yaml", &*documents.concat())]).unwrap();
    let mut settings = Settings::new("td".parse().unwrap());
    settings.trust_domain_aliases = vec!["old".parse().unwrap()];
    let pod = Pod {
        namespace: "here".to_owned(),
        labels: [("app".to_owned(), "db".to_owned())].into(),
        service_account: "default".to_owned(),
        addresses: Vec::new(),
    };
    let inbound = Inbound::compile(&set, &settings, &pod);
    // What travels to a proxy is asked in its place: every oracle here judges that too.
    let (modes, policies) = inbound.to_wire();
    let arrived = Inbound::from_wire(&modes, &policies).unwrap();
    assert_eq!(arrived.to_wire(), (modes, policies), "what was read is not what was written");
    arrived
}
