//! Text with colours, in columns, that fits a terminal.

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// As all text.
    #[default]
    Plain,
    /// A headline.
    Head,
    /// Of little weight.
    Faint,
    /// As it should be.
    Good,
    /// To be looked at.
    Doubtful,
    /// Broken.
    Bad,
}

impl Style {
    /// What switches a terminal to it; none for plain text.
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Head => Some("1"),
            Self::Faint => Some("2"),
            Self::Good => Some("32"),
            Self::Doubtful => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

/// A piece of text of one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// How it looks.
    pub style: Style,
    /// What it says.
    pub text: String,
}

impl Span {
    /// A piece of text.
    pub fn new(style: Style, text: impl Into<String>) -> Self {
        Self { style, text: text.into() }
    }
}

impl From<String> for Span {
    fn from(text: String) -> Self {
        Self::new(Style::Plain, text)
    }
}

impl From<&str> for Span {
    fn from(text: &str) -> Self {
        Self::new(Style::Plain, text)
    }
}

/// One line.
pub type Line = Vec<Span>;

/// Lines that belong together: where there is not enough room, the longest blocks lose their last lines.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// What never goes.
    pub head: Vec<Line>,
    /// What may go from the end.
    pub rows: Vec<Line>,
}

/// How a column is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a head, columns as wide as their widest cell.
pub fn table(columns: &[(&str, Align)], rows: Vec<Vec<Span>>) -> Block {
    let head: Line = columns.iter().map(|(name, _)| Span::new(Style::Head, *name)).collect();
    let mut widths = vec![0; columns.len()];
    for row in std::iter::once(&head).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let line = |cells: Line| -> Line {
        let cells = cells.into_iter().zip(columns).zip(&widths);
        cells
            .map(|((cell, (_, align)), width)| {
                let text = match align {
                    Align::Left => format!("  {:<width$}", cell.text),
                    Align::Right => format!("  {:>width$}", cell.text),
                };
                Span { text, ..cell }
            })
            .collect()
    };
    Block { head: vec![Line::new(), line(head)], rows: rows.into_iter().map(line).collect() }
}

/// The screen: at most `height` lines of at most `width` characters.
pub fn fit(mut blocks: Vec<Block>, width: usize, height: usize, colour: bool) -> Vec<String> {
    let mut hidden = vec![0_usize; blocks.len()];
    let lines = |blocks: &[Block], hidden: &[usize]| -> usize {
        let rows: usize = blocks.iter().map(|block| block.head.len() + block.rows.len()).sum();
        rows + hidden.iter().filter(|hidden| **hidden > 0).count()
    };
    while lines(&blocks, &hidden) > height {
        let longest = blocks.iter_mut().zip(&mut hidden).filter(|(block, _)| block.rows.len() > 1);
        let Some((block, hidden)) = longest.max_by_key(|(block, _)| block.rows.len()) else { break };
        block.rows.pop();
        *hidden += 1;
    }
    let mut shown = Vec::new();
    for (block, hidden) in blocks.into_iter().zip(hidden) {
        shown.extend(block.head.into_iter().chain(block.rows));
        if hidden > 0 {
            shown.push(vec![Span::new(Style::Faint, format!("  … {hidden} more"))]);
        }
    }
    shown.truncate(height);
    shown.iter().map(|line| paint(line, width, colour)).collect()
}

/// A line cut to `width`, without blanks at its end.
fn paint(line: &Line, width: usize, colour: bool) -> String {
    let mut left: Vec<(Style, char)> =
        line.iter().flat_map(|span| span.text.chars().map(|c| (span.style, c))).collect();
    while left.last().is_some_and(|(_, c)| *c == ' ') {
        left.pop();
    }
    if left.len() > width {
        left.truncate(width.saturating_sub(1));
        left.push((Style::Faint, '…'));
        left.truncate(width);
    }
    let mut text = String::new();
    let mut now = Style::Plain;
    for (style, c) in left {
        if colour && style != now {
            text.push_str("\x1b[0m");
            if let Some(code) = style.code() {
                text.push_str(&format!("\x1b[{code}m"));
            }
            now = style;
        }
        text.push(c);
    }
    if colour && now != Style::Plain {
        text.push_str("\x1b[0m");
    }
    text
}

/// The columns that a painted line takes.
pub fn columns(line: &str) -> usize {
    let mut hidden = false;
    line.chars().fold(0, |columns, c| {
        let counts = !hidden && c != '\x1b';
        hidden = c == '\x1b' || (hidden && c != 'm');
        columns + usize::from(counts)
    })
}
