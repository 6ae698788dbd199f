use std::{
    fs,
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::*;
use crate::config::AccessLogFormat;

#[derive(Clone, Default)]
struct Applied(Arc<Mutex<Vec<(String, AccessLogFormat)>>>);

impl Applied {
    fn last(&self) -> Option<(String, AccessLogFormat)> {
        self.0.lock().unwrap().last().cloned()
    }

    async fn becomes(&self, level: &str, format: AccessLogFormat) -> Duration {
        let start = Instant::now();
        while self.last() != Some((level.to_owned(), format)) {
            assert!(start.elapsed() < Duration::from_secs(5), "still {:?}", self.last());
            sleep(Duration::from_millis(10)).await;
        }
        start.elapsed()
    }
}

fn watch(file: &std::path::Path, text: &str) -> (ConfigWatch, Applied) {
    fs::write(file, text).unwrap();
    let running = Arc::new(Config::from_text("proxy.yaml", text).unwrap());
    let applied = Applied::default();
    let apply = applied.clone();
    let hot: ApplyHot = Box::new(move |config| {
        apply.0.lock().unwrap().push((config.log_level.clone(), config.access_log));
    });
    (ConfigWatch::new(file.to_owned(), running, hot), applied)
}

#[tokio::test]
async fn hot_settings_apply_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yaml");
    let (watch, applied) = watch(&file, "log_level: info\n");
    tokio::spawn(watch.run());
    applied.becomes("info", AccessLogFormat::Text).await;
    fs::write(&file, "log_level: debug\naccess_log: json\n").unwrap();
    let took = applied.becomes("debug", AccessLogFormat::Json).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_setting_that_is_not_hot_is_named_and_does_not_stop_the_hot_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (mut watch, applied) = watch(&dir.path().join("proxy.yaml"), "workers: 1\n");
    watch.read("workers: 2\nlog_level: debug\n");
    assert_eq!(watch.reported, ["workers"]);
    assert_eq!(applied.last().unwrap().0, "debug");
    watch.read("workers: 1\n");
    assert!(watch.reported.is_empty());
}

#[test]
fn a_broken_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut watch, applied) = watch(&dir.path().join("proxy.yaml"), "log_level: info\n");
    watch.read("log_level: debug\nlog_levle: info\n");
    watch.read("log_level: [");
    assert_eq!(applied.last(), None);
}
