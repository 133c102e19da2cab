//! What firmware does: initialise, train, evaluate, generate.

use core::hint::black_box;

use jostle::initialization::initialize;
use jostle::{
    Buffers, Compute, Decay, Error, Generator, InstructionSet, Optimizer, Plan, Recipe, Sampling, Schedule,
    Trainer,
};

use crate::{CONFIG, Memory, OPTIONS, unknown};

pub fn plan() -> Result<Plan, Error> {
    Plan::new(&black_box(CONFIG), &black_box(OPTIONS))
}

fn recipe() -> Recipe {
    black_box(Recipe {
        optimizer: Optimizer::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1 },
        schedule: Schedule { peak: 1e-3, warmup: 10, steps: 100, decay: Decay::Cosine { last: 1e-4 } },
        clip: Some(1.0),
        accumulate: 2,
        seed: 1,
    })
}

/// One step, of whatever the recipe says, and the loss after it.
pub fn train(memory: &mut Memory) -> Result<(), Error> {
    with_trainer(memory, |trainer, text| {
        black_box(trainer.step(text)?);
        black_box(trainer.evaluate(text)?);
        Ok(())
    })
}

/// One step in pieces.
pub fn train_in_pieces(memory: &mut Memory) -> Result<(), Error> {
    with_trainer(memory, |trainer, text| {
        while black_box(trainer.poll(text)?).is_pending() {}
        Ok(())
    })
}

fn with_trainer(
    memory: &mut Memory,
    run: impl FnOnce(&mut Trainer<'_>, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (plan, recipe) = (plan()?, recipe());
    initialize(InstructionSet::detect(), &plan, unknown(&mut memory.parameters), 1)?;
    let buffers = Buffers {
        parameters: unknown(&mut memory.parameters),
        frozen: &[],
        gradients: unknown(&mut memory.gradients),
        optimizer: unknown(&mut memory.optimizer),
        workspace: unknown(&mut memory.workspace),
        batch: unknown(&mut memory.batch),
    };
    let mut trainer = Trainer::new(&plan, &recipe, buffers, Compute::serial())?;
    run(&mut trainer, unknown(&mut memory.text))
}

/// A prompt, and one token after it.
pub fn generate(memory: &mut Memory) -> Result<(), Error> {
    let (parameters, cache) = (unknown(&mut memory.parameters), unknown(&mut memory.generation));
    let (plan, window) = (plan()?, unknown(&mut memory.window));
    let mut generator = Generator::new(&plan, InstructionSet::detect(), parameters, &[], cache, window)?;
    generator.feed(unknown(&mut memory.batch))?;
    let sampling =
        black_box(Sampling { temperature: 0.8, top_k: Some(10), top_p: Some(0.9), min_p: Some(0.1) });
    black_box(generator.draw(&sampling, unknown(&mut memory.order), 1, 2)?);
    Ok(())
}
