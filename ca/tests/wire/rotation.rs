//! What changes while running: roots by overlap, tokens, keys; and what must not change.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use ringmail_identity::TrustBundle;
use tempfile::TempDir;
use tonic::Code;

use crate::support::token::{self, Issuer};
use crate::support::{Ca, TOKEN, ask, csr, folder, request, verify};

type Root = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn root(name: &str) -> Root {
    Root::self_signed(params(name), KeyPair::generate().unwrap()).unwrap()
}

/// Swaps the folder's content as a mounted Secret is swapped: all files at once, behind `..data`.
fn mount(folder: &Path, generation: u32, files: &[(&str, String)]) {
    let real = folder.join(format!("..{generation}"));
    fs::create_dir_all(&real).unwrap();
    for (name, text) in files {
        fs::write(real.join(name), text).unwrap();
        let _ = std::os::unix::fs::symlink(Path::new("..data").join(name), folder.join(name));
    }
    let next = folder.join("..data_tmp");
    std::os::unix::fs::symlink(format!("..{generation}"), &next).unwrap();
    fs::rename(next, folder.join("..data")).unwrap();
}

fn secret(signer: &Root) -> [(&'static str, String); 3] {
    [("tls.crt", signer.pem()), ("tls.key", signer.key().serialize_pem()), ("ca.crt", signer.pem())]
}

fn mounted(first: &Root, extra: &str) -> (Ca, std::path::PathBuf, std::path::PathBuf) {
    let folder: Arc<TempDir> = folder();
    let (place, roots) = (folder.path().join("ca"), folder.path().join("extra.pem"));
    mount(&place, 1, &secret(first));
    fs::write(&roots, extra).unwrap();
    let flags = ["--ca-dir", place.to_str().unwrap(), "--extra-roots", roots.to_str().unwrap()];
    (Ca::start_with(folder, &flags), place, roots)
}

fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, path).unwrap();
}

/// Waits for the published bundle to have `roots` and says how long that took.
fn await_bundle(ca: &Ca, roots: usize, first: &Root) -> Duration {
    let began = Instant::now();
    crate::support::eventually("the bundle changes", || {
        let bundle = ca.bundle();
        bundle.roots().len() == roots && bundle.roots()[0].der == *first.der()
    });
    began.elapsed()
}

/// A CA looks at its files four times a second; the rest is the machine's.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_rotated_by_overlap_without_a_restart_or_a_failed_request() {
    let (old, new) = (root("old"), root("new"));
    let (ca, place, extra) = mounted(&old, &old.pem());
    let ca = Arc::new(ca);
    let (busy, requests) = keep_asking(&ca);

    let leaf_of_old = ca.leaf().await;
    let bundle_of_old = ca.bundle();
    assert_eq!(bundle_of_old.roots().len(), 1);

    // 1. The bundle carries both roots; the old one still signs.
    replace(&extra, &format!("{}{}", old.pem(), new.pem()));
    assert!(await_bundle(&ca, 2, &old) < FOLLOWED_WITHIN);
    let overlap = ca.bundle();
    let leaf = ca.leaf().await;
    verify(&bundle_of_old, &leaf[..1]).unwrap();
    assert_eq!(leaf.len(), 3, "the answer carries the leaf and both roots");

    // 2. The new root signs. Whoever holds the overlap verifies old and new leaves.
    mount(&place, 2, &secret(&new));
    assert!(await_bundle(&ca, 2, &new) < FOLLOWED_WITHIN);
    let leaf_of_new = ca.leaf().await;
    for bundle in [&overlap, &ca.bundle()] {
        verify(bundle, &leaf_of_old[..1]).unwrap();
        verify(bundle, &leaf_of_new[..1]).unwrap();
    }
    assert!(verify(&bundle_of_old, &leaf_of_new[..1]).is_err(), "who missed step 1 is why there is a step 1");

    // 3. The old root leaves.
    replace(&extra, &new.pem());
    assert!(await_bundle(&ca, 1, &new) < FOLLOWED_WITHIN);
    assert!(verify(&ca.bundle(), &leaf_of_old[..1]).is_err());
    verify(&ca.bundle(), &leaf_of_new[..1]).unwrap();

    busy.store(false, Ordering::Relaxed);
    let asked = requests.await.unwrap();
    assert!(asked > 20, "{asked} requests during the rotation");
}

