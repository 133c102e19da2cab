//! Reads or updates memory on request, on a number of threads at once. Reads lines with a number of times, and answers each
//! with a line of JSON:
//!
//!     echo 20 | bandwidth

use std::error::Error;
use std::sync::Mutex;

use clap::Parser;
use jostle::Parallel;
use jostle_benches::bandwidth::Memory;
use jostle_benches::turns;
use jostle_pool::Pool;

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Changes three buffers by a fourth instead of reading one
    #[arg(long)]
    update: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { threads, update } = Arguments::parse();
    let pool = Pool::new(threads)?;
    turns::ready()?;
    let memories: Vec<_> = (0..pool.threads()).map(|_| Memory::new()).collect();
    let bytes = if update { Memory::bytes_of_update } else { Memory::bytes };
    let about = serde_json::json!({ "bytes": memories.iter().map(bytes).sum::<u64>() });
    let memories: Vec<_> = memories.into_iter().map(Mutex::new).collect();
    turns::serve(&about, || {
        pool.run(memories.len(), &|thread| {
            let mut memory = memories[thread].lock().expect("no panic");
            if update { memory.update() } else { memory.read() }
        });
        Ok(())
    })
}
