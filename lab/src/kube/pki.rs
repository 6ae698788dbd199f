//! The cluster's certificates, as `kubeadm` would make them: one CA, a name for each component, and the key that signs the
//! tokens of service accounts.

use std::net::IpAddr;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType,
};
use time::{Duration, OffsetDateTime};

use super::plan::{API_SERVICE, Plan, node_name};

/// A cluster lives for minutes, a kept one for days.
const LIFETIME: Duration = Duration::days(365);

/// Clocks are one and the same here; this is for those that look at the files.
const BACKDATED: Duration = Duration::hours(1);

/// Who may do everything, in the words of the API server's own default bindings.
const ADMINISTRATORS: &str = "system:masters";

/// Makes everything: files in `pki`, and a kubeconfig for each component in it.
pub(super) fn create(plan: &Plan) -> Result<()> {
    let authority = authority().context("make the cluster's CA")?;
    plan.write("pki/ca.crt", &authority.pem())?;
    plan.write("pki/ca.key", &authority.key().serialize_pem())?;

    let tokens = KeyPair::generate_for(&PKCS_RSA_SHA256).context("make the key of service accounts")?;
    plan.write("pki/sa.key", &tokens.serialize_pem())?;
    plan.write("pki/sa.pub", &tokens.public_key_pem())?;

    let serving = issue(&authority, "kube-apiserver", None, api_names(plan)?)?;
    serving.write(plan, "apiserver")?;
    issue(&authority, "kube-apiserver-kubelet-client", Some(ADMINISTRATORS), Vec::new())?
        .write(plan, "kubelet-client")?;

    let mut clients = vec![
        ("kubernetes-admin".to_owned(), Some(ADMINISTRATORS), plan.text("kubeconfig")),
        ("system:kube-controller-manager".to_owned(), None, plan.text("pki/kube-controller-manager.conf")),
        ("system:kube-scheduler".to_owned(), None, plan.text("pki/kube-scheduler.conf")),
        ("system:kube-proxy".to_owned(), None, plan.text("pki/kube-proxy.conf")),
        ("coredns".to_owned(), Some(ADMINISTRATORS), plan.text("pki/coredns.conf")),
    ];
    for node in plan.nodes() {
        let name = node_name(node);
        clients.push((
            format!("system:node:{name}"),
            Some("system:nodes"),
            plan.text(&format!("pki/{name}.conf")),
        ));
    }
    for (name, group, file) in clients {
        let pair = issue(&authority, &name, group, Vec::new())?;
        std::fs::write(&file, kubeconfig(plan, &authority.pem(), &pair))
            .with_context(|| format!("write {file}"))?;
    }
    Ok(())
}

/// A certificate with its key, both as PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn write(&self, plan: &Plan, name: &str) -> Result<()> {
        plan.write(&format!("pki/{name}.crt"), &self.certificate)?;
        plan.write(&format!("pki/{name}.key"), &self.key)
    }
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = dated();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    group: Option<&str>,
    names: Vec<SanType>,
) -> Result<Pair> {
    let mut params = dated();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let made = || -> Result<Pair, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, authority)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    };
    made().with_context(|| format!("make the certificate of {name}"))
}

fn dated() -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = now - BACKDATED;
    params.not_after = now + LIFETIME;
    params
}

/// Every name that the API server is asked for by.
fn api_names(plan: &Plan) -> Result<Vec<SanType>> {
    let mut names = Vec::new();
    for dns in [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ] {
        names.push(SanType::DnsName(dns.try_into().with_context(|| format!("the name {dns}"))?));
    }
    let addresses: [IpAddr; 4] = [
        API_SERVICE.into(),
        std::net::Ipv4Addr::LOCALHOST.into(),
        plan.node_v4(1).into(),
        plan.node_v6(1).into(),
    ];
    names.extend(addresses.map(SanType::IpAddress));
    Ok(names)
}

/// A kubeconfig that needs no other file. YAML's literal blocks hold the PEM texts once they are base64, as the format wants.
fn kubeconfig(plan: &Plan, ca: &str, pair: &Pair) -> String {
    let (ca, certificate, key) = (base64(ca), base64(&pair.certificate), base64(&pair.key));
    let api = plan.api();
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: ringmail\n\
         \x20 cluster:\n\
         \x20   server: {api}\n\
         \x20   certificate-authority-data: {ca}\n\
         users:\n\
         - name: ringmail\n\
         \x20 user:\n\
         \x20   client-certificate-data: {certificate}\n\
         \x20   client-key-data: {key}\n\
         contexts:\n\
         - name: ringmail\n\
         \x20 context:\n\
         \x20   cluster: ringmail\n\
         \x20   user: ringmail\n\
         current-context: ringmail\n"
    )
}

fn base64(text: &str) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}
