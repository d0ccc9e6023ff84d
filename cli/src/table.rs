//! Aligned columns without borders: easy on the eye, easy on `awk`.

use anstyle::{AnsiColor, Style};

use crate::output::printable;

/// Rows under a header; a row has as many cells as the header.
pub(crate) struct Table<const COLUMNS: usize> {
    header: [Column; COLUMNS],
    rows: Vec<[Cell; COLUMNS]>,
}

/// A title, and the side its cells lean to.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    Left(&'static str),
    Right(&'static str),
}

/// A text and what it means to the operator.
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
}

impl Cell {
    pub(crate) fn new(text: impl ToString, tone: Tone) -> Self {
        Self {
            text: printable(&text.to_string()).into_owned(),
            tone,
        }
    }

    /// The text, coloured if `color`.
    pub(crate) fn paint(&self, color: bool) -> String {
        paint(&self.text, self.tone.style(), color)
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) fn new(header: [Column; COLUMNS]) -> Self {
        Self {
            header,
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, row: [Cell; COLUMNS]) {
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Header and rows, each with its line end.
    pub(crate) fn render(&self, color: bool) -> String {
        let mut widths = self.header.map(|column| width(column.title()));
        for row in &self.rows {
            for (width_max, cell) in widths.iter_mut().zip(row) {
                *width_max = width(&cell.text).max(*width_max);
            }
        }
        let mut text = String::new();
        let titles = self
            .header
            .iter()
            .map(|column| (column.title(), Style::new().bold()));
        self.line(&mut text, widths, titles, color);
        for row in &self.rows {
            let cells = row.iter().map(|cell| (&*cell.text, cell.tone.style()));
            self.line(&mut text, widths, cells, color);
        }
        text
    }

    fn line<'a>(
        &self,
        text: &mut String,
        widths: [usize; COLUMNS],
        cells: impl Iterator<Item = (&'a str, Style)>,
        color: bool,
    ) {
        let mut pending = 0;
        for (at, ((cell, style), (column, column_width))) in
            cells.zip(self.header.iter().zip(widths)).enumerate()
        {
            let room = column_width - width(cell);
            let (before, after) = match column {
                Column::Left(_) => (0, room),
                Column::Right(_) => (room, 0),
            };
            let gap = if at == 0 { 0 } else { GAP };
            // Blanks are written when something follows them, so that no line ends in blanks.
            pending += gap + before;
            if !cell.is_empty() {
                text.extend(std::iter::repeat_n(' ', pending));
                text.push_str(&paint(cell, style, color));
                pending = 0;
            } else {
                pending += width(cell);
            }
            pending += after;
        }
        text.push('\n');
    }
}

/// Blanks between two columns.
const GAP: usize = 2;

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Left(title) | Self::Right(title) => title,
        }
    }
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

fn paint(text: &str, style: Style, color: bool) -> String {
    if color {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table<3> {
        let mut table = Table::new([
            Column::Left("NAME"),
            Column::Right("LAG"),
            Column::Left("NOTE"),
        ]);
        table.push(["atm1".into(), 0.into(), "".into()]);
        table.push([
            "häuserblock".into(),
            12345.into(),
            Cell::new("down", Tone::Bad),
        ]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        assert_eq!(
            example().render(false),
            "NAME           LAG  NOTE\natm1             0\nhäuserblock  12345  down\n"
        );
    }

    #[test]
    fn colours_change_no_width() {
        let plain = example().render(true);
        assert!(plain.contains("\x1b[1m\x1b[31mdown\x1b[0m"), "{plain:?}");
        let mut stripped = plain;
        while let Some(start) = stripped.find('\x1b') {
            let end = start + stripped[start..].find('m').unwrap();
            stripped.replace_range(start..=end, "");
        }
        assert_eq!(stripped, example().render(false));
    }

    #[test]
    fn foreign_texts_cannot_steer_the_terminal() {
        assert_eq!(Cell::from("a\x1b[2J").paint(false), "a\u{fffd}[2J");
    }
}
