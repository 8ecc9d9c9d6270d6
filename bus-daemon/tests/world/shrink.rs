//! From a failure to a smaller one: fewer kinds of fault, fewer steps, fewer peers.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::options::Options;
use crate::world::{Summary, World};

/// Why a world failed, and how it came to it.
pub(crate) struct Failure {
    pub(crate) error: String,
    story: String,
}

/// Runs a world; a panic is a failure like any other.
pub(crate) fn run(options: &Options) -> Result<Summary, Failure> {
    let mut world = World::new(options);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let error = match outcome {
        Ok(Ok(summary)) => return Ok(summary),
        Ok(Err(error)) => error,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            format!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without words"))
        }
    };
    Err(Failure { error, story: world.describe() })
}

/// Runs the world of a seed, and panics with the smallest failure that it finds.
pub(crate) fn run_or_explain(seed: u64, steps: u64) -> Summary {
    let options = Options::draw(seed, steps);
    match run(&options) {
        Ok(summary) => summary,
        Err(failure) => {
            let (options, failure) = shrink(options, failure);
            let Failure { error, story } = failure;
            panic!(
                "{error}\n\nWORLD_SEED={seed} WORLD_STEPS={steps}, shrunk to {options:#?}\nthe last steps:\n{story}"
            );
        }
    }
}

/// Makes a failing world smaller for as long as it still fails, in whatever way.
pub(crate) fn shrink(mut options: Options, mut failure: Failure) -> (Options, Failure) {
    loop {
        let smaller = candidates(&options).into_iter().find_map(|candidate| {
            let failure = run(&candidate).err()?;
            Some((candidate, failure))
        });
        match smaller {
            Some(found) => (options, failure) = found,
            None => return (options, failure),
        }
    }
}

fn candidates(options: &Options) -> Vec<Options> {
    let mut smaller = Vec::new();
    for steps in [
        options.steps / 2,
        options.steps * 3 / 4,
        options.steps.saturating_sub(100),
        options.steps - options.steps.min(1),
    ] {
        if steps < options.steps {
            smaller.push(Options { steps, ..options.clone() });
        }
    }
    for index in 0..options.faults.len() {
        let mut fewer = options.clone();
        fewer.faults.remove(index);
        smaller.push(fewer);
    }
    if options.senders > 1 {
        smaller.push(Options { senders: options.senders - 1, ..options.clone() });
    }
    if options.receivers > 1 {
        smaller.push(Options { receivers: options.receivers - 1, ..options.clone() });
    }
    smaller
}
