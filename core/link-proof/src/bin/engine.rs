//! Firmware that initialises, trains, evaluates, generates, saves and resumes.
#![no_std]
#![no_main]

use jostle::Error;
use link_proof::{Memory, checkpoint, memory, training};

fn run(memory: &mut Memory) -> Result<(), Error> {
    let plan = training::plan()?;
    training::train(memory, &plan)?;
    training::generate(memory, &plan)?;
    checkpoint::save(memory, &plan)?;
    checkpoint::resume(memory)
}

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    if run(memory()).is_ok() { 0 } else { 1 }
}
