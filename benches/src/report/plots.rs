//! The pictures of the page: bars of every figure of a group, and how far each target was reached.

use super::candidates::{OURS, in_order, is_ours, is_without_tls};
use super::numbers::{quantity, ratio};
use super::statistics::{Estimate, Interval, median, present};
use super::svg::Svg;
use super::targets::{Row, Verdict};
use crate::results::{Better, Figure};

/// Panels beside each other: two fit a page that is read without scrolling sideways.
const COLUMNS: usize = 2;

/// One panel: names to the left, bars, values and ratios to the right, and the space to the next.
const PANEL_WIDTH: f64 = 500.0;
const NAMES_WIDTH: f64 = 120.0;
const BARS_WIDTH: f64 = 220.0;
const VALUES_WIDTH: f64 = 60.0;
const RATIOS_WIDTH: f64 = 56.0;

/// What the numbers beside the bars are.
const LEGEND: &str = "Bars: medians. Whiskers: the least and the greatest round. x: ringmail divided by it, the median of the rounds.";

/// One bar with the space to the next.
const BAR_STEP: f64 = 18.0;
const BAR_HEIGHT: f64 = 11.0;

/// The legend needs so much, also where there is one panel.
const LEGEND_WIDTH: f64 = 720.0;
const LEGEND_HEIGHT: f64 = 8.0;

/// A panel's title in two lines, and the space below a panel.
const TITLE_HEIGHT: f64 = 36.0;
const PANEL_GAP: f64 = 18.0;

/// Around everything.
const MARGIN: f64 = 14.0;

/// Bars of the medians, with whiskers from the least to the greatest round, one panel for each figure.
pub(super) fn bars(group: &str, figures: &[&Figure]) -> String {
    let rows: Vec<&[&Figure]> = figures.chunks(COLUMNS).collect();
    let heights: Vec<f64> =
        rows.iter().map(|row| row.iter().map(|figure| panel_height(figure)).fold(0.0, f64::max)).collect();
    let columns = COLUMNS.min(figures.len());
    let width = 2.0 * MARGIN + PANEL_WIDTH * count(columns);
    let height = 2.0 * MARGIN + LEGEND_HEIGHT + heights.iter().sum::<f64>();
    let width = width.max(LEGEND_WIDTH);
    let label = format!("{group}: medians of each candidate as bars, the spread of the rounds as whiskers");
    let mut svg = Svg::new(width, height, &label);
    svg.text((MARGIN, height - MARGIN), "faint", LEGEND);
    let mut top = MARGIN;
    for (row, height) in rows.iter().zip(heights) {
        for (column, figure) in row.iter().enumerate() {
            panel(&mut svg, (MARGIN + PANEL_WIDTH * count(column), top), figure);
        }
        top += height;
    }
    svg.finish()
}

fn panel_height(figure: &Figure) -> f64 {
    TITLE_HEIGHT + BAR_STEP * count(in_order([figure]).len()) + PANEL_GAP
}

fn panel(svg: &mut Svg, (left, top): (f64, f64), figure: &Figure) {
    let good = match figure.better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    svg.text((left, top + 12.0), "title", &figure.title);
    svg.text((left, top + 28.0), "faint", &format!("{}, {good}", figure.unit));
    let names = in_order([figure]);
    let values: Vec<Vec<f64>> = names.iter().map(|name| present(&figure.samples[*name])).collect();
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let scale = if most > 0.0 { BARS_WIDTH / most } else { 0.0 };
    let ours = figure.samples.get(OURS);
    for (index, (name, values)) in names.iter().zip(&values).enumerate() {
        let y = top + TITLE_HEIGHT + BAR_STEP * count(index);
        let from = left + NAMES_WIDTH;
        let (Some(middle), Some(Interval { low, high })) = (median(values), Interval::of_extremes(values))
        else {
            continue;
        };
        svg.text((from - 6.0, y + 10.0), "right", name);
        // What is added over another may be less than nothing; a bar has no room for that.
        let length = |value: f64| (value * scale).max(0.0);
        svg.bar((from, y), (length(middle).max(0.5), BAR_HEIGHT), class(name));
        if low < high {
            svg.whisker(from + length(low), from + length(high), y + BAR_HEIGHT / 2.0);
        }
        let compared = ours.filter(|_| *name != OURS);
        let compared = compared.and_then(|ours| Estimate::of_ratio(ours, &figure.samples[*name]));
        let right = from + BARS_WIDTH + VALUES_WIDTH;
        svg.text((right, y + 10.0), "right", &quantity(middle));
        if let Some(compared) = compared {
            svg.text(
                (right + RATIOS_WIDTH, y + 10.0),
                "right faint",
                &format!("x {}", ratio(compared.value)),
            );
        }
    }
}

