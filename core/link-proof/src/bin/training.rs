//! What firmware links that initialises, trains and evaluates.
#![no_std]
#![no_main]

use link_proof::{memory, training};

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    if training::train(memory()).is_ok() { 0 } else { 1 }
}
