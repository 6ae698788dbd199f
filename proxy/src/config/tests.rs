use std::{collections::BTreeSet, path::Path};

use clap::{CommandFactory as _, Parser as _};
use serde_json::{Value, json};

use super::*;

fn system() -> System {
    System {
        hostname: "ignite-0".to_owned(),
        addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
        cpus: 2,
    }
}

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources =
        Sources { file: Path::new("proxy.yaml"), text, environment: &environment, system: &system() };
    Config::from_sources(&sources)
}

fn faults(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    load(text, environment).unwrap_err().faults().iter().map(ToString::to_string).collect()
}

fn show(config: &Config, name: &str) -> Value {
    SETTINGS.iter().find(|setting| setting.name == name).unwrap().show(config)
}

/// Name, how it is written in the file, how in the environment, how it is shown.
#[rustfmt::skip]
fn good() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    vec![
        ("trust_domain", "mesh.example", "mesh.example", json!("mesh.example")),
        ("namespace", "ignite", "ignite", json!("ignite")),
        ("service_account", "node", "node", json!("node")),
        ("pod_name", "ignite-1", "ignite-1", json!("ignite-1")),
        ("workload", "\"ring no. 2\"", "ring no. 2", json!("ring no. 2")),
        ("labels", "{app: ignite, version: 2}", "app=ignite,version=2", json!({"app": "ignite", "version": "2"})),
        ("cluster", "east", "east", json!("east")),
        ("node_name", "n1", "n1", json!("n1")),
        ("pod_addresses", "[10.1.2.3, 'fd00::1']", "10.1.2.3, fd00::1", json!(["10.1.2.3", "fd00::1"])),
        ("identity_source", "files", "files", json!("files")),
        ("ca_address", "https://10.0.0.1:15012", "https://10.0.0.1:15012", json!("https://10.0.0.1:15012")),
        ("ca_server_name", "istiod.istio-system.svc", "istiod.istio-system.svc", json!("istiod.istio-system.svc")),
        ("ca_root_file", "/a/root.pem", "/a/root.pem", json!("/a/root.pem")),
        ("token_file", "/a/token", "/a/token", json!("/a/token")),
        ("certificate_ttl", "60s", "60s", json!("1m")),
        ("cert_file", "/a/tls.crt", "/a/tls.crt", json!("/a/tls.crt")),
        ("key_file", "/a/tls.key", "/a/tls.key", json!("/a/tls.key")),
        ("bundle_file", "/a/ca.crt", "/a/ca.crt", json!("/a/ca.crt")),
        ("discovery", "control", "control", json!("control")),
        ("discovery_address", "https://10.0.0.2:15012", "https://10.0.0.2:15012", json!("https://10.0.0.2:15012")),
        ("discovery_server_name", "istiod.istio-system.svc", "istiod.istio-system.svc", json!("istiod.istio-system.svc")),
        ("policy_dir", "/a/policy", "/a/policy", json!("/a/policy")),
        ("root_namespace", "ringmail-system", "ringmail-system", json!("ringmail-system")),
        ("trust_domain_aliases", "[old.example]", "old.example", json!(["old.example"])),
        ("mesh_ranges", "[10.244.0.0/16, 'fd00::/8']", "10.244.0.0/16,fd00::/8", json!(["10.244.0.0/16", "fd00::/8"])),
        ("outbound_outside", "refuse", "refuse", json!("refuse")),
        ("unknown_wait", "0s", "0s", json!("0s")),
        ("outbound_port", "16001", "16001", json!(16001)),
        ("inbound_port", "16006", "16006", json!(16006)),
        ("admin_port", "16000", "16000", json!(16000)),
        ("stats_port", "16020", "16020", json!(16020)),
        ("health_port", "16021", "16021", json!(16021)),
        ("linkerd_admin_port", "14191", "14191", json!(14191)),
        ("app_probes", "'{\"/app-health/a/livez\":{\"tcpSocket\":{\"port\":1}}}'", "{\"/app-health/a/livez\":{\"tcpSocket\":{\"port\":1}}}", json!("{\"/app-health/a/livez\":{\"tcpSocket\":{\"port\":1}}}")),
        ("workers", "4", "4", json!(4)),
        ("max_connections", "1000", "1000", json!(1000)),
        ("max_connections_per_source", "10", "10", json!(10)),
        ("max_handshakes", "11", "11", json!(11)),
        ("max_handshakes_per_source", "12", "12", json!(12)),
        ("handshake_timeout", "1500ms", "1500ms", json!("1500ms")),
        ("connect_timeout", "20s", "20s", json!("20s")),
        ("permissive_wait", "50ms", "50ms", json!("50ms")),
        ("half_close_timeout", "2h", "2h", json!("2h")),
        ("blackhole_timeout", "8s", "8s", json!("8s")),
        ("keepalive_time", "60s", "60s", json!("1m")),
        ("keepalive_interval", "7s", "7s", json!("7s")),
        ("keepalive_probes", "9", "9", json!(9)),
        ("key_exchange_groups", "[P-256, X25519]", "P-256,X25519", json!(["P-256", "X25519"])),
        ("record_layer", "rustls", "rustls", json!("rustls")),
        ("truncation_reset_ports", "[47100, 47500]", "47100,47500", json!([47100, 47500])),
        ("ring_ports", "[47500, 48500]", "47500,48500", json!([47500, 48500])),
        ("drain_timeout", "90s", "90s", json!("90s")),
        ("fence_after", "0s", "0s", json!("0s")),
        ("state_dir", "/state", "/state", json!("/state")),
        ("log_level", "info,ringmail_proxy=debug", "info,ringmail_proxy=debug", json!("info,ringmail_proxy=debug")),
        ("log_format", "json", "json", json!("json")),
        ("access_log", "off", "off", json!("off")),
    ]
}

