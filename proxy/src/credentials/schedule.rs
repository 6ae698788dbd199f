//! When to ask for credentials again. Pure: lives and random numbers in, durations out.

use std::time::Duration;

/// Renewal at half of a certificate's life: the other half is the time in which a CA may be away.
const RENEW_AT: f64 = 0.5;
/// Spread of the renewal to both sides, as a share of that half: proxies that started together must not
/// ask together for ever.
const RENEW_SPREAD: f64 = 0.1;
/// A certificate that lives next to nothing must not make a proxy ask without pause.
const RENEW_MIN: Duration = Duration::from_secs(1);

/// The first retry is quick: most failures are a CA that is just starting.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest pause between retries while a good certificate is held.
const RETRY_MAX: Duration = Duration::from_mins(5);
/// Of what is left of the certificate's life, no pause takes more than this share, so that at least ten
/// retries fit in however short it is.
const RETRY_LEFT_SHARE: u32 = 10;
/// The longest pause without a valid certificate: the pod serves nobody, and must be back within 5 s of
/// the CA.
const RETRY_MAX_WITHOUT: Duration = Duration::from_secs(3);
/// Spread of a retry to both sides, as a share of the pause.
const RETRY_SPREAD: f64 = 0.2;

/// Within this time a proxy asks the CA whether a root that left the file is gone for good. A thousand
/// proxies that see the file change together then ask at the rate of 34 a second.
pub(crate) const ROOT_REMOVED_SPREAD: Duration = Duration::from_secs(30);

/// How long after its issuance a certificate that lives for `life` is renewed. `random` is in 0..1.
pub(crate) fn renewal_after(life: Duration, random: f64) -> Duration {
    spread(life.mul_f64(RENEW_AT), RENEW_SPREAD, random).max(RENEW_MIN)
}

/// How long to wait after the `failures`th failure in a row, with `left` of the held certificate's life
/// left (zero where there is no valid one). `random` is in 0..1.
pub(crate) fn retry_after(failures: u32, left: Duration, random: f64) -> Duration {
    let max = if left.is_zero() {
        RETRY_MAX_WITHOUT
    } else {
        (left / RETRY_LEFT_SHARE).clamp(RETRY_FIRST, RETRY_MAX)
    };
    let doublings = failures.saturating_sub(1).min(u32::BITS - 1);
    let pause = RETRY_FIRST.saturating_mul(1 << doublings).min(max);
    spread(pause, RETRY_SPREAD, random)
}

/// How long to wait before the source is asked for the (`asked` + 1)th time whether it still names a root that
/// was removed. Doubled each time: a source may have its own reason to go on naming it. `random` is in 0..1.
pub(crate) fn removal_check_after(asked: u32, random: f64) -> Duration {
    match asked.checked_sub(1) {
        None => ROOT_REMOVED_SPREAD.mul_f64(random.clamp(0.0, 1.0)),
        Some(doublings) => {
            let pause = ROOT_REMOVED_SPREAD.saturating_mul(1 << doublings.min(u32::BITS - 1));
            spread(pause, RETRY_SPREAD, random)
        }
    }
}

fn spread(pause: Duration, share: f64, random: f64) -> Duration {
    pause.mul_f64(1.0 + share * (2.0 * random.clamp(0.0, 1.0) - 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn seconds(failures: u32, left: Duration) -> f64 {
        retry_after(failures, left, 0.5).as_secs_f64()
    }

    #[test]
    fn renewal_is_at_half_of_the_life_and_a_tenth_of_that_to_either_side() {
        assert_eq!(renewal_after(DAY, 0.5), DAY / 2);
        assert_eq!(renewal_after(Duration::from_secs(20), 0.0), Duration::from_secs(9));
        assert_eq!(renewal_after(Duration::from_secs(20), 1.0), Duration::from_secs(11));
        assert_eq!(renewal_after(Duration::ZERO, 0.5), RENEW_MIN);
    }

    #[test]
    fn retries_double_up_to_the_longest_pause() {
        let pauses: Vec<f64> = (1..=6).map(|failures| seconds(failures, DAY)).collect();
        assert_eq!(pauses, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]);
        assert_eq!(seconds(11, DAY), 300.0);
        assert_eq!(seconds(u32::MAX, DAY), 300.0);
    }

    #[test]
    fn without_a_valid_certificate_a_retry_is_never_far() {
        assert_eq!(seconds(1, Duration::ZERO), 0.5);
        assert_eq!(seconds(100, Duration::ZERO), 3.0);
        assert!(retry_after(100, Duration::ZERO, 1.0) < Duration::from_secs(4));
    }

    #[test]
    fn a_removed_root_is_asked_for_soon_and_then_ever_more_rarely() {
        assert!(removal_check_after(0, 1.0) <= ROOT_REMOVED_SPREAD);
        let pauses: Vec<u64> = (1..=4).map(|asked| removal_check_after(asked, 0.5).as_secs()).collect();
        assert_eq!(pauses, [30, 60, 120, 240]);
        assert!(removal_check_after(u32::MAX, 1.0) > Duration::from_secs(365 * 24 * 60 * 60));
    }

    proptest! {
        #[test]
        fn at_least_eight_retries_fit_into_what_is_left(
            failures in 1u32.., left_ms in 6_000u64..100_000_000, random in 0.0..1.0,
        ) {
            let left = Duration::from_millis(left_ms);
            prop_assert!(retry_after(failures, left, random) * 8 <= left);
        }

    }
}
