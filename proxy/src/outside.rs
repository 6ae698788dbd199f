//! The network and the time that renewal goes by, in one place: the simulation (`simulation/`) puts a network and a time of its own
//! there, under the same files.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::SystemTime,
};

pub(crate) use tokio::net::{TcpStream, lookup_host};

/// The wall clock's time.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// A random number in 0..1, for spreading alone. The cryptographic library's would hold up the control
/// thread for tens of milliseconds at its first use, in the middle of a start after a crash.
pub(crate) fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    bits as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_fill_their_range_evenly() {
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let random = random();
            assert!((0.0..=1.0).contains(&random));
            tenths[((random * 10.0) as usize).min(9)] += 1;
        }
        assert!(tenths.iter().all(|count| (800..1200).contains(count)), "{tenths:?}");
    }
}
