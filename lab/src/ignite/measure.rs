//! What a thin client measures: the rate and the latencies of one kind of operation, and what a death in the ring costs it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::event::{field, number};
use super::load::ThinLoad;

/// What one measurement does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads a key.
    Get,
    /// Reads or writes, each as likely.
    Mixed,
    /// Writes a key.
    Put,
}

impl Operation {
    /// All of them, in the order in which a reader expects them.
    pub const ALL: [Self; 3] = [Self::Put, Self::Get, Self::Mixed];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Mixed => "mixed",
            Self::Put => "put",
        }
    }
}

/// Keys of a cache, all with values of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first.
    pub from: u64,
    /// How many follow each other.
    pub count: u64,
    /// Bytes of a value.
    pub value_bytes: u32,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// What each thread does.
    pub operation: Operation,
    /// Threads, which share the client and its connections.
    pub threads: u32,
    /// On which keys, which are there already.
    pub keys: Keys,
    /// How long it goes on before it counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub counted: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Operations of the whole time, the warm-up among it.
    pub all: u64,
    /// Operations per second of the time that counts.
    pub per_second: f64,
    /// Half of the operations were no slower.
    pub p50: Duration,
    /// 99 of 100 were no slower.
    pub p99: Duration,
    /// 999 of 1,000 were no slower.
    pub p999: Duration,
}

impl Measured {
    /// Reads the answer of `measure`; an operation that failed is an error, for it is none of a ring that nothing happens to.
    fn parse(answer: &str) -> Result<Self> {
        let nanos = |key| number(answer, key).map(Duration::from_nanos);
        let (counted, errors) = (number(answer, "counted")?, number(answer, "errors")?);
        ensure!(errors == 0, "{errors} operations failed, the first with {}", field(answer, "first_error")?);
        ensure!(counted > 0, "no operation was done in the time that counts: {answer}");
        let seconds = Duration::from_millis(number(answer, "counted_ms")?).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 operations are done in a run")]
        let per_second = counted as f64 / seconds;
        Ok(Self {
            all: number(answer, "all")?,
            per_second,
            p50: nanos("p50_ns")?,
            p99: nanos("p99_ns")?,
            p999: nanos("p999_ns")?,
        })
    }
}

/// How a client has got over something that happened at a known moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Keys that no operation begun since has reached yet.
    pub unserved: u64,
    /// Until the last of the others was served.
    pub all_served: Duration,
    /// The longest that a thread waited for an operation to be served.
    pub longest_gap: Duration,
    /// Operations that failed before the application, all the time of the load.
    pub errors: u64,
}

impl Recovery {
    fn parse(answer: &str) -> Result<Self> {
        let millis = |key| number(answer, key).map(Duration::from_millis);
        Ok(Self {
            unserved: number(answer, "unserved")?,
            all_served: millis("all_served_ms")?,
            longest_gap: millis("longest_gap_ms")?,
            errors: number(answer, "errors")?,
        })
    }
}

impl ThinLoad {
    /// Puts these keys, `batch` in one request.
    pub fn fill_keys(&self, cache: &str, keys: Keys, batch: u64) -> Result<()> {
        let Keys { from, count, value_bytes } = keys;
        self.ask(&format!("fill cache={cache} from={from} count={count} bytes={value_bytes} batch={batch}"))
            .map(drop)
    }

    /// Measures one kind of operation on keys that are there.
    pub fn measure(&self, cache: &str, measurement: &Measurement) -> Result<Measured> {
        let Measurement { operation, threads, keys, warm_up, counted } = measurement;
        let Keys { from, count, value_bytes } = keys;
        let operation = operation.as_str().to_uppercase();
        let request = format!(
            "measure cache={cache} op={operation} threads={threads} from={from} keys={count} bytes={value_bytes} \
             warm_ms={} counted_ms={}",
            warm_up.as_millis(),
            counted.as_millis()
        );
        let answer = self.ask_for(&request, *warm_up + *counted)?;
        Measured::parse(&answer)
    }

    /// Begins to put and read back keys from `keys.from` on, in turn and without a pause, `keys.count` of them in each thread.
    pub fn begin_recovery(&self, cache: &str, threads: u32, keys: Keys) -> Result<()> {
        let Keys { from, count, value_bytes } = keys;
        self.ask(&format!(
            "recovering cache={cache} threads={threads} from={from} keys={count} bytes={value_bytes}"
        ))
        .map(drop)
    }

    /// What that load has seen since a moment, in milliseconds of [`super::now_ms`].
    pub fn recovery_since(&self, at_ms: u64) -> Result<Recovery> {
        Recovery::parse(&self.ask(&format!("recovery since={at_ms}"))?)
    }

    /// Ends that load after the operations under way.
    pub fn end_recovery(&self) -> Result<()> {
        self.ask("recovered").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str =
        "all=900 counted=600 counted_ms=300 p50_ns=1500 p99_ns=2500 p999_ns=3500 errors=0 first_error=none";

    #[test]
    fn a_measurement_is_read_with_its_rate() {
        let measured = Measured::parse(ANSWER).unwrap();
        assert_eq!((measured.all, measured.per_second), (900, 2000.0));
        assert_eq!(measured.p999, Duration::from_nanos(3500));
    }

    #[test]
    fn a_measurement_with_errors_or_without_operations_is_none() {
        for (from, to, expected) in [
            (
                "errors=0 first_error=none",
                "errors=2 first_error=a:_b",
                "2 operations failed, the first with a:_b",
            ),
            ("counted=600", "counted=0", "no operation was done"),
            ("p50_ns=1500 ", "", "no field p50_ns"),
        ] {
            let error = Measured::parse(&ANSWER.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_recovery_is_read() {
        let recovery =
            Recovery::parse("unserved=3 all_served_ms=700 longest_gap_ms=650 errors=1 first_error=x")
                .unwrap();
        assert_eq!((recovery.unserved, recovery.errors), (3, 1));
        assert_eq!(recovery.all_served, Duration::from_millis(700));
    }
}
