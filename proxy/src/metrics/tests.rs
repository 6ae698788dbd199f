use std::collections::BTreeSet;

use ringmail_policy::OutsideReason;

use super::*;
use crate::{
    admin::test_state::{ID, PEER, TestState},
    reason::Reason,
    record::{Direction, Protection},
};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: ignite}
spec: {mtls: {mode: STRICT}}
";

fn scrape(test: &TestState) -> String {
    Metrics::new(Arc::clone(&test.state)).unwrap().scrape().unwrap()
}

/// One connection of every kind, some open and some closed, over both workers.
fn filled() -> TestState {
    let test = TestState::ready("");
    for worker in [0, 1] {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let record = test.mesh(worker, direction);
            record.live().bytes.add_from_downstream(100);
            record.live().bytes.add_to_downstream(7);
            record.close(Reason::Complete, None);
            test.open(worker, direction, "10.244.0.7:47100").close(Reason::HandshakeTimeout, None);
        }
    }
    let denied = test.open(0, Direction::Inbound, "10.244.0.7:10800");
    denied.decided_by(&"AuthorizationPolicy ignite/deny-thin rule 0");
    denied.close(Reason::PolicyDenied, None);
    test.mesh(0, Direction::Inbound).close(Reason::AuthorizationChanged, None);
    let outside = test.open(1, Direction::Outbound, "192.0.2.1:443");
    outside.protection(Protection::Outside(OutsideReason::NotInMesh));
    outside.established();
    outside.close(Reason::RemoteReset, None);
    let now = std::time::SystemTime::now();
    test.state.identity_status.succeeded(now, None);
    test.state.identity_status.skewed(0.0);
    test.state.discovery_status.link_up();
    test
}

#[test]
fn a_scrape_has_every_metric_of_the_table_and_nothing_else() {
    let text = scrape(&filled());
    let types: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let table: BTreeSet<String> =
        TABLE.iter().map(|metric| format!("{} {}", metric.name, metric.kind.as_str())).collect();
    assert_eq!(types, table.iter().map(String::as_str).collect());
}

#[test]
fn every_sample_has_the_labels_of_its_row_in_their_order() {
    let text = scrape(&filled());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let row = TABLE.iter().find(|row| row.name == name || row.name == base).unwrap();
        let mut expected = row.labels().into_iter();
        let names = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
        for (label, _) in names.filter(|(label, _)| *label != "le") {
            let skipped: Vec<&str> =
                expected.by_ref().take_while(|row| row.trim_matches(['[', ']']) != label).collect();
            assert!(skipped.iter().all(|row| row.starts_with('[')), "{label} in {line}: {skipped:?} missing");
        }
        assert!(expected.all(|row| row.starts_with('[')), "labels missing at the end of {line}");
    }
}

#[test]
fn no_two_samples_have_the_same_labels() {
    let text = scrape(&filled());
    let series: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    assert_eq!(series.len(), series.iter().collect::<BTreeSet<_>>().len());
}

