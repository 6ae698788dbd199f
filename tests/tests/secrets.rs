//! What is secret is planted wherever a program takes secrets, whole and broken, and looked for in all that a program says
//! at its most talkative; and its memory is asked for by others of its user.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use ringmail_evidence::shown;
use ringmail_lab::{
    ca::{Ca, CaSettings, SigningKey},
    http::get,
    mesh::MeshFiles,
    network::{Network, Pod},
    process::wait_until,
    sidecar::{PROXY_UID, Sidecar, SidecarSettings},
    wire,
};
use ringmail_tests::{
    roots::{Root, trust},
    streams::{OWN_PORT, listen},
    world::{STRICT, scenario_folder},
};

/// A token that the CA knows, one that it does not, and one that no header can carry.
const KNOWN: &str = "planted-7f3a91-known-token";
const FORGED: &str = "planted-7f3a92-forged-token";
const BROKEN: &str = "planted-7f3a93-broken\u{1}token";
/// In a file of tokens that cannot be read.
const MISWRITTEN: &str = "planted-7f3a94-miswritten-token";
/// In a variable that no setting has.
const VARIABLE: &str = "planted-7f3a95-variable";

/// For a page and for a fault to be noticed: files are looked at every second.
const SOON: Duration = Duration::from_secs(20);

/// What a sidecar says of files that it cannot use.
const NOT_APPLIED: &str = "credentials in files not applied";

/// What must be found nowhere: a name for it, and the text.
type Planted = Vec<(&'static str, String)>;

struct Scene {
    files: MeshFiles,
    network: Network,
    folder: PathBuf,
}

impl Scene {
    fn pod(&self, name: &str) -> &Pod {
        self.network.pod(name).unwrap()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.file(name);
        write(&path, text);
        path
    }

    fn sidecar(&self, name: &str, ca: &Ca, settings: &[(&str, String)]) -> Sidecar {
        let mut all = SidecarSettings::new("app").with("log_level", "trace");
        for (key, value) in settings {
            all = all.with(key, value);
        }
        all.environment.insert("RINGMAIL_NO_SUCH_SETTING".to_owned(), VARIABLE.to_owned());
        all.environment.insert("SSLKEYLOGFILE".to_owned(), self.folder.join("keylog").display().to_string());
        Sidecar::start(self.pod(name), &self.files, ca, &all, &self.folder).unwrap()
    }
}

fn write(path: &Path, text: &str) {
    let half = path.with_extension("half");
    fs::write(&half, text).unwrap();
    fs::rename(half, path).unwrap();
}

/// The lines of a private key that are its own: base64 of its bytes.
fn lines_of_key(pem: &str) -> impl Iterator<Item = String> + '_ {
    pem.lines().filter(|line| !line.starts_with("-----") && line.len() > 20).map(str::to_owned)
}

/// The same file with its line ends lost, as a careless copy leaves it.
fn folded(pem: &str) -> String {
    pem.replace('\n', " ")
}

