use super::self_signed::{FirstRoot, StateError, StateFolder, self_signed_root};
use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize,
};
use std::fs;
use tempfile::TempDir;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn root(name: &str) -> Ca {
    Ca::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn intermediate(name: &str, parent: &Ca) -> Ca {
    Ca::signed_by(ca_params(name), KeyPair::generate().unwrap(), parent).unwrap()
}

fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn cacerts(signer: &Ca, chain: &str, roots: &str) -> TempDir {
    folder(&[
        ("ca-cert.pem", signer.pem()),
        ("ca-key.pem", signer.key().serialize_pem()),
        ("cert-chain.pem", chain.to_owned()),
        ("root-cert.pem", roots.to_owned()),
    ])
}

fn load(folder: &TempDir) -> Result<Authority, String> {
    let source = Source::mounted(folder.path().to_path_buf(), None, "cluster.local".parse().unwrap());
    source.load(SystemTime::now()).map_err(|e| e.to_string())
}

#[test]
fn an_intermediate_under_istio_names_is_loaded_with_its_chain() {
    let root = root("root");
    let outer = intermediate("outer", &root);
    let signer = intermediate("signer", &outer);
    let chain = format!("{}{}{}", signer.pem(), outer.pem(), root.pem());
    let authority = load(&cacerts(&signer, &chain, &root.pem())).unwrap();
    assert_eq!(authority.intermediates(), [signer.der().clone(), outer.der().clone()]);
    assert_eq!(authority.roots(), [root.der().clone()]);
}

#[test]
fn a_signer_under_cert_manager_names_is_loaded() {
    let root = root("root");
    let signer = intermediate("signer", &root);
    let files =
        [("tls.crt", signer.pem()), ("tls.key", signer.key().serialize_pem()), ("ca.crt", root.pem())];
    assert_eq!(load(&folder(&files)).unwrap().intermediates(), [signer.der().clone()]);
    let itself = [("tls.crt", root.pem()), ("tls.key", root.key().serialize_pem()), ("ca.crt", root.pem())];
    assert!(load(&folder(&itself)).unwrap().intermediates().is_empty());
}

#[test]
fn signers_with_rsa_and_p384_keys_are_loaded() {
    for key in [
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
    ] {
        let root = Ca::self_signed(ca_params("root"), key).unwrap();
        load(&cacerts(&root, &root.pem(), &root.pem())).unwrap();
    }
}

#[test]
fn what_cannot_be_a_ca_is_refused_with_its_reason() {
    let (root, other) = (root("root"), root("other"));
    let signer = intermediate("signer", &root);
    let mut leaf_params = ca_params("leaf");
    leaf_params.is_ca = IsCa::ExplicitNoCa;
    let leaf = Ca::signed_by(leaf_params, KeyPair::generate().unwrap(), &root).unwrap();
    let dated = |from: i32, to: i32| {
        let mut params = ca_params("dated");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (past, future) = (dated(2000, 2001), dated(2090, 2091));
    let foreign_key = folder(&[
        ("ca-cert.pem", signer.pem()),
        ("ca-key.pem", other.key().serialize_pem()),
        ("root-cert.pem", root.pem()),
    ]);
    let key = signer.key().serialize_pem();
    let cases = [
        (foreign_key, "private key does not belong to certificate \"CN=signer\""),
        (cacerts(&leaf, "", &root.pem()), "cert-chain.pem: no certificate"),
        (cacerts(&leaf, &leaf.pem(), &root.pem()), "may not sign"),
        (cacerts(&past, &past.pem(), &past.pem()), "expired at"),
        (cacerts(&future, &future.pem(), &future.pem()), "valid only from"),
        (cacerts(&signer, &signer.pem(), &other.pem()), "does not verify under the roots"),
        (folder(&[("ca-cert.pem", signer.pem()), ("root-cert.pem", root.pem())]), "cannot read"),
        (folder(&[("tls.crt", signer.pem()), ("ca-cert.pem", signer.pem())]), "both conventions"),
        (folder(&[]), "no CA in it"),
        (
            folder(&[
                ("ca-cert.pem", signer.pem()),
                ("ca-key.pem", key[..key.len() / 2].to_owned()),
                ("root-cert.pem", root.pem()),
            ]),
            "no private key in it",
        ),
    ];
    for (folder, expected) in cases {
        let error = load(&folder).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// A leaf's issuer must equal the signer's subject byte for byte, or no verifier finds the path.
#[test]
fn a_subject_that_cannot_be_reproduced_is_refused_at_load() {
    use rcgen::DnType::CustomDnType;
    // DC=a, DC=b as two attributes: written by hand, since one type can be set only once. The second
    // attribute is made under a placeholder type and turned into DC (0.9.2342.19200300.100.1.25) here.
    let dc = vec![0, 9, 2342, 19_200_300, 100, 1, 25];
    let placeholder = vec![0, 9, 2342, 19_200_300, 100, 1, 26];
    let key = KeyPair::generate().unwrap();
    let mut params = ca_params("root");
    params.distinguished_name.push(CustomDnType(dc), "a");
    params.distinguished_name.push(CustomDnType(placeholder), "b");
    let root = Ca::self_signed(params, key).unwrap();
    let mut der = root.der().to_vec();
    let encoded = [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x1a];
    while let Some(at) = der.windows(encoded.len()).position(|w| w == encoded) {
        der[at + encoded.len() - 1] = 0x19;
    }
    let pem = certificate_pem(&der);
    let files = [("tls.crt", pem.clone()), ("tls.key", root.key().serialize_pem()), ("ca.crt", pem)];
    let error = load(&folder(&files)).unwrap_err();
    assert!(error.contains("repeats an attribute type"), "{error}");
}

#[test]
fn a_subject_with_a_type_that_cannot_be_written_is_refused_and_never_a_panic() {
    let root = Ca::self_signed(ca_params("root"), KeyPair::generate().unwrap()).unwrap();
    let mut der = root.der().to_vec();
    // The common name's type, 2.5.4.3, becomes one below 2.69.
    let common_name = [6, 3, 0x55, 4, 3];
    while let Some(at) = der.windows(common_name.len()).position(|window| window == common_name) {
        der[at + 2] = 0x95;
    }
    let pem = certificate_pem(&der);
    let files = [("tls.crt", pem.clone()), ("tls.key", root.key().serialize_pem()), ("ca.crt", pem)];
    let error = load(&folder(&files)).unwrap_err();
    assert!(error.contains("cannot be reproduced as an issuer"), "{error}");
}

fn state(folder: &TempDir) -> StateFolder {
    StateFolder {
        path: folder.path().join("state"),
        first_root: FirstRoot::Create,
        bootstrap_new_root: false,
    }
}

fn open(state: &StateFolder) -> Result<Authority, StateError> {
    let now = SystemTime::now();
    Ok(Source::self_signed(state, None, "cluster.local".parse().unwrap(), now)?.load(now).unwrap())
}

#[test]
fn a_root_is_made_once_and_kept_with_mode_0600() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let state = state(&folder);
    let first = open(&state).unwrap();
    let mode = fs::metadata(state.path.join("root.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::metadata(&state.path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(open(&state).unwrap().roots(), first.roots());
    // Told to bootstrap, an intact root still stays.
    let eager = StateFolder { bootstrap_new_root: true, ..state };
    assert_eq!(open(&eager).unwrap().roots(), first.roots());
}

#[test]
fn a_root_is_valid_for_ten_years_and_a_little_before_now() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let (root, _) = self_signed_root(&"cluster.local".parse().unwrap(), now).unwrap();
    let (_, root) = x509_parser::parse_x509_certificate(&root).unwrap();
    let validity = [root.validity().not_before, root.validity().not_after].map(|time| time.timestamp());
    assert_eq!(validity, [1_800_000_000 - 120, 1_800_000_000 + 315_360_000]);
}

#[test]
fn an_empty_folder_is_refused_when_a_root_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder { first_root: FirstRoot::Existing, ..state(&folder) };
    assert!(matches!(open(&state), Err(StateError::Missing(_))));
}

type Damage = fn(&StateFolder);

#[test]
fn a_damaged_or_lost_root_is_never_replaced_silently() {
    let damage: [(&str, Damage); 7] = [
        ("no certificate in it", |s| fs::write(s.path.join("root.pem"), "").unwrap()),
        ("root.pem: ", |s| {
            let text = fs::read(s.path.join("root.pem")).unwrap();
            fs::write(s.path.join("root.pem"), &text[..text.len() / 3]).unwrap();
        }),
        ("block \"PRIVATE KEY\" does not end", |s| {
            let text = fs::read(s.path.join("root.pem")).unwrap();
            fs::write(s.path.join("root.pem"), &text[..text.len() - 40]).unwrap();
        }),
        ("does not belong to certificate", |s| {
            let text = fs::read_to_string(s.path.join("root-cert.pem")).unwrap();
            let key = KeyPair::generate().unwrap().serialize_pem();
            fs::write(s.path.join("root.pem"), format!("{text}{key}")).unwrap();
        }),
        ("holds another root than", |s| {
            let other = root("other");
            fs::write(s.path.join("root.pem"), format!("{}{}", other.pem(), other.key().serialize_pem()))
                .unwrap();
        }),
        ("the root is gone, but root-cert.pem shows", |s| fs::remove_file(s.path.join("root.pem")).unwrap()),
        ("cannot read", |s| {
            fs::remove_file(s.path.join("root.pem")).unwrap();
            fs::create_dir(s.path.join("root.pem")).unwrap();
        }),
    ];
    for (expected, damage) in damage {
        let folder = tempfile::tempdir().unwrap();
        let state = state(&folder);
        let first = open(&state).unwrap();
        damage(&state);
        for _ in 0..2 {
            let error = open(&state).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        if expected == "cannot read" {
            continue;
        }
        let bootstrap = StateFolder { bootstrap_new_root: true, ..state.clone() };
        let renewed = open(&bootstrap).unwrap();
        assert_ne!(renewed.roots()[0], first.roots()[0], "{expected}");
        assert!(renewed.roots().contains(&first.roots()[0]), "{expected}: the old root stays in the bundle");
        assert_eq!(
            open(&state).unwrap().roots(),
            renewed.roots(),
            "{expected}: and from then on all is as ever"
        );
    }
}

#[test]
fn a_crash_between_the_two_files_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(&folder);
    let first = open(&state).unwrap();
    fs::remove_file(state.path.join("root-cert.pem")).unwrap();
    assert_eq!(open(&state).unwrap().roots(), first.roots());
    assert!(state.path.join("root-cert.pem").exists());
}

#[test]
fn a_crash_while_replacing_the_root_still_refuses_to_start_silently() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(&folder);
    let first = open(&state).unwrap();
    // As after the old root was remembered and set aside, before the new one was published.
    fs::rename(state.path.join("root-cert.pem"), state.path.join("old-roots.pem")).unwrap();
    fs::rename(state.path.join("root.pem"), state.path.join("root.pem.damaged-1")).unwrap();
    assert!(matches!(open(&state), Err(StateError::Lost { trace: "old-roots.pem", .. })));
    let bootstrap = StateFolder { bootstrap_new_root: true, ..state };
    assert!(open(&bootstrap).unwrap().roots().contains(&first.roots()[0]));
}

#[test]
fn two_that_start_at_once_end_with_one_root() {
    let folder = tempfile::tempdir().unwrap();
    let state = state(&folder);
    let roots: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&state).unwrap().roots().to_vec())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(roots.iter().all(|r| *r == roots[0]));
}