/// Reference lines: labels, values and order as Istio's and Linkerd's own proxies write them.
#[test]
fn lines_are_what_istio_writes() {
    let test = TestState::ready("");
    let open: Vec<_> = [0, 0, 1].map(|worker| test.mesh(worker, Direction::Inbound)).into();
    let text = scrape(&test);
    let line = r#"istio_tcp_connections_opened_total{reporter="destination",source_workload="ignite",source_canonical_service="ignite",source_canonical_revision="latest",source_workload_namespace="ignite",source_principal="spiffe://cluster.local/ns/ignite/sa/default",source_app="ignite",source_version="unknown",source_cluster="Kubernetes",destination_workload="ignite",destination_workload_namespace="ignite",destination_principal="spiffe://cluster.local/ns/ignite/sa/default",destination_app="ignite",destination_version="unknown",destination_service="ignite-headless.ignite.svc.cluster.local",destination_canonical_service="ignite",destination_canonical_revision="latest",destination_service_name="ignite-headless",destination_service_namespace="ignite",destination_cluster="Kubernetes",request_protocol="tcp",response_flags="-",connection_security_policy="mutual_tls"} 3"#;
    assert!(text.lines().any(|have| have == line), "{text}");
    let build = format!("istio_build{{component=\"proxy\",tag=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert!(text.lines().any(|have| have == build), "{text}");
    drop(open);
}

#[test]
fn lines_are_what_linkerd_writes() {
    let test = TestState::ready("");
    let both = [Direction::Inbound, Direction::Outbound];
    let open: Vec<_> =
        both.into_iter().flat_map(|way| [0, 0, 1].map(|worker| test.mesh(worker, way))).collect();
    let text = scrape(&test);
    for line in [
        r#"tcp_open_total{direction="inbound",peer="src",target_addr="10.244.0.7:47500",target_ip="10.244.0.7",target_port="47500",tls="true",client_id="default.ignite.serviceaccount.identity.linkerd.cluster.local",srv_group="",srv_kind="default",srv_name="all-unauthenticated",srv_port="47500"} 3"#,
        r#"tcp_open_total{direction="inbound",peer="dst",tls="no_identity",no_tls_reason="loopback"} 3"#,
        r#"tcp_open_total{direction="outbound",peer="src",target_addr="10.244.0.8:47500",target_ip="10.244.0.8",target_port="47500",tls="no_identity",no_tls_reason="loopback"} 3"#,
        r#"tcp_open_total{direction="outbound",peer="dst",target_addr="10.244.0.8:47500",target_ip="10.244.0.8",target_port="47500",tls="true",server_id="default.ignite.serviceaccount.identity.linkerd.cluster.local",dst_control_plane_ns="linkerd",dst_namespace="ignite",dst_pod="ignite-1",dst_serviceaccount="default",dst_statefulset="ignite"} 3"#,
        r#"tcp_open_connections{direction="inbound",peer="dst",tls="no_identity",no_tls_reason="loopback"} 3"#,
    ] {
        assert!(text.lines().any(|have| have == line), "{line}\nin\n{text}");
    }
    drop(open);
}

fn value(text: &str, start: &str, parts: &[&str]) -> Option<f64> {
    let is_it = |line: &&str| line.starts_with(start) && parts.iter().all(|part| line.contains(part));
    let mut lines = text.lines().filter(is_it);
    let line = lines.next()?;
    assert_eq!(lines.next(), None, "{start} {parts:?} is not one line");
    line.rsplit_once(' ').unwrap().1.parse().ok()
}

#[test]
fn bytes_are_told_from_where_the_proxy_stands_and_live_ones_count() {
    let test = TestState::ready("");
    let closed = test.mesh(0, Direction::Inbound);
    closed.live().bytes.add_from_downstream(1000);
    closed.live().bytes.add_to_downstream(10);
    closed.close(Reason::ApplicationReset, None);
    let live = test.mesh(1, Direction::Inbound);
    live.live().bytes.add_from_downstream(500);
    live.live().bytes.add_to_downstream(5);
    let text = scrape(&test);
    let destination = &["reporter=\"destination\""];
    assert_eq!(value(&text, "istio_tcp_received_bytes_total{", destination), Some(1500.0));
    assert_eq!(value(&text, "istio_tcp_sent_bytes_total{", destination), Some(15.0));
    assert_eq!(value(&text, "istio_tcp_connections_closed_total{", &["response_flags=\"UC\""]), Some(1.0));
    let source = &["direction=\"inbound\",peer=\"src\""];
    let upstream = &["direction=\"inbound\",peer=\"dst\""];
    assert_eq!(value(&text, "tcp_read_bytes_total{", source), Some(1500.0));
    assert_eq!(value(&text, "tcp_write_bytes_total{", source), Some(15.0));
    assert_eq!(value(&text, "tcp_read_bytes_total{", upstream), Some(15.0));
    assert_eq!(value(&text, "tcp_write_bytes_total{", upstream), Some(1500.0));
    assert_eq!(value(&text, "tcp_open_connections{", source), Some(1.0));
    assert_eq!(value(&text, "tcp_close_total{", &[upstream[0], "errno=\"ECONNRESET\""]), Some(1.0));
    assert_eq!(value(&text, "tcp_close_total{", &[source[0], "errno=\"\""]), Some(1.0));
}

#[test]
fn what_is_outside_the_mesh_is_named_as_envoy_does() {
    let text = scrape(&filled());
    let passthrough = &["destination_service_name=\"PassthroughCluster\"", "response_flags=\"-\""];
    let line = value(&text, "istio_tcp_connections_opened_total{", passthrough);
    assert_eq!(line, Some(1.0));
    let not_in_mesh = &["direction=\"outbound\"", "reason=\"not_in_mesh\""];
    assert_eq!(value(&text, "ringmail_passthrough_connections_total{", not_in_mesh), Some(1.0));
    let black_hole = &["destination_service_name=\"BlackHoleCluster\"", "response_flags=\"TLS_FAILURE\""];
    assert_eq!(value(&text, "istio_tcp_connections_failed_total{", black_hole), Some(2.0));
    let unlisted = &["target_addr=\"192.0.2.1:443\"", "no_tls_reason=\"not_provided_by_service_discovery\""];
    assert_eq!(value(&text, "tcp_open_total{", unlisted), Some(1.0));
}

#[test]
fn a_peer_that_discovery_does_not_know_is_named_by_its_certificate_alone() {
    let test = TestState::ready("");
    let record = test.open(0, Direction::Inbound, "10.244.0.7:47500");
    record.protection(Protection::MutualTls);
    record.live().peer_identity.set(ID.parse().unwrap()).unwrap();
    record.established();
    let parts = [
        "source_workload=\"unknown\"",
        "source_canonical_revision=\"latest\"",
        "source_workload_namespace=\"ignite\"",
        "source_principal=\"spiffe://cluster.local/ns/ignite/sa/default\"",
        "connection_security_policy=\"mutual_tls\"",
    ];
    assert_eq!(value(&scrape(&test), "istio_tcp_connections_opened_total{", &parts), Some(1.0));
}

#[test]
fn plaintext_is_never_called_mutual_tls() {
    for (direction, protection, policy) in [
        (Direction::Inbound, Protection::Permissive, "none"),
        (Direction::Inbound, Protection::ModeDisable, "none"),
        (Direction::Outbound, Protection::Outside(OutsideReason::NoSidecar), "unknown"),
        (Direction::Outbound, Protection::Outside(OutsideReason::NotCaptured), "unknown"),
    ] {
        let test = TestState::ready("");
        let record = test.open(0, direction, PEER);
        record.protection(protection);
        record.established();
        let text = scrape(&test);
        let policy = format!("connection_security_policy=\"{policy}\"");
        let parts = ["source_principal=\"unknown\"", "destination_principal=\"unknown\"", policy.as_str()];
        assert_eq!(value(&text, "istio_tcp_connections_opened_total{", &parts), Some(1.0), "{text}");
        assert!(!text.contains("tls=\"true\"") && !text.contains("mutual_tls"), "{text}");
    }
}

#[test]
fn a_port_that_the_peers_sidecar_leaves_alone_is_counted_under_its_reason() {
    let test = TestState::ready("");
    let record = test.open(0, Direction::Outbound, "10.244.0.8:15020");
    record.protection(Protection::Outside(OutsideReason::NotCaptured));
    record.established();
    let text = scrape(&test);
    let passed = &["direction=\"outbound\"", "reason=\"not_captured\""];
    assert_eq!(value(&text, "ringmail_passthrough_connections_total{", passed), Some(1.0), "{text}");
    let skipped = &["target_addr=\"10.244.0.8:15020\"", "no_tls_reason=\"port_skipped\""];
    assert_eq!(value(&text, "tcp_open_total{", skipped), Some(1.0), "{text}");
}

#[test]
fn decisions_name_the_resources_that_made_them() {
    let test = TestState::ready(STRICT);
    let denied = test.open(0, Direction::Inbound, "10.244.0.7:10800");
    denied.protection(Protection::MutualTls);
    denied.live().peer_identity.set(ID.parse().unwrap()).unwrap();
    denied.decided_by(&"AuthorizationPolicy ignite/deny-thin rule 0");
    denied.close(Reason::PolicyDenied, None);
    let text = scrape(&test);
    let line = r#"inbound_tcp_authz_deny_total{target_addr="10.244.0.7:10800",target_ip="10.244.0.7",target_port="10800",srv_group="security.istio.io",srv_kind="peerauthentication",srv_name="strict",srv_port="10800",authz_group="security.istio.io",authz_kind="authorizationpolicy",authz_name="deny-thin",tls="true",client_id="default.ignite.serviceaccount.identity.linkerd.cluster.local"} 1"#;
    assert!(text.lines().any(|have| have == line), "{text}");
    assert_eq!(value(&text, "inbound_tcp_errors_total{error=\"unauthorized\"}", &[]), Some(1.0));
    let closed = &["direction=\"inbound\"", "reason=\"policy_denied\""];
    assert_eq!(value(&text, "ringmail_connections_closed_total{", closed), Some(1.0));
}

#[test]
fn denials_are_counted_by_their_policy_also_in_the_middle_of_a_scan() {
    let test = TestState::ready(STRICT);
    for port in 1..=3000 {
        let denied = test.open(0, Direction::Inbound, &format!("10.244.0.7:{port}"));
        denied.decided_by(&"AuthorizationPolicy ignite/deny-thin rule 0");
        denied.close(Reason::PolicyDenied, None);
    }
    let text = scrape(&test);
    let lines = text.lines().filter(|line| line.starts_with("inbound_tcp_authz_deny_total{"));
    let by_it = lines.filter(|line| line.contains("authz_name=\"deny-thin\""));
    let counts: Vec<u64> = by_it.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 3000);
    assert!(counts.len() < 1000, "{}", counts.len());
}

