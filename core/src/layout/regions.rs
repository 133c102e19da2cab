//! The memory regions of training and generation, besides parameters. Each list below makes a struct, its size and
//! its cut, so that they agree. If several uses share one region, the list names each use and gives the reason.

use super::parameters::Cut;
use super::{Count, Options};
use crate::config::{Config, LORA};
use crate::ops::cross_entropy::SOFTMAX;
use crate::target::Target;

/// The numbers that the lengths of regions are made of.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// C.
    pub width: Count,
    /// Queries, keys and values: H D + 2 K D.
    pub qkv: Count,
    /// All heads of queries: H D.
    pub attended: Count,
    /// All heads of keys, or of values: K D.
    pub keys: Count,
    /// F.
    pub hidden: Count,
    /// The inputs of the activation function: F, or 2 F with a gate.
    pub activation_inputs: Count,
    /// Half of a head's width, with rotary positions: the angles of a position.
    pub angles: Count,
    /// V.
    pub vocab: Count,
    pub context: usize,
    /// The rows that generation computes at a time.
    pub chunk: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub layers: usize,
    /// The blocks whose activations forward keeps for backward.
    pub kept: usize,
    /// The columns of the activation function's output that exist at a time.
    pub columns: usize,
    pub tied: bool,
    pub fused: bool,
    pub qk_norm: bool,
    /// Whether the head is chunked.
    pub chunked_head: bool,
    /// The sums of the ranks of a block's attention branch, and of its MLP branch.
    pub ranks: [usize; 2],
}

impl Sizes {
    pub const fn new(config: &Config, options: &Options, columns: usize, target: Target) -> Sizes {
        let width = Count::of(config.width);
        let backward_layers = options.frozen.backward_layers(config);
        Sizes {
            width,
            qkv: Count::of(config.qkv()),
            attended: Count::of(config.attended()),
            keys: Count::of(config.kv_width()),
            hidden: Count::of(config.hidden),
            activation_inputs: Count::of(config.activation_inputs()),
            angles: Count::of(config.head_width() / 2).only_if(config.is_rotary()),
            vocab: Count::of(config.vocab),
            context: config.context,
            chunk: chunk(target),
            heads: config.heads,
            kv_heads: config.kv_heads(),
            layers: config.layers,
            kept: if options.recompute || backward_layers == 0 { 1 } else { backward_layers },
            columns,
            tied: config.tied,
            fused: options.fused,
            qk_norm: config.has_qk_norm(),
            chunked_head: options.chunks_head(),
            ranks: config.lora().ranks(),
        }
    }

    /// The logits of a row, unless the head is chunked.
    const fn all_logits(&self) -> Count {
        self.vocab.only_if(!self.chunked_head)
    }
}

/// An entry of a list, for tests.
#[cfg(test)]
pub(crate) struct Region {
    pub uses: &'static [&'static str],
    pub elements: usize,
    pub because: Option<&'static str>,
}

/// The rows of a prompt that a generator computes at a time: few if memory is short.
const fn chunk(target: Target) -> usize {
    match target {
        Target::Vectors => 16,
        Target::Portable => 4,
    }
}

/// Twice the ranks of all adapters of a branch.
const fn low_rank(s: &Sizes, branch: usize) -> Count {
    Count::of(s.ranks[branch]).times(2).only_if(LORA)
}

const ONE: Count = Count::of(1);