fn class(candidate: &str) -> &'static str {
    match (is_ours(candidate), is_without_tls(candidate)) {
        (true, _) => "ours",
        (false, true) => "floor",
        (false, false) => "peer",
    }
}

/// Of the plot of the targets: words to the left, and the scale from four times worse to four times better.
const WORDS_WIDTH: f64 = 700.0;
const SCALE_WIDTH: f64 = 330.0;
const SCALE: [(f64, &str); 5] =
    [(0.25, "4 x worse"), (0.5, "2 x"), (1.0, "the target"), (2.0, "2 x"), (4.0, "4 x better")];

/// By how much better or worse than each target what was measured is, with its interval.
pub(super) fn targets(rows: &[Row]) -> String {
    let measured: Vec<(&Row, &Estimate)> =
        rows.iter().filter_map(|row| Some((row, row.better_than_target.as_ref()?))).collect();
    let bottom = MARGIN + TITLE_HEIGHT + BAR_STEP * count(measured.len());
    let mut svg = Svg::new(
        2.0 * MARGIN + WORDS_WIDTH + SCALE_WIDTH,
        bottom + MARGIN,
        "By how much better or worse than each target what was measured is, with its interval",
    );
    for (value, text) in SCALE {
        let x = place(value);
        svg.text((x, MARGIN + 8.0), "faint middle", text);
        svg.line((x, MARGIN + 14.0), (x, bottom), if value == 1.0 { "line" } else { "rule" });
    }
    for (index, (row, reached)) in measured.iter().enumerate() {
        let y = MARGIN + TITLE_HEIGHT + BAR_STEP * (count(index) + 0.5);
        svg.text((MARGIN, y + 4.0), "", &format!("{}, {}", row.figure, row.target));
        if let Some(Interval { low, high }) = reached.interval {
            svg.whisker(place(low), place(high), y);
        }
        let class = match row.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::NotMeasured | Verdict::Open => "open",
        };
        svg.dot((place(reached.value), y), class);
    }
    svg.finish()
}

/// Where a multiple of the target lies; what is beyond the scale, on its end.
fn place(value: f64) -> f64 {
    let [(least, _), .., (most, _)] = SCALE;
    let part = (value.clamp(least, most) / least).ln() / (most / least).ln();
    MARGIN + WORDS_WIDTH + 12.0 + part * (SCALE_WIDTH - 36.0)
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::svg::tests::assert_well_formed;

    fn figure(title: &str, samples: &[(&str, Vec<Option<f64>>)]) -> Figure {
        let samples: BTreeMap<_, _> =
            samples.iter().map(|(name, values)| ((*name).to_owned(), values.clone())).collect();
        let (id, group, unit) = (title.to_owned(), "g".to_owned(), "us".to_owned());
        Figure { id, group, title: title.to_owned(), unit, better: Better::Lower, samples }
    }

    #[test]
    fn a_group_has_a_panel_for_each_figure_and_a_bar_for_each_candidate_with_samples() {
        let one = figure(
            "one <first>",
            &[("ringmail", vec![Some(1.0), Some(2.0)]), ("envoy", vec![None, Some(4.0)])],
        );
        let none = figure("none", &[("ringmail", vec![Some(0.0)]), ("envoy", vec![None])]);
        let svg = bars("group & co", &[&one, &none, &one]);
        assert_well_formed(&svg);
        assert_eq!(svg.matches("class=\"ours\"").count(), 3);
        assert_eq!(svg.matches("class=\"peer\"").count(), 2);
        assert!(svg.contains("one &lt;first&gt;") && svg.contains(">x 0.50<"));
    }

    #[test]
    fn less_than_nothing_stays_right_of_the_names() {
        let added = figure("added", &[("ringmail", vec![Some(-3.0), Some(6.0), Some(-1.0)])]);
        let svg = bars("g", &[&added]);
        assert_well_formed(&svg);
        assert!(!svg.contains("=\"-"), "a negative length: {svg}");
        assert!(svg.contains(&format!("x1=\"{:.1}\"", MARGIN + NAMES_WIDTH)), "{svg}");
    }

    #[test]
    fn targets_beyond_the_scale_stay_in_the_picture_and_unmeasured_ones_out_of_it() {
        let row = |better_than_target| Row {
            figure: "f".to_owned(),
            target: "t".to_owned(),
            reached: String::new(),
            verdict: Verdict::Met,
            better_than_target,
        };
        let extremes = Interval { low: 0.0, high: 1000.0 };
        let far = Estimate { value: 100.0, interval: Some(extremes), extremes, rounds: 9 };
        let svg = targets(&[row(Some(far)), row(None)]);
        assert_well_formed(&svg);
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(place(1000.0) <= MARGIN + WORDS_WIDTH + SCALE_WIDTH && place(0.0) >= WORDS_WIDTH);
    }
}
