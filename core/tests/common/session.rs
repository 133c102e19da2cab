//! Memory for a model in training, as a host program would keep it.
#![allow(dead_code)]

use jostle::{
    Buffers, Compute, Config, Error, Frozen, InstructionSet, Loss, Optimizer, Options, Parallel, Pass, Plan,
    Recipe, Schedule, Shape, Tensor, Trainer, initialize,
};

/// AdamW with clipping at a constant rate.
pub fn recipe(rate: f32, seed: u64) -> Recipe {
    let schedule = Schedule::constant(rate);
    Recipe { optimizer: Optimizer::ADAMW, schedule, clip: Some(1.0), accumulate: 1, seed }
}

/// A text with structure: a stride that changes slowly.
pub fn text(vocab: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * i / 97 + 5 * i) % vocab) as u8).collect()
}

/// The same plan with no frozen tensors.
pub fn whole(plan: &Plan) -> Plan {
    Plan::new(plan.config(), &Options { frozen: Frozen::NONE, ..*plan.options() }).unwrap()
}

/// The plan's tensors, each with the same tensor of the plan that freezes none.
pub fn places(plan: &Plan) -> Vec<(Tensor, Tensor)> {
    plan.tensors().zip(whole(plan).tensors()).collect()
}

/// Picks the values of the frozen tensors, or of the others, from the values of all tensors.
pub fn part(plan: &Plan, values: &[f32], frozen: bool) -> Vec<f32> {
    let places = places(plan).into_iter().filter(|(tensor, _)| tensor.frozen == frozen);
    places.flat_map(|(_, all)| values[all.offset..all.offset + all.len()].to_vec()).collect()
}

pub struct Session {
    pub plan: Plan,
    pub parameters: Vec<f32>,
    pub frozen: Vec<f32>,
    pub gradients: Vec<f32>,
    pub optimizer: Vec<f32>,
    pub workspace: Vec<f32>,
    pub batch: Vec<i32>,
}

impl Session {
    /// Memory that need not be cleared begins as NaN, which shows a read before the first write.
    pub fn new(config: &Config, recipe: &Recipe, batch: usize, threads: usize) -> Session {
        let optimizer = recipe.optimizer.state();
        Session::with(config, &Options { threads, optimizer, ..Options::new(batch) })
    }

    /// As [`Session::new`], with any options.
    pub fn with(config: &Config, options: &Options) -> Session {
        let plan = Plan::new(config, options).unwrap();
        Session {
            plan,
            parameters: vec![f32::NAN; plan.parameters()],
            frozen: vec![f32::NAN; plan.frozen()],
            gradients: vec![f32::NAN; plan.gradients()],
            optimizer: vec![0.0; plan.optimizer()],
            workspace: vec![f32::NAN; plan.workspace()],
            batch: vec![-7; plan.batch()],
        }
    }

    pub fn initialize(&mut self, seed: u64) {
        let (simd, whole) = (InstructionSet::detect(), whole(&self.plan));
        initialize(simd, &self.plan, &mut self.parameters, seed).unwrap();
        let mut all = vec![f32::NAN; whole.parameters()];
        initialize(simd, &whole, &mut all, seed).unwrap();
        self.frozen = part(&self.plan, &all, true);
    }

    pub fn trainer<'a>(
        &'a mut self,
        recipe: &'a Recipe,
        simd: InstructionSet,
        parallel: &'a dyn Parallel,
    ) -> Trainer<'a> {
        self.try_trainer(recipe, Compute { simd, parallel }).unwrap()
    }

    pub fn try_trainer<'a>(
        &'a mut self,
        recipe: &'a Recipe,
        compute: Compute<'a>,
    ) -> Result<Trainer<'a>, Error> {
        let buffers = Buffers {
            parameters: &mut self.parameters,
            frozen: &self.frozen,
            gradients: &mut self.gradients,
            optimizer: &mut self.optimizer,
            workspace: &mut self.workspace,
            batch: &mut self.batch,
        };
        Trainer::new(&self.plan, recipe, buffers, compute)
    }

    /// Takes `count` steps from step `first` on. If that is 0, first initialises with the recipe's seed.
    pub fn train(
        &mut self,
        recipe: &Recipe,
        simd: InstructionSet,
        parallel: &dyn Parallel,
        text: &[u8],
        first: u64,
        count: usize,
    ) {
        if first == 0 {
            initialize(simd, &self.plan, &mut self.parameters, recipe.seed).unwrap();
        }
        let mut trainer = self.trainer(recipe, simd, parallel);
        trainer.resume_at(first, 0);
        for _ in 0..count {
            trainer.step(text).unwrap();
        }
    }

    /// Evaluation logits `[R, V]`.
    pub fn logits(&mut self, simd: InstructionSet, tokens: &[i32], shape: Shape) -> Vec<f32> {
        let compute = Compute { simd, ..Compute::serial() };
        let Session { plan, parameters, frozen, workspace, .. } = self;
        let pass = Pass { compute, plan, parameters, frozen, tokens, shape, dropout: None };
        pass.forward(workspace).unwrap();
        plan.logits(workspace, shape).unwrap().to_vec()
    }

    /// The evaluation loss of one sequence.
    pub fn loss(&mut self, simd: InstructionSet, tokens: &[i32], targets: &[i32]) -> Loss {
        let compute = Compute { simd, ..Compute::serial() };
        let Session { plan, parameters, frozen, workspace, .. } = self;
        let shape = Shape { sequences: 1, length: tokens.len() };
        let pass = Pass { compute, plan, parameters, frozen, tokens, shape, dropout: None };
        pass.loss(workspace, targets).unwrap()
    }
}
