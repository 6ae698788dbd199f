//! A data plane that misses a part ends, so that its parent starts a whole one.

use std::{
    fs::{self, File},
    net::TcpListener,
    os::fd::OwnedFd,
    sync::mpsc,
    thread,
    time::Duration,
};

use ringmail_proxy::{
    data_plane::{self, DataPlane},
    listen::Sockets,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_data_plane_whose_worker_is_gone_ends_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yaml");
    let own = dir.path().display();
    let settings = format!(
        "namespace: ignite\nservice_account: node\nidentity_source: files\nworkers: 1\npolicy_dir: {own}\n\
         cert_file: {own}/tls.crt\nkey_file: {own}/tls.key\nbundle_file: {own}/ca.crt\nstate_dir: {own}/state\n"
    );
    fs::write(&file, settings).unwrap();
    let (loaded, _) = data_plane::settings(Some(&file)).unwrap();
    // A descriptor that the kernel does not watch, as when it is out of watches.
    let unwatchable = TcpListener::from(OwnedFd::from(File::open(&file).unwrap()));
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets = Sockets { inbound: vec![unwatchable], admin: vec![admin], ..Sockets::default() };
    let (ended, wait) = mpsc::channel();
    // Not waited for where it does not end: that is the fault this test is about.
    thread::spawn(move || {
        let error = DataPlane::alone(Some(file), loaded, sockets).run().unwrap_err();
        ended.send((error.to_string(), error.exit_code())).unwrap();
    });
    let error = wait.recv_timeout(PATIENCE).unwrap();
    assert_eq!(error, ("thread worker-0 ended".to_owned(), 1));
}
