//! Trains a model of characters on a text and lets it write.
//!
//! ```text
//! cargo run --release -p jostle --example characters
//! ```

use jostle::{
    Buffers, CharTable, Compute, Config, Decay, Error, Generator, Optimizer, Options, Plan, Recipe, Sampling,
    Schedule, Trainer, initialize,
};

const STEPS: u64 = 100;
const SEED: u64 = 1337;

pub(crate) fn main() -> Result<(), Error> {
    // A token for each character of the text.
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(40);
    let mut characters = ['\0'; 128];
    let table = CharTable::collect(&text, &mut characters)?;
    let mut tokens = vec![0; text.chars().count()];
    table.encode(&text, &mut tokens)?;

    // The vocabulary, then context 32, 2 layers, 2 heads and width 32. A micro-batch has 8 sequences.
    let config = Config::new(table.vocab(), 32, 2, 2, 32);
    let plan = Plan::new(&config, &Options::new(8))?;
    print!("{plan}");

    // The plan says how long each buffer is.
    let mut parameters = vec![0.0; plan.parameters()];
    let mut gradients = vec![0.0; plan.gradients()];
    let mut optimizer = vec![0.0; plan.optimizer()];
    let mut workspace = vec![0.0; plan.workspace()];
    let mut batch = vec![0; plan.batch()];
    let compute = Compute::serial();
    initialize(compute.simd, &plan, &mut parameters, SEED)?;

    let recipe = Recipe {
        optimizer: Optimizer::ADAMW,
        schedule: Schedule { peak: 1e-2, warmup: 10, steps: STEPS, decay: Decay::Cosine { last: 1e-3 } },
        clip: Some(1.0),
        accumulate: 1,
        seed: SEED,
    };
    let buffers = Buffers {
        parameters: &mut parameters,
        frozen: &[],
        gradients: &mut gradients,
        optimizer: &mut optimizer,
        workspace: &mut workspace,
        batch: &mut batch,
    };
    let mut trainer = Trainer::new(&plan, &recipe, buffers, compute)?;
    for _ in 0..STEPS {
        let report = trainer.step(&tokens[..])?;
        if report.step % 20 == 19 {
            println!("step {:>3}: loss {:.3}", report.step + 1, report.loss);
        }
    }
    let loss = trainer.evaluate(&tokens[..])?.mean();
    assert!(loss < 0.5, "the model has not learnt the sentence: its loss is {loss}");

    // The same plan says how much memory the trained model needs to write.
    let mut memory = vec![0.0; plan.generation()];
    let mut window = vec![0; config.context];
    let mut order = vec![0; config.vocab];
    let mut generator = Generator::new(&plan, compute.simd, &parameters, &[], &mut memory, &mut window)?;
    let mut token = tokens[0];
    for number in 0..90 {
        print!("{}", table.decode(token).unwrap_or('?'));
        generator.feed(&[token])?;
        token = generator.draw(&Sampling::new(0.8), &mut order, SEED, number)?;
    }
    println!();
    Ok(())
}
