use ringmail_control::webhook::ca::Lifetimes;

use super::caller::{self, Caller, TLS13, review};
use super::*;

async fn served(address: SocketAddr, bundle: &str) -> Vec<u8> {
    let stream = caller::connect(address, bundle, TLS13, "http/1.1").await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn two_replicas_share_one_authority_whoever_is_first() {
    let api = Api::new();
    let (mut one, mut other) = tokio::join!(Running::start(&api), Running::start(&api));
    let bundle = one.ready(&api).await;
    assert_eq!(other.ready(&api).await, bundle);
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 1);
    let leaves = [served(one.address, &bundle).await, served(other.address, &bundle).await];
    assert_ne!(leaves[0], leaves[1]);
}

#[tokio::test]
async fn the_certificate_is_renewed_at_half_its_life_and_no_connection_ends() {
    let api = Api::new();
    let lifetimes = Lifetimes { leaf: Duration::from_secs(8), ..Lifetimes::default() };
    let mut webhook = Running::start_with(&api, |settings| settings.lifetimes = lifetimes).await;
    let bundle = webhook.ready(&api).await;
    let first = served(webhook.address, &bundle).await;
    let mut caller = Caller::new(webhook.address, &bundle).await;
    let renewed = async {
        while served(webhook.address, &bundle).await == first {
            assert_eq!(caller.review(&review("ignite", &pod(), true)).await["allowed"], true);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, renewed).await.expect("another certificate in time");
    assert_eq!(caller.review(&review("ignite", &pod(), true)).await["allowed"], true);
}

#[tokio::test]
async fn a_registration_that_is_applied_anew_has_the_roots_again() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    api.register();
    assert_eq!(api.bundle(), None);
    let again = async {
        while api.bundle().is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the roots in time");
    assert_eq!(api.bundle(), Some(bundle));
}

#[tokio::test]
async fn without_a_registration_it_waits_and_says_so() {
    let api = Api::new();
    api.change(|objects| objects.configuration = None);
    let mut webhook = Running::start(&api).await;
    let waits = webhook.state.wait_for(|state| {
        matches!(state, State::Waiting(reason) if reason.contains("mutatingwebhookconfiguration ringmail-injector is not there"))
    });
    timeout(PATIENCE, waits).await.expect("a reason in time").unwrap();
    api.register();
    webhook.ready(&api).await;
}

#[tokio::test]
async fn a_secret_that_somebody_has_spoilt_is_made_anew() {
    let api = Api::new();
    api.change(|objects| {
        objects.secret = Some(json!({"metadata": {"name": "ringmail-injector-ca", "resourceVersion": "3"}, "data": {"tls.crt": "AA=="}}));
    });
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    assert_eq!(
        Caller::new(webhook.address, &bundle).await.review(&review("ignite", &pod(), true)).await["allowed"],
        true
    );
}

#[tokio::test]
async fn told_to_end_it_ends_and_what_is_in_flight_is_answered() {
    let api = Api::new();
    let mut webhook = Running::start(&api).await;
    let bundle = webhook.ready(&api).await;
    let mut caller = Caller::new(webhook.address, &bundle).await;
    assert_eq!(caller.review(&review("ignite", &pod(), true)).await["allowed"], true);
    webhook.end.send_replace(true);
    timeout(PATIENCE, &mut webhook.task).await.expect("an end in time").unwrap();
}
