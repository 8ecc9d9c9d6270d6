//! Puts the `[[link]]` table of a gateway into the text of a config file, and takes it out again.
//!
//! The text is cut and joined, never written anew: whatever else stands there stays byte for byte, line ends and a
//! missing last one included. What comes of it is read again, and must say what was meant and nothing else.

use std::ops::Range;

use bus_core::LinkSpec;
use toml::de::{DeTable, DeValue};

use super::file::{Fault, parse};
use super::links;

/// The text with one more gateway, after all that is there; as it is, if that has it `times` times.
pub(super) fn with(text: &str, spec: &LinkSpec, times: usize) -> Result<String, EditError> {
    let mut expected = parse(text).map_err(EditError::Before)?;
    if expected.links.iter().filter(|it| *it == spec).count() >= times {
        return Ok(text.to_owned());
    }
    let table = links::table(spec).map_err(EditError::Table)?;
    let is_blank = text.trim_start_matches('\u{feff}').is_empty();
    expected.links.push(spec.clone());
    let says_so = |edited: &String| parse(edited).is_ok_and(|config| config == expected);
    let joined = |line_end: &str| {
        let end_of_line = if is_blank || text.ends_with('\n') { "" } else { line_end };
        let blank_line = if is_blank { "" } else { line_end };
        format!("{text}{end_of_line}{blank_line}{}", table.replace('\n', line_end))
    };
    // A command of several lines has its own line ends, which are not to change.
    let line_ends: &[&str] = if text.contains("\r\n") { &["\r\n", "\n"] } else { &["\n"] };
    line_ends.iter().copied().map(joined).find(says_so).ok_or(EditError::Shape)
}

/// The text without these gateways. Of one that was changed in the file since, the table of its channel and pipe is
/// meant; of one that is not there, none.
pub(super) fn without(text: &str, specs: &[LinkSpec]) -> Result<String, EditError> {
    let mut expected = parse(text).map_err(EditError::Before)?;
    let mut tables: Vec<usize> = (0..expected.links.len()).collect();
    let mut out = Vec::new();
    for spec in specs {
        let same = |at: &&usize| expected.links[**at] == *spec;
        let alike = |at: &&usize| {
            let it = &expected.links[**at];
            (&it.channel, &it.pipe) == (&spec.channel, &spec.pipe)
        };
        if let Some(at) = tables.iter().find(same).or_else(|| tables.iter().find(alike)).copied() {
            tables.retain(|it| *it != at);
            out.push(at);
        }
    }
    if out.is_empty() {
        return Ok(text.to_owned());
    }
    // From the last on, so that the places of the others hold.
    out.sort_unstable_by(|a, b| b.cmp(a));
    let mut edited = text.to_owned();
    for at in out {
        let lines = lines_of_table(&edited, at).ok_or(EditError::Shape)?;
        edited.replace_range(lines, "");
        expected.links.remove(at);
    }
    match parse(&edited) {
        Ok(config) if config == expected => Ok(edited),
        _ => Err(EditError::Shape),
    }
}

/// The lines from the header to the last value of a `[[link]]` table, and the blank line before them, or,
/// at the file's start, after them.
fn lines_of_table(text: &str, at: usize) -> Option<Range<usize>> {
    let root = DeTable::parse(text).ok()?;
    let DeValue::Array(links) = root.get_ref().get("link")?.get_ref() else { return None };
    let link = links.get(at)?;
    let DeValue::Table(table) = link.get_ref() else { return None };
    let header = link.span();
    if !text.get(header.clone())?.starts_with("[[") {
        return None;
    }
    let last = table.iter().map(|(_, value)| value.span().end).max().unwrap_or(header.end);
    let mut start = text[..header.start].rfind('\n').map_or(0, |newline| newline + 1);
    let mut end = text[last..].find('\n').map_or(text.len(), |newline| last + newline + 1);
    let ends_paragraph = |text: &str| text.is_empty() || text.starts_with('\n') || text.starts_with("\r\n");
    if ends_paragraph(&text[end..]) {
        let before = &text[..start];
        let line_before = before.strip_suffix("\r\n").or_else(|| before.strip_suffix('\n'));
        start = line_before.filter(|it| it.ends_with('\n')).map_or(start, str::len);
        if start == 0 {
            end = text[end..].find('\n').map_or(text.len(), |newline| end + newline + 1);
        }
    }
    Some(start..end)
}

/// Why a text stays as it is.
pub(super) enum EditError {
    /// It is no config any more.
    Before(Fault),
    /// The gateway cannot be written in a config.
    Table(String),
    /// Its gateways do not stand in `[[link]]` tables of their own lines.
    Shape,
}

#[cfg(test)]
mod tests {
    use bus_core::framing::Framing;
    use bus_core::{ChannelName, Pipe, Restart};

    use super::*;

