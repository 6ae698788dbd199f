//! Numbers as a reader wants them: three digits that mean something.

use super::statistics::{Estimate, Interval};

/// A quantity: `0.484`, `12.6`, `271`, `45,400`.
pub(super) fn quantity(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        grouped(value)
    } else if size >= 99.95 {
        format!("{value:.0}")
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else if size == 0.0 {
        "0".to_owned()
    } else {
        format!("{value:.3}")
    }
}

/// A ratio: two digits after the point.
pub(super) fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

/// An estimate with its spread, each number as `text` writes it.
pub(super) fn estimate(estimate: &Estimate, text: fn(f64) -> String) -> String {
    let value = text(estimate.value);
    match estimate.interval {
        None if estimate.rounds == 1 => format!("{value} (1 round)"),
        None => format!("{value} ({} rounds)", estimate.rounds),
        Some(Interval { low, high }) => format!("{value} ({} to {})", text(low), text(high)),
    }
}

/// Whole, with a comma before each three digits from the right, rounded to four digits from the left.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let rounding = 10f64.powi(i32::try_from(digits.len()).unwrap_or(i32::MAX) - 4);
    let digits = format!("{:.0}", (value.abs() / rounding).round() * rounding);
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_shown_and_large_numbers_are_grouped() {
        for (value, expected) in [
            (0.0, "0"),
            (0.4837, "0.484"),
            (1.5, "1.50"),
            (12.64, "12.6"),
            (99.97, "100"),
            (270.6, "271"),
            (1234.4, "1,234"),
            (45_437.0, "45,440"),
            (1_234_567.0, "1,235,000"),
            (-2500.0, "-2,500"),
        ] {
            assert_eq!(quantity(value), expected);
        }
    }
}
