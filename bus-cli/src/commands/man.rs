//! `bus man`.

use std::fs;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use crate::args::{ManArgs, public_command};
use crate::exit::{Exit, Failure};
use crate::output;

/// Writes one page to the output, or all into a folder.
pub(crate) fn run(args: &ManArgs) -> Result<Exit, Failure> {
    let bus = command();
    if let Some(folder) = &args.dir {
        return write_all(&bus, folder);
    }
    let page = match &args.verb {
        None => render(bus.clone())?,
        Some(verb) => render(verb_page(&bus, verb)?)?,
    };
    output::write(&page)
}

/// The command line with its global options in every verb.
fn command() -> Command {
    let mut bus = public_command();
    bus.build();
    bus
}

fn verb_page(bus: &Command, verb: &str) -> Result<Command, Failure> {
    let found = verbs(bus).find(|known| known.get_name() == verb || known.get_all_aliases().any(|alias| alias == verb));
    found.map(page_of).ok_or_else(|| {
        let verbs: Vec<&str> = verbs(bus).map(Command::get_name).collect();
        Failure::new(Exit::Usage, format!("no verb is called {verb:?}: there are {}", verbs.join(", ")))
    })
}

/// As a page of its own, `publish` is `bus-publish`.
fn page_of(verb: &Command) -> Command {
    let name = format!("bus-{}", verb.get_name());
    verb.clone().name(name.clone()).display_name(name).version(env!("CARGO_PKG_VERSION"))
}

fn verbs(bus: &Command) -> impl Iterator<Item = &Command> {
    bus.get_subcommands()
}

fn write_all(bus: &Command, folder: &Path) -> Result<Exit, Failure> {
    let at_folder = |error| Failure::io(format_args!("cannot write manuals into {}", folder.display()), &error);
    fs::create_dir_all(folder).map_err(at_folder)?;
    for page in verbs(bus).map(page_of).chain([bus.clone()]) {
        let path = folder.join(format!("{}.1", page.get_name()));
        fs::write(path, render(page)?).map_err(at_folder)?;
    }
    Ok(Exit::Done)
}

fn render(page: Command) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::new();
    Man::new(page).render(&mut out).map_err(|error| Failure::io("cannot write the manual", &error))?;
    Ok(out)
}
