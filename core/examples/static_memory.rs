//! Trains without a heap: the plan is a constant, so that the compiler lays out every buffer.
//!
//! Firmware does the same with `#![no_std]`; `docs/firmware.md` starts from an empty folder.
//!
//! ```text
//! cargo run --release -p jostle --example static_memory
//! ```

use jostle::{
    Buffers, Compute, Config, Error, Optimizer, OptimizerState, Options, Plan, Recipe, Schedule, Trainer,
    initialize,
};

/// Letters and the space, context 16, 1 layer, 4 heads, width 16.
const CONFIG: Config = Config::new(27, 16, 1, 4, 16);
/// The update is fused into the backward pass, so that gradients need memory for a few rows only.
const OPTIONS: Options = Options { optimizer: OptimizerState::None, fused: true, ..Options::new(1) };
const PLAN: Plan = match Plan::new(&CONFIG, &OPTIONS) {
    Ok(plan) => plan,
    Err(_) => panic!("the configuration is not valid"),
};
/// A model that outgrows the device does not compile.
const _: () = assert!(size_of::<Memory>() <= 64 * 1024);

struct Memory {
    parameters: [f32; PLAN.parameters()],
    gradients: [f32; PLAN.gradients()],
    optimizer: [f32; PLAN.optimizer()],
    workspace: [f32; PLAN.workspace()],
    batch: [i32; PLAN.batch()],
}

static mut MEMORY: Memory = Memory {
    parameters: [0.0; PLAN.parameters()],
    gradients: [0.0; PLAN.gradients()],
    optimizer: [0.0; PLAN.optimizer()],
    workspace: [0.0; PLAN.workspace()],
    batch: [0; PLAN.batch()],
};

pub(crate) fn main() -> Result<(), Error> {
    let memory = &raw mut MEMORY;
    // SAFETY: `main` runs once, on one thread, and no other code names `MEMORY`.
    let memory = unsafe { &mut *memory };
    println!("{} parameters, {} bytes for training", PLAN.parameters(), size_of::<Memory>());

    let compute = Compute::serial();
    initialize(compute.simd, &PLAN, &mut memory.parameters, 1337)?;
    let recipe = Recipe {
        optimizer: Optimizer::Sgd { momentum: 0.0 },
        schedule: Schedule::constant(0.1),
        // A fused update cannot clip: the norm is known only after the last tensor has changed.
        clip: None,
        accumulate: 1,
        seed: 1337,
    };
    let buffers = Buffers {
        parameters: &mut memory.parameters,
        frozen: &[],
        gradients: &mut memory.gradients,
        optimizer: &mut memory.optimizer,
        workspace: &mut memory.workspace,
        batch: &mut memory.batch,
    };
    // The alphabet over and over.
    let mut text = [0_u8; 270];
    text.iter_mut().zip((0..27).cycle()).for_each(|(token, letter)| *token = letter);

    let mut trainer = Trainer::new(&PLAN, &recipe, buffers, compute)?;
    let before = trainer.evaluate(&text[..])?.mean();
    for _ in 0..200 {
        trainer.step(&text[..])?;
    }
    let after = trainer.evaluate(&text[..])?.mean();
    println!("loss {before:.3} before training, {after:.3} after it");
    assert!(after < before / 2.0);
    Ok(())
}
