//! The table of metrics. A family is written only from a row that stands here, with the labels that
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
    labels: &'static [&'static [&'static str]],
    /// What it says.
    pub doc: &'static str,
}

impl Metric {
    /// Its labels in order; in brackets those that are only there where they have a meaning.
    pub fn labels(&self) -> Vec<&'static str> {
        self.labels.concat()
    }
}

#[rustfmt::skip]
const ISTIO: &[&str] = &[
    "reporter",
    "source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
    "source_principal", "source_app", "source_version", "source_cluster",
    "destination_workload", "destination_workload_namespace", "destination_principal", "destination_app",
    "destination_version", "destination_service", "destination_canonical_service",
    "destination_canonical_revision", "destination_service_name", "destination_service_namespace",
    "destination_cluster",
    "request_protocol", "response_flags", "connection_security_policy",
];
const LEG: &[&str] = &["direction", "peer"];
const TARGET: &[&str] = &["[target_addr]", "[target_ip]", "[target_port]"];
const TLS: &[&str] = &["tls", "[no_tls_reason]", "[client_id]", "[server_id]"];
const SERVER: &[&str] = &["[srv_group]", "[srv_kind]", "[srv_name]", "[srv_port]"];
#[rustfmt::skip]
const DESTINATION: &[&str] = &[
    "[dst_control_plane_ns]", "[dst_deployment]", "[dst_namespace]", "[dst_pod]", "[dst_serviceaccount]",
    "[dst_statefulset]",
];
const AUTHORIZATION: &[&str] = &["[authz_group]", "[authz_kind]", "[authz_name]"];
const CLIENT_TLS: &[&str] = &["tls", "[no_tls_reason]", "[client_id]"];

const TRANSPORT: &[&[&str]] = &[LEG, TARGET, TLS, SERVER, DESTINATION];
const TRANSPORT_CLOSE: &[&[&str]] = &[LEG, TARGET, TLS, SERVER, DESTINATION, &["errno"]];
const AUTHZ: &[&[&str]] = &[TARGET, SERVER, AUTHORIZATION, CLIENT_TLS];
const DIRECTION_AND_REASON: &[&[&str]] = &[&["direction", "reason"]];
const DIRECTION: &[&[&str]] = &[&["direction"]];

macro_rules! metrics {
    ($($row:ident = $kind:ident $name:literal $labels:expr, $doc:literal;)+) => {
        $(pub(super) static $row: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: $labels, doc: $doc };)+

        /// Every metric: Istio's, Linkerd's, and the own ones.
        pub static TABLE: &[&Metric] = &[$(&$row),+];
    };
}

