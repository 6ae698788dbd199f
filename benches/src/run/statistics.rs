//! What a table shows of samples: the middle, and the middle of ratios with their spread.

/// The middle of numbers; none of no number.
pub(super) fn median(numbers: &[f64]) -> Option<f64> {
    quantile(numbers, 0.5)
}

/// The number below which this share of the others lies, between neighbours in proportion.
pub(super) fn quantile(numbers: &[f64], share: f64) -> Option<f64> {
    let mut sorted: Vec<_> = numbers.iter().copied().filter(|number| number.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let place = share * (sorted.len().checked_sub(1)? as f64);
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// A ratio of two candidates: the median over the rounds in which both were measured, with the quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub(super) median: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
}

impl Ratio {
    /// The ratio of the first to the second, round by round.
    pub(super) fn of(first: &[Option<f64>], second: &[Option<f64>]) -> Option<Self> {
        let ratios = first.iter().zip(second).filter_map(|(first, second)| Some((*first)? / (*second)?));
        let ratios: Vec<_> = ratios.collect();
        Some(Self {
            median: median(&ratios)?,
            lower: quantile(&ratios, 0.25)?,
            upper: quantile(&ratios, 0.75)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.25), Some(2.0));
    }

    #[test]
    fn a_ratio_is_taken_within_rounds_and_rounds_without_both_are_passed_over() {
        let first = [Some(2.0), Some(30.0), None, Some(4.0)];
        let second = [Some(1.0), Some(10.0), Some(1.0), Some(1.0)];
        let ratio = Ratio::of(&first, &second).unwrap();
        assert_eq!((ratio.lower, ratio.median, ratio.upper), (2.5, 3.0, 3.5));
        assert_eq!(Ratio::of(&[None], &[Some(1.0)]), None);
    }
}
