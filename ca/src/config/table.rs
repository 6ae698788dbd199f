//! The table of settings: what `--help`, the environment, the file and the reference page know.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name: the flag without dashes, the key in the file with underscores, the variable
    /// `RINGMAIL_CA_` in upper case.
    pub name: &'static str,
    /// What a value is, for the help.
    pub value: &'static str,
    /// Its value when none is given.
    pub default: Option<&'static str>,
    /// Whether it may be given several times.
    pub repeats: bool,
    /// Whether the flag alone means `true`.
    pub switch: bool,
    /// What it does.
    pub help: &'static str,
}

const fn setting(name: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { name, value, default: None, repeats: false, switch: false, help }
}

impl Setting {
    const fn default(self, text: &'static str) -> Self {
        Self { default: Some(text), ..self }
    }

    const fn repeats(self) -> Self {
        Self { repeats: true, ..self }
    }

    const fn switch(self) -> Self {
        Self { switch: true, default: Some("false"), ..self }
    }
}

/// Every setting, in the order of the help.
pub const SETTINGS: &[Setting] = &[
    setting("listen", "ADDRESS", "Where the certificate service listens").default("0.0.0.0:15012"),
    setting("metrics-listen", "ADDRESS", "Where metrics and readiness are served over plain HTTP")
        .default("0.0.0.0:15014"),
    setting("trust-domain", "NAME", "Trust domain of every identity").default("cluster.local"),
    setting(
        "ca-dir",
        "DIR",
        "Mounted signing key: Istio's cacerts or cert-manager's file names; followed while running",
    ),
    setting(
        "ca-secret",
        "NAME",
        "Secret with a signing key, under the same names as in a folder; followed while running",
    ),
    setting("state-dir", "DIR", "Folder of the self-signed root"),
    setting(
        "root-secret",
        "NAME",
        "Secret of the self-signed root, shared by all replicas; followed while running",
    ),
    setting(
        "self-signed-root",
        "create|existing",
        "What an empty state folder or an absent root secret means: make a root, or refuse to start",
    )
    .default("create"),
    setting(
        "bootstrap-new-root",
        "",
        "Make a new root in the place of one that is lost or damaged; the old one stays in the bundle",
    )
    .switch(),
    setting(
        "extra-roots",
        "FILE",
        "PEM file of roots that join the bundle, for a rotation; followed while running",
    ),
    setting(
        "static-tokens",
        "FILE",
        "YAML list of {token, namespace, service_account}; followed while running",
    ),
    setting("jwks", "FILE", "JSON Web Key Set that JWTs are verified against; followed while running"),
    setting(
        "token-review",
        "",
        "Have the Kubernetes API server judge JWTs, and look at the pods they are bound to",
    )
    .switch(),
    setting(
        "token-review-audience",
        "NAME",
        "Audience that a token may be for, when the API server judges it",
    )
    .repeats()
    .default("ringmail-ca,istio-ca"),
    setting("audience", "NAME", "Audience that a JWT must name").default("ringmail-ca"),
    setting("issuer", "NAME", "Issuer that a JWT must name; not checked when absent"),
    setting("ttl", "DURATION", "Lifetime of a leaf when the request names none").default("24h"),
    setting("max-ttl", "DURATION", "Longest lifetime given; more is refused").default("90d"),
    setting("bundle-out", "FILE", "File that always holds the bundle, replaced atomically"),
    setting("distribute-bundle", "", "Keep the bundle in ConfigMap ringmail-ca-root-cert of the namespaces")
        .switch(),
    setting("bundle-namespaces", "SELECTOR", "Label selector of the namespaces that get the ConfigMap")
        .default("kubernetes.io/metadata.name notin (kube-system,kube-public,kube-node-lease)"),
    setting(
        "serve-names",
        "NAMESPACE/ACCOUNT=NAME,..",
        "DNS names of a server of the mesh's own, beside its SPIFFE ID in its leaf",
    )
    .repeats(),
    setting("kubeconfig", "FILE", "How to reach the API server; without it, as a pod's service account"),
    setting("namespace", "NAME", "The CA's own namespace; without it, the service account's"),
    setting("serving-name", "NAME", "Further DNS name or IP address of the serving certificate").repeats(),
    setting("handshake-timeout", "DURATION", "From accept to a complete TLS handshake").default("10s"),
    setting("request-timeout", "DURATION", "From a request's headers to its answer").default("10s"),
    setting("idle-timeout", "DURATION", "A connection without a request for this long is closed")
        .default("60s"),
    setting("max-connections", "NUMBER", "Connections at once").default("1024"),
    setting("max-connections-per-source", "NUMBER", "Connections at once from one address (IPv6: one /64)")
        .default("64"),
    setting("log-level", "FILTER", "Level or filter of the log; audit lines are always written")
        .default("info"),
    setting("log-format", "text|json", "Form of log and audit lines").default("text"),
];
