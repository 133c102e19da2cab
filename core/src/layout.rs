//! Where everything lies: each tensor's name, shape and offset, and every size. The only file that knows
//! them. It computes nothing with the numbers that lie there.
//!
//! All buffers are the caller's. [`Plan::new`] says how long each must be; [`Parameters`] (which serves
//! gradients too) and `Workspace` cut them into named pieces, without copying.

use core::fmt;

use crate::config::Config;
use crate::error::{Error, exact_length};
use crate::generate;
use crate::matmul;
use crate::ops::attention;

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
}

impl Options {
    /// `batch` sequences a pass, one thread, AdamW.
    pub const fn new(batch: usize) -> Options {
        Options { batch, threads: 1, optimizer: OptimizerState::AdamW }
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
    /// f32s: all parameters, in the order of [`Plan::tensors`], without gaps.
    pub parameters: usize,
    /// f32s: a gradient for each parameter, in the same order.
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

/// One parameter tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Which one; its `Display` is Hugging Face GPT-2's name, e.g. `h.0.attn.c_attn.weight`.
    pub name: TensorName,
    /// 1 for biases and norms, 2 for matrices.
    pub rank: usize,
    /// The shape; a vector has its length in `shape[0]` and 1 in `shape[1]`.
    pub shape: [usize; 2],
    /// Where it begins in the parameters, in elements.
    pub offset: usize,
}

impl Tensor {
    /// The number of elements.
    pub const fn len(&self) -> usize {
        self.shape[0].saturating_mul(self.shape[1])
    }

    /// Never: a validated configuration has no empty tensor.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor's name without a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorName {
    kind: Kind,
    layer: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TokenEmbedding,
    PositionEmbedding,
    Ln1Weight,
    Ln1Bias,
    AttentionWeight,
    AttentionBias,
    AttentionProjectionWeight,
    AttentionProjectionBias,
    Ln2Weight,
    Ln2Bias,
    FullyConnectedWeight,
    FullyConnectedBias,
    MlpProjectionWeight,
    MlpProjectionBias,
    FinalNormWeight,
    FinalNormBias,
    Head,
}

impl Kind {
    const BEFORE: [Kind; 2] = [Kind::TokenEmbedding, Kind::PositionEmbedding];
    const BLOCK: [Kind; 12] = [
        Kind::Ln1Weight,
        Kind::Ln1Bias,
        Kind::AttentionWeight,
        Kind::AttentionBias,
        Kind::AttentionProjectionWeight,
        Kind::AttentionProjectionBias,
        Kind::Ln2Weight,
        Kind::Ln2Bias,
        Kind::FullyConnectedWeight,
        Kind::FullyConnectedBias,
        Kind::MlpProjectionWeight,
        Kind::MlpProjectionBias,
    ];
    const AFTER: [Kind; 3] = [Kind::FinalNormWeight, Kind::FinalNormBias, Kind::Head];

