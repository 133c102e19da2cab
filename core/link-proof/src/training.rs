//! Initialises, trains, evaluates and generates, as firmware does.

use core::hint::black_box;

use jostle::initialize;
use jostle::{
    Buffers, Compute, Decay, Error, Generator, InstructionSet, Optimizer, Plan, Recipe, Sampling, Schedule,
    Trainer,
};

use crate::{CONFIG, Memory, OPTIONS};

/// Made at run time, as in C programs.
pub fn plan() -> Result<Plan, Error> {
    Plan::new(black_box(&CONFIG), black_box(&OPTIONS))
}

const RECIPE: Recipe = Recipe {
    optimizer: Optimizer::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1 },
    schedule: Schedule { peak: 1e-3, warmup: 10, steps: 100, decay: Decay::Cosine { last: 1e-4 } },
    clip: Some(1.0),
    accumulate: 2,
    seed: 1,
};

/// One step, and the loss after it.
pub fn train(memory: &mut Memory, plan: &Plan) -> Result<(), Error> {
    with_trainer(memory, plan, |trainer, text| {
        black_box(trainer.step(text)?);
        black_box(trainer.evaluate(text)?);
        Ok(())
    })
}

/// One step in pieces.
pub fn train_in_pieces(memory: &mut Memory, plan: &Plan) -> Result<(), Error> {
    with_trainer(memory, plan, |trainer, text| {
        while black_box(trainer.poll(text)?).is_pending() {}
        Ok(())
    })
}

fn with_trainer(
    memory: &mut Memory,
    plan: &Plan,
    run: impl FnOnce(&mut Trainer<'_>, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    initialize(InstructionSet::detect(), plan, memory.parameters, 1)?;
    let buffers = Buffers {
        parameters: memory.parameters,
        frozen: &[],
        gradients: memory.gradients,
        optimizer: memory.optimizer,
        workspace: memory.workspace,
        batch: memory.batch,
    };
    let mut trainer = Trainer::new(plan, black_box(&RECIPE), buffers, Compute::serial())?;
    run(&mut trainer, memory.text)
}

const SAMPLING: Sampling = Sampling { temperature: 0.8, top_k: Some(10), top_p: Some(0.9), min_p: Some(0.1) };

/// A prompt, and one token after it.
pub fn generate(memory: &mut Memory, plan: &Plan) -> Result<(), Error> {
    let Memory { parameters, generation, window, batch, order, .. } = memory;
    let simd = InstructionSet::detect();
    let mut generator = Generator::new(plan, simd, parameters, &[], generation, window)?;
    generator.feed(batch)?;
    black_box(generator.draw(black_box(&SAMPLING), order, 1, 2)?);
    Ok(())
}
