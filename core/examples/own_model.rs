//! A model of one's own from single operations: one head of attention between an embedding and a linear layer, with
//! its backward pass written out.
//!
//! `ffi/examples/by_hand.c` builds all of GPT-2 in the same way.
//!
//! ```text
//! cargo run --release -p jostle --example own_model
//! ```

use jostle::matmul::{self, Size};
use jostle::ops::{attention, cross_entropy, embedding, linear};
use jostle::{Compute, Error, Optimizer};

/// Vocabulary, length of the sequence, width.
const V: usize = 8;
const T: usize = 24;
const C: usize = 16;
const SGD: Optimizer = Optimizer::Sgd { momentum: 0.0 };

/// A tensor and its gradient.
struct Parameter(Vec<f32>, Vec<f32>);

impl Parameter {
    /// Small numbers without a pattern.
    fn new(len: usize) -> Parameter {
        let values =
            (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_769) >> 8) as f32 / (1 << 24) as f32 - 0.5);
        Parameter(values.map(|x| 0.5 * x).collect(), vec![0.0; len])
    }
}

pub(crate) fn main() -> Result<(), Error> {
    // 0 1 2 … 7 7 6 … 0, over and over: the next token depends on more than the last one.
    let text: Vec<i32> = (0..8).chain((0..8).rev()).cycle().take(T + 1).collect();
    let (tokens, targets) = (&text[..T], &text[1..]);

    let [mut wte, mut wpe] = [V * C, T * C].map(Parameter::new);
    let [mut w_qkv, mut b_qkv] = [C * 3 * C, 3 * C].map(Parameter::new);
    let [mut w_out, mut b_out] = [C * V, V].map(Parameter::new);
    let (mut x, mut qkv, mut attended) = (vec![0.0; T * C], vec![0.0; T * 3 * C], vec![0.0; T * C]);
    let (mut logits, mut losses, mut stats) = (vec![0.0; T * V], vec![0.0; T], vec![0.0; T * 2]);
    let (mut d_x, mut d_qkv, mut d_attended) = (x.clone(), qkv.clone(), attended.clone());
    // No product here has a side longer than 3C.
    let product = matmul::scratch(Size { m: 3 * C, n: 3 * C, k: 3 * C });
    let mut scratch = vec![0.0; product.max(attention::scratch(T, C))];
    let head = attention::Attention { width: C, heads: 1, kv_heads: 1, mask: None, sequence: 0 };

    let compute = Compute::serial();
    let simd = compute.simd;
    for step in 0..400 {
        embedding::forward(simd, &mut x, tokens, &wte.0, &wpe.0, C, T)?;
        linear::forward(simd, &mut qkv, &x, &w_qkv.0, &b_qkv.0, C, &mut scratch)?;
        attention::forward(simd, &mut attended, &mut stats, &qkv, head, &mut scratch)?;
        linear::forward(simd, &mut logits, &attended, &w_out.0, &b_out.0, C, &mut scratch)?;
        // `backward` computes the losses too, and leaves the gradient in `logits`.
        cross_entropy::backward(simd, &mut losses, &mut logits, targets, V, T)?;
        let loss = losses.iter().sum::<f32>() / T as f32;
        if step % 80 == 79 {
            println!("step {:>3}: loss {loss:.3}", step + 1);
        }
        assert!(step < 399 || loss < 0.2, "the model has not learnt to count");

        // Gradients of activations are written, gradients of parameters are added to.
        let mut parameters = [&mut wte, &mut wpe, &mut w_qkv, &mut b_qkv, &mut w_out, &mut b_out];
        parameters.iter_mut().for_each(|parameter| parameter.1.fill(0.0));
        let [wte, wpe, w_qkv, b_qkv, w_out, b_out] = parameters;
        linear::backward(simd, &mut d_attended, &logits, &w_out.0, C, &mut scratch)?;
        linear::backward_parameters(simd, &mut w_out.1, &mut b_out.1, &attended, &logits, C, &mut scratch)?;
        attention::backward(simd, &mut d_qkv, &d_attended, &qkv, &attended, &stats, head, &mut scratch)?;
        linear::backward(simd, &mut d_x, &d_qkv, &w_qkv.0, C, &mut scratch)?;
        linear::backward_parameters(simd, &mut w_qkv.1, &mut b_qkv.1, &x, &d_qkv, C, &mut scratch)?;
        embedding::backward(simd, &mut wte.1, &mut wpe.1, &d_x, tokens, C, T)?;
        for parameter in [wte, wpe, w_qkv, b_qkv, w_out, b_out] {
            SGD.update_tensor(compute, &mut parameter.0, &parameter.1, &mut [], false, step, 0.2, 1.0)?;
        }
    }
    Ok(())
}
