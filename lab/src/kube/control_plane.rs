//! The control plane's processes and their flags: etcd, API server, controller manager, scheduler, and the cluster's DNS.

use anyhow::Result;

use super::component::Blueprint;
use super::plan::{CLUSTER_DOMAIN, DNS_SERVICE, Plan};

/// What the API server calls itself to those that check its tokens.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

const ETCD: &str = "http://127.0.0.1:2379";

/// The store, which needs no disk to be trusted: the cluster does not outlive the machine.
pub(super) fn etcd(plan: &Plan) -> Blueprint {
    let args = [
        "--data-dir".to_owned(),
        plan.text("etcd"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
    ];
    Blueprint { name: "etcd".to_owned(), node: 1, program: "etcd".into(), args: args.into() }
}

/// The API server. It runs in the first node's namespace, where kube-proxy's rules lead it to webhooks behind Services.
pub(super) fn api_server(plan: &Plan) -> Blueprint {
    let pki = |name: &str| plan.text(&format!("pki/{name}"));
    let args = [
        format!("--etcd-servers={ETCD}"),
        format!("--advertise-address={}", plan.node_v4(1)),
        "--secure-port=6443".to_owned(),
        format!("--service-cluster-ip-range={}", plan.service_ranges()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        // Else `kubectl logs` looks the node's name up in a DNS that does not know it.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        // It asks etcd for what Debian's does not know, waits for each answer in vain, and says so.
        "--feature-gates=SizeBasedListCostEstimate=false".to_owned(),
    ];
    blueprint(plan, "kube-apiserver", args.into())
}

/// The controllers, service accounts' tokens and certificates among them.
pub(super) fn controller_manager(plan: &Plan) -> Blueprint {
    let pki = |name: &str| plan.text(&format!("pki/{name}"));
    let args = [
        format!("--kubeconfig={}", pki("kube-controller-manager.conf")),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        format!("--service-cluster-ip-range={}", plan.service_ranges()),
        "--use-service-account-credentials=true".to_owned(),
        // Of either there is one, which needs not wait for a lease after a restart.
        "--leader-elect=false".to_owned(),
    ];
    blueprint(plan, "kube-controller-manager", args.into())
}

/// The scheduler.
pub(super) fn scheduler(plan: &Plan) -> Blueprint {
    let args =
        [format!("--kubeconfig={}", plan.text("pki/kube-scheduler.conf")), "--leader-elect=false".to_owned()];
    blueprint(plan, "kube-scheduler", args.into())
}

/// DNS on the first node's address; [`dns_manifest`] makes it the Service that pods ask.
pub(super) fn dns(plan: &Plan) -> Result<Blueprint> {
    let address = plan.node_v4(1);
    let kubeconfig = plan.text("pki/coredns.conf");
    // There is no other DNS to ask: what is not the cluster's does not exist, and is told so at once. Two blocks, because the
    // order of the plugins in one is not that of its lines.
    plan.write(
        "Corefile",
        &format!(
            "{CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{\n\
             \x20   bind {address}\n\
             \x20   errors\n\
             \x20   ready {address}:8181\n\
             \x20   kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{\n\
             \x20       kubeconfig {kubeconfig}\n\
             \x20       pods insecure\n\
             \x20       ttl 5\n\
             \x20   }}\n\
             }}\n\
             . {{\n\
             \x20   bind {address}\n\
             \x20   template ANY ANY {{\n\
             \x20       rcode NXDOMAIN\n\
             \x20   }}\n\
             }}\n"
        ),
    )?;
    let mut blueprint = blueprint(plan, "coredns", vec!["-conf".to_owned(), plan.text("Corefile")]);
    blueprint.program = plan.binaries.path("coredns");
    Ok(blueprint)
}

/// The Service `kube-dns`, whose one endpoint is the process on the node.
pub(super) fn dns_manifest(plan: &Plan) -> String {
    let address = plan.node_v4(1);
    format!(
        r#"
apiVersion: v1
kind: Service
metadata:
  name: kube-dns
  namespace: kube-system
  labels: {{k8s-app: kube-dns, kubernetes.io/name: CoreDNS}}
spec:
  clusterIP: {DNS_SERVICE}
  ports:
  - {{name: dns, port: 53, protocol: UDP}}
  - {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns-process
  namespace: kube-system
  labels:
    kubernetes.io/service-name: kube-dns
    endpointslice.kubernetes.io/managed-by: ringmail-lab
addressType: IPv4
endpoints:
- addresses: ["{address}"]
  conditions: {{ready: true}}
ports:
- {{name: dns, port: 53, protocol: UDP}}
- {{name: dns-tcp, port: 53, protocol: TCP}}
"#
    )
}

fn blueprint(plan: &Plan, name: &str, args: Vec<String>) -> Blueprint {
    Blueprint { name: name.to_owned(), node: 1, program: plan.binaries.path(name), args }
}
