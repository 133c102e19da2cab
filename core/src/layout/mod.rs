//! Where everything lies: each tensor's name, shape and offset, and every size. The only module that knows
//! them. It computes nothing with the numbers that lie there.
//!
//! All buffers are the caller's. [`Plan::new`] says how long each must be ([`Tensor`] tells of the parameters
//! one by one); the model and the workspace cut them into named pieces, without copying.

mod cost;
mod count;
mod family;
mod frozen;
mod order;
mod parameters;
mod regions;
mod tensors;
mod workspace;

use core::fmt;

pub(crate) use count::Count;
pub use family::Role;
pub(crate) use family::{Group, Initial, Order, Site};
pub use frozen::Frozen;
pub(crate) use parameters::{Affine, Cut, Parameters};
pub(crate) use regions::{AttentionActivations, ChunkRows, Generation, MlpActivations};
pub(crate) use tensors::SiteTensors;
pub use tensors::{Tensor, TensorName, Tensors};
pub(crate) use workspace::{
    BlockActivations, BlockBackward, BlockForward, FinalNormBackward, Head, HeadGradients, InUse, RowRegions,
    Workspace, WorkspaceParts, attention_scratch,
};

use crate::config::Config;
use crate::error::Error;
use crate::target::Target;
use regions::Sizes;
use workspace::{
    attention_in_activated, fused_gradient, generation, hidden_columns, per_row, worker_scratch,
};

/// What the optimiser keeps for each parameter between steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerState {
    /// Nothing: plain SGD.
    None,
    /// One number: SGD with momentum.
    Momentum,
    /// Two numbers: AdamW's first and second moment.
    AdamW,
}

impl OptimizerState {
    /// Numbers kept per parameter.
    pub const fn per_parameter(self) -> usize {
        match self {
            OptimizerState::None => 0,
            OptimizerState::Momentum => 1,
            OptimizerState::AdamW => 2,
        }
    }
}

/// How the model is to be trained, as far as memory depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// B: the largest number of sequences that one pass takes (a micro-batch).
    pub batch: usize,
    /// How many workers may run at once; each has scratch of its own.
    pub threads: usize,
    /// What the optimiser keeps.
    pub optimizer: OptimizerState,
    /// Forward keeps each block's input only, and backward makes the rest of a block again, in one block's memory:
    /// the same bits for fewer activations and more work ([`Plan::recomputed`]).
    pub recompute: bool,
    /// Backward updates parameters as soon as it has made their gradients, which then need memory for some rows of one
    /// tensor only: the same bits, in one pass a step and without clipping ([`crate::Error::Fused`]).
    pub fused: bool,
    /// What is not trained. Backward goes no further than the first tensor that is, and keeps no activations of blocks
    /// before it.
    pub frozen: Frozen,
}

impl Options {
    /// `batch` sequences a pass, one thread, AdamW, all activations and gradients kept, all tensors trained.
    pub const fn new(batch: usize) -> Options {
        let (optimizer, frozen) = (OptimizerState::AdamW, Frozen::NONE);
        Options { batch, threads: 1, optimizer, recompute: false, fused: false, frozen }
    }
}

/// The length of every buffer for one configuration, counted in elements of four bytes.
///
/// ```
/// use jostle::{Config, Options, Plan};
/// const PLAN: Plan = match Plan::new(&Config::new(27, 16, 1, 4, 16), &Options::new(1)) {
///     Ok(plan) => plan,
///     Err(_) => panic!("not a model"),
/// };
/// static mut PARAMETERS: [f32; PLAN.parameters] = [0.0; PLAN.parameters];
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The model that the plan is for.
    pub config: Config,
    /// How it is trained.
    pub options: Options,
    /// f32s: all parameters that are trained, in the order of [`Plan::tensors`], without gaps.
    pub parameters: usize,
    /// f32s: all that are not ([`Options::frozen`]), likewise; only read, so that they may lie in flash.
    pub frozen: usize,
    /// f32s: a gradient for each parameter, in the same order; with [`Options::fused`], for some rows of a tensor.
    pub gradients: usize,
    /// f32s: what the optimiser keeps (AdamW: all first moments, then all second moments).
    pub optimizer: usize,
    /// f32s: what forward leaves for backward.
    pub activations: usize,
    /// f32s: intermediate results of one layer, and each worker's packing space.
    pub scratch: usize,
    /// f32s: what a [`crate::Generator`] needs beside the parameters; no part of training.
    pub generation: usize,
    /// i32s: the tokens of one micro-batch, then their targets.
    pub batch: usize,
}

