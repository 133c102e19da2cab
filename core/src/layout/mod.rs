//! The layout of all memory: each tensor's name, shape and offset, and every size. Only this module knows them. It
//! computes nothing with the values.
//!
//! All buffers belong to the caller. [`Plan::new`] computes their lengths, and [`Tensor`] describes each parameter
//! tensor. The model cuts the buffers into named regions without copying.

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
pub(crate) use parameters::{Affine, Cut, GroupParameters, Parameters, Part};
pub(crate) use regions::{Angles, AttentionActivations, ChunkRows, Generation, MlpActivations, NormedHeads};
pub(crate) use tensors::SiteTensors;
pub use tensors::{Tensor, TensorName, Tensors};
pub(crate) use workspace::{
    BlockActivations, BlockBackward, BlockForward, Head, InUse, Rotation, RowRegions, Workspace,
    WorkspaceParts, attention_scratch, dropped_rows,
};

use crate::config::Config;
use crate::error::Error;
use crate::target::Target;
use regions::{HeadRows, Sizes};
use workspace::{
    attention_in_activated, fused_gradient, generation, head_rows, hidden_columns, per_row, worker_scratch,
};

/// The state that the optimiser keeps for each parameter between steps.
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
    /// The numbers kept per parameter.
    pub const fn per_parameter(self) -> usize {
        match self {
            OptimizerState::None => 0,
            OptimizerState::Momentum => 1,
            OptimizerState::AdamW => 2,
        }
    }
}

/// The options of training that memory depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// B: the largest number of sequences in one pass (a micro-batch).
    pub batch: usize,
    /// The number of workers that may run at once. Each has its own scratch.
    pub threads: usize,
    /// The optimiser's state.
    pub optimizer: OptimizerState,
    /// Activation recomputation: forward keeps only each block's input, and backward recomputes a block's activations
    /// in the memory of one block. It gives the same bits with less memory and more work ([`Plan::recomputed`]).
    pub recompute: bool,
    /// The fused optimizer step: backward updates parameters as soon as it has their gradients, which then need
    /// memory for some rows of one tensor only. It gives the same bits, but a step is one pass without clipping
    /// ([`crate::Error::Fused`]).
    pub fused: bool,
    /// The rows of logits that exist at a time: a chunk of the head. 0: the logits of all rows exist at once, `[R, V]`. Backward
    /// computes the logits of each chunk again if the head's matrix is trained. It gives the same bits with less memory and more work ([`Plan::recomputed`]), but [`Plan::logits`] does not exist.
    ///
    /// Needs the feature `head-rows`, which is on by default.
    pub head_rows: usize,
    /// The tensors that are not trained. Backward ends at the first trained tensor, and the activations of blocks
    /// before it are not kept.
    pub frozen: Frozen,
}

impl Options {
    /// `batch` sequences a pass, one thread, AdamW. All activations and gradients are kept, and all tensors are
    /// trained.
    pub const fn new(batch: usize) -> Options {
        let (optimizer, frozen) = (OptimizerState::AdamW, Frozen::NONE);
        Options { batch, threads: 1, optimizer, recompute: false, fused: false, head_rows: 0, frozen }
    }

    /// Whether the head is chunked.
    pub(crate) const fn chunks_head(&self) -> bool {
        cfg!(feature = "head-rows") && self.head_rows > 0
    }
}

