//! The floating-point operations that every implementation of a training step needs. Shares of the peak count these.

use jostle::{Activation, Plan};

/// The operations of the matrix products of one step, forward and backward, a multiplication and an addition
/// counted as two.
pub fn step(plan: &Plan) -> u64 {
    2 * multiply_adds(plan).iter().map(|(_, count)| count).sum::<u64>()
}

/// The multiply-adds of one step's products, by kind. Work that an engine does twice to save memory counts once. Work
/// above attention's diagonal does not count.
pub fn multiply_adds(plan: &Plan) -> [(&'static str, u64); 6] {
    let (config, batch) = (plan.config(), plan.options().batch as u64);
    let [vocab, context, layers, width, hidden] =
        [config.vocab, config.context, config.layers, config.width, config.hidden].map(|n| n as u64);
    let [queries, keys] = [config.heads, config.kv_heads()].map(|heads| (heads * config.head_width()) as u64);
    let of_mlp = if config.activation == Activation::SwiGlu { 3 } else { 2 };
    let rows = batch * context;
    // Each weight is multiplied with each token in three products: the output, and the gradients of input and weight.
    // The head counts too, tied or not; looking up embeddings does not.
    let linear = rows * layers * width * (2 * queries + 2 * keys + of_mlp * hidden);
    let head = rows * vocab * width;
    // Six products of T x T by D in each head: scores, weighted values, and the gradients of weights, values,
    // queries and keys. Causal: row t has t + 1 columns.
    let attention = 6 * layers * batch * queries * context * (context + 1) / 2;
    [
        ("linear, forward", linear),
        ("linear, gradients of activations", linear),
        ("linear, gradients of weights", linear),
        ("attention", attention),
        ("head, forward and gradients of activations", 2 * head),
        ("head, gradients of the weight", head),
    ]
}
