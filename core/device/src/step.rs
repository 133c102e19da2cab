//! The instructions of a training step.

use jostle::initialize;
use jostle::{
    Buffers, Compute, Config, Decay, Error, InstructionSet, Optimizer, Options, Plan, Recipe, Schedule,
    Trainer,
};

/// A model, its options and memory.
macro_rules! model {
    ($name:ident: $width:literal, batch $batch:literal, accumulate $accumulate:literal) => {
        /// Instructions of one step and its multiply-accumulates.
        pub fn $name(counter: fn() -> u32) -> Result<(u32, u32, u32), Error> {
            const CONFIG: Config = Config::new(27, 16, 1, 4, $width);
            const OPTIONS: Options = Options::new($batch);
            const PLAN: Plan = match Plan::new(&CONFIG, &OPTIONS) {
                Ok(plan) => plan,
                Err(_) => panic!("not a model"),
            };
            static mut PARAMETERS: [f32; PLAN.parameters()] = [0.0; _];
            static mut GRADIENTS: [f32; PLAN.gradients()] = [0.0; _];
            static mut OPTIMIZER: [f32; PLAN.optimizer()] = [0.0; _];
            static mut WORKSPACE: [f32; PLAN.workspace()] = [0.0; _];
            static mut BATCH: [i32; PLAN.batch()] = [0; _];
            // SAFETY: the only thread, and called once.
            let buffers = unsafe {
                Buffers {
                    parameters: &mut *&raw mut PARAMETERS,
                    frozen: &[],
                    gradients: &mut *&raw mut GRADIENTS,
                    optimizer: &mut *&raw mut OPTIMIZER,
                    workspace: &mut *&raw mut WORKSPACE,
                    batch: &mut *&raw mut BATCH,
                }
            };
            let recipe = Recipe {
                optimizer: Optimizer::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1 },
                schedule: Schedule {
                    peak: 1e-3,
                    warmup: 10,
                    steps: 100,
                    decay: Decay::Cosine { last: 1e-4 },
                },
                clip: Some(1.0),
                accumulate: $accumulate,
                seed: 1,
            };
            initialize(InstructionSet::PORTABLE, &PLAN, buffers.parameters, 1)?;
            let mut trainer = Trainer::new(&PLAN, &recipe, buffers, Compute::serial())?;
            let text = b"abcdefghijklmnopqrstuvwxyz and again".map(|byte| byte % 27);
            let before = counter();
            core::hint::black_box(trainer.step(&text[..])?);
            let taken = counter().wrapping_sub(before);
            let (c, t) = ($width, 16);
            // Projections, the MLP and the output head; attention's scores and sums over all earlier positions.
            let row = 12 * c * c + c * 27 + c * (t + 1);
            Ok((taken, 3 * row * $batch * t * $accumulate, PLAN.parameters() as u32))
        }
    };
}

model!(width_16: 16, batch 4, accumulate 1);
model!(width_32: 32, batch 4, accumulate 1);
model!(width_32_accumulated: 32, batch 4, accumulate 4);
