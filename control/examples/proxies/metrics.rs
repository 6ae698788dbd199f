//! What control itself says: how long changes were with it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const PORT: u16 = 15014;
const DEADLINE: Duration = Duration::from_secs(10);
const BUCKET: &str = "ringmail_discovery_queue_seconds_bucket{le=\"";

/// A histogram: counts of what took no longer than so many seconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Queue(Vec<(f64, u64)>);

impl Queue {
    /// From the watch's word to the last answer on its way to a proxy, for each proxy, since control's start.
    pub(crate) async fn read(control: SocketAddr) -> anyhow::Result<Self> {
        let asked = timeout(DEADLINE, page(SocketAddr::new(control.ip(), PORT))).await;
        let text = asked.with_context(|| format!("no metrics of control within {DEADLINE:?}"))??;
        let queue = Self::parse(&text);
        ensure!(!queue.0.is_empty(), "control's metrics hold no {BUCKET}");
        Ok(queue)
    }

    fn parse(text: &str) -> Self {
        let buckets = text.lines().filter_map(|line| {
            let (bound, count) = line.strip_prefix(BUCKET)?.split_once("\"} ")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.parse().ok()?))
        });
        Self(buckets.collect())
    }

    /// What was added since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let pairs = self.0.iter().zip(&before.0);
        Self(pairs.map(|((bound, now), (_, then))| (*bound, now - then)).collect())
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// So many per cent took no longer than this, in seconds: the bound of a bucket.
    pub(crate) fn percentile(&self, percent: u64) -> f64 {
        let wanted = (self.count() * percent).div_ceil(100);
        self.0.iter().find(|(_, count)| *count >= wanted).map_or(f64::INFINITY, |(bound, _)| *bound)
    }
}

async fn page(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_bound_of_the_bucket_that_holds_it() {
        let text = |counts: [u64; 3]| {
            let bounds = ["0.05", "0.1", "+Inf"];
            let lines =
                bounds.iter().zip(counts).map(|(bound, count)| format!("{BUCKET}{bound}\"}} {count}\n"));
            format!("# TYPE ringmail_discovery_queue_seconds histogram\n{}", lines.collect::<String>())
        };
        let queue = Queue::parse(&text([150, 209, 210])).since(&Queue::parse(&text([100, 110, 110])));
        assert_eq!(queue.count(), 100);
        assert_eq!((queue.percentile(50), queue.percentile(99)), (0.05, 0.1));
        assert!(queue.percentile(100).is_infinite());
    }
}
