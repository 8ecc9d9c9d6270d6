//! One file for each verb.

mod completions;
mod consume;
mod create;
mod daemon;
mod delete;
mod demo;
mod exec;
mod kick;
mod link;
mod list;
mod man;
mod peek;
mod publish;
mod purge;
mod run;
mod show;
mod skip;

use std::process::ExitCode;

use bus_core::Removed;
use serde::Serialize;

use crate::args::{CommandLine, OrderArgs, Verb};
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::output::{self, counted};

/// Does what the command line says.
pub(crate) fn run(command_line: &CommandLine) -> Result<ExitCode, Failure> {
    let around = |verb: &str| Surroundings::new(&command_line.global, verb);
    let exit = match &command_line.verb {
        Verb::Run(args) => return run::run(args, &around("run")),
        Verb::Publish(args) => publish::run(args, &around("publish")),
        Verb::Consume(args) if args.peek => peek::run(args, &around("consume --peek")),
        Verb::Consume(args) => consume::run(args, &around("consume")),
        Verb::List(args) => list::run(args, &around("list")),
        Verb::Show(args) => show::run(args, &around("show")),
        Verb::Create(args) => create::run(args, &around("create")),
        Verb::Delete(args) => delete::run(args, &around("delete")),
        Verb::Purge(args) => purge::run(args, &around("purge")),
        Verb::Skip(args) => skip::run(args, &around("skip")),
        Verb::Kick(args) => kick::run(args, &around("kick")),
        Verb::Link(args) => link::link(args, &around("link")),
        Verb::Unlink(args) => link::unlink(args, &around("unlink")),
        Verb::Links(args) => link::list(args, &around("links")),
        Verb::Daemon(args) => daemon::run(args, &command_line.global),
        Verb::Demo(args) => demo::run(args, &around("demo")),
        Verb::DemoProducer(args) => demo::produce(args, &around("demo producer")),
        Verb::DemoConsumer(args) => demo::consume(args, &around("demo consumer")),
        Verb::DemoDaemon(args) => demo::serve(args),
        Verb::Completions(args) => completions::run(args),
        Verb::Man(args) => man::run(args),
    };
    exit.map(ExitCode::from)
}

/// Tells how many messages an order removed.
fn report_removed(what: &str, args: &OrderArgs, removed: Removed, around: &Surroundings) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Done<'a> {
        channel: &'a str,
        #[serde(flatten)]
        removed: Removed,
    }

    let mut sentence = format!("{what} {}: {} removed", args.channel, counted(removed.messages, "message"));
    if removed.recalled > 0 {
        let recalled = counted(removed.recalled, "message");
        sentence.push_str(&format!(", {recalled} on the way to the receiver to follow"));
    }
    output::report(&Done { channel: args.channel.as_str(), removed }, sentence, args.json, around)
}
