//! The table of a model's tensors: their names, shapes, order, roles and initial values. The only file that knows them.
//! Layout, initialisation, gradients, costs and checkpoints read the table; `model` computes with its sites.
//!
//! There are two families, with the names and shapes of Hugging Face's files: GPT-2 (Radford et al. 2019), and Llama
//! (Touvron et al. 2023). A configuration that is not exactly a GPT-2 belongs to Llama's family.

use super::Count;
use crate::config::{Config, LLAMA, LORA, Module};

/// A side of a tensor, in the configuration's terms.
#[cfg_attr(not(feature = "llama"), expect(dead_code, reason = "only Llama's tensors have some of them"))]
#[derive(Clone, Copy)]
pub(super) enum Dim {
    Vocab,
    Context,
    Width,
    Hidden,
    /// Queries, keys and values, side by side.
    Qkv,
    /// All heads of queries, side by side.
    Queries,
    /// All heads of keys, or of values, side by side.
    Keys,
    Head,
    /// The rank of a matrix's adapter.
    #[cfg_attr(not(feature = "lora"), expect(dead_code, reason = "only adapters have it"))]
    Rank(Module),
    /// The columns of a vector.
    One,
}

impl Dim {
    const fn length(self, config: &Config) -> usize {
        match self {
            Dim::Vocab => config.vocab,
            Dim::Context => config.context,
            Dim::Width => config.width,
            Dim::Hidden => config.hidden,
            Dim::Qkv => config.qkv(),
            Dim::Queries => config.attended(),
            Dim::Keys => config.kv_width(),
            Dim::Head => config.head_width(),
            Dim::Rank(module) => config.lora().rank(module),
            Dim::One => 1,
        }
    }
}

/// A computation with parameters: a weight, and perhaps a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Tokens,
    Positions,
    AttentionNorm,
    /// Queries, keys and values of a GPT-2.
    Qkv,
    Query,
    Key,
    Value,
    QueryNorm,
    KeyNorm,
    AttentionOut,
    MlpNorm,
    Gate,
    MlpIn,
    MlpOut,
    FinalNorm,
    Logits,
    /// The first matrix of an adapter, `[r, in]`.
    A(Module),
    /// The second one, `[out, r]`.
    B(Module),
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
    /// Uniform between plus and minus one over the root of the columns.
    #[cfg(feature = "lora")]
    Uniform,
}

/// The configurations that have a tensor.
#[derive(Clone, Copy)]
enum When {
    Always,
    Biased,
    Untied,
    Learned,
    LayerNormBiased,
    QkvBiased,
    QkNormed,
    Gated,
    GatedAndBiased,
    #[cfg_attr(not(feature = "lora"), expect(dead_code, reason = "only adapters have it"))]
    Adapted(Module),
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
            When::Learned => !config.is_rotary(),
            When::LayerNormBiased => config.bias && !config.is_rms(),
            When::QkvBiased => config.has_qkv_bias(),
            When::QkNormed => config.has_qk_norm(),
            When::Gated => config.is_gated(),
            When::GatedAndBiased => config.is_gated() && config.bias,
            When::Adapted(module) => config.lora().rank(module) > 0,
        }
    }

    pub const fn rank(&self) -> usize {
        if let Dim::One = self.columns { 1 } else { 2 }
    }

    /// Rows and columns; a vector has its length and 1.
    pub const fn shape(&self, config: &Config) -> [usize; 2] {
        [self.rows.length(config), self.columns.length(config)]
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
    let initial = match site {
        Site::AttentionOut | Site::MlpOut => Initial::ScaledNormal,
        _ => Initial::Normal,
    };
    let when = match site {
        Site::Logits => When::Untied,
        Site::Positions => When::Learned,
        Site::Gate => When::Gated,
        _ => When::Always,
    };
    Slot { site, role, rows, columns, initial, when }
}

const fn embedding(site: Site, rows: Dim) -> Slot {
    matrix(site, Role::Embedding, [rows, Dim::Width])
}

const fn weight(site: Site, shape: [Dim; 2]) -> Slot {
    matrix(site, Role::Weight, shape)
}

const fn norm(site: Site) -> Slot {
    let (rows, when) = match site {
        Site::QueryNorm | Site::KeyNorm => (Dim::Head, When::QkNormed),
        _ => (Dim::Width, When::Always),
    };
    let (role, initial) = (Role::NormWeight, Initial::Ones);
    Slot { site, role, rows, columns: Dim::One, initial, when }
}

