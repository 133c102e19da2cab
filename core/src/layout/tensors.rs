//! The parameter tensors by name, shape and offset: Hugging Face GPT-2's.

use core::{fmt, iter};

use super::{Count, Frozen, Plan, checked};
use crate::compact::format::{self, Number, Sink, Written};
use crate::config::Config;

/// One parameter tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Which one; its `Display` is Hugging Face GPT-2's name, e.g. `h.0.attn.c_attn.weight`.
    pub name: TensorName,
    /// 1 for biases and norms, 2 for matrices.
    pub rank: usize,
    /// The shape; a vector has its length in `shape[0]` and 1 in `shape[1]`.
    pub shape: [usize; 2],
    /// Where it begins in the parameters, or among the frozen ones, in elements.
    pub offset: usize,
    /// Whether it is not trained: see [`crate::Options::frozen`].
    pub frozen: bool,
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

    /// Whether it is a factor of a product, as the token embedding is where the head is tied.
    pub(crate) fn is_weight(&self, tied: bool) -> bool {
        match self.name.kind {
            Kind::TokenEmbedding => tied,
            Kind::PositionEmbedding => false,
            _ => self.rank == 2,
        }
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

    /// The kind and the layer of the tensor at a place of a model that has all kinds; of those before and after the
    /// blocks, the layers are 0 and the number of layers.
    pub(super) const fn at(place: usize, layers: usize) -> Option<(Kind, usize)> {
        let (before, per_block) = (Kind::BEFORE.len(), Kind::BLOCK.len());
        let after = before + per_block * layers;
        if place < before {
            Some((Kind::BEFORE[place], 0))
        } else if place < after {
            let i = place - before;
            Some((Kind::BLOCK[i % per_block], i / per_block))
        } else if place - after < Kind::AFTER.len() {
            Some((Kind::AFTER[place - after], layers))
        } else {
            None
        }
    }

    /// Rank and shape; rank 0 where the configuration has no such tensor.
    pub(super) const fn shape(self, config: &Config) -> (usize, [usize; 2]) {
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
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Group {
    Embedding,
    Attention { layer: usize },
    Mlp { layer: usize },
    Head,
}

impl Group {
    /// The most tensors of a group.
    pub const MOST: usize = 6;

    /// The place of its first tensor in a model that has all kinds, and the layer as [`Kind::at`] has it.
    const fn first_place(self, layers: usize) -> (usize, usize) {
        let (layer, rest) = match self {
            Group::Embedding => return (0, 0),
            Group::Attention { layer } => (layer, 0),
            Group::Mlp { layer } => (layer, Group::MOST),
            Group::Head => (layers, 0),
        };
        (Kind::BEFORE.len() + layer * Kind::BLOCK.len() + rest, layer)
    }

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
    /// The tensors of a group, each in its place whether the model has those before it or not.
    pub(crate) fn group(&self, group: Group) -> [Option<Tensor>; Group::MOST] {
        let config = &self.config;
        let (first, layer) = group.first_place(config.layers);
        let mut tensors = Tensors::at(config, &self.options.frozen, first);
        let mut found = [None; Group::MOST];
        for (place, kind) in found.iter_mut().zip(group.kinds()) {
            let (rank, shape) = kind.shape(config);
            if rank > 0 {
                *place = Some(tensors.next_is(TensorName { kind: *kind, layer }, rank, shape));
            }
        }
        found
    }

    /// Whether backward comes to a group: whether it has a tensor that is trained, or one before it has.
    pub(crate) fn reaches(&self, group: Group) -> bool {
        let (first, _) = group.first_place(self.config.layers);
        let (mut tensors, end) = (self.tensors(), first + group.kinds().len());
        iter::from_fn(|| tensors.next_before(end)).any(|tensor| !tensor.frozen)
    }

    /// The group of the first tensor that is trained: backward goes no further.
    pub(crate) fn first_trained(&self) -> Option<Group> {
        let TensorName { kind, layer } = self.tensors().find(|tensor| !tensor.frozen)?.name;
        let groups = [Group::Embedding, Group::Attention { layer }, Group::Mlp { layer }, Group::Head];
        groups.into_iter().find(|group| group.kinds().contains(&kind))
    }
}

impl TensorName {
    fn is_in_block(self) -> bool {
        Kind::BLOCK.contains(&self.kind)
    }

    /// Whether `name` is this tensor's, e.g. `h.0.attn.c_attn.weight`.
    pub fn is(&self, name: &str) -> bool {
        let mut rest = Rest(Some(name.as_bytes()));
        self.write(&mut rest);
        rest.0 == Some(&[])
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

/// What is left of a text after what was written, if that is how it begins.
struct Rest<'a>(Option<&'a [u8]>);

impl Sink for Rest<'_> {
    fn put(&mut self, text: &[u8]) {
        self.0 = self.0.and_then(|rest| rest.strip_prefix(text));
    }
}

impl Written for TensorName {
    fn write(&self, out: &mut dyn Sink) {
        if self.is_in_block() {
            out.put(b"h.");
            Number(self.layer as u64).write(out);
            out.put(b".");
        }
        out.put(self.kind.name().as_bytes());
    }
}

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format::display(self, f)
    }
}

