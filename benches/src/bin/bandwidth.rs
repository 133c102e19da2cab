//! Reads memory on request, on one thread. Reads lines with a number of times, and answers each with a line of JSON:
//!
//!     echo 20 | bandwidth

use std::error::Error;

use jostle_benches::bandwidth::Memory;
use jostle_benches::turns;

fn main() -> Result<(), Box<dyn Error>> {
    turns::ready()?;
    let memory = Memory::new();
    turns::serve(&serde_json::json!({ "bytes": memory.bytes() }), || {
        memory.read();
        Ok(())
    })
}
