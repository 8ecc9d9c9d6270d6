//! What questions and orders say: one renderer for text and for JSON.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::stdio;

/// The answer to a question, for people and for programs.
pub(crate) trait Answer: Serialize {
    /// For people; each line ended.
    fn text(&self) -> String;
}

/// Writes the answer to a question to the output.
pub(crate) fn answer(answer: &impl Answer, json: bool) -> Result<Exit, Failure> {
    if json { write_json(answer) } else { write(answer.text().as_bytes()) }
}

/// Tells what an order did: people by a note, programs by an object in the output.
pub(crate) fn report(
    done: &impl Serialize,
    sentence: impl fmt::Display,
    json: bool,
    around: &Surroundings,
) -> Result<Exit, Failure> {
    if json {
        return write_json(done);
    }
    around.note(sentence);
    Ok(Exit::Done)
}

fn write_json(value: &impl Serialize) -> Result<Exit, Failure> {
    let json = serde_json::to_string_pretty(value);
    let json = json.map_err(|error| Failure::new(Exit::Failed, format!("cannot write JSON: {error}")))?;
    write((json + "\n").as_bytes())
}

/// Writes to the output. Who no longer reads has read enough.
pub(crate) fn write(bytes: &[u8]) -> Result<Exit, Failure> {
    let outcome = stdio::output().and_then(|mut output| output.write_all(bytes));
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::io("cannot write the output", &error)),
        Ok(()) | Err(_) => Ok(Exit::Done),
    }
}

/// Rows of text under headings. Columns of numbers are aligned at the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

/// A field of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    right: bool,
}

/// Text that may come from another process: what would steer the terminal is shown as an escape.
pub(crate) fn text(text: &str) -> Cell {
    Cell { text: printable(text), right: false }
}

pub(crate) fn number(number: impl Into<u64>) -> Cell {
    Cell { text: number.into().to_string(), right: true }
}

/// A heading above numbers.
pub(crate) fn heading(text: &str) -> Cell {
    Cell { text: text.to_owned(), right: true }
}

impl Table {
    pub(crate) fn new(headings: Vec<Cell>) -> Self {
        Self { rows: vec![headings] }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let gap = " ".repeat(width - cell.text.chars().count());
                let (left, right) = if cell.right { (&*gap, "") } else { ("", &*gap) };
                line.push_str(&format!("{left}{}{right}  ", cell.text));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Text without anything that steers a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// `1 message`, `2 messages`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A number with its thousands apart: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A size in the largest unit that divides it: `16 MiB`, `1000 B`.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} B"),
    }
}

/// A time span, to the millisecond: `0.250 s`.
pub(crate) fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(vec![text("NAME"), heading("N"), text("WHO")]);
        table.row(vec![text("a"), number(1_u64), text("x")]);
        table.row(vec![text("longer"), number(1000_u64), text("")]);
        assert_eq!(table.render(), "NAME       N  WHO\na          1  x\nlonger  1000\n");
    }

    #[test]
    fn what_would_steer_the_terminal_is_shown_as_an_escape() {
        assert_eq!(printable("a\x1b[31mb\nä"), "a\\u{1b}[31mb\\nä");
    }

    #[test]
    fn figures_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1000, 1 << 14, 16 << 20, 1 << 30].map(size), ["0 B", "1000 B", "16 KiB", "16 MiB", "1 GiB"]);
        assert_eq!(seconds(61_250), "61.250 s");
        assert_eq!([counted(1, "message"), counted(0, "message")], ["1 message", "0 messages"]);
    }
}
