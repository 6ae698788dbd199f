use std::{path::Path, time::Duration};

use super::*;

fn system() -> System {
    System { hostname: "ignite-0".to_owned(), addresses: vec!["10.0.0.7".parse().unwrap()], cpus: 2 }
}

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources =
        Sources { file: Path::new("proxy.yaml"), text, environment: &environment, system: &system() };
    Config::from_sources(&sources)
}

#[test]
fn an_empty_file_gives_the_defaults_of_the_table() {
    for text in ["", "{}", "---\n", "# nothing\n"] {
        let config = load(text, &[]).unwrap().config;
        assert_eq!(config.trust_domain.as_str(), "cluster.local");
        assert_eq!(config.workload, "ignite-0");
        assert_eq!(config.ca_server_name.to_str(), "ringmail-ca.ringmail-system.svc");
        assert_eq!(config.workers, 2);
        assert_eq!(config.permissive_wait, Duration::from_millis(200));
        assert_eq!(config.access_log, AccessLogFormat::Text);
    }
}