/// Kind in the table, and values that are not of it, as written in the environment.
#[rustfmt::skip]
const BAD: &[(&str, &[&str])] = &[
    ("trust domain", &["", "Cluster.Local", "a b", "spiffe://x", "x/y"]),
    ("list of trust domains", &["ok.example,Not.Ok"]),
    ("name", &["", "a/b", "..", "a b", "ä"]),
    ("text", &["a\nb", "\u{1b}[31m"]),
    ("mapping", &["=v", "k=a\tb"]),
    ("list of IP addresses", &["10.0.0.256", "10.0.0.7/24", "ignite-0"]),
    ("`files` or `control`", &["", "Files", "istiod"]),
    ("JSON", &["{", "[]", "{\"/x\":{\"tcpSocket\":{\"port\":1}}}"]),
    ("`ca` or `files`", &["", "CA", "spire"]),
    ("URL", &["", "ca:15012", "http://ca:15012", "https://ca", "https://ca:15012/", "https://ca:15012/x", "https://u@ca:15012"]),
    ("DNS name or IP address", &["", "a b", "-"]),
    ("path", &["", "relative/path", "~/x"]),
    ("duration", &["", "15", "15 s", "-1s", "1.5s", "1d", "s", "0s", "99999999999999999999s", "9000h"]),
    ("list of CIDRs", &["10.0.0.0/33", "10.0.0.0", "fd00::/129"]),
    ("`passthrough` or `refuse`", &["allow"]),
    ("duration, 0s for none", &["0", "5", "1y"]),
    ("duration, 0s for never", &["0", "4999ms", "1y"]),
    ("port", &["0", "65536", "-1", "+80", "http", ""]),
    ("number", &["0", "-1", "1.5", "many", "", " 2"]),
    ("number, 0 for derived", &["-1", "all"]),
    ("duration in whole seconds", &["500ms", "0s", "10h"]),
    ("list of groups", &["x25519", "X25519,X448", "P-256,X25519,P-256"]),
    ("`own` or `rustls`", &["kernel"]),
    ("list of ports", &["47100,0", "a"]),
    ("log filter", &["", "ringmail_proxy=loud", "=="]),
    ("`text` or `json`", &["xml"]),
    ("`text`, `json` or `off`", &["on", "false"]),
];