metrics! {
    ISTIO_BUILD = Gauge "istio_build" &[&["component", "tag"]], "The proxy's version, in the label `tag`; always 1.";
    ISTIO_OPENED = Counter "istio_tcp_connections_opened_total" &[ISTIO], "Connections whose bytes could flow.";
    ISTIO_CLOSED = Counter "istio_tcp_connections_closed_total" &[ISTIO], "Ends of connections that were opened.";
    ISTIO_FAILED = Counter "istio_tcp_connections_failed_total" &[ISTIO], "Ends of connections that never were opened.";
    ISTIO_SENT = Counter "istio_tcp_sent_bytes_total" &[ISTIO], "Application bytes from the proxy to downstream, live connections included.";
    ISTIO_RECEIVED = Counter "istio_tcp_received_bytes_total" &[ISTIO], "Application bytes from downstream to the proxy, live connections included.";

    TCP_OPEN = Counter "tcp_open_total" TRANSPORT, "Connections whose bytes could flow, by leg: `src` is downstream, `dst` upstream.";
    TCP_OPEN_NOW = Gauge "tcp_open_connections" TRANSPORT, "Connections open now, by leg.";
    TCP_READ = Counter "tcp_read_bytes_total" TRANSPORT, "Application bytes read from the leg.";
    TCP_WRITE = Counter "tcp_write_bytes_total" TRANSPORT, "Application bytes written to the leg.";
    TCP_CLOSE = Counter "tcp_close_total" TRANSPORT_CLOSE, "Ends of opened connections, by leg; `errno` names the error of that leg.";
    AUTHZ_ALLOW = Counter "inbound_tcp_authz_allow_total" AUTHZ, "Inbound connections that policy allowed.";
    AUTHZ_DENY = Counter "inbound_tcp_authz_deny_total" AUTHZ, "Inbound connections that policy denied before the application was dialled.";
    AUTHZ_TERMINATE = Counter "inbound_tcp_authz_terminate_total" AUTHZ, "Established inbound connections that a change of policy ended.";
    INBOUND_ERRORS = Counter "inbound_tcp_errors_total" &[&["error"]], "Inbound connections that ended by an error, in Linkerd's words.";
    OUTBOUND_ERRORS = Counter "outbound_tcp_errors_total" &[&["error"]], "Outbound connections that ended by an error, in Linkerd's words.";
    CERT_EXPIRATION = Gauge "control_identity_cert_expiration_timestamp_seconds" &[], "When the own certificate expires, in seconds since 1970.";
    CERT_REFRESH = Gauge "control_identity_cert_refresh_timestamp_seconds" &[], "When credentials were last published, in seconds since 1970.";
    CERT_REFRESHES = Counter "control_identity_cert_refreshes_total" &[&["result"]], "Attempts to get or renew credentials: `ok` or `error`.";
    CERT_EXPIRATION_OLD = Gauge "identity_cert_expiration_timestamp_seconds" &[], "As `control_identity_cert_expiration_timestamp_seconds`, under its older name.";

    CLOSED = Counter "ringmail_connections_closed_total" DIRECTION_AND_REASON, "Ends of connections, opened or not, by [reason](reasons.md).";
    FAULTS = Counter "ringmail_faults_total" &[&["direction", "class"]], "Connections that were refused or failed, by the class of their [reason](reasons.md).";
    OPEN = Gauge "ringmail_connections_open" DIRECTION, "Connections held now, those in the handshake included.";
    READY = Gauge "ringmail_ready" &[], "1 while connections can be served, else 0: what `/healthz/ready` says.";
    FENCED = Gauge "ringmail_fenced" &[], "1 while nobody may reach the application because it was cut off for too long (docs/fence.md), else 0.";
    HANDSHAKE = Histogram "ringmail_handshake_duration_seconds" DIRECTION, "How long the handshakes of opened connections took.";
    CERTIFICATE_EXPIRY = Gauge "ringmail_certificate_expiry_seconds" &[], "Seconds until the own certificate expires; negative when it has.";
    CLOCK_SKEW = Gauge "ringmail_clock_skew_seconds" &[], "Seconds by which the own clock was ahead of the CA's when the last certificate came; negative where it was behind.";
    ISSUE_ERRORS = Counter "ringmail_certificate_issue_errors_total" &[&["reason"]], "Failed attempts to get or renew credentials.";
    POLICY_VERSION = Gauge "ringmail_policy_version" &[], "Version of the set of policies in force; 0 before the first one.";
    POLICY_APPLIED = Counter "ringmail_policy_applied_total" &[], "Sets of policies that were applied.";
    POLICY_REJECTED = Counter "ringmail_policy_rejected_total" &[], "Sets of policies that were invalid: the last good one was kept.";
    RESOURCES_REFUSED = Counter "ringmail_discovery_refused_total" &[&["reason"]], "Resources that discovery sent and that were refused: what was known before stays.";
    POLICY_STALE = Gauge "ringmail_policy_stale" &[], "1 while what discovery says now cannot be taken and the last good set is kept, else 0.";
    DISCOVERY_UP = Gauge "ringmail_discovery_up" &[], "1 while there is a session with `ringmail-control`, 0 while there is none. Without a server of discovery left out.";
    ACCEPT_PAUSED = Counter "ringmail_accept_paused_total" &[], "How often accepting paused, at `max_connections` or out of descriptors.";
    PASSTHROUGH = Counter "ringmail_passthrough_connections_total" DIRECTION_AND_REASON, "Connections opened without mutual TLS, and why.";
    ACCESS_LOG_DROPPED = Counter "ringmail_access_log_dropped_total" &[], "Lines of the access log that were dropped because stdout was too slow.";
    ACCESS_LOG_LEFT_OUT = Counter "ringmail_access_log_left_out_total" &[], "Connections that failed without a line of their own: the access log sums them up beyond ten lines a second.";
    LOG_LEFT_OUT = Counter "ringmail_log_left_out_total" &[], "Lines of the proxy's own log that were summed up beyond ten a second.";
    LOG_DROPPED = Counter "ringmail_log_dropped_total" &[], "Lines of the proxy's own log that were dropped because stderr was too slow.";
    RESTARTS = Counter "ringmail_data_plane_restarts_total" &[], "How often the data plane was started again after a crash.";
}
