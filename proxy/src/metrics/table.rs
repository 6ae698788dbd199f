//! The table of metrics. A family is written only under a name that stands here, with the labels that
//! stand here in this order; the reference page is made from it.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The family's name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Its labels in order; in brackets those that are only there where they have a meaning.
    pub labels: &'static [&'static str],
    /// What it says.
    pub doc: &'static str,
}

const ISTIO: &[&str] = &[
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
];

const TRANSPORT: &[&str] = &[
    "direction",
    "peer",
    "[target_addr]",
    "[target_ip]",
    "[target_port]",
    "tls",
    "[no_tls_reason]",
    "[client_id]",
    "[server_id]",
    "[srv_group]",
    "[srv_kind]",
    "[srv_name]",
    "[srv_port]",
    "[dst_control_plane_ns]",
    "[dst_deployment]",
    "[dst_namespace]",
    "[dst_pod]",
    "[dst_serviceaccount]",
    "[dst_statefulset]",
];

const TRANSPORT_CLOSE: &[&str] = &[
    "direction",
    "peer",
    "[target_addr]",
    "[target_ip]",
    "[target_port]",
    "tls",
    "[no_tls_reason]",
    "[client_id]",
    "[server_id]",
    "[srv_group]",
    "[srv_kind]",
    "[srv_name]",
    "[srv_port]",
    "[dst_control_plane_ns]",
    "[dst_deployment]",
    "[dst_namespace]",
    "[dst_pod]",
    "[dst_serviceaccount]",
    "[dst_statefulset]",
    "errno",
];

const AUTHZ: &[&str] = &[
    "target_addr",
    "target_ip",
    "target_port",
    "srv_group",
    "srv_kind",
    "srv_name",
    "srv_port",
    "[authz_group]",
    "[authz_kind]",
    "[authz_name]",
    "tls",
    "[no_tls_reason]",
    "[client_id]",
];

const fn counter(name: &'static str, labels: &'static [&'static str], doc: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, doc }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], doc: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, doc }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], doc: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, doc }
}

/// Every metric: Istio's, Linkerd's, and the own ones.
#[rustfmt::skip]
pub static TABLE: &[Metric] = &[
    gauge("istio_build", &["component", "tag"], "The proxy's version, in the label `tag`; always 1."),
    counter("istio_tcp_connections_opened_total", ISTIO, "Connections whose bytes could flow."),
    counter("istio_tcp_connections_closed_total", ISTIO, "Ends of connections that were opened."),
    counter("istio_tcp_connections_failed_total", ISTIO, "Ends of connections that never were opened."),
    counter("istio_tcp_sent_bytes_total", ISTIO, "Application bytes from the proxy to downstream, live connections included."),
    counter("istio_tcp_received_bytes_total", ISTIO, "Application bytes from downstream to the proxy, live connections included."),

    counter("tcp_open_total", TRANSPORT, "Connections whose bytes could flow, by leg: `src` is downstream, `dst` upstream."),
    gauge("tcp_open_connections", TRANSPORT, "Connections open now, by leg."),
    counter("tcp_read_bytes_total", TRANSPORT, "Application bytes read from the leg."),
    counter("tcp_write_bytes_total", TRANSPORT, "Application bytes written to the leg."),
    counter("tcp_close_total", TRANSPORT_CLOSE, "Ends of opened connections, by leg; `errno` names the error of that leg."),
    counter("inbound_tcp_authz_allow_total", AUTHZ, "Inbound connections that policy allowed."),
    counter("inbound_tcp_authz_deny_total", AUTHZ, "Inbound connections that policy denied before the application was dialled."),
    counter("inbound_tcp_authz_terminate_total", AUTHZ, "Established inbound connections that a change of policy ended."),
    counter("inbound_tcp_errors_total", &["error"], "Inbound connections that ended by an error, in Linkerd's words."),
    counter("outbound_tcp_errors_total", &["error"], "Outbound connections that ended by an error, in Linkerd's words."),
    gauge("control_identity_cert_expiration_timestamp_seconds", &[], "When the own certificate expires, in seconds since 1970."),
    gauge("control_identity_cert_refresh_timestamp_seconds", &[], "When credentials were last published, in seconds since 1970."),
    counter("control_identity_cert_refreshes_total", &["result"], "Attempts to get or renew credentials: `ok` or `error`."),
    gauge("identity_cert_expiration_timestamp_seconds", &[], "As `control_identity_cert_expiration_timestamp_seconds`, under its older name."),

    counter("ringmail_connections_closed_total", &["direction", "reason"], "Ends of connections, opened or not, by [reason](reasons.md)."),
    gauge("ringmail_connections_open", &["direction"], "Connections held now, those in the handshake included."),
    histogram("ringmail_handshake_duration_seconds", &["direction"], "How long handshakes took that were complete."),
    gauge("ringmail_certificate_expiry_seconds", &[], "Seconds until the own certificate expires; negative when it has."),
    counter("ringmail_certificate_issue_errors_total", &["reason"], "Failed attempts to get or renew credentials."),
    gauge("ringmail_policy_version", &[], "Version of the set of policies in force; 0 before the first one."),
    counter("ringmail_policy_applied_total", &[], "Sets of policies that were applied."),
    counter("ringmail_policy_rejected_total", &[], "Sets of policies that were invalid: the last good one was kept."),
    counter("ringmail_accept_paused_total", &[], "How often accepting paused, at `max_connections` or out of descriptors."),
    counter("ringmail_passthrough_connections_total", &["direction", "reason"], "Connections opened without mutual TLS, and why."),
    counter("ringmail_access_log_dropped_total", &[], "Lines of the access log that were dropped because stdout was too slow."),
    counter("ringmail_data_plane_restarts_total", &[], "How often the data plane was started again after a crash."),
];

/// The row of `name`.
pub(super) fn row(name: &str) -> Option<&'static Metric> {
    TABLE.iter().find(|metric| metric.name == name)
}