#[test]
fn an_empty_file_gives_the_defaults_of_the_table() {
    for text in ["", "{}", "---\n", "# nothing\n"] {
        let Loaded { config, warnings } = load(text, &[]).unwrap();
        assert!(warnings.is_empty());
        for setting in SETTINGS {
            if let Default::Text(default) = setting.default {
                let shown = setting.show(&config);
                let nothing = json!({}) == shown;
                let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let text = match shown.as_array() {
                    Some(items) => items.iter().map(word).collect::<Vec<_>>().join(","),
                    None => word(&shown),
                };
                assert!(text == default || nothing && default.is_empty(), "{}: {text}", setting.name);
            }
        }
        assert_eq!(show(&config, "pod_name"), "ignite-0");
        assert_eq!(show(&config, "workload"), "ignite-0");
        assert_eq!(show(&config, "pod_addresses"), json!(["10.0.0.7", "fd00::7"]));
        assert_eq!(show(&config, "ca_server_name"), "ringmail-ca.ringmail-system.svc");
        assert_eq!(show(&config, "workers"), 2);
    }
}

#[test]
fn defaults_follow_the_settings_they_are_derived_from() {
    let config = load("pod_name: p\nca_address: 'https://[fd00::1]:15012'\n", &[]).unwrap().config;
    assert_eq!(config.workload, "p");
    assert_eq!(config.ca_server_name.to_str(), "fd00::1");
    let config = load("", &[("RINGMAIL_POD_NAME", "q")]).unwrap().config;
    assert_eq!(config.workload, "q");
}

