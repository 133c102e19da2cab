//! How many floating-point operations a training step cannot do without: what shares of the peak are shares of.

use jostle::Plan;

/// The operations of the matrix products of one step, forward and backward, a multiplication and an addition
/// counted as two. What an engine computes twice to save memory counts once, and so does what it computes above
/// attention's diagonal: not at all.
pub fn step(plan: &Plan) -> u64 {
    let (config, batch) = (&plan.config, plan.options.batch as u64);
    let [context, width, layers] = [config.context, config.width, config.layers].map(|n| n as u64);
    let matrices =
        plan.tensors().filter(|tensor| tensor.rank == 2).map(|tensor| tensor.len() as u64).sum::<u64>();
    // Positions are looked up and added. The tokens' matrix is looked up too, but multiplied as the tied head.
    let weights = matrices - context * width;
    // Each weight meets each token in three products: the output, and the gradients of the input and the weight.
    let linear = 2 * 3 * weights * batch * context;
    // Six products of T x T by C / H in each head: scores, weighted values, and the gradients of weights, values,
    // queries and keys. Causal: row t has t + 1 columns.
    let attention = 2 * 6 * layers * batch * width * context * (context + 1) / 2;
    linear + attention
}
