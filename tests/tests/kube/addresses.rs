//! Addresses as Kubernetes gives them: Services, both families, one's own.

use std::{net::IpAddr, time::Duration};

use ringmail_tests::kube::{
    Place, STRICT, Toolbox, metrics, stage,
    toolbox::{dial, dials},
};

const THIN: u16 = 10800;

/// A Service's address is served once its endpoints have reached kube-proxy and control.
const SERVED_WITHIN: Duration = Duration::from_secs(15);

#[test]
#[ignore = "needs a cluster"]
fn a_pod_is_reached_by_each_of_its_addresses_and_names_in_mutual_tls() {
    let stage = stage();
    let place = Place::in_mesh(stage, "names").unwrap();
    let strangers = Place::new(stage, "names-strangers").unwrap();
    place.apply(STRICT).unwrap();
    let in_service = "hostname: server, subdomain: headless";
    Toolbox::server("server").spec("hostname: server").spec("subdomain: headless").begin(&place).unwrap();
    Toolbox::idle("stranger").begin(&strangers).unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    place.ready("server").unwrap_or_else(|error| panic!("{in_service}: {error:#}"));
    strangers.ready("stranger").unwrap();
    let service = |name: &str, rest: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{selector: {{app: server}}, \
             ports: [{{port: {THIN}}}], ipFamilyPolicy: PreferDualStack{rest}}}}}"
        )
    };
    place.apply(&service("headless", ", clusterIP: None")).unwrap();
    place.apply(&service("virtual", "")).unwrap();
    place.apply(&service("on-nodes", ", type: NodePort")).unwrap();
    let addresses = place.field("pod/server", "{.status.podIPs[*].ip}").unwrap();
    let addresses: Vec<_> = addresses.split(' ').collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    let virtual_addresses = place.field("service/virtual", "{.spec.clusterIPs[*]}").unwrap();
    let names = ["server.headless.names.svc.cluster.local", "headless.names.svc", "virtual"];
    let hosts = names.into_iter().chain(addresses).chain(virtual_addresses.split(' '));
    let mut reached = 0.0;
    for host in hosts {
        dials(&place, "member", (host, THIN), Some("server"), SERVED_WITHIN).unwrap();
        reached += 1.0;
        if host.parse::<IpAddr>().is_ok() {
            assert_eq!(dial(&strangers, "stranger", host, THIN).unwrap(), None, "{host}");
        }
    }
    assert!(metrics::opened(&place, "member", "source", "mutual_tls").unwrap() >= reached);
    assert_eq!(
        metrics::in_plaintext(&place, "member", "outbound").unwrap(),
        0,
        "something left in plaintext"
    );

    // A node's address is nobody's in the mesh: what comes through its port is as it was sent, and STRICT refuses it.
    let port = place.field("service/on-nodes", "{.spec.ports[0].nodePort}").unwrap().parse().unwrap();
    let node = place.field("pod/server", "{.status.hostIP}").unwrap();
    assert_eq!(dial(&strangers, "stranger", &node, port).unwrap(), None);
    place.kubectl(&["delete", "peerauthentication", "default"]).unwrap();
    dials(&strangers, "stranger", (&node, port), Some("server"), SERVED_WITHIN).unwrap();
}

#[test]
#[ignore = "needs a cluster"]
fn a_pod_reaches_itself_by_its_address_and_by_its_own_service() {
    let stage = stage();
    let place = Place::in_mesh(stage, "itself").unwrap();
    place.apply(STRICT).unwrap();
    Toolbox::server("server").start(&place).unwrap();
    place.kubectl(&["expose", "pod", "server", "--name=own", "--port=10800"]).unwrap();
    let address = place.address("server").unwrap();
    dials(&place, "server", (&address, THIN), Some("server"), SERVED_WITHIN).unwrap();
    dials(&place, "server", ("own", THIN), Some("server"), SERVED_WITHIN).unwrap();
    dials(&place, "server", ("127.0.0.1", THIN), Some("server"), SERVED_WITHIN).unwrap();
}

#[test]
#[ignore = "needs a cluster"]
fn pods_on_the_nodes_network_are_strangers_both_ways() {
    let stage = stage();
    let place = Place::new(stage, "hosts").unwrap();
    let inside = Place::in_mesh(stage, "hosts-inside").unwrap();
    let listens = "exec socat TCP-LISTEN:19800,fork,reuseaddr SYSTEM:'read line; echo host'";
    Toolbox::of("host", listens).spec("hostNetwork: true").begin(&place).unwrap();
    Toolbox::server("server").begin(&inside).unwrap();
    Toolbox::idle("member").start(&inside).unwrap();
    inside.ready("server").unwrap();
    place.ready("host").unwrap();
    let server = inside.address("server").unwrap();
    let host = place.address("host").unwrap();
    assert_eq!(dial(&place, "host", &server, THIN).unwrap().as_deref(), Some("server"));
    assert_eq!(dial(&inside, "member", &host, 19800).unwrap().as_deref(), Some("host"));
    inside.apply(STRICT).unwrap();
    dials(&place, "host", (&server, THIN), None, Duration::from_secs(2)).unwrap();

    let refused = Toolbox::idle("refused").spec("hostNetwork: true").begin(&inside).unwrap_err();
    assert!(format!("{refused:#}").contains("hostNetwork"), "{refused:#}");
}

#[test]
#[ignore = "needs a cluster"]
fn a_job_in_the_mesh_ends_when_its_work_is_done() {
    let stage = stage();
    let place = Place::in_mesh(stage, "jobs").unwrap();
    Toolbox::server("server").start(&place).unwrap();
    let server = place.address("server").unwrap();
    place
        .apply(&format!(
            "apiVersion: batch/v1
kind: Job
metadata: {{name: job}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: docker.io/ringmail/toolbox:{}
        command: [bash, -c, \"[[ $(echo hello | socat -t10 - TCP:{server}:10800) == server ]]\"]
",
            stage::VERSION
        ))
        .unwrap();
    place.kubectl(&["wait", "--for=condition=Complete", "--timeout=60s", "job/job"]).unwrap();
    assert_eq!(metrics::opened(&place, "server", "destination", "mutual_tls").unwrap(), 1.0);
    assert_eq!(metrics::opened(&place, "server", "destination", "none").unwrap(), 0.0);
}
