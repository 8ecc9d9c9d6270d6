//! The table that a run ends in: one line per figure, what it needs, and whether it was met.

use std::fmt;

use crate::measure;

/// What a figure needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Need {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
    /// At least so many times the floor.
    RatioAtLeast(f64),
    /// At most so many times the floor.
    RatioAtMost(f64),
    /// At least so much, or so many times the floor, whichever is lower.
    AtLeastEither(f64, f64),
    /// Nothing: the figure is shown.
    Nothing,
}

impl Need {
    fn met_by(self, subject: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(subject >= least),
            Self::AtMost(most) => Some(subject <= most),
            Self::RatioAtLeast(least) => ratio.map(|ratio| ratio >= least),
            Self::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
            Self::AtLeastEither(least, least_ratio) => ratio.map(|ratio| subject >= least || ratio >= least_ratio),
            Self::Nothing => None,
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {}", Figure(*least)),
            Self::AtMost(most) => write!(f, "<= {}", Figure(*most)),
            Self::RatioAtLeast(least) => write!(f, ">= {least:.2} x"),
            Self::RatioAtMost(most) => write!(f, "<= {most:.2} x"),
            Self::AtLeastEither(least, ratio) => write!(f, ">= {} or {ratio:.2} x", Figure(*least)),
            Self::Nothing => f.write_str("-"),
        }
    }
}

/// One figure over all rounds.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// One per round; empty where there is no floor.
    pub(crate) floor: Vec<f64>,
    /// One per round; empty when only the floor was measured.
    pub(crate) subject: Vec<f64>,
    pub(crate) need: Need,
}

impl Row {
    /// What a round has measured: the floor, and beside it the subject.
    pub(crate) fn add(&mut self, [floor, subject]: [measure::Figure; 2]) {
        self.unit = floor.unit;
        self.floor.push(floor.value);
        self.subject.push(subject.value);
    }

    /// The ratio of each pair: what the machine did in one round falls on both.
    fn ratios(&self) -> Vec<f64> {
        self.floor.iter().zip(&self.subject).map(|(floor, subject)| subject / floor).collect()
    }

    /// The median of the ratios.
    fn ratio(&self) -> Option<f64> {
        median(self.ratios().into_iter())
    }

    fn verdict(&self) -> &'static str {
        let met = median(self.subject.iter().copied()).and_then(|subject| self.need.met_by(subject, self.ratio()));
        match met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        }
    }
}

/// Prints the names of the columns.
pub(crate) fn print_head() {
    let columns = ["figure", "unit", "floor (min..max)", "bus (min..max)", "ratio (min..max)", "needs", ""];
    print_line(&columns.map(str::to_owned));
}

/// Prints one row.
pub(crate) fn print(row: &Row) {
    let [floor, subject, ratio] = [&row.floor, &row.subject, &row.ratios()].map(|values| spread(values));
    let (need, verdict) = (row.need.to_string(), row.verdict().to_owned());
    print_line(&[row.name.clone(), row.unit.to_owned(), floor, subject, ratio, need, verdict]);
}

/// Prints a row that could not be measured, and why.
pub(crate) fn print_failed(name: &str, error: &anyhow::Error) {
    println!("{name:<46} not measured: {error:#}");
}

fn print_line(columns: &[String; 7]) {
    let [name, unit, floor, subject, ratio, need, verdict] = columns;
    let line = format!("{name:<46} {unit:<5} {floor:>24} {subject:>24} {ratio:>18} {need:>9} {verdict}");
    println!("{}", line.trim_end());
}

/// The median, and the extremes where there is more than one.
fn spread(values: &[f64]) -> String {
    let Some(middle) = median(values.iter().copied()) else { return "-".to_owned() };
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match values.len() {
        1 => Figure(middle).to_string(),
        _ => format!("{} ({}..{})", Figure(middle), Figure(lowest), Figure(highest)),
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// A figure with as many digits as it deserves.
struct Figure(f64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            whole if whole == whole.trunc() && whole.abs() < 1e6 => write!(f, "{whole:.0}"),
            small if small.abs() < 10.0 => write!(f, "{small:.2}"),
            middling if middling.abs() < 1000.0 => write!(f, "{middling:.1}"),
            large => write!(f, "{large:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(floor: &[f64], subject: &[f64], need: Need) -> Row {
        Row { name: String::new(), unit: "", floor: floor.to_vec(), subject: subject.to_vec(), need }
    }

    #[test]
    fn a_ratio_is_the_median_of_the_pairs() {
        let row = row(&[10.0, 100.0, 10.0], &[11.0, 110.0, 30.0], Need::RatioAtMost(1.2));
        assert_eq!(row.ratio().map(|ratio| (ratio * 10.0).round()), Some(11.0));
        assert_eq!(row.verdict(), "met");
    }

    #[test]
    fn a_figure_below_its_target_is_missed() {
        assert_eq!(row(&[], &[4.0, 5.0, 4.9], Need::AtLeast(5.0)).verdict(), "missed");
        assert_eq!(row(&[], &[4.0, 5.0, 5.1], Need::AtLeast(5.0)).verdict(), "met");
        assert_eq!(row(&[1.0], &[], Need::RatioAtLeast(0.9)).verdict(), "");
    }
}
