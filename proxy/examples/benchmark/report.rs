//! Rows, their bars and the table.

use std::fmt;

/// Median, least and greatest of some rounds.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The median.
    pub median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    /// Of these values.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last - last / 2));
        Self { median, least: at(0), greatest: at(last) }
    }
}

impl From<f64> for Spread {
    fn from(value: f64) -> Self {
        Self::of(vec![value])
    }
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    /// At least: foundation, goal.
    AtLeast(f64, f64),
    /// At most: foundation, goal.
    AtMost(f64, f64),
    /// Nothing was promised: a figure to know.
    None,
}

impl Bar {
    fn mark(self, measured: f64) -> &'static str {
        let (foundation, goal) = match self {
            Self::AtLeast(foundation, goal) => (measured >= foundation, measured >= goal),
            Self::AtMost(foundation, goal) => (measured <= foundation, measured <= goal),
            Self::None => return "–",
        };
        match (foundation, goal) {
            (_, true) => "goal",
            (true, false) => "pass",
            (false, false) => "MISS",
        }
    }

    fn parts(self) -> [String; 2] {
        let (sign, foundation, goal) = match self {
            Self::AtLeast(foundation, goal) => ("≥", foundation, goal),
            Self::AtMost(foundation, goal) => ("≤", foundation, goal),
            Self::None => return ["–".to_owned(), "–".to_owned()],
        };
        [foundation, goal].map(|bar| format!("{sign} {}", number(bar)))
    }
}

/// What one side took, if it was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side {
    /// Operations per second, median.
    pub rate: Option<f64>,
    /// Processor seconds per million operations, median.
    pub cpu: Option<f64>,
    /// Peak resident bytes.
    pub peak: Option<u64>,
    /// Bytes per key.
    pub key_bytes: Option<f64>,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done.
    pub workload: String,
    /// What it is compared with, or the unit.
    pub against: String,
    /// The measure that the bar is for.
    pub measured: Spread,
    /// What is to be reached.
    pub bar: Bar,
    /// Meridian.
    pub ours: Side,
    /// The other.
    pub theirs: Side,
}

impl Row {
    /// A row without details.
    pub fn plain(workload: &str, against: &str, measured: impl Into<Spread>, bar: Bar) -> Self {
        Self {
            workload: workload.to_owned(),
            against: against.to_owned(),
            measured: measured.into(),
            bar,
            ours: Side::default(),
            theirs: Side::default(),
        }
    }

    /// The row in a few words.
    pub fn summary(&self) -> String {
        format!(
            "{}: {} ({}) {}",
            self.workload,
            self.value(),
            self.against,
            self.bar.mark(self.measured.median)
        )
    }

    fn value(&self) -> String {
        let Spread { median, least, greatest } = self.measured;
        if least == greatest {
            return number(median);
        }
        format!("{} [{}–{}]", number(median), number(least), number(greatest))
    }

    fn both(&self, show: impl Fn(&Side) -> Option<String>) -> String {
        match (show(&self.ours), show(&self.theirs)) {
            (None, None) => "–".to_owned(),
            (Some(ours), None) => ours,
            (ours, theirs) => {
                format!("{} / {}", ours.as_deref().unwrap_or("–"), theirs.as_deref().unwrap_or("–"))
            }
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [foundation, goal] = self.bar.parts();
        write!(f, "| {} | {} | **{}** ", self.workload, self.against, self.value())?;
        write!(f, "| {foundation} | {goal} ")?;
        write!(f, "| {} ", self.bar.mark(self.measured.median))?;
        write!(f, "| {} ", self.both(|side| side.rate.map(number)))?;
        write!(f, "| {} ", self.both(|side| side.cpu.map(|cpu| format!("{cpu:.2}"))))?;
        write!(f, "| {} ", self.both(|side| side.peak.map(|peak| (peak >> 20).to_string())))?;
        write!(f, "| {} |", self.both(|side| side.key_bytes.map(number)))
    }
}

/// Everything that was measured.
#[derive(Default)]
pub struct Table {
    /// In order.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| workload | ratio to, or unit | measured [least–greatest] | foundation | goal | mark | ops/s | \
             CPU s per million | peak MiB | bytes per key |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        for failure in &self.failures {
            writeln!(f, "\n{failure}")?;
        }
        Ok(())
    }
}

/// Three significant digits, thousands apart.
fn number(value: f64) -> String {
    let size = value.abs();
    if size < 10.0 {
        return format!("{value:.2}");
    }
    if size < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", size);
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    if value < 0.0 { format!("-{shown}") } else { shown }
}