    /// Rank and shape; rank 0 where the configuration has no such tensor.
    const fn shape(self, config: &Config) -> (usize, [usize; 2]) {
        let (v, c, f) = (config.vocab, config.width, config.hidden);
        let bias_rank = config.bias as usize;
        match self {
            Kind::TokenEmbedding => (2, [v, c]),
            Kind::PositionEmbedding => (2, [config.context, c]),
            Kind::Ln1Weight | Kind::Ln2Weight | Kind::FinalNormWeight => (1, [c, 1]),
            Kind::Ln1Bias
            | Kind::Ln2Bias
            | Kind::FinalNormBias
            | Kind::AttentionProjectionBias
            | Kind::MlpProjectionBias => (bias_rank, [c, 1]),
            Kind::AttentionWeight => (2, [c, 3 * c]),
            Kind::AttentionBias => (bias_rank, [3 * c, 1]),
            Kind::AttentionProjectionWeight => (2, [c, c]),
            Kind::FullyConnectedWeight => (2, [c, f]),
            Kind::FullyConnectedBias => (bias_rank, [f, 1]),
            Kind::MlpProjectionWeight => (2, [f, c]),
            Kind::Head => (if config.tied { 0 } else { 2 }, [v, c]),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Kind::TokenEmbedding => "wte.weight",
            Kind::PositionEmbedding => "wpe.weight",
            Kind::Ln1Weight => "ln_1.weight",
            Kind::Ln1Bias => "ln_1.bias",
            Kind::AttentionWeight => "attn.c_attn.weight",
            Kind::AttentionBias => "attn.c_attn.bias",
            Kind::AttentionProjectionWeight => "attn.c_proj.weight",
            Kind::AttentionProjectionBias => "attn.c_proj.bias",
            Kind::Ln2Weight => "ln_2.weight",
            Kind::Ln2Bias => "ln_2.bias",
            Kind::FullyConnectedWeight => "mlp.c_fc.weight",
            Kind::FullyConnectedBias => "mlp.c_fc.bias",
            Kind::MlpProjectionWeight => "mlp.c_proj.weight",
            Kind::MlpProjectionBias => "mlp.c_proj.bias",
            Kind::FinalNormWeight => "ln_f.weight",
            Kind::FinalNormBias => "ln_f.bias",
            Kind::Head => "lm_head.weight",
        }
    }
}

impl TensorName {
    fn is_in_block(self) -> bool {
        Kind::BLOCK.contains(&self.kind)
    }

    /// Whether the tensor is the last product of a residual branch, whose initial values GPT-2 scales down.
    pub fn is_residual_projection(self) -> bool {
        matches!(self.kind, Kind::AttentionProjectionWeight | Kind::MlpProjectionWeight)
    }

    /// Whether the tensor is the weight of a norm, whose initial value is 1.
    pub fn is_norm_weight(self) -> bool {
        matches!(self.kind, Kind::Ln1Weight | Kind::Ln2Weight | Kind::FinalNormWeight)
    }
}

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_in_block() {
            write!(f, "h.{}.{}", self.layer, self.kind.name())
        } else {
            f.write_str(self.kind.name())
        }
    }
}

/// A sum of products that remembers having overflowed.
#[derive(Clone, Copy)]
struct Checked(Option<usize>);

impl Checked {
    const ZERO: Checked = Checked(Some(0));

    const fn add(self, other: Checked) -> Checked {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Checked(a.checked_add(b)),
            _ => Checked(None),
        }
    }

    const fn times(self, factor: usize) -> Checked {
        match self.0 {
            Some(a) => Checked(a.checked_mul(factor)),
            None => self,
        }
    }

    /// The sum, if that many elements of four bytes can exist.
    const fn elements(self, what: &'static str) -> Result<usize, Error> {
        match self.0 {
            Some(n) if n <= isize::MAX as usize / 4 => Ok(n),
            _ => Err(Error::TooLarge { what }),
        }
    }
}

const fn checked(n: usize) -> Checked {
    Checked(Some(n))
}

