//! Aligned columns with a header, coloured by meaning and not by taste.

use std::fmt::Write as _;

/// Blanks between two columns.
const GAP: usize = 2;

/// What a cell means to whoever looks for trouble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Something is refused, unprotected or about to end.
    Bad,
    /// As it should be.
    Good,
    /// Nothing to say.
    #[default]
    Plain,
    /// Less important than the rest: headers, what is empty.
    Quiet,
}

impl Tone {
    /// The number of the terminal's own colour (SGR), so that the user's theme decides how it looks.
    const fn sgr(self) -> Option<&'static str> {
        match self {
            Self::Bad => Some("31"),
            Self::Good => Some("32"),
            Self::Plain => None,
            Self::Quiet => Some("2"),
        }
    }

    /// The text in this tone, or as it is.
    pub(crate) fn paint(self, text: &str, colour: bool) -> String {
        match self.sgr() {
            Some(code) if colour && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            Some(_) | None => text.to_owned(),
        }
    }
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Text with a meaning.
    ///
    /// What would move the cursor or ring the bell is shown as a replacement character: the text may come from the network.
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        let text = text.into();
        let text = if text.chars().any(char::is_control) {
            text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
        } else {
            text
        };
        Self { text, tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Where a column's texts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table under construction.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns, in order. Without any title it has no header.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the columns are left out, missing ones are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<_> = cells.into_iter().take(self.columns.len()).collect();
        row.resize_with(self.columns.len(), Cell::default);
        self.rows.push(row);
    }

    /// The table as lines of text.
    pub(crate) fn render(&self, colour: bool) -> String {
        let header: Vec<_> = self.columns.iter().map(|(title, _)| Cell::new(*title, Tone::Quiet)).collect();
        let titled = header.iter().any(|cell| !cell.text.is_empty());
        let lines = || titled.then_some(&header).into_iter().chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| lines().map(|line| line[column].width()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in lines() {
            self.render_line(&mut text, line, &widths, colour);
        }
        text
    }

    fn render_line(&self, text: &mut String, line: &[Cell], widths: &[usize], colour: bool) {
        let mut owed = 0;
        for ((cell, (_, align)), width) in line.iter().zip(&self.columns).zip(widths) {
            let pad = width - cell.width();
            let (before, after) = match align {
                Align::Left => (0, pad),
                Align::Right => (pad, 0),
            };
            // Blanks are only written before something: no line ends with them.
            if !cell.text.is_empty() {
                let _ = write!(text, "{:1$}", "", owed + before);
                text.push_str(&cell.tone.paint(&cell.text, colour));
                owed = 0;
            } else {
                owed += before;
            }
            owed += after + GAP;
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(&[("name", Align::Left), ("bytes", Align::Right), ("note", Align::Left)]);
        table.row([Cell::from("a"), Cell::from("7"), Cell::new("good", Tone::Good)]);
        table.row([Cell::from("a longer name"), Cell::from("123456")]);
        table
    }

    #[test]
    fn columns_are_aligned_and_no_line_ends_with_blanks() {
        assert_eq!(
            example().render(false),
            "name            bytes  note\n\
             a                   7  good\n\
             a longer name  123456\n"
        );
    }

    #[test]
    fn colour_changes_no_column() {
        let coloured = example().render(true);
        assert!(coloured.contains("\x1b[32mgood\x1b[0m"), "{coloured:?}");
        let mut bare = coloured;
        for code in ["\x1b[2m", "\x1b[32m", "\x1b[0m"] {
            bare = bare.replace(code, "");
        }
        assert_eq!(bare, example().render(false));
    }

    #[test]
    fn an_empty_cell_in_the_middle_keeps_the_next_column_in_place() {
        let mut table = Table::new(&[("", Align::Left), ("", Align::Right), ("", Align::Left)]);
        table.row([Cell::from("a"), Cell::default(), Cell::from("x")]);
        table.row([Cell::from("b"), Cell::from("12"), Cell::from("y")]);
        assert_eq!(table.render(false), "a      x\nb  12  y\n");
    }

    #[test]
    fn what_would_steer_the_terminal_is_replaced() {
        let mut table = Table::new(&[("", Align::Left)]);
        table.row([Cell::from("a\x1b[2Jb\nc")]);
        assert_eq!(table.render(false), "a\u{fffd}[2Jb\u{fffd}c\n");
    }
}
