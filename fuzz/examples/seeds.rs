//! Writes the first bytes of each target: `cargo run --example seeds -- fuzz/corpus`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a tool of the developer, who sees why it stopped"
)]

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use ringmail_identity::{PrivateKey, SpiffeId};
use ringmail_xds::discovery::{DeltaDiscoveryResponse, NamedResource};
use ringmail_xds::ringmail::{self, Destination, Inbound, ModeDecision, Origin, Versioned};
use ringmail_xds::security::{Action, Authorization, Rule};
use ringmail_xds::workload::{Address, TunnelProtocol, Workload, address::Type};
use ringmail_xds::{Resource, address_bytes, address_name};

const ID: &str = "spiffe://cluster.local/ns/ignite/sa/default";

/// What a data plane hands to its successor: an answer for each type.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(message, repeated, tag = "1")]
    answers: Vec<DeltaDiscoveryResponse>,
}

fn main() {
    let corpus = PathBuf::from(std::env::args().nth(1).expect("the folder of the bytes"));
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    };
    for (number, id) in
        [ID, "spiffe://a/b", "spiffe://a..b/.../-_.Z", "spiffe://a/b/", "spiffe://A/b", "spiffe://a/%2e"]
            .into_iter()
            .enumerate()
    {
        write("spiffe_id", &number.to_string(), id.as_bytes());
    }
    for target in ["certificate", "token", "original_destination"] {
        write(target, "nothing-wrong", &[]);
        write(target, "much-wrong", &[0xff; 24]);
    }
    write("peek", "hello", &[22, 3, 1, 2, 0, 1, 0]);
    write("peek", "ignite", &[18, 0, 0, 0, 1, 1, 0, 7]);
    identities(&write);
    discovery(&write);
    texts(&write);
}

fn identities(write: &impl Fn(&str, &str, &[u8])) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    write("leaf", "good", params.self_signed(&key).unwrap().der());
    params.subject_alt_names.push(SanType::DnsName("a.example".try_into().unwrap()));
    write("leaf", "with-dns", params.self_signed(&key).unwrap().der());

    let id: SpiffeId = ID.parse().unwrap();
    let csr = PrivateKey::generate().unwrap().csr_pem(Some(&id)).unwrap();
    write("csr", "good.pem", csr.as_bytes());
    write("csr", "good.der", pem::parse(&csr).unwrap().contents());

    let mut root = CertificateParams::default();
    root.distinguished_name = DistinguishedName::new();
    root.distinguished_name.push(DnType::OrganizationName, "cluster.local");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let roots: Vec<_> = (0..2)
        .map(|_| {
            let key = KeyPair::generate().unwrap();
            (root.self_signed(&key).unwrap().pem(), key.serialize_pem())
        })
        .collect();
    write("trust_bundle", "two", format!("{}{}", roots[0].0, roots[1].0).as_bytes());
    // These sign nothing that anybody trusts.
    write("state_file", "certificate-and-key", format!("{}{}", roots[0].0, roots[0].1).as_bytes());
    write("state_file", "key-of-another", format!("{}{}", roots[0].0, roots[1].1).as_bytes());
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../identity/tests/keys");
    for entry in fs::read_dir(keys).unwrap() {
        let file = entry.unwrap().path();
        write("private_key", &file.file_name().unwrap().to_string_lossy(), &fs::read(&file).unwrap());
    }
}

fn discovery(write: &impl Fn(&str, &str, &[u8])) {
    fn answer<M: Resource>(name: &str, message: &M) -> DeltaDiscoveryResponse {
        let resource = NamedResource {
            name: name.to_owned(),
            version: "1".to_owned(),
            resource: Some(message.to_any()),
            aliases: Vec::new(),
        };
        DeltaDiscoveryResponse {
            type_url: M::TYPE_URL.to_owned(),
            resources: vec![resource],
            ..Default::default()
        }
    }
    let mut answers = Vec::new();
    for number in 1..4 {
        let ip = IpAddr::from([10, 0, 0, number]);
        let uid = format!("Kubernetes//Pod/ignite/n{number}");
        let destination = Destination {
            uid: uid.clone(),
            entry: Some(Origin::default()),
            mode: Inbound::permissive().mode,
            ..Destination::default()
        };
        answers.push(answer(&address_name(ip), &destination));
        let workload = Workload {
            uid: uid.clone(),
            name: format!("n{number}"),
            namespace: "ignite".to_owned(),
            addresses: vec![address_bytes(ip)],
            tunnel_protocol: TunnelProtocol::LegacyIstioMtls.into(),
            ..Workload::default()
        };
        answers.push(answer(&uid, &Address { r#type: Some(Type::Workload(workload)) }));
    }
    let deny = Authorization {
        name: "deny".to_owned(),
        namespace: "ignite".to_owned(),
        action: Action::Deny.into(),
        rules: vec![Rule::default()],
        ..Authorization::default()
    };
    answers.push(answer("ignite/deny", &deny));
    let inbound = Inbound {
        mode: Some(ModeDecision { mode: ringmail::Mode::Strict.into(), decided_by: Some(Origin::default()) }),
        authorizations: vec![Versioned { name: "ignite/deny".to_owned(), version: "1".to_owned() }],
        ..Inbound::default()
    };
    answers.push(answer(Inbound::NAME, &inbound));
    write("discovery", "a-ring", &Kept { answers }.encode_to_vec());
}

/// What people write stands in the tree already.
fn texts(write: &impl Fn(&str, &str, &[u8])) {
    let policy = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}, portLevelMtls: {10800: {mode: PERMISSIVE}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: ignite}
spec:
  selector: {matchLabels: {app: ignite}}
  action: ALLOW
  rules: [{from: [{source: {principals: ['cluster.local/ns/ignite/sa/default'], notNamespaces: ['b*']}}], to: [{operation: {ports: ['47500']}}], when: [{key: source.ip, values: [10.0.0.0/8]}]}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: n2, namespace: ignite}
spec: {address: 10.0.0.2, serviceAccount: default, labels: {app: ignite, security.istio.io/tlsMode: istio}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: thin, namespace: ignite}
spec: {host: n2.ignite.svc.cluster.local, trafficPolicy: {portLevelSettings: [{port: {number: 10800}, tls: {mode: DISABLE}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: b, namespace: ignite}
spec: {action: CUSTOM, provider: {name: x}, rules: [{to: [{operation: {ports: ['10800']}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: c, namespace: ignite}
spec: {action: DENY, rules: [{to: [{operation: {ports: ['1']}}]}]}
";
    write("policy", "each-kind", policy.as_bytes());
    write("policy", "aliases", b"a: &a [1, 2]\nb: [*a, *a]\n");
    let settings = "
pod_name: n1
namespace: ignite
pod_addresses: [10.0.0.1]
mesh_ranges: [10.0.0.0/8]
discovery: control
workers: 2
labels: {app: ignite}
max_connections: 100
drain_deadline: 30s
";
    write("settings", "some", settings.as_bytes());
    let review = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","resource":{"group":"","version":"v1","resource":"pods"},"namespace":"ignite","operation":"CREATE","object":{"metadata":{"name":"n1","labels":{"app":"ignite"},"annotations":{"traffic.sidecar.istio.io/excludeInboundPorts":"8080"}},"spec":{"containers":[{"name":"app","image":"x","ports":[{"containerPort":47500}],"readinessProbe":{"httpGet":{"path":"/a","port":8080}}}]}}}}"#;
    write("admission", "a-pod", review.as_bytes());
}
