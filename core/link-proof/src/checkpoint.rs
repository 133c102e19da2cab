//! Saves and resumes a run.

use core::hint::black_box;

use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{Error, Plan};

use crate::{Memory, OPTIONS};

/// The whole state.
pub fn save(memory: &mut Memory, plan: &Plan) -> Result<(), Error> {
    let contents = Contents {
        parameters: memory.parameters,
        frozen: &[],
        optimizer: Some(memory.optimizer),
        progress: black_box(Progress { step: 1, seed: 1 }),
        metadata: &[],
    };
    black_box(checkpoint::write(memory.checkpoint, plan, &contents)?);
    Ok(())
}

/// Reads the model from the file, then its state.
pub fn resume(memory: &mut Memory) -> Result<(), Error> {
    let file = Checkpoint::new(memory.checkpoint)?;
    let plan = Plan::new(&file.config()?, black_box(&OPTIONS))?;
    black_box(file.read(&plan, memory.parameters, Some(memory.optimizer))?);
    Ok(())
}
