//! A certificate from a real CA, and what is said while there is none.

use std::{collections::BTreeMap, ffi::OsString, net::TcpListener};

use ringmail_ca::config::{Settings, collect};

use super::*;

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn the_ca_is_waited_for_and_gives_a_certificate_that_serves() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    std::fs::write(path("token"), "a-static-token-of-control-00000000000\n").unwrap();
    let tokens = "- {token: a-static-token-of-control-00000000000, namespace: ringmail-system, service_account: ringmail-control}\n";
    std::fs::write(path("tokens.yaml"), tokens).unwrap();
    std::fs::write(path("roots.pem"), "").unwrap();
    let address = free_address();
    let source = ServingSource::Ca {
        address: address.replace("127.0.0.1", "localhost"),
        roots: path("roots.pem"),
        token: path("token"),
    };
    let (_end, ending) = watch::channel(false);
    let serving = Serving::start(source, ending.clone()).unwrap();
    for _ in 0..100 {
        if serving.fault.read().unwrap().is_some() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let missing = serving.missing(SystemTime::now()).unwrap();
    assert!(missing.starts_with("no serving certificate yet: localhost:"), "{missing}");
    let arguments = [
        "ringmail-ca".to_owned(),
        format!("--listen={address}"),
        format!("--metrics-listen={}", free_address()),
        format!("--state-dir={}", path("state").display()),
        format!("--static-tokens={}", path("tokens.yaml").display()),
        format!("--bundle-out={}", path("roots.pem").display()),
    ];
    let collected = collect(arguments.map(OsString::from), &BTreeMap::new()).unwrap();
    let settings = Settings::from_collected(&collected).unwrap();
    // As a program of its own: what it does waits for nobody here.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ringmail_ca::run(settings, ending)).unwrap();
    });
    for _ in 0..500 {
        if serving.missing(SystemTime::now()).is_none() {
            let held = serving.held().unwrap();
            assert!(!serving.is_due(SystemTime::now()));
            assert!(serving.is_due(held.not_before + Duration::from_secs(13 * 3600)));
            assert!(serving.missing(held.not_after).is_some());
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}", serving.missing(SystemTime::now()));
}

#[tokio::test]
async fn files_must_be_good_at_the_start_and_a_bad_change_leaves_what_was_there() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    let pair = || rcgen::generate_simple_self_signed(vec!["control".to_owned()]).unwrap();
    let (first, other) = (pair(), pair());
    std::fs::write(&certificate, first.cert.pem()).unwrap();
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    let source = ServingSource::Files { certificate, key: key.clone() };
    let (_end, ending) = watch::channel(false);
    assert!(matches!(Serving::start(source.clone(), ending.clone()), Err(ServingError::Pair(_))));
    std::fs::write(&key, first.signing_key.serialize_pem()).unwrap();
    let serving = Serving::start(source.clone(), ending).unwrap();
    std::fs::write(&key, "nothing").unwrap();
    assert!(serving.renew(&source).await.is_err());
    assert_eq!(serving.missing(SystemTime::now()), None);
}
