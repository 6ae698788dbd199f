//! Pictures as text: the few shapes that the plots need, legible on a light and on a dark page.
//!
//! No script and no font of its own; letters stay letters, so that a reader can search and copy them.

use std::fmt::Write;

/// Colours and letters, by class. The background is the picture's own, for a page's is not known.
const STYLE: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}\
.title{font-weight:600}.faint{fill:#59636e}.right{text-anchor:end}.middle{text-anchor:middle}\
.page{fill:#ffffff}.ours{fill:#0969da}.peer{fill:#8c959f}.floor{fill:#c8d1da}\
.line{stroke:#1f2328;stroke-width:1.2}.rule{stroke:#c8d1da;stroke-width:1}\
.met{fill:#1a7f37}.missed{fill:#cf222e}.open{fill:#9a6700}\
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.faint{fill:#9198a1}.page{fill:#0d1117}.ours{fill:#4493f8}\
.peer{fill:#6e7681}.floor{fill:#3d444d}.line{stroke:#f0f6fc}.rule{stroke:#3d444d}\
.met{fill:#3fb950}.missed{fill:#f85149}.open{fill:#d29922}}";

/// A picture in the making. Lengths are in pixels, from the upper left corner.
#[derive(Debug)]
pub(super) struct Svg {
    body: String,
    width: f64,
    height: f64,
}

impl Svg {
    /// An empty one of this size; `label` says to those who cannot see it what it shows.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Self {
        let label = escape(label);
        let mut body = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{label}\">\n<style>{STYLE}</style>\n"
        );
        let _ = writeln!(body, "<rect class=\"page\" width=\"{width:.0}\" height=\"{height:.0}\"/>");
        Self { body, width, height }
    }

    /// Letters whose baseline begins here, or ends or centres here by the class `right` or `middle`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), classes: &str, text: &str) {
        let text = escape(text);
        let _ = writeln!(self.body, "<text class=\"{classes}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
    }

    /// A filled rectangle.
    pub(super) fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str) {
        let _ = writeln!(
            self.body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }

    /// A line.
    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let _ = writeln!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    /// A line from left to right with a stroke at each end.
    pub(super) fn whisker(&mut self, from: f64, to: f64, y: f64) {
        const HALF: f64 = 3.0;
        self.line((from, y), (to, y), "line");
        for end in [from, to] {
            self.line((end, y - HALF), (end, y + HALF), "line");
        }
    }

    /// A filled circle.
    pub(super) fn dot(&mut self, (x, y): (f64, f64), class: &str) {
        let _ = writeln!(self.body, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>");
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        debug_assert!(self.width.is_finite() && self.height.is_finite());
        self.body + "</svg>\n"
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Panics unless every tag is closed in order, every attribute quoted, and every number a number.
    pub(in crate::report) fn assert_well_formed(svg: &str) {
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "a number is none: {svg}");
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>').expect("a tag ends");
            let tag = &rest[start + 1..end];
            assert!(!tag.contains('<'), "a tag within a tag: {tag}");
            assert_eq!(tag.matches('"').count() % 2, 0, "a quote is open: {tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closed out of order");
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap());
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "left open: {open:?}");
        assert!(svg.trim_end().ends_with("</svg>") && !rest.contains('>'));
    }

    #[test]
    fn shapes_are_closed_and_letters_escaped() {
        let mut svg = Svg::new(100.0, 50.0, "a \"label\"");
        svg.text((1.0, 2.0), "title", "<script>&");
        svg.bar((0.0, 0.0), (5.0, 5.0), "ours");
        svg.whisker(1.0, 2.0, 3.0);
        svg.dot((1.0, 1.0), "met");
        let text = svg.finish();
        assert_well_formed(&text);
        assert!(text.contains("&lt;script&gt;&amp;") && text.contains("a &quot;label&quot;"));
    }

    #[test]
    #[should_panic(expected = "closed out of order")]
    fn the_check_finds_what_is_not_closed() {
        assert_well_formed("<svg><text></svg></text>");
    }
}