pub(super) const fn tensors_len(kinds: &[Kind], config: &Config) -> Count {
    let mut sum = Count::ZERO;
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
pub struct Tensors<'a> {
    config: &'a Config,
    frozen: &'a Frozen,
    /// The place of the next in a model that has all kinds.
    place: usize,
    number: usize,
    /// Where the next begins, if it is trained, and if it is not.
    offsets: [usize; 2],
}

impl<'a> Tensors<'a> {
    pub(super) fn new(config: &'a Config, frozen: &'a Frozen) -> Tensors<'a> {
        Tensors { config, frozen, place: 0, number: 0, offsets: [0; 2] }
    }

    /// From a place on: that of a group's first tensor.
    fn at(config: &'a Config, frozen: &'a Frozen, place: usize) -> Tensors<'a> {
        let mut tensors = Tensors::new(config, frozen);
        if frozen.is_none() {
            // Quickly: nothing depends on which tensors come before.
            let len = |kinds: &[Kind]| tensors_len(kinds, config).0;
            let blocks = place.saturating_sub(Kind::BEFORE.len());
            let (whole, rest) = (blocks / Kind::BLOCK.len(), blocks % Kind::BLOCK.len());
            if place > 0 {
                let blocks = if whole > 0 { whole * len(&Kind::BLOCK) } else { 0 };
                let part = Kind::BLOCK.get(..rest).unwrap_or_default();
                tensors.offsets[0] = len(&Kind::BEFORE) + blocks + len(part);
            }
            tensors.place = place;
        } else {
            while tensors.next_before(place).is_some() {}
        }
        tensors
    }

    /// The next, if its place is before `end`.
    #[inline(never)]
    fn next_before(&mut self, end: usize) -> Option<Tensor> {
        while self.place < end {
            let (kind, layer) = Kind::at(self.place, self.config.layers)?;
            self.place += 1;
            let (rank, shape) = kind.shape(self.config);
            if rank == 0 {
                continue;
            }
            return Some(self.next_is(TensorName { kind, layer }, rank, shape));
        }
        None
    }

    /// The next, which is this one.
    #[inline(always)]
    fn next_is(&mut self, name: TensorName, rank: usize, shape: [usize; 2]) -> Tensor {
        let frozen = self.frozen.has(self.number);
        self.number += 1;
        let [trained, not] = &mut self.offsets;
        let end = if frozen { not } else { trained };
        let tensor = Tensor { name, rank, shape, offset: *end, frozen };
        *end = end.wrapping_add(tensor.len());
        tensor
    }
}

impl Iterator for Tensors<'_> {
    type Item = Tensor;

    fn next(&mut self) -> Option<Tensor> {
        self.next_before(usize::MAX)
    }
}
