//! A model with its memory and a text of random tokens, ready to train.

use jostle::initialize;
use jostle::{
    Buffers, Compute, Config, Dropout, Error, InstructionSet, Optimizer, Options, Parallel, Plan, Recipe,
    Schedule, Trainer,
};

use crate::floats::{Floats, zeros};

/// V, T, L, H, C, B.
pub type Sizes = [usize; 6];

/// The configurations whose steps are measured, by name.
pub const CONFIGURATIONS: [(&str, Sizes); 4] = [
    ("tiny", [65, 32, 2, 2, 32, 8]),
    ("small", [65, 64, 4, 4, 128, 12]),
    ("medium", [65, 256, 6, 6, 384, 16]),
    ("gpt2", [50257, 64, 12, 12, 768, 4]),
];

const RECIPE: Recipe = Recipe {
    optimizer: Optimizer::ADAMW,
    schedule: Schedule::constant(1e-3),
    clip: Some(1.0),
    accumulate: 1,
    seed: 1,
};

/// Everything a [`Trainer`] borrows.
pub struct Session {
    /// The lengths of the buffers.
    pub plan: Plan,
    text: Vec<i32>,
    /// Parameters, gradients, the optimiser's numbers and the workspace.
    floats: [Floats; 4],
    batch: Vec<i32>,
}

/// K and F of a Llama.
pub type Llama = [usize; 2];

/// The model of these sizes: a GPT-2, or a Llama.
pub fn model([vocab, context, layers, heads, width, _]: Sizes, llama: Option<Llama>, dropout: f32) -> Config {
    let config = match llama {
        None => Config::new(vocab, context, layers, heads, width),
        Some([kv_heads, hidden]) => Config::llama(vocab, context, layers, heads, kv_heads, width, hidden),
    };
    Config { dropout: Dropout::all(dropout), ..config }
}

impl Session {
    /// A GPT-2 with initial parameters, and a text of 100,000 tokens.
    pub fn new(sizes: Sizes, dropout: f32, threads: usize) -> Result<Session, Error> {
        Session::of(&model(sizes, None, dropout), &Options { threads, ..Options::new(sizes[5]) })
    }

    /// Any model and plan.
    pub fn of(config: &Config, options: &Options) -> Result<Session, Error> {
        let (plan, vocab) = (Plan::new(config, options)?, config.vocab);
        let lengths = [plan.parameters(), plan.gradients(), plan.optimizer(), plan.workspace()];
        let mut floats = lengths.map(zeros);
        initialize(InstructionSet::detect(), &plan, &mut floats[0], 1)?;
        let mut state = 1_u64;
        let text = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 33) % vocab as u64) as i32
            })
            .collect();
        Ok(Session { plan, text, floats, batch: vec![0; plan.batch()] })
    }

    /// AdamW at a constant rate, clipped to norm 1; the text is lent beside it.
    pub fn trainer<'a>(
        &'a mut self,
        simd: InstructionSet,
        parallel: &'a dyn Parallel,
    ) -> Result<(Trainer<'a>, &'a [i32]), Error> {
        let [parameters, gradients, optimizer, workspace] =
            self.floats.each_mut().map(|floats| &mut **floats);
        let buffers =
            Buffers { parameters, frozen: &[], gradients, optimizer, workspace, batch: &mut self.batch };
        let trainer = Trainer::new(&self.plan, &RECIPE, buffers, Compute { simd, parallel })?;
        Ok((trainer, &self.text))
    }
}