/// A leaf under `root` and its key, both PEM.
fn leaf(root: &Root) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        vec![SanType::URI("spiffe://cluster.local/ns/ignite/sa/app".try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (root.sign(params, &key).unwrap(), key)
}

/// Everything that can be asked of a sidecar, and everything it has written.
fn said_by(scene: &Scene, sidecar: &Sidecar) -> Vec<(String, String)> {
    let pod = scene.pod(sidecar.pod());
    let mut said = vec![("the log".to_owned(), sidecar.log_text())];
    let paths = ["/certs", "/config_dump", "/connections", "/stats/prometheus", "/help", "/healthz/ready"];
    for path in paths {
        said.push((path.to_owned(), sidecar.admin(pod, path).unwrap().body));
    }
    for (port, path) in
        [(15020, "/stats/prometheus"), (15021, "/healthz/ready"), (4191, "/metrics"), (4191, "/ready")]
    {
        let answer = get(pod.namespace(), SocketAddr::new(pod.ip(), port), path, SOON).unwrap();
        said.push((format!("{port}{path}"), answer.body));
    }
    said
}

/// Waits until the log says so: what is looked for comes after what it is about.
fn until_said(what: &str, sidecar: &Sidecar, parts: &[&str]) {
    wait_until(SOON, what, || {
        let log = sidecar.log_text();
        Ok(log.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", sidecar.log_text()));
}

#[test]
fn no_secret_is_in_a_log_a_page_or_a_file_and_no_other_process_reads_the_memory() {
    let folder = scenario_folder().unwrap();
    let files = MeshFiles::create(&folder.join("mesh"), None).unwrap();
    files.write_policy("strict", STRICT).unwrap();
    let network = Network::create(&["client", "server", "filed", "forger", "breaker", "ca"]).unwrap();
    let scene = Scene { files, network, folder };
    let root = Root::new("planted root").unwrap();
    root.mount(&scene.files).unwrap();
    trust(&scene.files, &[&root]).unwrap();
    let settings =
        CaSettings { key: SigningKey::Mounted, flags: vec!["--ttl", "30s", "--log-level", "trace"] };
    let ca = Ca::start(&scene.network, "ca", &scene.files, &settings, &scene.folder).unwrap();

    let mut planted: Planted =
        [KNOWN, FORGED, MISWRITTEN, VARIABLE].map(|text| ("a token or a variable", text.to_owned())).into();
    planted.push(("a broken token", BROKEN.split('\u{1}').next().unwrap().to_owned()));
    planted.extend(lines_of_key(&root.key_pem()).map(|line| ("the key of the CA", line)));

    let token = |name: &str, text: &str| ("token_file", scene.file(name, text).display().to_string());
    let ttl = ("certificate_ttl", "30s".to_owned());
    let mut sidecars: Vec<_> = ["client", "server"]
        .map(|name| scene.sidecar(name, &ca, &[token("known.token", KNOWN), ttl.clone()]))
        .into();
    let line = format!("- {{token: {KNOWN}, namespace: ignite, service_account: app}}\n");
    write(&scene.files.tokens_file(), &line);
    for sidecar in &mut sidecars {
        sidecar.wait_ready(scene.pod(sidecar.pod())).unwrap();
    }
    talk(&scene);

    let (certificate, key) = leaf(&root);
    planted.extend(lines_of_key(&key.serialize_pem()).map(|line| ("the key of a file", line)));
    let of_files = [
        ("identity_source", "files".to_owned()),
        ("cert_file", scene.file("leaf.crt", &certificate).display().to_string()),
        ("key_file", scene.file("leaf.key", &key.serialize_pem()).display().to_string()),
        ("bundle_file", scene.file("leaf.ca", &root.pem()).display().to_string()),
    ];
    let mut filed = scene.sidecar("filed", &ca, &of_files);
    filed.wait_ready(scene.pod("filed")).unwrap();
    // Broken in each of the ways that a reader might repeat.
    let pem = key.serialize_pem();
    for text in [
        folded(&pem),
        pem.replace("-----END", "-----NED"),
        pem.replace("PRIVATE KEY", "CERTIFICATE"),
        pem[40..].to_owned(),
    ] {
        let before = filed.log_text().matches(NOT_APPLIED).count();
        scene.file("leaf.key", &text);
        wait_until(SOON, "the broken key is noticed", || {
            Ok((filed.log_text().matches(NOT_APPLIED).count() > before).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", filed.log_text()));
    }
    let forger = scene.sidecar("forger", &ca, &[token("forged.token", FORGED)]);
    until_said("the forged token is refused", &forger, &["denied"]);
    let breaker = scene.sidecar("breaker", &ca, &[token("broken.token", BROKEN)]);
    until_said("the broken token is noticed", &breaker, &["WARN", "token"]);
    write(&scene.files.tokens_file(), &format!("- {{token: {MISWRITTEN}, namespace: [\n"));
    wait_until(SOON, "the CA notices the broken tokens", || {
        Ok(ca.log_text().contains("tokens.yaml").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", ca.log_text()));

    sidecars.extend([filed, forger, breaker]);
    let mut places = vec![("the CA's log".to_owned(), ca.log_text())];
    places.push(("the CA's metrics".to_owned(), ca.metrics(&scene.network).unwrap().body));
    for sidecar in &sidecars {
        let said = said_by(&scene, sidecar);
        places
            .extend(said.into_iter().map(|(place, text)| (format!("{} of {}", place, sidecar.pod()), text)));
    }
    let talkative = places.iter().filter(|(_, text)| text.contains(" TRACE ")).count();
    assert!(talkative >= 3, "only {talkative} of them are at their most talkative");
    for (place, text) in &places {
        for (what, secret) in &planted {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{what} is in {place}: {}", line.unwrap_or_default());
        }
    }
    assert!(!scene.folder.join("keylog").exists(), "somebody writes keys of sessions");
    let bytes: usize = places.iter().map(|(_, text)| text.len()).sum();
    shown!(
        "S6",
        "planted texts, of these found in logs and pages",
        format!("{}, 0 in {} of {} KiB", planted.len(), places.len(), bytes / 1024),
        "none found"
    );

    let processes: Vec<u32> = sidecars
        .iter()
        .flat_map(|sidecar| sidecar.data_plane().unwrap().into_iter().chain([sidecar.pid().unwrap()]))
        .collect();
    assert_eq!(processes.len(), 2 * sidecars.len());
    for pid in &processes {
        for secret in ["mem", "environ", "maps", "smaps"] {
            let path = format!("/proc/{pid}/{secret}");
            assert!(!can_read(PROXY_UID, &path), "another process of its user reads {path}");
        }
    }
    for pid in processes.iter().copied().chain([ca.pid()]) {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"], "{pid}");
    }
    shown!("S6", "processes whose memory another of their user was refused", processes.len(), "every one");
    shown!("S6", "bytes of a core dump of sidecar and CA", 0, "limit 0, soft and hard");
    drop(sidecars);
    let _ = fs::remove_dir_all(&scene.folder);
}

/// Whether a process of this user can open and read a file.
fn can_read(user: u32, path: &str) -> bool {
    let id = user.to_string();
    let arguments = ["--reuid", &id, "--regid", &id, "--clear-groups", "head", "-c", "1", path];
    // The memory's first page is nobody's: what counts is whether it can be opened.
    let output = Command::new("setpriv").args(arguments).output().unwrap();
    !String::from_utf8_lossy(&output.stderr).contains("Permission denied")
}

/// A connection through both sidecars.
fn talk(scene: &Scene) {
    let listener = listen(scene.pod("server")).unwrap();
    let to = SocketAddr::new(scene.pod("server").ip(), OWN_PORT);
    let mut near = wire::connect(scene.pod("client").namespace(), to).unwrap();
    near.write_all(b"hello").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let mut heard = String::new();
    far.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello");
}