#[test]
fn handshakes_fall_into_cumulative_buckets() {
    let test = TestState::ready("");
    let _records = [0, 1, 1].map(|worker| test.mesh(worker, Direction::Inbound));
    let text = scrape(&test);
    let bucket = |bound: &str| {
        let start =
            format!("ringmail_handshake_duration_seconds_bucket{{direction=\"inbound\",le=\"{bound}\"}}");
        value(&text, &start, &[])
    };
    assert_eq!(
        [bucket("0.0005"), bucket("0.001"), bucket("15"), bucket("+Inf")],
        [0.0, 3.0, 3.0, 3.0].map(Some)
    );
    assert_eq!(value(&text, "ringmail_handshake_duration_seconds_count{", &[]), Some(3.0));
    let sum = value(&text, "ringmail_handshake_duration_seconds_sum{", &[]).unwrap();
    assert!((sum - 0.0024).abs() < 1e-9, "{sum}");
}

#[test]
fn before_anything_is_known_a_scrape_still_answers() {
    let text = scrape(&TestState::empty());
    assert_eq!(value(&text, "ringmail_policy_version ", &[]), Some(0.0));
    assert_eq!(value(&text, "ringmail_data_plane_restarts_total ", &[]), Some(2.0));
    assert_eq!(value(&text, "ringmail_connections_open{direction=\"inbound\"}", &[]), Some(0.0));
    assert_eq!(value(&text, "ringmail_certificate_issue_errors_total{reason=\"denied\"}", &[]), Some(0.0));
    assert!(!text.contains("ringmail_certificate_expiry_seconds"));
}

#[test]
fn expiry_is_told_as_seconds_left_and_as_a_date_under_both_names() {
    let test = TestState::ready("");
    let text = scrape(&test);
    let expires = test.state.credentials.borrow().as_ref().unwrap().svid.not_after().as_secs() as f64;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    for name in
        ["control_identity_cert_expiration_timestamp_seconds ", "identity_cert_expiration_timestamp_seconds "]
    {
        assert_eq!(value(&text, name, &[]), Some(expires));
    }
    let left = value(&text, "ringmail_certificate_expiry_seconds ", &[]).unwrap();
    assert!((left - (expires - now)).abs() < 5.0, "{left}");
}
