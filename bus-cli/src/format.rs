//! `consume --format`: a template that is filled in for each message.

use bus_core::framing::jsonl;
use bus_core::{Headers, MessageInfo};

use crate::values;

/// A template, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Payload,
    Sender,
    Pid,
    Sequence,
    SentAt,
    Channel,
    Attempt,
    Redelivered,
    Headers,
}

impl Format {
    /// Reads a template: text with escapes such as `\n`, and fields such as `%p`.
    pub(crate) fn parse(template: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('%') {
            push_text(&mut parts, before)?;
            let field = after.chars().next().ok_or("a % at the end: write %% for a percent sign")?;
            match field {
                '%' => parts.push(Part::Text(b"%".to_vec())),
                'p' => parts.push(Part::Payload),
                's' => parts.push(Part::Sender),
                'i' => parts.push(Part::Pid),
                'n' => parts.push(Part::Sequence),
                't' => parts.push(Part::SentAt),
                'c' => parts.push(Part::Channel),
                'a' => parts.push(Part::Attempt),
                'r' => parts.push(Part::Redelivered),
                'h' => parts.push(Part::Headers),
                other => return Err(format!("unknown field %{other}: %p %s %i %n %t %c %a %r %h and %% are known")),
            }
            rest = &after[field.len_utf8()..];
        }
        push_text(&mut parts, rest)?;
        Ok(Self { parts })
    }

    /// Whether the headers of a message are needed.
    pub(crate) fn has_headers(&self) -> bool {
        self.parts.contains(&Part::Headers)
    }

    /// Appends the template, filled in.
    pub(crate) fn fill(&self, channel: &str, info: &MessageInfo, headers: &Headers, payload: &[u8], out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Payload => out.extend_from_slice(payload),
                Part::Sender => out.extend_from_slice(info.sender.to_string().as_bytes()),
                Part::Pid => out.extend_from_slice(info.pid.to_string().as_bytes()),
                Part::Sequence => out.extend_from_slice(info.sequence.to_string().as_bytes()),
                Part::SentAt => out.extend_from_slice(jsonl::time(info.sent_at).as_bytes()),
                Part::Channel => out.extend_from_slice(channel.as_bytes()),
                Part::Attempt => out.extend_from_slice(info.attempt.to_string().as_bytes()),
                Part::Redelivered => out.extend_from_slice(info.redelivered.to_string().as_bytes()),
                Part::Headers => jsonl::write_headers(headers, out),
            }
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if !text.is_empty() {
        parts.push(Part::Text(values::unescape(text)?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> String {
        let bus = bus_core::Bus::in_process();
        let sender = bus.raw_sender("jobs").open().unwrap();
        let mut receiver = bus.raw_receiver("jobs").open().unwrap();
        let headers = Headers::new().with("k", "v");
        sender.outgoing().headers(&headers).send(b"hi".to_vec()).unwrap();
        let delivery = receiver.next_delivery().unwrap();
        let mut out = Vec::new();
        Format::parse(template).unwrap().fill("jobs", delivery.info(), delivery.headers(), &delivery, &mut out);
        let sender_id = delivery.info().sender.to_string();
        delivery.ack();
        String::from_utf8(out).unwrap().replace(&sender_id, "SENDER")
    }

    #[test]
    fn fields_are_filled_in() {
        assert_eq!(filled(r"%c %s #%n [%p] %a %r %h%%\n"), "jobs SENDER #1 [hi] 1 false {\"k\":\"v\"}%\n");
        assert_eq!(filled(r"%i"), std::process::id().to_string());
        assert!(filled("%t").ends_with('Z'));
        assert_eq!(filled(""), "");
        assert_eq!(filled(r"a\tb\0\\"), "a\tb\0\\");
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for template in ["%", "%x", "%ä", r"\q", r"a\"] {
            assert!(Format::parse(template).is_err(), "{template:?}");
        }
    }
}