const fn bias(site: Site, rows: Dim) -> Slot {
    let when = match site {
        Site::AttentionNorm | Site::MlpNorm | Site::FinalNorm => When::LayerNormBiased,
        Site::Query | Site::Key | Site::Value => When::QkvBiased,
        Site::Gate => When::GatedAndBiased,
        _ => When::Biased,
    };
    let (role, initial) = (Role::Bias, Initial::Zeros);
    Slot { site, role, rows, columns: Dim::One, initial, when }
}

/// The first matrix of an adapter, from the columns of its input.
#[cfg(feature = "lora")]
const fn a(module: Module, inputs: Dim) -> Slot {
    let (site, role, when) = (Site::A(module), Role::Weight, When::Adapted(module));
    Slot { site, role, rows: Dim::Rank(module), columns: inputs, initial: Initial::Uniform, when }
}

/// The second matrix of an adapter, from the columns of its output. While it is zero, the adapter has no effect.
#[cfg(feature = "lora")]
const fn b(module: Module, outputs: Dim) -> Slot {
    let (site, role, when) = (Site::B(module), Role::Weight, When::Adapted(module));
    Slot { site, role, rows: outputs, columns: Dim::Rank(module), initial: Initial::Zeros, when }
}

/// Makes the table of a family, and the list of its tensors' names without the prefix of a block. Names are separate, so that
/// firmware without checkpoints does not link them.
macro_rules! tensors {
    ($table:ident $names:ident $($(#[$only:meta])? $name:literal: $slot:expr;)*) => {
        static $table: [Slot; [$($(#[$only])? $name),*].len()] = [$($(#[$only])? $slot),*];
        static $names: [&str; $table.len()] = [$($(#[$only])? $name),*];
    };
}

tensors! {
    GPT2 GPT2_NAMES
    "wte.weight": embedding(Site::Tokens, Dim::Vocab);
    "wpe.weight": embedding(Site::Positions, Dim::Context);
    "ln_1.weight": norm(Site::AttentionNorm);
    "ln_1.bias": bias(Site::AttentionNorm, Dim::Width);
    "attn.c_attn.weight": weight(Site::Qkv, [Dim::Width, Dim::Qkv]);
    "attn.c_attn.bias": bias(Site::Qkv, Dim::Qkv);
    "attn.c_proj.weight": weight(Site::AttentionOut, [Dim::Width, Dim::Width]);
    "attn.c_proj.bias": bias(Site::AttentionOut, Dim::Width);
    #[cfg(feature = "lora")] "attn.c_attn.lora_A.weight": a(Module::Qkv, Dim::Width);
    #[cfg(feature = "lora")] "attn.c_attn.lora_B.weight": b(Module::Qkv, Dim::Qkv);
    #[cfg(feature = "lora")] "attn.c_proj.lora_A.weight": a(Module::AttentionOut, Dim::Width);
    #[cfg(feature = "lora")] "attn.c_proj.lora_B.weight": b(Module::AttentionOut, Dim::Width);
    "ln_2.weight": norm(Site::MlpNorm);
    "ln_2.bias": bias(Site::MlpNorm, Dim::Width);
    "mlp.c_fc.weight": weight(Site::MlpIn, [Dim::Width, Dim::Hidden]);
    "mlp.c_fc.bias": bias(Site::MlpIn, Dim::Hidden);
    "mlp.c_proj.weight": weight(Site::MlpOut, [Dim::Hidden, Dim::Width]);
    "mlp.c_proj.bias": bias(Site::MlpOut, Dim::Width);
    #[cfg(feature = "lora")] "mlp.c_fc.lora_A.weight": a(Module::MlpIn, Dim::Width);
    #[cfg(feature = "lora")] "mlp.c_fc.lora_B.weight": b(Module::MlpIn, Dim::Hidden);
    #[cfg(feature = "lora")] "mlp.c_proj.lora_A.weight": a(Module::MlpOut, Dim::Hidden);
    #[cfg(feature = "lora")] "mlp.c_proj.lora_B.weight": b(Module::MlpOut, Dim::Width);
    "ln_f.weight": norm(Site::FinalNorm);
    "ln_f.bias": bias(Site::FinalNorm, Dim::Width);
    "lm_head.weight": weight(Site::Logits, [Dim::Vocab, Dim::Width]);
}

// The matrices of queries, keys and values lie one behind the other, and so do their biases, so that they are one product.
// The same holds for the gate and the first matrix of the MLP.
#[cfg(feature = "llama")]
tensors! {
    LLAMA_TABLE LLAMA_NAMES
    "model.embed_tokens.weight": embedding(Site::Tokens, Dim::Vocab);
    "model.embed_positions.weight": embedding(Site::Positions, Dim::Context);
    "input_layernorm.weight": norm(Site::AttentionNorm);
    "input_layernorm.bias": bias(Site::AttentionNorm, Dim::Width);
    "self_attn.q_proj.weight": weight(Site::Query, [Dim::Queries, Dim::Width]);
    "self_attn.k_proj.weight": weight(Site::Key, [Dim::Keys, Dim::Width]);
    "self_attn.v_proj.weight": weight(Site::Value, [Dim::Keys, Dim::Width]);
    "self_attn.q_proj.bias": bias(Site::Query, Dim::Queries);
    "self_attn.k_proj.bias": bias(Site::Key, Dim::Keys);
    "self_attn.v_proj.bias": bias(Site::Value, Dim::Keys);
    "self_attn.q_norm.weight": norm(Site::QueryNorm);
    "self_attn.k_norm.weight": norm(Site::KeyNorm);
    "self_attn.o_proj.weight": weight(Site::AttentionOut, [Dim::Width, Dim::Queries]);
    "self_attn.o_proj.bias": bias(Site::AttentionOut, Dim::Width);
    #[cfg(feature = "lora")] "self_attn.q_proj.lora_A.weight": a(Module::Query, Dim::Width);
    #[cfg(feature = "lora")] "self_attn.q_proj.lora_B.weight": b(Module::Query, Dim::Queries);
    #[cfg(feature = "lora")] "self_attn.k_proj.lora_A.weight": a(Module::Key, Dim::Width);
    #[cfg(feature = "lora")] "self_attn.k_proj.lora_B.weight": b(Module::Key, Dim::Keys);
    #[cfg(feature = "lora")] "self_attn.v_proj.lora_A.weight": a(Module::Value, Dim::Width);
    #[cfg(feature = "lora")] "self_attn.v_proj.lora_B.weight": b(Module::Value, Dim::Keys);
    #[cfg(feature = "lora")] "self_attn.o_proj.lora_A.weight": a(Module::AttentionOut, Dim::Queries);
    #[cfg(feature = "lora")] "self_attn.o_proj.lora_B.weight": b(Module::AttentionOut, Dim::Width);
    "post_attention_layernorm.weight": norm(Site::MlpNorm);
    "post_attention_layernorm.bias": bias(Site::MlpNorm, Dim::Width);
    "mlp.gate_proj.weight": weight(Site::Gate, [Dim::Hidden, Dim::Width]);
    "mlp.up_proj.weight": weight(Site::MlpIn, [Dim::Hidden, Dim::Width]);
    "mlp.gate_proj.bias": bias(Site::Gate, Dim::Hidden);
    "mlp.up_proj.bias": bias(Site::MlpIn, Dim::Hidden);
    "mlp.down_proj.weight": weight(Site::MlpOut, [Dim::Width, Dim::Hidden]);
    "mlp.down_proj.bias": bias(Site::MlpOut, Dim::Width);
    #[cfg(feature = "lora")] "mlp.gate_proj.lora_A.weight": a(Module::Gate, Dim::Width);
    #[cfg(feature = "lora")] "mlp.gate_proj.lora_B.weight": b(Module::Gate, Dim::Hidden);
    #[cfg(feature = "lora")] "mlp.up_proj.lora_A.weight": a(Module::MlpIn, Dim::Width);
    #[cfg(feature = "lora")] "mlp.up_proj.lora_B.weight": b(Module::MlpIn, Dim::Hidden);
    #[cfg(feature = "lora")] "mlp.down_proj.lora_A.weight": a(Module::MlpOut, Dim::Hidden);
    #[cfg(feature = "lora")] "mlp.down_proj.lora_B.weight": b(Module::MlpOut, Dim::Width);
    "model.norm.weight": norm(Site::FinalNorm);
    "model.norm.bias": bias(Site::FinalNorm, Dim::Width);
    "lm_head.weight": weight(Site::Logits, [Dim::Vocab, Dim::Width]);
}

#[cfg(not(feature = "llama"))]
static LLAMA_TABLE: [Slot; 0] = [];
#[cfg(not(feature = "llama"))]
static LLAMA_NAMES: [&str; 0] = [];

/// A row of the tables, which are numbered one after the other.
pub(super) const fn slot(row: usize) -> Option<&'static Slot> {
    if row < GPT2.len() {
        Some(&GPT2[row])
    } else if row - GPT2.len() < LLAMA_TABLE.len() {
        Some(&LLAMA_TABLE[row - GPT2.len()])
    } else {
        None
    }
}

/// The name of the tensor in a row, without the prefix of a block.
pub(super) fn name(row: usize) -> Option<&'static str> {
    GPT2_NAMES.get(row).or_else(|| LLAMA_NAMES.get(row.checked_sub(GPT2.len())?)).copied()
}

/// The rows at which a family's groups of tensors begin, and the row after its last. The groups are the embeddings, a block's
/// attention branch, its MLP branch, and the head.
pub(super) struct Family {
    rows: [usize; 5],
    /// The prefix of the names of a block's tensors, before its number and a dot.
    pub prefix: &'static str,
}

impl Family {
    const GPT2: Family = Family { rows: rows(0, GPT2.len()), prefix: "h." };
    const LLAMA: Family =
        Family { rows: rows(GPT2.len(), GPT2.len() + LLAMA_TABLE.len()), prefix: "model.layers." };

    /// The family of a configuration.
    pub const fn of(config: &Config) -> &'static Family {
        if config.is_gpt2() { &Family::GPT2 } else { &Family::LLAMA }
    }

    /// The family that has a row.
    pub const fn with(row: usize) -> &'static Family {
        if row < GPT2.len() { &Family::GPT2 } else { &Family::LLAMA }
    }

    /// All its rows: the first, and the first after them.
    pub const fn all(&self) -> [usize; 2] {
        [self.rows[0], self.rows[4]]
    }

    /// The rows that each block repeats.
    pub const fn block(&self) -> [usize; 2] {
        [self.rows[1], self.rows[3]]
    }

    /// The rows of a group.
    pub const fn of_group(&self, group: Group) -> [usize; 2] {
        match group {
            Group::Embedding => [self.rows[0], self.rows[1]],
            Group::Attention { .. } => [self.rows[1], self.rows[2]],
            Group::Mlp { .. } => [self.rows[2], self.rows[3]],
            Group::Logits => [self.rows[3], self.rows[4]],
        }
    }
}

/// [`Family::rows`], found in the tables.
const fn rows(first: usize, end: usize) -> [usize; 5] {
    let (mut rows, mut row, mut group) = ([first, end, end, end, end], first, 0);
    while let Some(slot) = slot(row)
        && row < end
    {
        let begins = matches!(slot.site, Site::AttentionNorm | Site::MlpNorm | Site::FinalNorm);
        if begins && matches!(slot.role, Role::NormWeight) {
            group += 1;
            rows[group] = row;
        }
        row += 1;
    }
    rows
}

impl Site {
    /// The order of the site's matrix.
    pub const fn order(self, config: &Config) -> Order {
        match self {
            Site::Logits | Site::A(_) | Site::B(_) => Order::OutIn,
            _ if config.is_gpt2() => Order::InOut,
            _ => Order::OutIn,
        }
    }

    /// The sites whose outputs are queries, keys and values, side by side.
    pub const fn qkv(config: &Config) -> &'static [Site] {
        if config.is_gpt2() { &[Site::Qkv] } else { &[Site::Query, Site::Key, Site::Value] }
    }

    /// The site of a matrix that can have an adapter.
    pub const fn of(module: Module) -> Site {
        match module {
            Module::Qkv => Site::Qkv,
            Module::Query => Site::Query,
            Module::Key => Site::Key,
            Module::Value => Site::Value,
            Module::AttentionOut => Site::AttentionOut,
            Module::Gate => Site::Gate,
            Module::MlpIn => Site::MlpIn,
            Module::MlpOut => Site::MlpOut,
        }
    }

    /// The matrix that can have an adapter at the site.
    pub const fn module(self) -> Option<Module> {
        match self {
            Site::Qkv => Some(Module::Qkv),
            Site::Query => Some(Module::Query),
            Site::Key => Some(Module::Key),
            Site::Value => Some(Module::Value),
            Site::AttentionOut => Some(Module::AttentionOut),
            Site::Gate => Some(Module::Gate),
            Site::MlpIn => Some(Module::MlpIn),
            Site::MlpOut => Some(Module::MlpOut),
            _ => None,
        }
    }

    /// The sites whose outputs enter the activation function, side by side.
    pub const fn mlp_in(config: &Config) -> &'static [Site] {
        if config.is_gated() { &[Site::Gate, Site::MlpIn] } else { &[Site::MlpIn] }
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
    /// The most tensors of a group.
    pub const MOST_TENSORS: usize = match (LLAMA, LORA) {
        (true, true) => 20,
        (true, false) => 12,
        (false, true) => 10,
        (false, false) => 6,
    };

    /// The elements of the group's tensors.
    pub(super) const fn elements(self, config: &Config) -> Count {
        let ([mut i, end], mut sum) = (Family::of(config).of_group(self), Count::ZERO);
        while let Some(slot) = slot(i)
            && i < end
        {
            if slot.exists(config) {
                sum = sum.add(slot.elements(config));
            }
            i += 1;
        }
        sum
    }

    /// The multiply-adds of the group's products for one row in forward. The head counts even if its matrix is tied.
    pub const fn products(self, config: &Config) -> Count {
        let ([mut i, end], mut sum) = (Family::of(config).of_group(self), Count::ZERO);
        while let Some(slot) = slot(i)
            && i < end
        {
            let exists = matches!(self, Group::Logits) || slot.exists(config);
            if matches!(slot.role, Role::Weight) && exists {
                sum = sum.add(slot.elements(config));
            }
            i += 1;
        }
        sum
    }
}

/// The row of the table, and the layer, of the tensor at a place in a model that has all tensors of its family. Tensors
/// before the blocks have layer 0, and tensors after them have layer `layers`.
pub(super) const fn at(place: usize, config: &Config) -> Option<(usize, usize)> {
    let family = Family::of(config);
    let ([first, last], [block, end], layers) = (family.all(), family.block(), config.layers);
    let (before, per_block) = (block - first, end - block);
    let after = before + per_block * layers;
    if place < before {
        Some((first + place, 0))
    } else if place < after {
        match ((place - before).checked_rem(per_block), (place - before).checked_div(per_block)) {
            (Some(row), Some(layer)) => Some((block + row, layer)),
            _ => None,
        }
    } else if place - after < last - end {
        Some((end + place - after, layers))
    } else {
        None
    }
}

/// The next tensor that the configuration has, from a place on: its place, its row of the table and its layer.
#[inline(never)]
pub(super) const fn next(mut place: usize, config: &Config) -> Option<(usize, usize, usize)> {
    while let Some((row, layer)) = at(place, config)
        && let Some(slot) = slot(row)
    {
        if slot.exists(config) {
            return Some((place, row, layer));
        }
        place += 1;
    }
    None
}

/// The number of places: of tensors in a model that has all tensors of its family.
pub(super) const fn places(config: &Config) -> usize {
    let ([first, last], [block, end]) = (Family::of(config).all(), Family::of(config).block());
    (last - first - (end - block)).saturating_add((end - block).saturating_mul(config.layers))
}

/// The place of the tensor in a row of the table, in a model that has all tensors of its family.
pub(super) const fn place(row: usize, layer: usize, config: &Config) -> usize {
    let ([first, _], [block, end]) = (Family::of(config).all(), Family::of(config).block());
    let blocks_before = if row < block {
        0
    } else if row < end {
        layer
    } else {
        config.layers.wrapping_sub(1)
    };
    (row - first).wrapping_add(blocks_before.wrapping_mul(end - block))
}

/// The number of elements of the tensors before a place.
#[inline(never)]
pub(super) const fn elements_before(place: usize, config: &Config) -> Count {
    let (end, family) = (end_before(place, config), Family::of(config));
    let ([mut row, last], mut sum) = (family.all(), 0_usize);
    while let Some(slot) = slot(row)
        && row < last
    {
        let count = occurrences(row, slot, end, family, config);
        if count > 0 {
            sum = sum.saturating_add(slot.elements(config).get().saturating_mul(count));
        }
        row += 1;
    }
    Count::of(sum)
}

/// The number of tensors that the configuration has before a place.
#[inline(never)]
pub(super) const fn count_before(place: usize, config: &Config) -> usize {
    let (end, family) = (end_before(place, config), Family::of(config));
    let ([mut row, last], mut sum) = (family.all(), 0_usize);
    while let Some(slot) = slot(row)
        && row < last
    {
        sum = sum.saturating_add(occurrences(row, slot, end, family, config));
        row += 1;
    }
    sum
}

/// The row and the layer of a place, or the end of the table and of the layers.
const fn end_before(place: usize, config: &Config) -> (usize, usize) {
    match at(place, config) {
        Some(found) => found,
        None => (Family::of(config).all()[1], config.layers),
    }
}

/// How often the configuration has a row of the table before a row of a layer.
#[inline(never)]
const fn occurrences(
    row: usize,
    slot: &Slot,
    (end, layer): (usize, usize),
    family: &Family,
    config: &Config,
) -> usize {
    let [first_in_block, after_block] = family.block();
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
    elements_before(places(config), config)
}
