//! What Prometheus reads: Istio's names, Linkerd's names, and the own ones.
//!
//! Nothing is counted here. A scrape reads the workers' ledgers once and turns the totals into families,
//! so counting costs a worker nothing but its ledger, and all three vocabularies tell the same story.

mod families;
mod istio;
mod linkerd;
mod own;
mod table;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt, sync::Arc};

use prometheus::{Registry, TextEncoder, core::Desc, proto};

pub use table::{Kind, Metric, TABLE};

use crate::{admin::State, ledger::Page};
use families::Families;

/// The media type of a scrape.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Every metric of this proxy.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry whose one collector reads `state` at each scrape.
    ///
    /// # Errors
    /// Where the table has a name or label twice or in a form that Prometheus does not take.
    pub fn new(state: Arc<State>) -> Result<Self, prometheus::Error> {
        let descriptions = TABLE.iter().map(|metric| description(metric)).collect::<Result<_, _>>()?;
        let registry = Registry::new();
        registry.register(Box::new(Collector { state, descriptions }))?;
        Ok(Self { registry })
    }

    /// All of them in Prometheus' text format.
    ///
    /// # Errors
    /// What the encoder says of a family without a name or samples.
    pub fn scrape(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn description(metric: &Metric) -> Result<Desc, prometheus::Error> {
    let labels = metric.labels().iter().map(|label| label.trim_matches(['[', ']']).to_owned()).collect();
    Desc::new(metric.name.to_owned(), metric.doc.to_owned(), labels, HashMap::new())
}

struct Collector {
    state: Arc<State>,
    descriptions: Vec<Desc>,
}

impl prometheus::core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let page = self.state.read_ledgers();
        let mut families = Families::default();
        istio::collect(&mut families, &self.state, &page);
        linkerd::collect(&mut families, &self.state, &page);
        own::collect(&mut families, &self.state, &page);
        families.into_proto()
    }
}

/// All workers' pages as one.
pub(crate) fn merge(pages: impl IntoIterator<Item = Page>) -> Page {
    let mut all = Page::default();
    for page in pages {
        all.live.extend(page.live);
        for (series, totals) in page.totals {
            let sum = all.totals.entry(series).or_default();
            sum.opened += totals.opened;
            sum.from_downstream += totals.from_downstream;
            sum.to_downstream += totals.to_downstream;
            for (reason, count) in totals.closed {
                *sum.closed.entry(reason).or_default() += count;
            }
            for (reason, count) in totals.failed {
                *sum.failed.entry(reason).or_default() += count;
            }
        }
        for (direction, handshakes) in page.handshakes {
            let sum = all.handshakes.entry(direction).or_default();
            sum.sum += handshakes.sum;
            for (bucket, count) in sum.buckets.iter_mut().zip(handshakes.buckets) {
                *bucket += count;
            }
        }
    }
    all
}
