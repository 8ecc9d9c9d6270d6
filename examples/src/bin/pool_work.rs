//! A pool of threads fed from a channel: one receiver, four threads behind it.
//!
//! A receiver belongs to one thread; a bridge hands on to the pool through a channel in the process.
//! The pool's channel is short, so a pool that is busy makes the sender in the other process wait.
//!
//! With `busd` running:
//!
//!     shell 1: cargo run --bin pool_work
//!     shell 2: cargo run --bin pool_feed

use std::error::Error;
use std::thread;

use bus_core::Bus;

fn main() -> Result<(), Box<dyn Error>> {
    let numbers = Bus::connect()?.receiver::<u64>("to-factor").until_disconnected().open()?;
    // Acknowledged when the pool's channel has taken it.
    let pool = numbers.into_crossbeam(4);
    let primes: usize = thread::scope(|scope| {
        let work = || pool.iter().filter(|number| is_prime(*number)).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("counting does not panic")).sum()
    });
    pool.end()?;
    println!("{primes} of them are prime");
    Ok(())
}

fn is_prime(number: u64) -> bool {
    (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}
