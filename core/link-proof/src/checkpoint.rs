//! Saving a run and going on with it.

use core::hint::black_box;

use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{Error, Plan};

use crate::{Memory, OPTIONS, training, unknown};

/// The whole state.
pub fn save(memory: &mut Memory) -> Result<(), Error> {
    let contents = Contents {
        parameters: unknown(&mut memory.parameters),
        frozen: &[],
        optimizer: Some(unknown(&mut memory.optimizer)),
        progress: black_box(Progress { step: 1, seed: 1 }),
        metadata: &[],
    };
    black_box(checkpoint::write(unknown(&mut memory.checkpoint), &training::plan()?, &contents)?);
    Ok(())
}

/// The model that the file states, and the state.
pub fn resume(memory: &mut Memory) -> Result<(), Error> {
    let file = Checkpoint::new(unknown(&mut memory.checkpoint))?;
    let plan = Plan::new(&file.config()?, &black_box(OPTIONS))?;
    let optimizer = unknown(&mut memory.optimizer);
    black_box(file.read(&plan, unknown(&mut memory.parameters), Some(optimizer))?);
    Ok(())
}
