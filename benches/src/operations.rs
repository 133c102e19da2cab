//! How many floating-point operations a training step cannot do without: what shares of the peak are shares of.

use jostle::Plan;

/// The operations of the matrix products of one step, forward and backward, a multiplication and an addition
/// counted as two.
pub fn step(plan: &Plan) -> u64 {
    2 * multiply_adds(plan).iter().map(|(_, count)| count).sum::<u64>()
}

/// The multiply-adds of one step's products, by kind. What an engine computes twice to save memory counts once, and so
/// does what it computes above attention's diagonal: not at all.
pub fn multiply_adds(plan: &Plan) -> [(&'static str, u64); 6] {
    let (config, batch) = (&plan.config, plan.options.batch as u64);
    let [vocab, context, layers, width, hidden] =
        [config.vocab, config.context, config.layers, config.width, config.hidden].map(|n| n as u64);
    let rows = batch * context;
    // Each weight meets each token in three products: the output, and the gradients of the input and the weight. The
    // tokens' matrix is looked up too, but multiplied as the head, tied or not.
    let linear = rows * layers * width * (4 * width + 2 * hidden);
    let head = rows * vocab * width;
    // Six products of T x T by C / H in each head: scores, weighted values, and the gradients of weights, values,
    // queries and keys. Causal: row t has t + 1 columns.
    let attention = 6 * layers * batch * width * context * (context + 1) / 2;
    [
        ("linear, forward", linear),
        ("linear, gradients of activations", linear),
        ("linear, gradients of weights", linear),
        ("attention", attention),
        ("head, forward and gradients of activations", 2 * head),
        ("head, gradients of the weight", head),
    ]
}
