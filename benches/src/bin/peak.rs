//! The processor's peak on request, as the binary `step` does training steps: fused multiply-adds on a number of
//! threads at once.

use std::error::Error;

use clap::Parser;
use jostle::Parallel;
use jostle_benches::{peak, turns};
use jostle_pool::Pool;

/// Calls in each thread's part of a step: milliseconds, beside which the fork does not count.
const CALLS: usize = 100;

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let threads = Arguments::parse().threads.max(1);
    let pool = Pool::new(threads)?;
    turns::ready()?;
    let about = serde_json::json!({ "operations": (threads * CALLS) as u64 * peak::operations() });
    turns::serve(&about, || {
        pool.run(threads, &|_| (0..CALLS).for_each(|_| peak::run()));
        Ok(())
    })
}
