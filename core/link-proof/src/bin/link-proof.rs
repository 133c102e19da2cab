//! The whole core.
#![no_std]
#![no_main]

use jostle::Error;
use link_proof::{Memory, checkpoint, llama2c, memory, operations, training};

fn run(memory: &mut Memory) -> Result<(), Error> {
    let plan = training::plan()?;
    training::train(memory, &plan)?;
    training::train_in_pieces(memory, &plan)?;
    training::generate(memory, &plan)?;
    checkpoint::save(memory, &plan)?;
    checkpoint::resume(memory)?;
    llama2c::tokenizer(memory)?;
    #[cfg(feature = "llama")]
    llama2c::model(memory)?;
    operations::all(memory.operations, memory.batch)
}

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    if run(memory()).is_ok() { 0 } else { 1 }
}
