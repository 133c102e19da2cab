//! The table of a model's tensors: their names, shapes, order, roles and initial values. The only file that knows them.
//! Layout, initialisation, gradients, costs and checkpoints read the table; `model` computes with its sites.
//!
//! The only family is GPT-2 (Radford et al. 2019), with the names and shapes of Hugging Face's files.

use super::Count;
use crate::config::Config;

/// A side of a tensor, in the configuration's terms.
#[derive(Clone, Copy)]
pub(super) enum Dim {
    Vocab,
    Context,
    Width,
    Hidden,
    /// Queries, keys and values, side by side.
    Qkv,
    /// The columns of a vector.
    One,
}

/// The lengths of all sides, in the order of [`Dim`].
const fn lengths(config: &Config) -> [usize; Dim::One as usize + 1] {
    [config.vocab, config.context, config.width, config.hidden, config.width.saturating_mul(3), 1]
}

/// A computation with parameters: a weight, and perhaps a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Tokens,
    Positions,
    AttentionNorm,
    Qkv,
    AttentionOut,
    MlpNorm,
    MlpIn,
    MlpOut,
    FinalNorm,
    Logits,
}

/// A tensor's role in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A table with a row for each token or position.
    Embedding,
    /// The matrix of a product.
    Weight,
    /// The factors of a norm's columns.
    NormWeight,
    /// Added to each row of a product or a norm.
    Bias,
}

/// The order of a product's matrix: a row for each column of the input, or of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `[in, out]`, as Hugging Face's `Conv1D`.
    InOut,
    /// `[out, in]`, as PyTorch's `Linear`.
    OutIn,
}

/// A tensor's values before training.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Initial {
    Normal,
    /// Normal, scaled by 1 / sqrt(2 L), as GPT-2 does with the last product of a residual branch.
    ScaledNormal,
    Zeros,
    Ones,
}

/// The configurations that have a tensor.
#[derive(Clone, Copy)]
enum When {
    Always,
    Biased,
    Untied,
}

/// One row of the table.
pub(super) struct Slot {
    pub site: Site,
    pub role: Role,
    rows: Dim,
    columns: Dim,
    pub initial: Initial,
    when: When,
}

impl Slot {
    pub const fn exists(&self, config: &Config) -> bool {
        match self.when {
            When::Always => true,
            When::Biased => config.bias,
            When::Untied => !config.tied,
        }
    }

    pub const fn rank(&self) -> usize {
        if let Dim::One = self.columns { 1 } else { 2 }
    }

    /// Rows and columns; a vector has its length and 1.
    pub const fn shape(&self, config: &Config) -> [usize; 2] {
        let lengths = lengths(config);
        [lengths[self.rows as usize], lengths[self.columns as usize]]
    }

    /// The number of elements, which may saturate.
    pub const fn elements(&self, config: &Config) -> Count {
        let [rows, columns] = self.shape(config);
        Count::of(rows).times(columns)
    }

    pub const fn is_bias(&self) -> bool {
        matches!(self.role, Role::Bias)
    }
}

const fn matrix(site: Site, role: Role, [rows, columns]: [Dim; 2]) -> Slot {
    let (initial, when) = match site {
        Site::AttentionOut | Site::MlpOut => (Initial::ScaledNormal, When::Always),
        Site::Logits => (Initial::Normal, When::Untied),
        _ => (Initial::Normal, When::Always),
    };
    Slot { site, role, rows, columns, initial, when }
}

const fn weight(site: Site, shape: [Dim; 2]) -> Slot {
    matrix(site, Role::Weight, shape)
}

const fn norm(site: Site) -> Slot {
    let (role, initial) = (Role::NormWeight, Initial::Ones);
    Slot { site, role, rows: Dim::Width, columns: Dim::One, initial, when: When::Always }
}

const fn bias(site: Site, rows: Dim) -> Slot {
    let (role, initial) = (Role::Bias, Initial::Zeros);
    Slot { site, role, rows, columns: Dim::One, initial, when: When::Biased }
}

/// The prefix of the names of a block's tensors, before its number and a dot.
pub(super) const BLOCK_PREFIX: &str = "h.";

