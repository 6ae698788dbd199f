//! Addresses as Kubernetes gives them: Services, both families, one's own, and those that belonged to somebody else.

use std::{
    net::IpAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use ringmail_tests::kube::{
    Held, Place, STRICT, Stage, Toolbox, metrics, stage,
    toolbox::{dial, dials},
};

const THIN: u16 = 10800;

/// A Service's address is served once its endpoints have reached kube-proxy and control.
const SERVED_WITHIN: Duration = Duration::from_secs(15);

/// From the moment that a pod is ready. Less than a handshake with somebody who speaks no TLS would be waited for.
const SUCCEEDED_WITHIN: Duration = Duration::from_secs(5);

#[test]
#[ignore = "needs a cluster"]
fn a_pod_is_reached_by_each_of_its_addresses_and_names_in_mutual_tls() {
    let stage = stage();
    let _use = stage.shared();
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
    let _use = stage.shared();
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
    let _use = stage.shared();
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
    let _use = stage.shared();
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

/// A namespace with two service accounts, a pod `first` under the one, whom a pod `member` has dialled, and what `first`
/// holds.
fn first_and_member<'a>(stage: &'a Stage, name: &str, first: Toolbox) -> (Place<'a>, Held, String) {
    let place = Place::in_mesh(stage, name).unwrap();
    for account in ["first", "second"] {
        place.kubectl(&["create", "serviceaccount", account]).unwrap();
    }
    first.spec("serviceAccountName: first").begin(&place).unwrap();
    Toolbox::server("member").start(&place).unwrap();
    place.ready("first").unwrap();
    let held = Held::by(&place, "first").unwrap();
    let address = held.address().unwrap();
    dials(&place, "member", (&address, THIN), Some("first"), SERVED_WITHIN).unwrap();
    (place, held, address)
}

fn second() -> Toolbox {
    Toolbox::server("second").spec("serviceAccountName: second")
}

fn outside_the_mesh(pod: Toolbox) -> Toolbox {
    pod.annotations("sidecar.istio.io/inject: 'false'")
}

/// Ends `first`, lets `second` have its address, and dials that, once `second` is ready, until it answers.
fn succeed(place: &Place, held: &Held, second: &Toolbox) {
    place.kubectl(&["delete", "pod", "first", "--wait=false"]).unwrap();
    held.pass_on(place, second).unwrap();
    let address = held.address().unwrap();
    let ready = place.ready("second").map(|()| Instant::now()).unwrap();
    dials(place, "member", (&address, THIN), Some("second"), SUCCEEDED_WITHIN).unwrap();
    assert!(ready.elapsed() < SUCCEEDED_WITHIN, "second was ready for {:?}", ready.elapsed());
}

#[test]
#[ignore = "needs a cluster"]
fn an_address_that_a_pod_of_another_account_gets_is_judged_by_that_account() {
    let stage = stage();
    let _use = stage.alone();
    let (place, held, address) = first_and_member(stage, "heirs", Toolbox::server("first"));
    place.apply(STRICT).unwrap();
    place
        .apply(
            "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: not-first}, \
             spec: {selector: {matchLabels: {app: member}}, action: DENY, \
             rules: [{from: [{source: {principals: [cluster.local/ns/heirs/sa/first]}}]}]}}",
        )
        .unwrap();
    let member = place.address("member").unwrap();
    dials(&place, "first", (&member, THIN), None, SERVED_WITHIN).unwrap();

    succeed(&place, &held, &second());
    assert_eq!(dial(&place, "second", &member, THIN).unwrap().as_deref(), Some("member"));
    assert_eq!(dial(&place, "member", &address, THIN).unwrap().as_deref(), Some("second"));
    let opened = |account: &str| {
        let principal = format!("spiffe://cluster.local/ns/heirs/sa/{account}");
        metrics::opened_to(&place, "member", &principal).unwrap()
    };
    assert!(opened("first") >= 1.0 && opened("second") >= 2.0);
    assert_eq!(metrics::bytes_in_plaintext(&place, "member").unwrap(), 0);
}

#[test]
#[ignore = "needs a cluster"]
fn an_address_that_a_pod_outside_the_mesh_gets_is_reached_in_plaintext() {
    let stage = stage();
    let _use = stage.alone();
    let (place, held, address) = first_and_member(stage, "heirs-outside", Toolbox::server("first"));
    assert_eq!(metrics::bytes_in_plaintext(&place, "member").unwrap(), 0);
    succeed(&place, &held, &outside_the_mesh(second()));
    assert_eq!(dial(&place, "member", &address, THIN).unwrap().as_deref(), Some("second"));
    let log = place.kubectl(&["logs", "member", "-c", metrics::ISTIO_PROXY]).unwrap();
    assert!(log.contains("protection=no_sidecar"), "no line says why:\n{log}");
}

#[test]
#[ignore = "needs a cluster"]
fn an_address_that_a_pod_of_the_mesh_gets_from_one_outside_is_never_sent_plaintext() {
    let stage = stage();
    let _use = stage.alone();
    let (place, held, address) =
        first_and_member(stage, "heirs-strict", outside_the_mesh(Toolbox::server("first")));
    let before = metrics::bytes_in_plaintext(&place, "member").unwrap();
    assert!(before > 0, "first was not dialled in plaintext");
    place.apply(STRICT).unwrap();
    place.kubectl(&["delete", "pod", "first", "--wait=false"]).unwrap();
    held.pass_on(&place, &second()).unwrap();
    // While it starts, its application is not there and its sidecar may not be.
    dials(&place, "member", (&address, THIN), Some("second"), SERVED_WITHIN).unwrap();
    assert_eq!(metrics::bytes_in_plaintext(&place, "member").unwrap(), before);
    assert_eq!(metrics::ended(&place, "second", "plaintext_refused").unwrap(), 0.0);
    assert!(metrics::opened(&place, "second", "destination", "mutual_tls").unwrap() >= 1.0);
}

#[test]
#[ignore = "needs a cluster"]
fn a_pod_that_has_ended_keeps_its_address_in_its_status_and_nowhere_else() {
    let stage = stage();
    let _use = stage.alone();
    // It ends once it has answered.
    let answers = "exec socat TCP6-LISTEN:10800,reuseaddr,ipv6only=0 SYSTEM:'read line; echo $HOSTNAME'";
    let ends = Toolbox::of("first", answers).spec("restartPolicy: Never");
    let (place, held, address) = first_and_member(stage, "heirs-ended", ends);
    place.apply(STRICT).unwrap();
    let ended = ["wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s", "pod/first"];
    place.kubectl(&ended).unwrap();
    held.pass_on(&place, &second()).unwrap();
    place.ready("second").unwrap();
    assert_eq!(place.address("first").unwrap(), address);
    dials(&place, "member", (&address, THIN), Some("second"), SUCCEEDED_WITHIN).unwrap();
    for change in [&["label", "pod", "first", "touched=yes"][..], &["delete", "pod", "first"]] {
        place.kubectl(change).unwrap();
        // Long enough for the change to have reached the sidecar.
        sleep(Duration::from_secs(1));
        let heard = dial(&place, "member", &address, THIN).unwrap();
        assert_eq!(heard.as_deref(), Some("second"), "after {change:?}");
    }
    let principal = "spiffe://cluster.local/ns/heirs-ended/sa/second";
    assert!(metrics::opened_to(&place, "member", principal).unwrap() >= 3.0);
    assert_eq!(metrics::bytes_in_plaintext(&place, "member").unwrap(), 0);
}
