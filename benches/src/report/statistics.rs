//! What a handful of rounds on a shared machine can say: medians, and ratios of samples that were taken next to each other.
//!
//! A machine is faster in one minute than in the next, for all candidates alike. So candidates are compared within a round,
//! and the rounds' ratios are what has a median and a spread.

/// Fewer rounds have no interval: with five, the middle of all that could be lies between the least and the greatest 94
/// times of 100, with three 75 times.
const LEAST_ROUNDS: usize = 5;

/// How often the rounds are drawn anew for an interval: enough that its ends hold still to a thousandth.
const DRAWS: usize = 4_000;

/// The share of the draws that lies within an interval.
const CONFIDENCE: f64 = 0.95;

/// Where every drawing begins: the same rounds give the same interval on every machine.
const SEED: u64 = 0x7269_6e67_6d61_696c;

/// The middle of the values, or of the two in the middle; none of none.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

/// The samples that are there.
pub(super) fn present(samples: &[Option<f64>]) -> Vec<f64> {
    samples.iter().flatten().copied().collect()
}

/// Two ends, both among the values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    /// The lesser.
    pub(super) low: f64,
    /// The greater.
    pub(super) high: f64,
}

impl Interval {
    /// From the least to the greatest value; none of none.
    pub(super) fn of_extremes(values: &[f64]) -> Option<Self> {
        let low = values.iter().copied().min_by(f64::total_cmp)?;
        let high = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { low, high })
    }

    /// Whether a value lies within, the ends among it.
    pub(super) fn holds(self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// What the rounds say of a quantity: their median, and how far it can be trusted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Estimate {
    /// The median of the rounds.
    pub(super) value: f64,
    /// Where 95 of 100 medians lie when the rounds are drawn anew with replacement; none of few rounds.
    pub(super) interval: Option<Interval>,
    /// From the least to the greatest round.
    pub(super) extremes: Interval,
    /// How many rounds there were.
    pub(super) rounds: usize,
}

impl Estimate {
    /// Of one candidate's samples; none of none.
    pub(super) fn of(samples: &[Option<f64>]) -> Option<Self> {
        Self::of_values(&present(samples))
    }