/// Makes [`TABLE`] and [`NAMES`]. Names are separate, so that firmware without checkpoints does not link them.
macro_rules! tensors {
    ($($name:literal: $slot:expr;)*) => {
        /// All tensors in memory order. The tensors of a block are listed once.
        pub(super) static TABLE: [Slot; [$($name),*].len()] = [$($slot),*];

        /// Their names, without the prefix of a block.
        pub(super) static NAMES: [&str; TABLE.len()] = [$($name),*];
    };
}

tensors! {
    "wte.weight": matrix(Site::Tokens, Role::Embedding, [Dim::Vocab, Dim::Width]);
    "wpe.weight": matrix(Site::Positions, Role::Embedding, [Dim::Context, Dim::Width]);
    "ln_1.weight": norm(Site::AttentionNorm);
    "ln_1.bias": bias(Site::AttentionNorm, Dim::Width);
    "attn.c_attn.weight": weight(Site::Qkv, [Dim::Width, Dim::Qkv]);
    "attn.c_attn.bias": bias(Site::Qkv, Dim::Qkv);
    "attn.c_proj.weight": weight(Site::AttentionOut, [Dim::Width, Dim::Width]);
    "attn.c_proj.bias": bias(Site::AttentionOut, Dim::Width);
    "ln_2.weight": norm(Site::MlpNorm);
    "ln_2.bias": bias(Site::MlpNorm, Dim::Width);
    "mlp.c_fc.weight": weight(Site::MlpIn, [Dim::Width, Dim::Hidden]);
    "mlp.c_fc.bias": bias(Site::MlpIn, Dim::Hidden);
    "mlp.c_proj.weight": weight(Site::MlpOut, [Dim::Hidden, Dim::Width]);
    "mlp.c_proj.bias": bias(Site::MlpOut, Dim::Width);
    "ln_f.weight": norm(Site::FinalNorm);
    "ln_f.bias": bias(Site::FinalNorm, Dim::Width);
    "lm_head.weight": weight(Site::Logits, [Dim::Vocab, Dim::Width]);
}

impl Site {
    /// The order of the site's matrix.
    pub const fn order(self) -> Order {
        match self {
            Site::Logits => Order::OutIn,
            _ => Order::InOut,
        }
    }
}

/// The sites whose gradients one stage of backward computes. They are adjacent in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Embedding,
    Attention { layer: usize },
    Mlp { layer: usize },
    Logits,
}

impl Group {
    /// The most sites of a group.
    pub const MOST_SITES: usize = 3;

    /// Its sites in memory order. A group with fewer sites repeats its last one.
    pub const fn sites(self) -> [Site; Group::MOST_SITES] {
        match self {
            Group::Embedding => [Site::Tokens, Site::Positions, Site::Positions],
            Group::Attention { .. } => [Site::AttentionNorm, Site::Qkv, Site::AttentionOut],
            Group::Mlp { .. } => [Site::MlpNorm, Site::MlpIn, Site::MlpOut],
            Group::Logits => [Site::FinalNorm, Site::Logits, Site::Logits],
        }
    }

    /// The group's first row in the table, and the first row after the group.
    pub(super) const fn slots(self) -> [usize; 2] {
        const EMBEDDING: [usize; 2] = slots(&Group::Embedding);
        const ATTENTION: [usize; 2] = slots(&Group::Attention { layer: 0 });
        const MLP: [usize; 2] = slots(&Group::Mlp { layer: 0 });
        const LOGITS: [usize; 2] = slots(&Group::Logits);
        match self {
            Group::Embedding => EMBEDDING,
            Group::Attention { .. } => ATTENTION,
            Group::Mlp { .. } => MLP,
            Group::Logits => LOGITS,
        }
    }

    /// The multiply-adds of the group's products for one row in forward. The head counts even if its matrix is tied.
    pub const fn products(self, config: &Config) -> Count {
        let ([mut i, end], mut sum) = (self.slots(), Count::ZERO);
        while let Some(slot) = slot(i)
            && i < end
        {
            if matches!(slot.role, Role::Weight) {
                sum = sum.add(slot.elements(config));
            }
            i += 1;
        }
        sum
    }
}

/// A row of the table.
pub(super) const fn slot(row: usize) -> Option<&'static Slot> {
    if row < TABLE.len() { Some(&TABLE[row]) } else { None }
}

