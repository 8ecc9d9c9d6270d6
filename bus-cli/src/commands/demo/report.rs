//! What the consumer of the demonstration finds out, and how it is told.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::ends::Sample;
use crate::exit::{Exit, Failure};
use crate::output::{counted, grouped};

/// A line from the consumer to its parent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Progress {
    /// So many messages have come.
    Received(u64),
    /// All have come, or none came for long.
    Done(Report),
}

/// What came.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    producers: Vec<Account>,
    /// From the first message to the last.
    elapsed_ns: u64,
    /// One way: `(share of the messages, at most so many nanoseconds)`.
    latencies_ns: Vec<(f64, u64)>,
}

/// What came from one producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    messages: u64,
    /// Messages that were not the next of their producer: lost, doubled or overtaken.
    out_of_order: u64,
    last: u64,
}

/// Checks message after message.
pub(super) struct Audit {
    producers: Vec<Account>,
    first_at_ns: Option<u64>,
    last_at_ns: u64,
    latency_ns: Option<Histogram<u32>>,
}

impl Audit {
    pub(super) fn new(producers: u32) -> Self {
        let producers = vec![Account::default(); producers as usize];
        // Three digits, from a nanosecond to a minute.
        let latency_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3).ok();
        Self { producers, first_at_ns: None, last_at_ns: 0, latency_ns }
    }

    pub(super) fn note(&mut self, sample: &Sample, now_ns: u64) {
        self.first_at_ns.get_or_insert(now_ns);
        self.last_at_ns = now_ns;
        if let Some(histogram) = &mut self.latency_ns {
            histogram.saturating_record(now_ns.saturating_sub(sample.sent_at_ns));
        }
        if let Some(account) = self.producers.get_mut(sample.producer as usize) {
            account.messages += 1;
            account.out_of_order += u64::from(sample.number != account.last + 1);
            account.last = sample.number;
        }
    }

    pub(super) fn report(self) -> Report {
        let share = |share: f64| {
            let latency_ns = self.latency_ns.as_ref().map_or(0, |histogram| histogram.value_at_quantile(share));
            (share, latency_ns)
        };
        Report {
            elapsed_ns: self.last_at_ns - self.first_at_ns.unwrap_or(self.last_at_ns),
            latencies_ns: SHARES.map(share).to_vec(),
            producers: self.producers,
        }
    }
}

impl Report {
    pub(super) fn speed(&self) -> String {
        let messages: u64 = self.producers.iter().map(|account| account.messages).sum();
        let seconds = self.elapsed_ns as f64 / 1e9;
        let rate = if seconds > 0.0 { messages as f64 / seconds } else { 0.0 };
        format!("{} messages in {seconds:.2} s: {} messages/s", grouped(messages), grouped(rate as u64))
    }

    pub(super) fn latencies(&self) -> String {
        let each = self.latencies_ns.iter().map(|(share, latency_ns)| {
            let name = if *share < 1.0 { format!("{} %", share * 100.0) } else { "all".to_owned() };
            format!("{name} within {:.1} us", *latency_ns as f64 / 1e3)
        });
        format!("latency one way: {}", each.collect::<Vec<_>>().join(", "))
    }

    /// A line for each producer.
    pub(super) fn proof(&self, wanted: u64) -> String {
        let line = |(number, account): (usize, &Account)| {
            let order = match account.out_of_order {
                0 => "all in order".to_owned(),
                count => format!("{} out of order", counted(count, "message")),
            };
            format!("  producer {}: {} of {} messages, {order}", number + 1, grouped(account.messages), grouped(wanted))
        };
        self.producers.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Fails unless every message came, once and in order.
    pub(super) fn verify(&self, wanted: u64, producers: u32) -> Result<(), Failure> {
        let right = Account { messages: wanted, out_of_order: 0, last: wanted };
        if self.producers == vec![right; producers as usize] {
            return Ok(());
        }
        Err(Failure::new(Exit::Failed, "messages are missing, doubled or out of order"))
    }
}

/// Which percentiles are told.
const SHARES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 1.0];

#[cfg(test)]
mod tests {
    use super::*;

    fn report(numbers: &[u64]) -> Report {
        let mut audit = Audit::new(1);
        for number in numbers {
            let sample = serde_json::json!({"producer": 0, "number": number, "sent_at_ns": 0, "value": 0.5});
            audit.note(&serde_json::from_value(sample).unwrap(), 1000 * number);
        }
        audit.report()
    }

    #[test]
    fn only_every_message_once_and_in_order_passes() {
        assert!(report(&[1, 2, 3]).verify(3, 1).is_ok());
        for numbers in [&[1, 2][..], &[1, 3, 2], &[1, 2, 2], &[1, 2, 3, 3], &[1, 1, 2, 3], &[]] {
            assert!(report(numbers).verify(3, 1).is_err(), "{numbers:?}");
        }
        assert!(report(&[1, 2, 3]).verify(3, 2).is_err());
    }

    #[test]
    fn the_report_names_figures() {
        let report = report(&[1, 2, 4]);
        assert_eq!(report.speed(), "3 messages in 0.00 s: 1,000,000 messages/s");
        assert_eq!(report.proof(4), "  producer 1: 3 of 4 messages, 1 message out of order");
        assert!(report.latencies().starts_with("latency one way: 50 % within 2.0 us, "), "{}", report.latencies());
    }
}
