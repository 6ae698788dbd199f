//! DNS names for the mesh's own servers.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use ringmail_identity::{PrivateKey, Svid};
use rustls_pki_types::ServerName;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::support::{Ca, TOKEN, ask, certificates, client_config, csr, folder, request, verify};

const CONTROL: &str = "ringmail-control.ringmail-system.svc";
const CONTROL_TOKEN: &str = "static-token-of-the-control-plane";

fn start() -> Ca {
    let folder = folder();
    let text = format!(
        "- {{token: {TOKEN}, namespace: ignite, service_account: node}}\n\
         - {{token: {CONTROL_TOKEN}, namespace: ringmail-system, service_account: ringmail-control}}\n"
    );
    std::fs::write(folder.path().join("tokens.yaml"), text).unwrap();
    let names = format!("ringmail-system/ringmail-control={CONTROL},ringmail-control");
    Ca::start_in(folder, &["--serve-names", &names])
}

fn names(chain: &[rustls_pki_types::CertificateDer<'_>]) -> Vec<String> {
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&chain[0]).unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical);
    let text = |name: &GeneralName<'_>| name.to_string();
    san.value.general_names.iter().map(text).collect()
}

#[tokio::test]
async fn a_server_of_the_mesh_has_its_names_and_nobody_else_gets_any() {
    let ca = start();
    let key = KeyPair::generate().unwrap();
    let answer = ask(ca.connect().await, Some(CONTROL_TOKEN), request(&csr(&key))).await.unwrap();
    let chain = certificates(&answer.cert_chain);
    let id = "spiffe://cluster.local/ns/ringmail-system/sa/ringmail-control";
    assert_eq!(
        names(&chain),
        [format!("URI({id})"), format!("DNSName({CONTROL})"), "DNSName(ringmail-control)".to_owned()]
    );
    assert_eq!(ca.audit()["names"], format!("{CONTROL},ringmail-control"));
    // A proxy that meets it as a peer sees the SPIFFE ID alone.
    assert_eq!(verify(&ca.bundle(), &chain[..1]).unwrap().as_str(), id);
    let own = PrivateKey::from_pem(key.serialize_pem().as_bytes()).unwrap();
    assert_eq!(Svid::new(chain[..1].to_vec(), own).unwrap().id().as_str(), id);

    let wishful = CertificateParams::new(vec![CONTROL.to_owned()]).unwrap();
    let wishful = wishful.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let answer = ask(ca.connect().await, Some(TOKEN), request(&wishful)).await.unwrap();
    assert_eq!(names(&certificates(&answer.cert_chain)), ["URI(spiffe://cluster.local/ns/ignite/sa/node)"]);
    assert_eq!(ca.audit()["names"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_client_verifies_the_server_by_its_name() {
    let ca = start();
    let key = KeyPair::generate().unwrap();
    let answer = ask(ca.connect().await, Some(CONTROL_TOKEN), request(&csr(&key))).await.unwrap();
    let chain = certificates(&answer.cert_chain)[..1].to_vec();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let server = Arc::new(server);
    for (name, accepted) in [(CONTROL, true), ("ringmail-control", true), ("ringmail-ca", false)] {
        let name = ServerName::try_from(name).unwrap();
        let mut client = rustls::ClientConnection::new(client_config(&ca.bundle()), name.clone()).unwrap();
        client.set_buffer_limit(None);
        let mut plain = (*server).clone();
        plain.alpn_protocols = vec![b"h2".to_vec()];
        let mut server = rustls::ServerConnection::new(Arc::new(plain)).unwrap();
        assert_eq!(handshake(&mut client, &mut server).is_ok(), accepted, "{name:?}");
    }
}

fn handshake(
    client: &mut rustls::ClientConnection,
    server: &mut rustls::ServerConnection,
) -> Result<(), rustls::Error> {
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}