/// `?` for constant functions.
macro_rules! get {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Err(error),
        }
    };
}

impl Plan {
    /// Sizes every buffer, or names what is wrong with the configuration or options.
    pub const fn new(config: &Config, options: &Options) -> Result<Plan, Error> {
        Plan::on(Target::HERE, config, options)
    }

    /// The plan for another target: a host sizes a device's buffers with it.
    pub const fn on(target: Target, config: &Config, options: &Options) -> Result<Plan, Error> {
        get!(config.validate());
        if options.batch == 0 {
            return Err(Error::Zero { what: "batch" });
        }
        if options.threads == 0 {
            return Err(Error::Zero { what: "threads" });
        }
        let parameters = family::all_elements(config);
        let rows = Count::of(options.batch).times(config.context);
        let fused = fused_gradient(config, target);
        let sizes = Sizes::new(config, options, hidden_columns(config, options, fused), target);
        let [activations_per_row, scratch_per_row] = per_row(&sizes);
        let activated = attention_in_activated(&sizes, options, rows.get(), target);
        let worker_scratch = worker_scratch(config, rows.get(), activated, target);
        let scratch = scratch_per_row.times(rows.get()).add(Count::of(worker_scratch).times(options.threads));
        let activations = activations_per_row.times(rows.get());
        let all = get!(parameters.elements("parameters"));
        let (frozen, _) = options.frozen.elements_and_first_trained(config);
        let frozen = get!(frozen.elements("frozen parameters"));
        if frozen == all {
            return Err(Error::Zero { what: "trained parameters" });
        }
        let parameters = all - frozen;
        Ok(Plan {
            config: *config,
            options: *options,
            parameters,
            frozen,
            gradients: if options.fused { fused } else { parameters },
            optimizer: get!(
                Count::of(parameters).times(options.optimizer.per_parameter()).elements("optimizer state")
            ),
            activations: get!(activations.elements("activations")),
            scratch: get!(scratch.elements("scratch")),
            generation: get!(generation(config, &sizes, target).elements("generation")),
            batch: get!(rows.times(2).elements("batch")),
        })
    }

