//! Kubernetes quantities, as far as two of them have to be compared.

/// Billionths are the smallest step that Kubernetes keeps.
const STEPS_PER_UNIT: u128 = 1_000_000_000;

/// A quantity above zero: its text, and how many billionths of its unit it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quantity {
    pub(super) text: String,
    pub(super) steps: u128,
}

impl Quantity {
    /// `None` where the text is not a quantity above zero, or one beyond what any node has.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // Nine digits are all the steps there are; eighteen before the point are more than an exabyte.
        if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.len() > 9 {
            return None;
        }
        let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
        let fraction_steps = digits(&format!("{fraction:0<9}"))?;
        let steps = digits(whole)?.checked_mul(STEPS_PER_UNIT)?.checked_add(fraction_steps)?;
        let (times, over) = scale(suffix)?;
        let steps = steps.checked_mul(times)? / over;
        (steps > 0).then(|| Self { text: text.to_owned(), steps })
    }
}

/// What the suffix multiplies by, and what it divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let decimal = |power: u32| 10u128.checked_pow(power);
    let binary = |power: u32| 1u128.checked_shl(power);
    let times = match suffix {
        "n" => return Some((1, decimal(9)?)),
        "u" => return Some((1, decimal(6)?)),
        "m" => return Some((1, decimal(3)?)),
        "" => 1,
        "k" => decimal(3)?,
        "M" => decimal(6)?,
        "G" => decimal(9)?,
        "T" => decimal(12)?,
        "P" => decimal(15)?,
        "E" => decimal(18)?,
        "Ki" => binary(10)?,
        "Mi" => binary(20)?,
        "Gi" => binary(30)?,
        "Ti" => binary(40)?,
        "Pi" => binary(50)?,
        "Ei" => binary(60)?,
        _ => return exponent(suffix),
    };
    Some((times, 1))
}

fn exponent(suffix: &str) -> Option<(u128, u128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let size = 10u128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, size) } else { (size, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_across_their_suffixes() {
        for (smaller, larger) in
            [("20m", "0.1"), ("32Mi", "64Mi"), ("1000M", "1Gi"), ("500m", "1"), ("1e3", "1.1k"), ("1n", "1u")]
        {
            assert!(
                Quantity::parse(smaller).unwrap().steps < Quantity::parse(larger).unwrap().steps,
                "{smaller}"
            );
        }
        assert_eq!(Quantity::parse("1Gi").unwrap().steps, Quantity::parse("1024Mi").unwrap().steps);
        assert_eq!(Quantity::parse("1e-3").unwrap().steps, Quantity::parse("1m").unwrap().steps);
    }

    #[test]
    fn what_is_no_amount_is_no_quantity() {
        for text in [
            "",
            ".",
            "0",
            "0m",
            "-1",
            "+1",
            "1 Gi",
            "1gi",
            "ten",
            "1.2.3",
            "1e99",
            "1e",
            "9999999999999999999",
        ] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }
}