    /// Of the ratio of one candidate to another, round by round. None where no round has both, or where the other's are all
    /// zero.
    pub(super) fn of_ratio(samples: &[Option<f64>], other: &[Option<f64>]) -> Option<Self> {
        let ratios: Vec<f64> = samples
            .iter()
            .zip(other)
            .filter_map(|(sample, other)| Some((*sample)? / (*other)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        Self::of_values(&ratios)
    }

    fn of_values(values: &[f64]) -> Option<Self> {
        let interval = (values.len() >= LEAST_ROUNDS).then(|| bootstrap(values));
        let (value, extremes) = (median(values)?, Interval::of_extremes(values)?);
        Some(Self { value, interval, extremes, rounds: values.len() })
    }

    /// The same in another unit.
    pub(super) fn divided_by(&self, unit: f64) -> Self {
        let divide = |Interval { low, high }| Interval { low: low / unit, high: high / unit };
        let (interval, extremes) = (self.interval.map(divide), divide(self.extremes));
        Self { value: self.value / unit, interval, extremes, rounds: self.rounds }
    }

    /// Of a ratio: that of the other to the one.
    pub(super) fn inverted(&self) -> Self {
        let invert = |Interval { low, high }| Interval { low: 1.0 / high, high: 1.0 / low };
        let (interval, extremes) = (self.interval.map(invert), invert(self.extremes));
        Self { value: 1.0 / self.value, interval, extremes, rounds: self.rounds }
    }

    /// Of a ratio: whether the rounds tell the two apart, for their interval is on one side of 1.
    pub(super) fn shows_difference(&self) -> bool {
        self.interval.is_some_and(|interval| !interval.holds(1.0))
    }
}

/// The percentile interval of the median, by drawing.
fn bootstrap(values: &[f64]) -> Interval {
    let mut numbers = SplitMix(SEED);
    let mut drawn = vec![0.0; values.len()];
    let mut medians: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            drawn.fill_with(|| values[numbers.below(values.len())]);
            median(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let outside = (1.0 - CONFIDENCE) / 2.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a few thousand draws"
    )]
    let cut = (outside * DRAWS as f64) as usize;
    Interval { low: medians[cut], high: medians[DRAWS - 1 - cut] }
}

/// Steele, Lea and Flood's SplitMix64: small, and the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    /// A number below `bound`, which is small.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ (mixed >> 31);
        // The high half of a product with the bound is even enough for so few values.
        usize::try_from((u128::from(mixed) * bound as u128) >> 64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    #[test]
    fn a_median_is_the_middle_of_the_sorted() {
        for (values, expected) in [
            (&[][..], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0], Some(5.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[4.0, 1.0, 100.0, 2.0], Some(3.0)),
        ] {
            assert_eq!(median(values), expected, "{values:?}");
        }
    }

    #[test]
    fn candidates_are_compared_within_a_round_and_rounds_without_both_are_left_out() {
        // Of the medians the ratio would be 6 / 20; round by round it is 0.5 each time.
        let ours = [Some(1.0), None, Some(5.0), Some(50.0), Some(7.0), Some(6.0), Some(8.0)];
        let other = [Some(2.0), Some(20.0), Some(10.0), Some(100.0), None, Some(12.0), Some(16.0)];
        let compared = Estimate::of_ratio(&ours, &other).unwrap();
        assert_eq!((compared.value, compared.rounds), (0.5, 5));
        assert_eq!(compared.interval, Some(Interval { low: 0.5, high: 0.5 }));
        assert!(compared.shows_difference());
    }

    #[test]
    fn nothing_is_compared_with_nothing_and_few_rounds_show_no_difference() {
        assert_eq!(Estimate::of_ratio(&[Some(1.0), None], &[None, Some(1.0)]), None);
        assert_eq!(Estimate::of_ratio(&some(&[0.0, 0.0]), &some(&[0.0, 0.0])), None);
        let few = Estimate::of_ratio(&some(&[1.0; 4]), &some(&[2.0; 4])).unwrap();
        assert_eq!((few.value, few.interval), (0.5, None));
        assert!(!few.shows_difference());
        assert!(Estimate::of_ratio(&some(&[1.0; 5]), &some(&[2.0; 5])).unwrap().shows_difference());
    }

    #[test]
    fn an_interval_is_the_same_each_time_and_wider_where_rounds_differ_more() {
        let narrow = bootstrap(&[0.98, 0.99, 1.0, 1.01, 1.02]);
        let wide = bootstrap(&[0.5, 0.8, 1.0, 1.3, 2.0]);
        assert_eq!(wide, bootstrap(&[0.5, 0.8, 1.0, 1.3, 2.0]));
        assert!(narrow.holds(1.0) && wide.holds(1.0));
        assert!(wide.high - wide.low > narrow.high - narrow.low);
    }

    /// Of five values the median of a draw is the least with a probability of 0.0579, the greatest alike: beyond 2.5 in 100,
    /// so the interval reaches both. Of fifteen the least is drawn so often once in ten million.
    #[test]
    fn an_interval_has_the_ends_that_can_be_worked_out() {
        assert_eq!(bootstrap(&[1.0, 2.0, 3.0, 4.0, 5.0]), Interval { low: 1.0, high: 5.0 });
        let fifteen: Vec<f64> = (1..=15).map(f64::from).collect();
        let Interval { low, high } = bootstrap(&fifteen);
        assert!((4.0..=5.0).contains(&low) && (11.0..=12.0).contains(&high), "{low} to {high}");
    }

    #[test]
    fn draws_reach_every_value_about_as_often() {
        let mut numbers = SplitMix(1);
        let mut counts = [0; 5];
        (0..50_000).for_each(|_| counts[numbers.below(5)] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
