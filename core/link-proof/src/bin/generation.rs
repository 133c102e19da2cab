//! Firmware that initialises, trains, evaluates and generates.
#![no_std]
#![no_main]

use jostle::Error;
use link_proof::{Memory, memory, training};

fn run(memory: &mut Memory) -> Result<(), Error> {
    let plan = training::plan()?;
    training::train(memory, &plan)?;
    training::generate(memory, &plan)
}

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    if run(memory()).is_ok() { 0 } else { 1 }
}