/// Asks over and over, on new connections, trusting what is published; a failure panics.
fn keep_asking(ca: &Arc<Ca>) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u32>) {
    let busy = Arc::new(AtomicBool::new(true));
    let (ca, go_on) = (Arc::clone(ca), Arc::clone(&busy));
    let requests = tokio::spawn(async move {
        let mut asked = 0;
        // One bundle of the overlap's length: what a proxy got with its last certificate.
        let mut bundle = ca.bundle();
        while go_on.load(Ordering::Relaxed) {
            let channel = crate::support::connect(ca.address, &bundle, "localhost").await.unwrap();
            let answer =
                ask(channel, Some(TOKEN), request(&csr(&KeyPair::generate().unwrap()))).await.unwrap();
            let roots = answer.cert_chain.last().unwrap();
            bundle = TrustBundle::from_pem("cluster.local".parse().unwrap(), roots.as_bytes()).unwrap();
            asked += 1;
        }
        asked
    });
    (busy, requests)
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_last_good_ones_in_force() {
    let (old, other) = (root("old"), root("other"));
    let (ca, place, extra) = mounted(&old, &old.pem());
    let mut mismatched = secret(&old);
    mismatched[1].1 = other.key().serialize_pem();
    mount(&place, 2, &mismatched);
    ca.await_metric("ringmail_ca_reloads_total{result=\"refused\"}", 1.0);
    let said = ca.line(|line| line["level"] == "ERROR");
    assert!(said["error"].as_str().unwrap().contains("does not belong to certificate"), "{said}");
    replace(&extra, "no certificate");
    ca.await_metric("ringmail_ca_reloads_total{result=\"refused\"}", 2.0);
    verify(&ca.bundle(), &ca.leaf().await[..1]).unwrap();
    assert_eq!(ca.bundle().roots()[0].der, *old.der());
    replace(&extra, &old.pem());
    mount(&place, 3, &secret(&other));
    await_bundle(&ca, 2, &other);
}

/// A root that begins to be valid `seconds` from now.
fn root_from(seconds: u64) -> Root {
    let mut params = params("later");
    params.not_before = (std::time::SystemTime::now() + Duration::from_secs(seconds)).into();
    Root::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Waits until changed files are in force, and counts the errors said before that.
fn errors_until_in_force(ca: &Ca) -> u32 {
    let errors = Cell::new(0);
    ca.line(|line| {
        errors.set(errors.get() + u32::from(line["level"] == "ERROR"));
        line["message"] == "changed ca files are in force"
    });
    errors.get()
}

#[tokio::test]
async fn a_signer_that_is_not_valid_yet_signs_once_it_is() {
    let (old, next) = (root("old"), root_from(3));
    let (ca, place, _extra) = mounted(&old, &old.pem());
    mount(&place, 2, &secret(&next));
    ca.await_metric("ringmail_ca_reloads_total{result=\"refused\"}", 1.0);
    verify(&ca.bundle(), &ca.leaf().await[..1]).unwrap();
    await_bundle(&ca, 2, &next);
    verify(&ca.bundle(), &ca.leaf().await[..1]).unwrap();
    assert_eq!(errors_until_in_force(&ca), 1);
}

/// What the verifier says of such a root holds the time, which is another each time it is asked.
#[tokio::test]
async fn files_that_stay_refused_are_reported_and_counted_once() {
    let (old, next) = (root("old"), root_from(7));
    let signer = Root::signed_by(params("signer"), KeyPair::generate().unwrap(), &next).unwrap();
    let (ca, place, _extra) = mounted(&old, &old.pem());
    let mut files = secret(&signer);
    files[2].1 = next.pem();
    mount(&place, 2, &files);
    await_bundle(&ca, 2, &next);
    assert_eq!(errors_until_in_force(&ca), 1, "refused at once and after 5 s, in force after 10 s");
    assert!((ca.metric("ringmail_ca_reloads_total{result=\"refused\"}") - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn tokens_and_keys_are_followed_as_they_change() {
    let (folder, first, second) = (folder(), Issuer::new(), Issuer::new());
    fs::write(folder.path().join("jwks.json"), first.jwks()).unwrap();
    let ca = Ca::start_in(folder, &[]);
    let channel = ca.connect().await;
    let csr = csr(&KeyPair::generate().unwrap());
    let ask = async |token: &str| match ask(channel.clone(), Some(token), request(&csr)).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    };
    let (of_first, of_second) = (first.rs256(&token::claims()), second.rs256(&token::claims()));
    assert_eq!((ask(&of_first).await, ask(&of_second).await), (Code::Ok, Code::Unauthenticated));
    assert_eq!((ask(TOKEN).await, ask("another-token").await), (Code::Ok, Code::Unauthenticated));

    replace(&ca.path("jwks.json"), &second.jwks());
    let tokens = "- {token: another-token, namespace: ignite, service_account: other}\n";
    replace(&ca.path("tokens.yaml"), tokens);
    let deadline = Instant::now() + FOLLOWED_WITHIN;
    while (ask(&of_second).await, ask("another-token").await) != (Code::Ok, Code::Ok)
        && Instant::now() < deadline
    {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!((ask(&of_first).await, ask(&of_second).await), (Code::Unauthenticated, Code::Ok));
    assert_eq!((ask(TOKEN).await, ask("another-token").await), (Code::Unauthenticated, Code::Ok));

    // A file that is broken or gone neither opens nor closes anything.
    replace(&ca.path("jwks.json"), "{");
    fs::remove_file(ca.path("tokens.yaml")).unwrap();
    ca.await_metric("ringmail_ca_reloads_total{result=\"refused\"}", 2.0);
    assert_eq!((ask(&of_first).await, ask(&of_second).await), (Code::Unauthenticated, Code::Ok));
    assert_eq!((ask(TOKEN).await, ask("another-token").await), (Code::Unauthenticated, Code::Ok));
}

#[tokio::test]
async fn the_signer_s_end_bounds_leaves_and_serving_certificate() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = (std::time::SystemTime::now() + Duration::from_secs(4)).into();
    let short = Root::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let (ca, place, _extra) = mounted(&short, &short.pem());
    let channel = ca.connect().await;
    ca.leaf().await;
    let issued = ca.audit();
    assert!(issued["ttl_seconds"].as_u64().unwrap() <= 4, "{issued}");
    assert!(ca.metric("ringmail_ca_signer_expiry_seconds") <= 4.0);
    crate::support::eventually("readiness ends with the signer", || {
        ca.page("/healthz/ready").contains("503")
    });
    let answer = ask(channel, Some(TOKEN), request(&csr(&KeyPair::generate().unwrap()))).await;
    crate::support::assert_refused(&ca, answer, Code::Unavailable, "signer_expired");
    let next = root("next");
    mount(&place, 2, &secret(&next));
    await_bundle(&ca, 2, &next);
    assert!(ca.page("/healthz/ready").ends_with("ready\n"));
    verify(&ca.bundle(), &ca.leaf().await[..1]).unwrap();
}
