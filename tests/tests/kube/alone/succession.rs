//! Addresses that belonged to somebody else. Nobody else may start a pod: it could get the address that is waited for.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use ringmail_tests::kube::{
    Held, Place, STRICT, Stage, Toolbox, metrics, stage,
    toolbox::{dial, dials},
};

const THIN: u16 = 10800;

/// What was applied has reached every sidecar by then.
const SERVED_WITHIN: Duration = Duration::from_secs(15);

/// From the moment that a pod is ready. Less than a handshake with somebody who speaks no TLS would be waited for.
const SUCCEEDED_WITHIN: Duration = Duration::from_secs(5);

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
