//! Calls of every single operation, forward and backward.

use core::hint::black_box;

use jostle::matmul::{self, Matrix, Size, Start};
use jostle::ops::attention::{self, Attention};
use jostle::ops::dropout::{self, Mask};
use jostle::ops::rotary::{self, Scaling};
use jostle::ops::{cross_entropy, embedding, gelu, layer_norm, linear, rms_norm, softmax, swiglu};
use jostle::rng::Stream;
use jostle::{Activation, Error, InstructionSet};

/// Calls every operation, with lengths that the compiler cannot know and that need not match.
pub fn all(buffers: &mut [f32], tokens: &mut [i32]) -> Result<(), Error> {
    let simd = InstructionSet::detect();
    let mut buffers = buffers.chunks_mut(black_box(1024).max(1));
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] =
        core::array::from_fn(|_| buffers.next().unwrap_or_default());
    let (width, vocab, length) = black_box((16, 27, 8));
    let activation = black_box(Activation::Gelu);
    let mask = Mask::new(black_box(0.1), 1, Stream::AttentionDropout, 2, 3)?;

    embedding::forward(simd, a, tokens, b, c, width, length)?;
    layer_norm::forward(simd, d, e, f, a, g, h, 1e-5)?;
    linear::forward(simd, i, d, j, k, width, p)?;
    let attention = Attention { heads: black_box(4), kv_heads: black_box(2), width, mask, sequence: 5 };
    attention::forward(simd, l, m, i, attention, p)?;
    attention::weights(simd, n, i, attention, p)?;
    dropout::forward(simd, n, l, width, mask, 6)?;
    gelu::forward(simd, o, n, activation)?;
    cross_entropy::forward(simd, e, o, tokens, vocab)?;

    cross_entropy::backward(simd, e, o, tokens, vocab, black_box(8))?;
    gelu::backward(simd, n, o, l, activation)?;
    dropout::backward(simd, l, n, width, mask, 6)?;
    attention::backward(simd, n, l, i, o, m, attention, p)?;
    linear::backward(simd, l, n, j, width, p)?;
    linear::backward_parameters(simd, j, k, d, n, width, p)?;
    layer_norm::backward(simd, a, l, d, e, f, g)?;
    layer_norm::backward_parameters(simd, g, h, l, d, e, f)?;
    embedding::backward(simd, b, c, a, tokens, width, length)?;

    let scaling = Scaling { factor: black_box(8.0), low: 1.0, high: 4.0, original: 8192 };
    rotary::table(b, c, width, black_box(1e4), Some(scaling))?;
    rotary::forward(simd, a, b, c, length, width)?;
    rotary::backward(simd, a, b, c, length, width)?;
    rms_norm::forward(simd, d, e, a, g, 1e-5)?;
    rms_norm::backward(simd, a, l, d, e, g)?;
    rms_norm::backward_parameters(simd, g, l, d, e)?;
    swiglu::forward(simd, a, d, l)?;
    swiglu::backward(simd, d, l, a, b, c)?;

    softmax::causal_mask(a, width, length)?;
    softmax::forward(simd, a, width)?;
    softmax::backward(simd, b, c, a, width)?;
    let (m, n, k) = black_box((7, 19, 33));
    let (size, b, c) = (Size { m, n, k }, Matrix::new(b, k), Matrix::new(c, n));
    matmul::matmul(simd, size, (a, n), Start::Bias(d), b, c, p)?;
    matmul::reference(size, (a, n), Start::Accumulate, b, c)
}
