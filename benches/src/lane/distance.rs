//! How far apart the processors are: what no ring can be faster than.
//!
//! Virtual processors move: at one moment they share a cache, at the next they do not, and a line of memory takes four
//! times as long from one to the other. Figures of two runs are to be compared only where this was the same.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::clock::now_ns;

/// A word on lines of its own: processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Word(AtomicU64);

/// Turns that are timed together.
const TURNS: u64 = 500;

/// How often that is done; the fastest counts, as others may have had a processor meanwhile.
const TIMES: u64 = 20;

/// How long a word takes to be seen by another thread and answered, in nanoseconds.
pub(crate) fn there_and_back_ns() -> f64 {
    let (call, answer) = (Word::default(), Word::default());
    let await_turn = |word: &Word, turn| {
        while word.0.load(Ordering::Acquire) < turn {
            spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 1..=TURNS * TIMES {
                await_turn(&call, turn);
                answer.0.store(turn, Ordering::Release);
            }
        });
        let mut shortest_ns = u64::MAX;
        for time in 0..TIMES {
            let began_ns = now_ns();
            for turn in time * TURNS + 1..=(time + 1) * TURNS {
                call.0.store(turn, Ordering::Release);
                await_turn(&answer, turn);
            }
            shortest_ns = shortest_ns.min(now_ns() - began_ns);
        }
        shortest_ns as f64 / TURNS as f64
    })
}