/// [`Group::slots`], found in the table.
const fn slots(group: &Group) -> [usize; 2] {
    let (sites, mut first) = (group.sites(), 0);
    while TABLE[first].site as usize != sites[0] as usize {
        first += 1;
    }
    let (mut end, last) = (first, sites[Group::MOST_SITES - 1]);
    while end < TABLE.len() && TABLE[end].site as usize <= last as usize {
        end += 1;
    }
    [first, end]
}

/// The rows of the table that each block repeats: the first, and the first after them.
pub(super) const BLOCK: [usize; 2] =
    [Group::Attention { layer: 0 }.slots()[0], Group::Mlp { layer: 0 }.slots()[1]];

/// The row of the table, and the layer, of the tensor at a place in a model that has all tensors. Tensors before the
/// blocks have layer 0, and tensors after them have layer `layers`.
pub(super) const fn at(place: usize, layers: usize) -> Option<(usize, usize)> {
    let [before, end] = BLOCK;
    let per_block = end - before;
    let after = before + per_block * layers;
    if place < before {
        Some((place, 0))
    } else if place < after {
        let i = place - before;
        Some((before + i % per_block, i / per_block))
    } else if place - after < TABLE.len() - end {
        Some((end + place - after, layers))
    } else {
        None
    }
}

/// The next tensor that the configuration has, from a place on: its place, its row of the table and its layer.
#[inline(never)]
pub(super) const fn next(mut place: usize, config: &Config) -> Option<(usize, usize, usize)> {
    while let Some((row, layer)) = at(place, config.layers)
        && let Some(slot) = slot(row)
    {
        if slot.exists(config) {
            return Some((place, row, layer));
        }
        place += 1;
    }
    None
}

/// The number of places: of tensors in a model that has all tensors.
pub(super) const fn places(layers: usize) -> usize {
    let [before, end] = BLOCK;
    (TABLE.len() - (end - before)).saturating_add((end - before).saturating_mul(layers))
}

/// The place of the tensor in a row of the table, in a model that has all tensors.
pub(super) const fn place(row: usize, layer: usize, layers: usize) -> usize {
    let [before, end] = BLOCK;
    let blocks_before = if row < before {
        0
    } else if row < end {
        layer
    } else {
        layers.wrapping_sub(1)
    };
    row.wrapping_add(blocks_before.wrapping_mul(end - before))
}

/// The number of elements of the tensors before a place.
#[inline(never)]
pub(super) const fn elements_before(place: usize, config: &Config) -> Count {
    let (lengths, end) = (lengths(config), end_before(place, config));
    let (mut sum, mut row) = (0_usize, 0);
    while let Some(slot) = slot(row) {
        let each = lengths[slot.rows as usize].saturating_mul(lengths[slot.columns as usize]);
        sum = sum.saturating_add(each.saturating_mul(occurrences(row, slot, end, config)));
        row += 1;
    }
    Count::of(sum)
}

/// The number of tensors that the configuration has before a place.
#[inline(never)]
pub(super) const fn count_before(place: usize, config: &Config) -> usize {
    let end = end_before(place, config);
    let (mut sum, mut row) = (0_usize, 0);
    while let Some(slot) = slot(row) {
        sum = sum.saturating_add(occurrences(row, slot, end, config));
        row += 1;
    }
    sum
}

/// The row and the layer of a place, or the end of the table and of the layers.
const fn end_before(place: usize, config: &Config) -> (usize, usize) {
    match at(place, config.layers) {
        Some(found) => found,
        None => (TABLE.len(), config.layers),
    }
}

/// How often the configuration has a row of the table before a row of a layer.
#[inline(never)]
const fn occurrences(row: usize, slot: &Slot, (end, layer): (usize, usize), config: &Config) -> usize {
    let [first_in_block, after_block] = BLOCK;
    if !slot.exists(config) {
        0
    } else if row < first_in_block || row >= after_block {
        (row < end) as usize
    } else {
        // The whole blocks before the layer, and its own block.
        layer + (row < end && end < after_block) as usize
    }
}

/// The number of elements of all tensors.
pub(super) const fn all_elements(config: &Config) -> Count {
    elements_before(places(config.layers), config)
}
