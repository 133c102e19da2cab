//! The whole core.
#![no_std]
#![no_main]

use jostle::Error;
use link_proof::{Memory, checkpoint, memory, operations, training};

fn run(memory: &mut Memory) -> Result<(), Error> {
    training::train(memory)?;
    training::train_in_pieces(memory)?;
    training::generate(memory)?;
    checkpoint::save(memory)?;
    checkpoint::resume(memory)?;
    operations::all(&mut memory.operations, &mut memory.batch)
}

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    if run(memory()).is_ok() { 0 } else { 1 }
}