const fn tensors_len(kinds: &[Kind], config: &Config) -> Checked {
    let mut sum = Checked::ZERO;
    let mut i = 0;
    while i < kinds.len() {
        let (rank, shape) = kinds[i].shape(config);
        if rank > 0 {
            sum = sum.add(checked(shape[0]).times(shape[1]));
        }
        i += 1;
    }
    sum
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
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
        get!(config.validate());
        if options.batch == 0 {
            return Err(Error::Zero { what: "batch" });
        }
        if options.threads == 0 {
            return Err(Error::Zero { what: "threads" });
        }
        let parameters = tensors_len(&Kind::BEFORE, config)
            .add(tensors_len(&Kind::BLOCK, config).times(config.layers))
            .add(tensors_len(&Kind::AFTER, config));
        let rows = checked(options.batch).times(config.context);
        let per_row = layer_elements_per_row(config)
            .times(config.layers)
            .add(residual_elements_per_row(config))
            .add(tail_elements_per_row(config));
        let activations = match (rows.0, per_row.0) {
            (Some(rows), Some(per_row)) => checked(rows).times(per_row),
            _ => Checked(None),
        };
        let scratch = match rows.0 {
            Some(n) => scratch_elements_per_row(config)
                .times(n)
                .add(checked(worker_scratch(config, n)).times(options.threads)),
            None => Checked(None),
        };
        let parameters = get!(parameters.elements("parameters"));
        Ok(Plan {
            config: *config,
            options: *options,
            parameters,
            gradients: parameters,
            optimizer: get!(
                checked(parameters).times(options.optimizer.per_parameter()).elements("optimizer state")
            ),
            activations: get!(activations.elements("activations")),
            scratch: get!(scratch.elements("scratch")),
            generation: get!(generation(config).elements("generation")),
            batch: get!(rows.times(2).elements("batch")),
        })
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
    pub fn tensors(&self) -> Tensors {
        Tensors { config: self.config, index: 0, offset: 0 }
    }

    /// The scratch of one worker: packing space of the products and a tile of attention.
    pub(crate) const fn worker_scratch(&self) -> usize {
        worker_scratch(&self.config, self.options.batch.saturating_mul(self.config.context))
    }

    /// Elements in one block's parameters.
    pub(crate) const fn block(&self) -> usize {
        match tensors_len(&Kind::BLOCK, &self.config).0 {
            Some(n) => n,
            None => 0,
        }
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
            return Err(Error::Plan { what: "so many sequences in one pass" });
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    /// The bytes of each region, one a line.
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
        writeln!(f, "{:<12}{:>14} bytes", "total", self.bytes())
    }
}

/// Iterator over the parameter tensors; see [`Plan::tensors`].
#[derive(Clone, Debug)]
pub struct Tensors {
    config: Config,
    index: usize,
    offset: usize,
}

impl Iterator for Tensors {
    type Item = Tensor;