    /// The fastest plan, with at most the batch and the threads of `options`, that trains in so many bytes: of those
    /// that keep all activations and those that make them again in backward ([`Options::recompute`]), the one with the
    /// fewest multiply-adds per thread, each thread with a sequence of its own; then the largest batch. None of it
    /// shows in the result: `accumulate` of [`crate::Recipe`] makes one step of several micro-batches.
    ///
    /// Where none of them does, the update is fused into backward ([`Options::fused`]), with all sequences in one
    /// pass, since such a step is no more: the same result again, but without clipping.
    ///
    /// # Errors
    /// As [`Plan::new`]; [`Error::Budget`] where no plan needs as little.
    pub fn fit(config: &Config, options: &Options, budget: usize) -> Result<Plan, Error> {
        let most = options.threads.min(options.batch);
        Plan::new(config, &Options { threads: most, ..*options })?;
        let (mut wanted, mut found) = (usize::MAX, None::<Plan>);
        for fused in [options.fused, true] {
            let fewest = if fused { options.batch } else { 1 };
            for recompute in [options.recompute, true] {
                let plan = |batch, threads| {
                    Plan::new(config, &Options { batch, threads, recompute, fused, ..*options })
                };
                let least = plan(fewest, 1)?.bytes();
                if least > budget {
                    wanted = wanted.min(least);
                    continue;
                }
                let fits = |batch, threads| plan(batch, threads).is_ok_and(|plan| plan.bytes() <= budget);
                let mut threads = most;
                while threads > 1 && !fits(fewest.max(threads), threads) {
                    threads -= 1;
                }
                // Bytes grow with the batch: `batch` fits, `beyond` doesn't.
                let (mut batch, mut beyond) = (fewest.max(threads), options.batch.saturating_add(1));
                while beyond.saturating_sub(batch) > 1 {
                    let middle = batch.midpoint(beyond);
                    if fits(middle, threads) { batch = middle } else { beyond = middle }
                }
                let plan = plan(batch, threads)?;
                if found.is_none_or(|found| plan.is_faster_than(&found)) {
                    found = Some(plan);
                }
            }
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(Error::Budget { given: budget, wanted })
    }

    /// Whether a sequence has fewer multiply-adds per thread.
    fn is_faster_than(&self, other: &Plan) -> bool {
        let per_sequence =
            |plan: &Plan| plan.multiply_adds().checked_div(plan.options.batch).unwrap_or(0) as u128;
        per_sequence(self) * (other.options.threads as u128)
            < per_sequence(other) * (self.options.threads as u128)
    }

    /// f32s: activations and scratch, which the caller hands over as one slice.
    pub const fn workspace(&self) -> usize {
        self.activations.saturating_add(self.scratch)
    }

    /// Bytes of all regions that training needs.
    pub const fn bytes(&self) -> usize {
        let elements = self.parameters.saturating_add(self.gradients).saturating_add(self.optimizer);
        elements.saturating_add(self.workspace()).saturating_add(self.batch).saturating_mul(4)
    }

    /// Every parameter tensor, in the order in which they lie.
    pub fn tensors(&self) -> Tensors<'_> {
        Tensors::new(&self.config, &self.options.frozen)
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        self.tensors().find(|tensor| tensor.name.is(name))
    }

    /// How many blocks backward goes through.
    pub(crate) const fn backward_layers(&self) -> usize {
        self.options.frozen.backward_layers(&self.config)
    }

    /// Refuses a shape that exceeds the plan.
    pub(crate) fn check(&self, shape: Shape) -> Result<(), Error> {
        if shape.sequences == 0 || shape.length == 0 {
            return Err(Error::Zero { what: if shape.length == 0 { "length" } else { "sequences" } });
        }
        if shape.length > self.config.context {
            return Err(Error::Context { length: shape.length, context: self.config.context });
        }
        if shape.sequences > self.options.batch {
            return Err(Error::Plan { what: "that many sequences in one pass" });
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    /// The bytes of each region, one a line, and what less of them costs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, elements) in [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("scratch", self.scratch),
            ("batch", self.batch),
        ] {
            writeln!(f, "{what:<12}{:>14} bytes", elements.saturating_mul(4))?;
        }
        writeln!(f, "{:<12}{:>14} bytes", "total", self.bytes())?;
        if self.frozen > 0 {
            writeln!(f, "{:<12}{:>14} bytes, only read, besides", "frozen", self.frozen.saturating_mul(4))?;
        }
        if self.options.fused {
            writeln!(f, "{:<12} a step is one pass, without clipping", "fused")?;
        }
        match self.recomputed() {
            0 => Ok(()),
            extra => writeln!(f, "{:<12}{extra:>14} multiply-adds more in a pass", "recompute"),
        }
    }
}

/// B sequences of T tokens each: the shape of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// B.
    pub sequences: usize,
    /// T.
    pub length: usize,
}

impl Shape {
    /// R = B * T: the rows of every activation matrix.
    pub const fn rows(self) -> usize {
        self.sequences.saturating_mul(self.length)
    }
}