#[test]
fn every_setting_is_read_from_the_file_and_from_the_environment() {
    let good = good();
    let names: BTreeSet<&str> = good.iter().map(|row| row.0).collect();
    assert_eq!(names, SETTINGS.iter().map(|setting| setting.name).collect());
    for (name, file, environment, shown) in good {
        let variable = format!("{ENV_PREFIX}{}", name.to_uppercase());
        let default = show(&load("", &[]).unwrap().config, name);
        assert_ne!(default, shown, "{name}: the default shows nothing");
        let config = load(&format!("{name}: {file}\n"), &[]).unwrap().config;
        assert_eq!(show(&config, name), shown, "{name} from the file");
        let config = load("", &[(&variable, environment)]).unwrap().config;
        assert_eq!(show(&config, name), shown, "{name} from the environment");
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let config = load("log_level: warn\n", &[("RINGMAIL_LOG_LEVEL", "debug")]).unwrap().config;
    assert_eq!(config.log_level, "debug");
}

#[test]
fn every_bad_value_is_told_with_its_key_value_expectation_and_place() {
    let kinds: BTreeSet<&str> = BAD.iter().map(|row| row.0).collect();
    assert_eq!(kinds, SETTINGS.iter().map(|setting| setting.kind).collect());
    for setting in SETTINGS {
        let (_, values) = BAD.iter().find(|row| row.0 == setting.kind).unwrap();
        for value in *values {
            let variable = format!("{ENV_PREFIX}{}", setting.name.to_uppercase());
            let faults = faults("", &[(&variable, value)]);
            assert_eq!(faults.len(), 1, "{faults:?}");
            let start = format!("environment {variable}: {}: read \"", setting.name);
            assert!(faults[0].starts_with(&start), "{}", faults[0]);
            assert!(faults[0].contains("\", expected ") || faults[0].contains("\": "), "{}", faults[0]);
            assert!(!faults[0].contains('\n') && !faults[0].contains('\u{1b}'), "{:?}", faults[0]);
        }
    }
}

#[test]
fn a_fault_of_the_file_names_its_line() {
    assert_eq!(
        faults("log_level: info\n\nhandshake_timeout: 15\n", &[]),
        [
            "proxy.yaml:3: handshake_timeout: read \"15\", expected a duration above 0 and at most 365 days with its \
             unit, such as 200ms, 15s, 10m or 1h"
        ]
    );
    assert_eq!(
        faults("mesh_ranges:\n- 10.0.0.0/8\n- 10.0.0.0/33\n", &[]),
        [
            "proxy.yaml:1: mesh_ranges: read \"10.0.0.0/33\", expected a list of address ranges such as 10.244.0.0/16"
        ]
    );
}

#[test]
fn a_value_of_another_shape_is_told_as_such() {
    for (text, read) in [
        ("mesh_ranges: 10.0.0.0/8", "read \"10.0.0.0/8\", expected a list"),
        ("mesh_ranges: {a: b}", "read a mapping, expected a list"),
        ("log_level: [info, debug]", "read the list [info, debug], expected"),
        ("labels: [app]", "read the list [app], expected a mapping"),
        ("namespace:", "read nothing, expected a name"),
        (
            "mesh_ranges: [[10.0.0.0/8]]",
            "read the list [10.0.0.0/8] inside a list or mapping, expected a word",
        ),
        ("- namespace", "expected a mapping of settings"),
        ("namespace: a\nnamespace: b", "expected a mapping of settings"),
        ("namespace: 'a", "expected a mapping of settings"),
    ] {
        let faults = faults(text, &[]);
        assert!(faults.len() == 1 && faults[0].contains(read), "{text}: {faults:?}");
        assert!(faults[0].starts_with("proxy.yaml"), "{faults:?}");
    }
}

#[test]
fn a_word_is_taken_as_it_is_written_also_where_yaml_sees_a_boolean_or_a_number() {
    for word in ["off", "on", "yes", "No", "1.10", "007", "1e3", "0x10", "2026-01-01", "-0", "nan.", "1_000"]
    {
        let text = format!("# comment: ä\nlabels: {{version: {word}, b: [{word}]}}\n");
        assert!(faults(&text, &[])[0].contains(&format!("read the list [{word}] inside")), "{text}");
        for text in [
            format!("# ä\nlabels: {{version: {word} , b: c}}\n"),
            format!("labels:\n  b: c\n  version:  {word}   # and so on\n"),
            format!("labels: {{b: c, version: \"{word}\"}}\n"),
        ] {
            let config = load(&text, &[]).unwrap().config;
            assert_eq!(config.labels["version"], word, "{text}");
        }
    }
    assert_eq!(load("labels: {7.50: x}\n", &[]).unwrap().config.labels["7.50"], "x");
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest_one() {
    assert_eq!(
        faults("log_level: info\nhandshake_timout: 15s\n", &[]),
        ["proxy.yaml:2: handshake_timout: unknown setting; did you mean handshake_timeout?"]
    );
    assert_eq!(
        faults("colour: blue\n", &[]),
        ["proxy.yaml:1: colour: unknown setting; --help lists all of them"]
    );
}

#[test]
fn an_unknown_variable_is_a_warning_and_foreign_ones_are_nobodys_business() {
    let environment = [("RINGMAIL_LOG_LEVL", "debug"), ("PATH", "/bin"), ("RINGMAILX", "1")];
    let loaded = load("", &environment).unwrap();
    assert_eq!(loaded.config.log_level, "info");
    let warning =
        "environment RINGMAIL_LOG_LEVL: log_levl: unknown setting, ignored; did you mean log_level?";
    assert_eq!(loaded.warnings, [warning]);
}

#[test]
fn all_faults_are_told_at_once() {
    let text = "colour: blue\nworkers: none\nca_address: ca\nadmin_port: 99999\n";
    let faults = faults(text, &[("RINGMAIL_ACCESS_LOG", "yes")]);
    let starts = [
        "proxy.yaml:1: colour: ",
        "proxy.yaml:3: ca_address: ",
        "proxy.yaml:4: admin_port: ",
        "proxy.yaml:2: workers: ",
        "environment RINGMAIL_ACCESS_LOG: access_log: ",
    ];
    assert_eq!(faults.len(), starts.len(), "{faults:?}");
    assert!(faults.iter().zip(starts).all(|(fault, start)| fault.starts_with(start)), "{faults:?}");
}

#[test]
fn two_listeners_cannot_share_a_port() {
    assert_eq!(
        faults("admin_port: 15006\n", &[]),
        ["proxy.yaml:1: admin_port: read 15006, expected a port of its own: it is also inbound_port"]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let error = Config::load(Path::new("/nonexistent/proxy.yaml")).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/proxy.yaml: cannot be read: "), "{error}");
}

#[test]
fn only_hot_settings_change_without_a_restart() {
    let old = load("", &[]).unwrap().config;
    let newer = load("log_level: debug\naccess_log: off\n", &[]).unwrap().config;
    assert!(old.restart_needed(&newer).is_empty());
    let newer = load("log_level: debug\nworkers: 9\nnamespace: other\n", &[]).unwrap().config;
    assert_eq!(old.restart_needed(&newer), ["namespace", "workers"]);
}

#[test]
fn the_machine_has_a_name_a_cpu_and_no_loopback_among_its_addresses() {
    let system = System::read();
    assert!(!system.hostname.is_empty() && system.cpus >= 1);
    assert!(system.addresses.iter().all(|ip| !ip.is_loopback()), "{:?}", system.addresses);
}

#[test]
fn help_names_every_setting() {
    Cli::command().debug_assert();
    let help = Cli::command().render_long_help().to_string();
    for setting in SETTINGS {
        assert!(help.contains(&format!("\n  {}", setting.name)), "{}", setting.name);
    }
}

#[test]
fn the_command_line_may_leave_everything_to_the_environment() {
    assert!(Cli::try_parse_from(["ringmail-proxy"]).unwrap().config.is_none());
    assert_eq!(Cli::try_parse_from(["ringmail-proxy", "--wait", "60"]).unwrap().wait, Some(60));
    let cli = Cli::try_parse_from(["ringmail-proxy", "--config", "/a.yaml", "--no-parent"]).unwrap();
    assert!(cli.no_parent && cli.config.as_deref() == Some(Path::new("/a.yaml")));
    let cli = Cli::try_parse_from(["ringmail-proxy", "--print-docs", "reasons"]).unwrap();
    assert_eq!(cli.print_docs, Some(Page::Reasons));
}

/// With `RINGMAIL_WRITE_DOCS=1` writes the pages instead of comparing them.
#[test]
fn the_reference_pages_are_what_the_code_makes() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for page in [Page::Config, Page::Metrics, Page::Reasons] {
        let file = docs.join(page.file_name());
        if std::env::var_os("RINGMAIL_WRITE_DOCS").is_some() {
            fs::write(&file, page.text()).unwrap();
        }
        let written = fs::read_to_string(&file).unwrap();
        assert!(written == page.text(), "{} is not what the code makes: {}", file.display(), docs::GENERATED);
    }
}

/// Settings are read again whenever their file changes: nothing in it may hold the control thread.
#[test]
fn settings_that_multiply_nest_or_do_not_end_are_refused_quickly() {
    let mut aliases = "labels:\n  a0: &a0 [x, x]\n".to_owned();
    for level in 1..64 {
        aliases += &format!("  a{level}: &a{level} [*a{}, *a{}]\n", level - 1, level - 1);
    }
    let deep = format!("labels: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!("labels: {{{}}}\n", (0..1_000_000).map(|n| format!("k{n}: v, ")).collect::<String>());
    let began = std::time::Instant::now();
    for bomb in [&aliases, &deep, &wide] {
        let error = Config::from_text("proxy.yaml", bomb).expect_err("a bomb is no settings").to_string();
        assert!(error.len() < 10_000, "{} characters", error.len());
    }
    let took = began.elapsed();
    ringmail_evidence::shown!(
        "A21",
        "ms to refuse bombs of aliases, depth and width in the sidecar's settings",
        took.as_millis(),
        "< 20,000"
    );
    assert!(took.as_secs() < 20, "{took:?}");
}
