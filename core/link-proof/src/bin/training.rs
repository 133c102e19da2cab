//! Firmware that initialises, trains and evaluates.
#![no_std]
#![no_main]

use jostle::Error;
use link_proof::{Memory, memory, training};

fn run(memory: &mut Memory) -> Result<(), Error> {
    training::train(memory, &training::plan()?)
}

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    if run(memory()).is_ok() { 0 } else { 1 }
}