/// The length of every buffer for one configuration, in elements of four bytes. A plan cannot be changed, so its lengths
/// always match its configuration.
///
/// ```
/// use jostle::{Config, Options, Plan};
/// const PLAN: Plan = match Plan::new(&Config::new(27, 16, 1, 4, 16), &Options::new(1)) {
///     Ok(plan) => plan,
///     Err(_) => panic!("not a model"),
/// };
/// static mut PARAMETERS: [f32; PLAN.parameters()] = [0.0; PLAN.parameters()];
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub(crate) config: Config,
    pub(crate) options: Options,
    pub(crate) parameters: usize,
    pub(crate) frozen: usize,
    pub(crate) gradients: usize,
    pub(crate) optimizer: usize,
    pub(crate) activations: usize,
    pub(crate) scratch: usize,
    pub(crate) generation: usize,
    pub(crate) batch: usize,
    /// The elements of the embeddings, and of a block's attention and MLP: where groups of tensors begin.
    groups: [usize; 3],
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
    /// Computes the length of every buffer. An error names the wrong value of the configuration or the options.
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
        if options.head_rows > 0 && !options.chunks_head() {
            return Err(Error::Unsupported { what: "head_rows, without the feature head-rows" });
        }
        let parameters = family::all_elements(config);
        let rows = Count::of(options.batch).times(config.context);
        let fused = fused_gradient(config, target);
        let sizes = Sizes::new(config, options, hidden_columns(config, options, fused), target);
        let [activations_per_row, scratch_per_row] = per_row(&sizes);
        let activated = attention_in_activated(&sizes, options, rows.get(), target);
        let head_rows = head_rows(options, rows.get());
        let worker_scratch = worker_scratch(config, rows.get(), head_rows, activated, target);
        let angles = Angles::per_row(&sizes).times(config.context);
        let some_logits = HeadRows::per_row(&sizes).times(head_rows);
        let of_workers = Count::of(worker_scratch).times(options.threads);
        let scratch = scratch_per_row.times(rows.get()).add(angles).add(some_logits).add(of_workers);
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
            groups: [
                Group::Embedding.elements(config).get(),
                Group::Attention { layer: 0 }.elements(config).get(),
                Group::Mlp { layer: 0 }.elements(config).get(),
            ],
        })
    }

    /// The fastest plan that trains in `budget` bytes, with at most the batch and the threads of `options`.
    ///
    /// It has the fewest multiply-adds per thread, with or without recomputation ([`Options::recompute`]), and at
    /// least one sequence for each thread. Among such plans it has the largest batch. Results do not depend on the
    /// choice: `accumulate` of [`crate::Recipe`] makes one step of several micro-batches.
    ///
    /// If no such plan fits, the update is fused into backward ([`Options::fused`]), with all sequences in one pass,
    /// because such a step is a single pass. The result is again the same, but without clipping.
    ///
    /// # Errors
    /// As [`Plan::new`]; [`Error::Budget`] if every plan needs more.
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
                // Bytes grow with the threads and with the batch.
                let threads = greatest(1, most, |threads| fits(fewest.max(threads), threads));
                let batch = greatest(fewest.max(threads), options.batch, |batch| fits(batch, threads));
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

    /// Whether it has fewer multiply-adds per sequence and thread.
    fn is_faster_than(&self, other: &Plan) -> bool {
        let per_sequence =
            |plan: &Plan| plan.multiply_adds().checked_div(plan.options.batch).unwrap_or(0) as u128;
        per_sequence(self) * (other.options.threads as u128)
            < per_sequence(other) * (self.options.threads as u128)
    }

    /// The model that the plan is for.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The options of training.
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// f32s: all trained parameters, in the order of [`Plan::tensors`], without gaps.
    pub const fn parameters(&self) -> usize {
        self.parameters
    }

    /// f32s: all frozen parameters ([`Options::frozen`]), in the same order. They are only read, so they may be in
    /// flash.
    pub const fn frozen(&self) -> usize {
        self.frozen
    }

    /// f32s: a gradient for each trained parameter, in the same order; with [`Options::fused`], for some rows of a
    /// tensor.
    pub const fn gradients(&self) -> usize {
        self.gradients
    }

    /// f32s: the optimiser's state (AdamW: all first moments, then all second moments).
    pub const fn optimizer(&self) -> usize {
        self.optimizer
    }

    /// f32s: the activations that forward keeps for backward.
    pub const fn activations(&self) -> usize {
        self.activations
    }

    /// f32s: intermediate results of one block, and the scratch of each worker.
    pub const fn scratch(&self) -> usize {
        self.scratch
    }

    /// f32s: the memory of a [`crate::Generator`], besides the parameters. It is not needed for training.
    pub const fn generation(&self) -> usize {
        self.generation
    }

    /// i32s: the tokens of one micro-batch, then their targets.
    pub const fn batch(&self) -> usize {
        self.batch
    }

    /// f32s: activations and scratch, which are one buffer.
    pub const fn workspace(&self) -> usize {
        self.activations.saturating_add(self.scratch)
    }

    /// The bytes of all buffers of training.
    pub const fn bytes(&self) -> usize {
        let elements = self.parameters.saturating_add(self.gradients).saturating_add(self.optimizer);
        elements.saturating_add(self.workspace()).saturating_add(self.batch).saturating_mul(4)
    }

    /// All parameter tensors in memory order.
    pub fn tensors(&self) -> Tensors<'_> {
        Tensors::new(&self.config, &self.options.frozen)
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        self.numbered(name.as_bytes()).map(|(_, tensor)| tensor)
    }

    /// The tensor with this name, and its number in the order of [`Plan::tensors`].
    pub(crate) fn numbered(&self, name: &[u8]) -> Option<(usize, Tensor)> {
        Tensors::named(&self.config, &self.options.frozen, name)
    }

    /// The number of blocks that backward reaches.
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
    /// The bytes of each buffer, one a line, and the cost of saving memory.
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

/// The greatest number from `least` to `most` that fits. `least` fits, and so does each number below one that fits.
pub(crate) fn greatest(mut least: usize, most: usize, fits: impl Fn(usize) -> bool) -> usize {
    let mut beyond = most.saturating_add(1);
    while beyond.saturating_sub(least) > 1 {
        let middle = least.midpoint(beyond);
        if fits(middle) { least = middle } else { beyond = middle }
    }
    least
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
