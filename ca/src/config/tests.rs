use super::*;
use std::collections::BTreeMap;
use std::ffi::OsString;

const REQUIRED: [&str; 4] = ["--state-dir", "/state", "--static-tokens", "/tokens"];

fn collected(flags: &[&str], environment: &[(&str, &str)]) -> Collected {
    let flags = ["ringmail-ca"].iter().chain(flags).map(OsString::from);
    let environment: BTreeMap<_, _> =
        environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    collect(flags, &environment).unwrap()
}

fn settings(flags: &[&str], environment: &[(&str, &str)]) -> Result<Settings, Faults> {
    Settings::from_collected(&collected(flags, environment))
}

#[test]
fn the_defaults_are_the_ones_of_the_table() {
    let settings = settings(&REQUIRED, &[]).unwrap();
    assert_eq!(settings.listen.to_string(), "0.0.0.0:15012");
    assert_eq!(settings.metrics_listen.to_string(), "0.0.0.0:15014");
    assert_eq!(settings.trust_domain.as_str(), "cluster.local");
    assert_eq!(settings.lifetimes.default, Duration::from_secs(24 * 3600));
    assert_eq!(settings.lifetimes.max, Duration::from_secs(90 * 24 * 3600));
    assert_eq!(settings.serving_names.len(), SERVING_NAMES.len());
    assert_eq!(settings.log_format, LogFormat::Text);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.yaml");
    std::fs::write(
        &file,
        "ttl: 1h\naudience: of-the-file\nmax_connections: 7\nserving_name: [a.example, 10.0.0.1]\n",
    )
    .unwrap();
    let flags = [&REQUIRED[..], &["--ttl", "3h", "--config", file.to_str().unwrap()]].concat();
    let environment = [("RINGMAIL_CA_TTL", "2h"), ("RINGMAIL_CA_AUDIENCE", "of-the-environment")];
    let settings = settings(&flags, &environment).unwrap();
    assert_eq!(settings.lifetimes.default, Duration::from_secs(3 * 3600));
    assert_eq!(settings.audience, "of-the-environment");
    assert_eq!(settings.max_connections, 7);
    assert!(settings.serving_names.contains(&ServingName::Ip("10.0.0.1".parse().unwrap())));
}

#[test]
fn all_faults_are_reported_together_with_name_value_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.yaml");
    std::fs::write(&file, "tll: 1h\naudience: [a, b]\n").unwrap();
    let flags =
        ["--listen", "nowhere", "--ttl", "24", "--serving-name", "a b", "--config", file.to_str().unwrap()];
    let Faults(faults) = settings(&flags, &[("RINGMAIL_CA_LOG_FORMAT", "xml")]).unwrap_err();
    for expected in [
        "listen=\"nowhere\" (flag --listen): expected an address and port",
        "ttl=\"24\" (flag --ttl): expected a duration",
        "log-format=\"xml\" (RINGMAIL_CA_LOG_FORMAT): expected text or json",
        "serving-name=\"a b\" (flag --serving-name): expected a DNS name or an IP address",
        "tll (",
        "audience (",
        "ca-dir, ca-secret, root-secret, state-dir: expected exactly one",
        "static-tokens, jwks, token-review: expected at least one",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected}: {faults:#?}");
    }
    assert_eq!(faults.len(), 8, "{faults:#?}");
}

#[test]
fn an_unknown_variable_with_our_prefix_is_a_warning() {
    let collected = collected(&REQUIRED, &[("RINGMAIL_CA_PORT", "tcp://10.0.0.1:15012")]);
    assert_eq!(collected.warnings(), ["RINGMAIL_CA_PORT: no such setting"]);
    assert!(Settings::from_collected(&collected).is_ok());
}

#[test]
fn the_key_comes_from_one_place_only() {
    let both = [&REQUIRED[..], &["--ca-dir", "/ca"]].concat();
    assert!(settings(&both, &[]).unwrap_err().to_string().contains("exactly one"));
}

#[test]
fn kubernetes_is_asked_for_nothing_unless_told_so() {
    assert!(!settings(&REQUIRED, &[]).unwrap().needs_cluster());
    for flags in [
        &["--root-secret", "ringmail-ca-root", "--static-tokens", "/tokens"][..],
        &["--ca-secret", "cacerts", "--static-tokens", "/tokens"],
        &["--state-dir", "/state", "--token-review"],
        &["--state-dir", "/state", "--static-tokens", "/tokens", "--distribute-bundle"],
    ] {
        assert!(settings(flags, &[]).unwrap().needs_cluster(), "{flags:?}");
    }
    let flags = ["--state-dir", "/state", "--token-review"];
    assert_eq!(settings(&flags, &[]).unwrap().token_review.unwrap(), ["ringmail-ca", "istio-ca"]);
    let one = [&flags[..], &["--token-review-audience", "mine"]].concat();
    assert_eq!(settings(&one, &[]).unwrap().token_review.unwrap(), ["mine"]);
    let both = [&flags[..], &["--jwks", "/jwks"]].concat();
    assert!(settings(&both, &[]).unwrap_err().to_string().starts_with("jwks, token-review:"));
}

#[test]
fn serve_names_are_read_from_flags_and_from_one_variable() {
    let identity = |account: &str| format!("spiffe://cluster.local/ns/{account}").parse().unwrap();
    let flags = [&REQUIRED[..], &["--serve-names", "a/b=c,d", "--serve-names", "e/f=g"]].concat();
    let by_flags = settings(&flags, &[]).unwrap().serve_names;
    let by_variable =
        settings(&REQUIRED, &[("RINGMAIL_CA_SERVE_NAMES", "a/b=c, d,e/f=g")]).unwrap().serve_names;
    assert_eq!(by_flags, by_variable);
    assert_eq!(by_flags.of(&identity("a/sa/b")), ["c", "d"]);
    let wrong = [&REQUIRED[..], &["--serve-names", "control=x"]].concat();
    assert!(
        settings(&wrong, &[]).unwrap_err().to_string().contains("expected <namespace>/<service account>=")
    );
}

#[test]
fn a_default_lifetime_above_the_maximum_is_a_fault() {
    let flags = [&REQUIRED[..], &["--ttl", "91d"]].concat();
    assert!(settings(&flags, &[]).unwrap_err().to_string().contains("ttl=\"91d\""));
}

#[test]
fn durations_need_a_unit_and_a_bound() {
    assert_eq!(parse_duration("200ms"), Some(Duration::from_millis(200)));
    assert_eq!(parse_duration("90d"), Some(Duration::from_secs(90 * 24 * 3600)));
    for text in ["", "1", "0s", "s", "-1s", "1w", "1.5h", "99999999999999999d", "18446744073709551615h"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}