/// `regions! { struct Name<'a>(s) { region: elements, or later_use: elements, because "…"; … } }` makes the struct
/// with a slice for each region, `per_row` (the elements of all regions for one row), and `cut`. A region is as long
/// as the longest of its uses. The last region, after `..`, gets the rest of the memory, which may be longer.
macro_rules! regions {
    ($(
        $(#[$meta:meta])*
        struct $name:ident<'a>($s:ident) {$(
            $(#[$of_region:meta])*
            $region:ident: $elements:expr
                $(, or $use:ident: $of_use:expr)*
                $(, because $why:literal)?;
        )* $(
            .. $(#[$of_last:meta])*
            $last:ident: $last_elements:expr
                $(, or $last_use:ident: $of_last_use:expr)*
                $(, because $last_why:literal)?;
        )?}
    )*) => {$(
        $(#[$meta])*
        pub(crate) struct $name<'a> {$(
            $(#[$of_region])*
            pub $region: &'a mut [f32],
        )* $(
            $(#[$of_last])*
            pub $last: &'a mut [f32],
        )?}

        impl<'a> $name<'a> {
            /// The elements of all regions, for one row.
            pub const fn per_row($s: &Sizes) -> Count {
                Count::ZERO$(.add($elements$(.max($of_use))*))*$(.add($last_elements$(.max($of_last_use))*))?
            }

            $(#[allow(dead_code, reason = "one list needs it")]
            /// The elements of the last region, for one row.
            pub const fn last_per_row($s: &Sizes) -> Count {
                $last_elements$(.max($of_last_use))*
            })?

            /// Cuts the regions of `rows` rows off the front of some memory, in order.
            pub fn cut(memory: &mut &'a mut [f32], $s: &Sizes, rows: usize) -> $name<'a> {
                $name {
                    $($region: memory.cut($elements$(.max($of_use))*.get() * rows),)*
                    $($last: core::mem::take(memory),)?
                }
            }

            /// Each region: its uses, its elements for one row, and the reason for sharing.
            #[cfg(test)]
            pub fn table($s: &Sizes) -> std::vec::Vec<Region> {
                std::vec![
                    $(Region {
                        uses: &[stringify!($region) $(, stringify!($use))*],
                        elements: $elements$(.max($of_use))*.get(),
                        because: [$($why)?].first().copied(),
                    },)*
                    $(Region {
                        uses: &[stringify!($last) $(, stringify!($last_use))*],
                        elements: $last_elements$(.max($of_last_use))*.get(),
                        because: [$($last_why)?].first().copied(),
                    },)?
                ]
            }

            /// Its regions in order.
            #[cfg(test)]
            pub fn each(&mut self) -> std::vec::Vec<&mut [f32]> {
                std::vec![$(&mut *self.$region,)* $(&mut *self.$last,)?]
            }
        }
    )*};
}

regions! {
    /// The activations that forward keeps for backward. Each block's backward needs the `x` before it, and the
    /// activations of its own forward.
    struct Activations<'a>(s) {
        /// `[L][R, C]`: the residual stream before each block.
        x: s.width.times(s.layers);
        /// `[kept][R, C]`: the residual stream between the branches of each kept block.
        middle: s.width.times(s.kept);
        /// `[kept]` times [`AttentionActivations`] and [`MlpActivations`].
        blocks: AttentionActivations::per_row(s).add(MlpActivations::per_row(s)).times(s.kept);
        final_mean: ONE;
        final_rstd: ONE;
        /// `[R, C]`: the input of a tied head. Backward computes the gradient of the tied matrix last.
        tied_head_input: s.width.only_if(s.tied);
        /// `[R, V]`: the logits of a tied head, then their gradient.
        tied_logits: s.all_logits().only_if(s.tied);
        /// `[R, SOFTMAX]`: what backward needs to make the gradient of logits again.
        softmax: ONE.times(SOFTMAX).only_if(s.chunked_head);
    }

    /// The activations that a block's attention branch keeps for its backward, besides the residual stream.
    struct AttentionActivations<'a>(s) {
        mean: ONE;
        rstd: ONE;
        /// `[R, H D + 2 K D]`: queries, keys and values.
        qkv: s.qkv;
        /// `[B, H, T, 2]`: the maximum of each row of scores, and one over the sum of its exponentials.
        stats: Count::of(s.heads).times(2);
        /// `[R, H D]`.
        attended: s.attended;
        /// `[R, r]` twice for each adapter of the branch: the input of B, and its gradient.
        low_rank: low_rank(s, 0);
        /// [`NormedHeads`].
        heads: NormedHeads::per_row(s).only_if(s.qk_norm);
    }

    /// What the norms of queries and keys keep for their backward.
    struct NormedHeads<'a>(s) {
        /// `[R, H, D]` and `[R, K, D]`: queries and keys before their norm; after backward, each element's term of the gradient
        /// of the norm's weight.
        queries: s.attended;
        keys: s.keys;
        /// `[R, H]` and `[R, K]`.
        query_rstd: Count::of(s.heads);
        key_rstd: Count::of(s.kv_heads);
    }

    /// The activations that a block's MLP branch keeps for its backward.
    struct MlpActivations<'a>(s) {
        mean: ONE;
        rstd: ONE;
        /// `[R, F]`: the input of the activation function, then its gradient. With a gate `[R, 2F]`: the gate, then the other
        /// factor.
        hidden: s.activation_inputs, or d_qkv: s.qkv,
            because "the gradients of the MLP's weights are made before attention's backward writes d_qkv";
        /// `[R, r]` twice for each adapter of the branch: the input of B, and its gradient.
        low_rank: low_rank(s, 1);
    }

    /// Intermediate results. Every block reuses them.
    struct Scratch<'a>(s) {
        /// `[R, C]`.
        last_x: s.width, or d_branch: s.width,
            because "only the final norm reads the last x, and its backward comes before that of any branch";
        /// `[R, C]`: the gradient of the residual stream.
        d_residual: s.width;
        /// `[R, C]`: the gradient of a norm's output.
        d_normed: s.width.only_if(!s.fused), or d_attended: s.attended.only_if(!s.fused),
            because "the gradient of attention's output is used up before that of the norm's output is made";
        /// `[R, C]`: the output of a norm.
        normed: s.width, or head_input: s.width.only_if(!s.tied), or fused_d_normed: s.width.only_if(s.fused),
            or fused_d_attended: s.attended.only_if(s.fused),
            because "the gradient of an untied head is made before that of any block, and a fused step \
                makes a norm's output again only after the gradient of that output";
        .. /// `[R, columns]`: the output of the activation function.
        activated: Count::of(s.columns), or logits: s.all_logits().only_if(!s.tied), or fused_normed: s.width.only_if(s.fused),
            because "the gradient of an untied head is made before that of any block, and a fused step \
                updates the MLP's second weight before it makes the norm's output again";
    }

    /// The cosines and sines of rotary positions, for all rows: an entry has one position.
    struct Angles<'a>(s) {
        /// `[context, D / 2]`.
        cos: s.angles;
        sin: s.angles;
    }

    /// The chunked head: an entry has one row of logits.
    struct HeadRows<'a>(s) {
        /// `[head_rows, V]`: the logits of some rows, then their gradient.
        logits: s.vocab;
    }

    /// A generator's memory. The rows of a chunk are [`ChunkRows`], and the worker's scratch is behind them.
    struct Generation<'a>(s) {
        /// `[L, context, 2 K D]`: the keys and values of each block.
        cache: s.keys.times(2).times(s.layers).times(s.context);
        /// `[V]`.
        logits: s.vocab;
        .. chunk: ChunkRows::per_row(s).times(s.chunk);
    }

    /// Intermediate results of the rows of a chunk.
    struct ChunkRows<'a>(s) {
        x: s.width;
        normed: s.width;
        qkv: s.qkv;
        attended: s.attended;
        heads: NormedHeads::per_row(s).only_if(s.qk_norm);
        low_rank: low_rank(s, 0).max(low_rank(s, 1));
        middle: s.width;
        hidden: s.activation_inputs;
        activated: s.hidden;
        mean: ONE;
        rstd: ONE;
        /// `[R, 2]`, for one head at a time.
        attention_stats: ONE.times(2);
        /// The cosines and the sines of the rows' positions, each `[R, D / 2]`.
        cos: s.angles;
        sin: s.angles;
    }
}