    fn spec(channel: &str, command: &str) -> LinkSpec {
        let mut spec = LinkSpec::new(ChannelName::new(channel).unwrap(), Pipe::ToCommand(command.to_owned()));
        spec.keep = true;
        spec
    }

    fn ok(edited: Result<String, EditError>) -> String {
        edited.unwrap_or_else(|error| match error {
            EditError::Before(_) => panic!("the text before"),
            EditError::Table(text) => panic!("{text}"),
            EditError::Shape => panic!("the shape"),
        })
    }

    const TEXTS: [&str; 8] = [
        "",
        "\n",
        "# only a comment",
        "poll = \"0us\" # sleeps\n",
        "window_messages=7",
        "per_user.channels_max = 3\nwindow_messages = 9\nper_user.connections_max = 4\n",
        "# \u{e4}\r\n[channels.\"a.b\"]  # kept\r\ncapacity = 2\r\n",
        "[[link]]\nchannel = \"x\"\nto_command = '''\n[[link]]\n'''\n# after\n\n\n[channels.y]\n\n[[ \"link\" ]] # two\nchannel=\"y\"\nfrom_fifo=\"/y\"",
    ];

    #[test]
    fn what_was_put_in_and_taken_out_leaves_every_byte_of_the_rest() {
        for text in TEXTS {
            let one = spec("jobs", "grep -v '\"' | \\\n tr a-z A-Z \u{e4}\t\u{7f}''' \"\"\"");
            let two = spec("jobs", "cat");
            let with_one = ok(with(text, &one, 1));
            assert!(with_one.starts_with(text), "{with_one}");
            assert_eq!(ok(with(&with_one, &one, 1)), with_one);
            assert!(ok(with(&with_one, &one, 2)).len() > with_one.len());
            let with_both = ok(with(&with_one, &two, 1));
            assert!(with_both.starts_with(&with_one), "{with_both}");
            let restored = ok(without(&with_one, std::slice::from_ref(&one)));
            // A last line without its end has one now.
            assert_eq!(restored.strip_prefix(text).map(str::trim_end), Some(""), "{restored}");
            assert_eq!(restored.len() > text.len(), !text.is_empty() && !text.ends_with('\n'), "{restored:?}");
            let only_two = ok(without(&with_both, std::slice::from_ref(&one)));
            assert_eq!(only_two, ok(with(&restored, &two, 1)));
            assert_eq!(ok(without(&with_both, &[two, one])), restored);
        }
    }

    #[test]
    fn every_option_of_a_gateway_is_written_and_read_again() {
        let delimited = Framing::Delimited("--\u{1}".into());
        for framing in [Framing::null(), Framing::Length32, Framing::Whole, Framing::JsonLines, delimited] {
            let mut spec = spec("jobs", "./worker");
            (spec.framing, spec.restart, spec.restart_limit, spec.ack_lines) = (framing, Restart::Always, 3, true);
            ok(with("", &spec, 1));
        }
        for pipe in [Pipe::FromFifo("/a".into()), Pipe::ToFifo("/b".into()), Pipe::FromCommand("c".into())] {
            let mut spec = spec("jobs", "");
            spec.pipe = pipe;
            ok(with("", &spec, 1));
        }
        assert_eq!(ok(with("", &spec("a", "b"), 1)), "[[link]]\nchannel = \"a\"\nto_command = \"b\"\n");
    }

    #[test]
    fn a_table_goes_with_its_own_comments_and_leaves_those_around_it() {
        let text = "# one\n[[link]] # mine\nchannel = \"a\"\n# why\nto_command = \"b\" # end\n# two\nlinks_max = 3\n";
        // The last line would belong to the table, so it is none of a config.
        assert!(matches!(without(text, &[spec("a", "b")]), Err(EditError::Before(_))));
        let text = text.replace("links_max = 3", "[per_user]");
        assert_eq!(ok(without(&text, &[spec("a", "b")])), "# one\n# two\n[per_user]\n");
    }

    #[test]
    fn a_table_that_was_changed_since_is_known_by_its_channel_and_pipe() {
        let text = "[[link]]\nchannel = \"a\"\nto_command = \"b\"\nframing = \"null\"\n";
        assert_eq!(ok(without(text, &[spec("a", "b")])), "");
        assert_eq!(ok(without(text, &[spec("a", "c")])), text);
    }

    #[test]
    fn gateways_in_one_line_are_refused_and_not_spoilt() {
        let text = "link = [{ channel = \"a\", to_command = \"b\" }]\n";
        assert!(matches!(with(text, &spec("c", "d"), 1), Err(EditError::Shape)));
        assert!(matches!(without(text, &[spec("a", "b")]), Err(EditError::Shape)));
        let mut strange = spec("a", "b");
        strange.framing = Framing::Delimited(vec![0xff]);
        assert!(matches!(with("", &strange, 1), Err(EditError::Table(_))));
    }
}