    fn next(&mut self) -> Option<Tensor> {
        loop {
            let (before, per_block) = (Kind::BEFORE.len(), Kind::BLOCK.len());
            let after = before + per_block * self.config.layers;
            let (kind, layer) = if self.index < before {
                (Kind::BEFORE.get(self.index)?, 0)
            } else if self.index < after {
                let i = self.index - before;
                (Kind::BLOCK.get(i % per_block)?, i / per_block)
            } else {
                (Kind::AFTER.get(self.index - after)?, 0)
            };
            self.index += 1;
            let (rank, shape) = kind.shape(&self.config);
            if rank == 0 {
                continue;
            }
            let tensor = Tensor { name: TensorName { kind: *kind, layer }, rank, shape, offset: self.offset };
            self.offset = self.offset.wrapping_add(tensor.len());
            return Some(tensor);
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

/// A slice from whose front pieces are taken.
pub trait Cut: Sized {
    /// Takes `len` elements off the front; an empty piece where there are not so many.
    fn cut(&mut self, len: usize) -> Self;
}

impl Cut for &[f32] {
    fn cut(&mut self, len: usize) -> Self {
        debug_assert!(self.len() >= len);
        self.split_off(..len).unwrap_or_default()
    }
}

impl Cut for &mut [f32] {
    fn cut(&mut self, len: usize) -> Self {
        debug_assert!(self.len() >= len);
        self.split_off_mut(..len).unwrap_or_default()
    }
}

/// A norm's parameters, each `[C]`; the bias is empty where the model has none.
pub struct Norm<S> {
    /// The factor of each column.
    pub weight: S,
    /// The summand of each column.
    pub bias: S,
}

/// A product's parameters: weight `[in, out]`, bias `[out]` or empty.
pub struct Linear<S> {
    /// Row-major, `[in, out]` as in Hugging Face GPT-2's `Conv1D`.
    pub weight: S,
    /// Empty where the model has none.
    pub bias: S,
}

/// One block's parameters or gradients, by name.
pub struct Block<S> {
    /// Norm before attention.
    pub ln_1: Norm<S>,
    /// Query, key and value at once: `[C, 3C]`.
    pub c_attn: Linear<S>,
    /// The attention's projection: `[C, C]`.
    pub attention_projection: Linear<S>,
    /// Norm before the MLP.
    pub ln_2: Norm<S>,
    /// Into the hidden width: `[C, F]`.
    pub c_fc: Linear<S>,
    /// Back to the residual stream: `[F, C]`.
    pub mlp_projection: Linear<S>,
}

impl<S: Cut> Block<S> {
    /// Cuts one block's region.
    pub fn new(mut region: S, config: &Config) -> Block<S> {
        let (c, f) = (config.width, config.hidden);
        let biases = |n: usize| if config.bias { n } else { 0 };
        let norm = |s: &mut S| Norm { weight: s.cut(c), bias: s.cut(biases(c)) };
        let linear = |s: &mut S, n: usize, m: usize| Linear { weight: s.cut(n * m), bias: s.cut(biases(m)) };
        Block {
            ln_1: norm(&mut region),
            c_attn: linear(&mut region, c, 3 * c),
            attention_projection: linear(&mut region, c, c),
            ln_2: norm(&mut region),
            c_fc: linear(&mut region, c, f),
            mlp_projection: linear(&mut region, f, c),
        }
    }
}

/// All parameters (or all gradients) of a model, by name.
pub struct Parameters<S> {
    /// `wte`: `[V, C]`.
    pub token_embedding: S,
    /// `wpe`: `[context, C]`.
    pub position_embedding: S,
    /// L blocks, one behind the other; [`Block::new`] cuts one.
    pub blocks: S,
    /// Norm before the head.
    pub final_norm: Norm<S>,
    /// `[V, C]`; empty where tied to the token embedding.
    pub head: S,
}

impl<S: Cut> Parameters<S> {
    /// Cuts a slice of exactly [`Plan::parameters`] elements.
    pub(crate) fn new(mut region: S, plan: &Plan) -> Parameters<S> {
        let config = &plan.config;
        let c = config.width;
        Parameters {
            token_embedding: region.cut(config.vocab * c),
            position_embedding: region.cut(config.context * c),
            blocks: region.cut(plan.block() * config.layers),
            final_norm: Norm { weight: region.cut(c), bias: region.cut(if config.bias { c } else { 0 }) },
            head: region.cut(if config.tied { 0 } else { config.vocab * c }),
        }
    }
}

impl Parameters<&[f32]> {
    /// The head's matrix, tied or not: `[V, C]`.
    pub fn head_matrix(&self) -> &[f32] {
        if self.head.is_empty() { self.token_embedding } else { self.head }
    }
}

/// What one block's forward leaves for its backward, besides the residual stream. R rows.
pub(crate) struct LayerActivations<'a> {
    pub ln_1_mean: &'a mut [f32],       // [R]
    pub ln_1_rstd: &'a mut [f32],       // [R]
    pub qkv: &'a mut [f32],             // [R, 3C]
    pub attention_stats: &'a mut [f32], // [B, H, T, 2]: row maximum, reciprocal of the row's sum
    pub attended: &'a mut [f32],        // [R, C]
    pub ln_2_mean: &'a mut [f32],       // [R]
    pub ln_2_rstd: &'a mut [f32],       // [R]
    pub hidden: &'a mut [f32],          // [R, F], before the activation
}

const fn layer_elements_per_row(config: &Config) -> Checked {
    checked(config.width).times(4).add(checked(4)).add(checked(2 * config.heads)).add(checked(config.hidden))
}

impl<'a> LayerActivations<'a> {
    pub fn new(mut region: &'a mut [f32], config: &Config, rows: usize) -> LayerActivations<'a> {
        let c = config.width;
        LayerActivations {
            ln_1_mean: region.cut(rows),
            ln_1_rstd: region.cut(rows),
            qkv: region.cut(rows * 3 * c),
            attention_stats: region.cut(rows * 2 * config.heads),
            attended: region.cut(rows * c),
            ln_2_mean: region.cut(rows),
            ln_2_rstd: region.cut(rows),
            hidden: region.cut(rows * config.hidden),
        }
    }
}

const fn residual_elements_per_row(config: &Config) -> Checked {
    checked(config.width).times(2 * config.layers + 1)
}

const fn tail_elements_per_row(config: &Config) -> Checked {
    checked(3).add(checked(config.width)).add(checked(config.vocab))
}

const fn scratch_elements_per_row(config: &Config) -> Checked {
    checked(config.width).times(4).add(checked(max(config.hidden, 3 * config.width)))
}

const fn worker_scratch(config: &Config, rows: usize) -> usize {
    let (c, f, v) = (config.width, config.hidden, config.vocab);
    let widest = max(max(3 * c, f), v);
    matmul::scratch(max(widest, rows), max(widest, rows), max(widest, config.context))
        .saturating_add(attention::tile_scratch(config.context))
}

/// Keys and values of the whole context, a chunk of rows, the logits, and a worker's scratch.
const fn generation(config: &Config) -> Checked {
    let cache = checked(2).times(config.layers).times(config.context).times(config.width);
    let per_row = checked(config.width).times(7).add(checked(config.hidden).times(2)).add(checked(4));
    let rows = per_row.times(generate::CHUNK);
    cache.add(rows).add(checked(config.vocab)).add(checked(worker_scratch(config, generate::CHUNK)))
}

/// The workspace, cut for one pass of R rows.
pub(crate) struct Workspace<'a> {
    /// x before block 0, then for each block x after attention and x after the MLP: `[2L + 1][R, C]`.
    pub residual: &'a mut [f32],
    /// L times [`LayerActivations`].
    pub layers: &'a mut [f32],
    /// The length of one of them.
    pub layer: usize,
    pub final_mean: &'a mut [f32],   // [R]
    pub final_rstd: &'a mut [f32],   // [R]
    pub final_normed: &'a mut [f32], // [R, C]
    pub losses: &'a mut [f32],       // [R]
    pub logits: &'a mut [f32],       // [R, V]; their gradient after the loss
    pub d_residual: &'a mut [f32],   // [R, C]
    pub d_branch: &'a mut [f32],     // [R, C]
    pub normed: &'a mut [f32],       // [R, C]
    pub d_normed: &'a mut [f32],     // [R, C]
    pub wide: &'a mut [f32],         // [R, max(F, 3C)]
    pub workers: &'a mut [f32],      // [threads, worker_scratch]
}

impl<'a> Workspace<'a> {
    /// Cuts a slice of exactly [`Plan::workspace`] elements.
    pub fn new(mut region: &'a mut [f32], plan: &Plan, shape: Shape) -> Result<Workspace<'a>, Error> {
        exact_length("workspace", region.len(), plan.workspace())?;
        plan.check(shape)?;
        let config = &plan.config;
        let (rows, c) = (shape.rows(), config.width);
        let layer = layer_elements_per_row(config).times(rows).0.unwrap_or(0);
        Ok(Workspace {
            residual: region.cut((2 * config.layers + 1) * rows * c),
            layers: region.cut(config.layers * layer),
            layer,
            final_mean: region.cut(rows),
            final_rstd: region.cut(rows),
            final_normed: region.cut(rows * c),
            losses: region.cut(rows),
            logits: region.cut(rows * config.vocab),
            d_residual: region.cut(rows * c),
            d_branch: region.cut(rows * c),
            normed: region.cut(rows * c),
            d_normed: region.cut(rows * c),
            wide: region.cut(rows * max(config.hidden, 3 * c)),
            workers: region.cut(plan.options.threads * plan.worker_scratch()),
        })
    }
}
