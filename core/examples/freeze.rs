//! Fine-tunes a part of a model: frozen tensors stay as they are, and need no gradients and no optimizer state.
//!
//! ```text
//! cargo run --release -p jostle --example freeze
//! ```

use jostle::{
    Buffers, Compute, Config, Error, Frozen, Optimizer, Options, Plan, Recipe, Schedule, Trainer, initialize,
};

/// Trains on a text for some steps; returns the loss on it.
fn train(plan: &Plan, parameters: &mut [f32], frozen: &[f32], text: &[u8]) -> Result<f32, Error> {
    let recipe = Recipe {
        optimizer: Optimizer::ADAMW,
        schedule: Schedule::constant(5e-3),
        clip: Some(1.0),
        accumulate: 1,
        seed: 1337,
    };
    let (mut gradients, mut optimizer) = (vec![0.0; plan.gradients()], vec![0.0; plan.optimizer()]);
    let (mut workspace, mut batch) = (vec![0.0; plan.workspace()], vec![0; plan.batch()]);
    let buffers = Buffers {
        parameters,
        frozen,
        gradients: &mut gradients,
        optimizer: &mut optimizer,
        workspace: &mut workspace,
        batch: &mut batch,
    };
    let mut trainer = Trainer::new(plan, &recipe, buffers, Compute::serial())?;
    for _ in 0..200 {
        trainer.step(text)?;
    }
    Ok(trainer.evaluate(text)?.mean())
}

pub(crate) fn main() -> Result<(), Error> {
    let config = Config::new(256, 32, 2, 2, 32);
    let whole = Plan::new(&config, &Options::new(4))?;
    let mut all = vec![0.0; whole.parameters()];
    initialize(Compute::serial().simd, &whole, &mut all, 1337)?;
    let english = "I like to ski when it snows. ".repeat(20);
    println!("English: loss {:.3}", train(&whole, &mut all, &[], english.as_bytes())?);

    // The embeddings and the first block stay as they are. A plan with frozen tensors has two buffers of parameters.
    let names: Vec<String> = whole.tensors().map(|tensor| tensor.name.to_string()).collect();
    let chosen =
        names.iter().map(String::as_str).filter(|name| name.starts_with('w') || name.starts_with("h.0."));
    let options = Options { frozen: Frozen::named(&config, chosen)?, ..Options::new(4) };
    let plan = Plan::new(&config, &options)?;
    let (mut parameters, mut frozen) = (vec![0.0; plan.parameters()], vec![0.0; plan.frozen()]);
    for (from, to) in whole.tensors().zip(plan.tensors()) {
        let buffer = if to.frozen { &mut frozen } else { &mut parameters };
        buffer[to.offset..][..to.len()].copy_from_slice(&all[from.offset..][..from.len()]);
    }
    println!("{} of {} parameters are trained", plan.parameters(), whole.parameters());

    let german = "Ich fahre gern Ski, wenn es schneit. ".repeat(20);
    let before = frozen.clone();
    let loss = train(&plan, &mut parameters, &frozen, german.as_bytes())?;
    println!("German: loss {loss:.3}");
    assert!(loss < 2.0 && frozen == before);
    assert!(plan.bytes() < whole.bytes());
    Ok(())
}
