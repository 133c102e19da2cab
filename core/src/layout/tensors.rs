//! The parameter tensors by name, shape and offset: Hugging Face GPT-2's.

use core::fmt::{self, Write};

use super::{Checked, Plan, checked};
use crate::config::Config;
use crate::decimal::Number;

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

    /// The elements of a row; a vector is one.
    pub(crate) const fn row_len(&self) -> usize {
        if self.rank == 1 { self.shape[0] } else { self.shape[1] }
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
pub(super) enum Kind {
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
    pub(super) const BEFORE: [Kind; 2] = [Kind::TokenEmbedding, Kind::PositionEmbedding];
    pub(super) const BLOCK: [Kind; 12] = [
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
    pub(super) const AFTER: [Kind; 3] = [Kind::FinalNormWeight, Kind::FinalNormBias, Kind::Head];

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

/// Tensors whose gradients one stage of backward makes ready.
#[derive(Clone, Copy)]
pub(crate) enum Group {
    Embedding,
    Attention { layer: usize },
    Mlp { layer: usize },
    Head,
}

impl Group {
    /// The most tensors of a group.
    pub const MOST: usize = 6;

    /// The kinds of the group's tensors, in the order in which they lie.
    const fn kinds(self) -> &'static [Kind] {
        let (attention, mlp) = Kind::BLOCK.split_at(Group::MOST);
        match self {
            Group::Embedding => &Kind::BEFORE,
            Group::Attention { .. } => attention,
            Group::Mlp { .. } => mlp,
            Group::Head => &Kind::AFTER,
        }
    }
}

impl Plan {
    /// The tensors of a group, one behind the other, each in its place whether the model has those before it or not.
    pub(crate) fn group(&self, group: Group) -> [Option<Tensor>; Group::MOST] {
        let config = &self.config;
        let len = |kinds: &[Kind]| tensors_len(kinds, config).0.unwrap_or(0);
        let before = len(&Kind::BEFORE);
        let (layer, mut offset) = match group {
            Group::Embedding => (0, 0),
            Group::Attention { layer } => (layer, before + layer * self.block()),
            Group::Mlp { layer } => {
                let attention = len(Group::Attention { layer }.kinds());
                (layer, before + layer * self.block() + attention)
            }
            Group::Head => (0, before + config.layers * self.block()),
        };
        let mut tensors = [None; Group::MOST];
        for (place, kind) in tensors.iter_mut().zip(group.kinds()) {
            let (rank, shape) = kind.shape(config);
            if rank > 0 {
                let tensor = Tensor { name: TensorName { kind: *kind, layer }, rank, shape, offset };
                offset += tensor.len();
                *place = Some(tensor);
            }
        }
        tensors
    }
}

impl TensorName {
    fn is_in_block(self) -> bool {
        Kind::BLOCK.contains(&self.kind)
    }

    /// Whether `name` is this tensor's, e.g. `h.0.attn.c_attn.weight`.
    pub fn is(&self, name: &str) -> bool {
        let mut rest = Rest(name);
        write!(rest, "{self}").is_ok() && rest.0.is_empty()
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

/// What is left of a text after what was written, which must be how it begins.
struct Rest<'a>(&'a str);

impl fmt::Write for Rest<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_in_block() {
            write!(f, "h.{}.", Number(self.layer as u64))?;
        }
        f.write_str(self.kind.name())
    }
}

pub(super) const fn tensors_len(kinds: &[Kind], config: &Config) -> Checked {
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

/// Iterator over the parameter tensors; see [`super::Plan::tensors`].
#[derive(Clone, Debug)]
pub struct Tensors {
    config: Config,
    index: usize,
    offset: usize,
}

impl Tensors {
    pub(super) fn new(config: Config) -> Tensors {
        Tensors { config, index: 0, offset: 0 }
    }
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
