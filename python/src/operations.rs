//! Single operations on C-contiguous float32 arrays; results are new arrays. `jostle/ops.py` checks shapes, and the core
//! checks them again.

use jostle::matmul::{self as core_matmul, Matrix, Size, Start};
use jostle::ops::attention::{self as core_attention, Attention};
use jostle::ops::dropout::Mask;
use jostle::ops::rotary::{self as core_rotary, Scaling};
use jostle::ops::{cross_entropy as core_cross_entropy, dropout as core_dropout, gelu as core_gelu};
use jostle::ops::{layer_norm as core_layer_norm, rms_norm as core_rms_norm};
use jostle::ops::{softmax as core_softmax, swiglu as core_swiglu};
use jostle::rng::Stream;
use jostle::{Error, InstructionSet};
use numpy::{
    PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyReadonlyArrayDyn, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use crate::buffer::zeros;
use crate::config::activation;
use crate::error::exception;

type Array<'py> = Bound<'py, PyArrayDyn<f32>>;
type Input<'py> = PyReadonlyArrayDyn<'py, f32>;

/// A new array of this shape, which `fill` writes without blocking other Python threads.
fn compute<'py, const N: usize>(
    py: Python<'py>,
    shapes: [&[usize]; N],
    fill: impl FnOnce(InstructionSet, [&mut [f32]; N]) -> Result<(), Error> + Send,
) -> PyResult<[Array<'py>; N]> {
    let mut results = [const { Vec::new() }; N];
    for (result, shape) in results.iter_mut().zip(shapes) {
        let length = shape.iter().fold(1, |length: usize, size| length.saturating_mul(*size));
        *result = zeros("result", length).map_err(exception)?;
    }
    py.detach(|| fill(InstructionSet::detect(), results.each_mut().map(|result| &mut result[..])))
        .map_err(exception)?;
    let mut arrays = Vec::with_capacity(N);
    for (result, shape) in results.into_iter().zip(shapes) {
        arrays.push(PyArray1::from_vec(py, result).reshape(shape.to_vec())?);
    }
    Ok(arrays.try_into().unwrap_or_else(|_| unreachable!("as many arrays as shapes")))
}

fn width(x: &Input<'_>) -> usize {
    x.shape().last().copied().unwrap_or(1)
}

/// A matrix or its transpose, with its shape.
fn matrix<'a>(x: &'a Input<'_>, transposed: bool) -> PyResult<(Matrix<'a>, [usize; 2])> {
    let [rows, columns] = *x.shape() else { return Err(exception(Error::Zero { what: "dimensions" })) };
    let matrix = Matrix::new(x.as_slice()?, columns);
    Ok(if transposed { (matrix.transposed(), [columns, rows]) } else { (matrix, [rows, columns]) })
}

/// The product `a b`, with either matrix transposed first if its flag is set.
#[pyfunction]
pub fn matmul<'py>(
    py: Python<'py>,
    a: Input<'py>,
    b: Input<'py>,
    transpose_a: bool,
    transpose_b: bool,
) -> PyResult<Array<'py>> {
    let ((a, [m, k]), (b, [inner, n])) = (matrix(&a, transpose_a)?, matrix(&b, transpose_b)?);
    if inner != k {
        return Err(exception(Error::Length { what: "rows of b", given: inner, wanted: k }));
    }
    let [c] = compute(py, [&[m, n]], |simd, [c]| {
        let size = Size { m, n, k };
        let mut scratch = zeros("scratch", core_matmul::scratch(size))?;
        core_matmul::matmul(simd, size, (c, n), Start::Zero, a, b, &mut scratch)
    })?;
    Ok(c)
}

/// Softmax over the last dimension.
#[pyfunction]
pub fn softmax<'py>(py: Python<'py>, x: Input<'py>) -> PyResult<Array<'py>> {
    let (shape, width, x) = (x.shape(), width(&x), x.as_slice()?);
    let [y] = compute(py, [shape], |simd, [y]| {
        y.copy_from_slice(x);
        core_softmax::forward(simd, y, width)
    })?;
    Ok(y)
}

/// The gradient of the scores, from the softmax and its gradient.
#[pyfunction]
pub fn softmax_backward<'py>(py: Python<'py>, d_y: Input<'py>, y: Input<'py>) -> PyResult<Array<'py>> {
    let (shape, width, d_y, y) = (y.shape(), width(&y), d_y.as_slice()?, y.as_slice()?);
    let [d_x] = compute(py, [shape], |simd, [d_x]| core_softmax::backward(simd, d_x, d_y, y, width))?;
    Ok(d_x)
}

/// Dropout of attention weights: rate, seed, step, layer, sequence.
type Dropped = (f32, u64, u64, u64, u64);

fn attention_of((heads, kv_heads): (usize, usize), width: usize, dropped: Dropped) -> PyResult<Attention> {
    let (rate, seed, step, layer, sequence) = dropped;
    let mask = Mask::new(rate, seed, Stream::AttentionDropout, step, layer).map_err(exception)?;
    Ok(Attention { heads, kv_heads, width, mask, sequence })
}

/// C, the width of the queries among the columns of queries, keys and values.
fn query_width(qkv: &Input<'_>, (heads, kv_heads): (usize, usize)) -> usize {
    let parts = kv_heads.saturating_mul(2).saturating_add(heads);
    width(qkv).checked_div(parts).unwrap_or(0).saturating_mul(heads)
}

/// Causal attention over one sequence `[T, C + 2 K D]` with (H, K) heads; returns out `[T, C]` and stats
/// `[H, T, 2]`.
#[pyfunction]
pub fn attention<'py>(
    py: Python<'py>,
    qkv: Input<'py>,
    heads: (usize, usize),
    dropped: Dropped,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let (length, width) = (qkv.shape()[0], query_width(&qkv, heads));
    let (attention, qkv) = (attention_of(heads, width, dropped)?, qkv.as_slice()?);
    let [out, stats] = compute(py, [&[length, width], &[heads.0, length, 2]], |simd, [out, stats]| {
        let mut scratch = zeros("scratch", core_attention::scratch(length, width))?;
        core_attention::forward(simd, out, stats, qkv, attention, &mut scratch)
    })?;
    Ok((out, stats))
}

/// The gradient of qkv, from the gradient of out and the inputs and outputs of `attention`.
#[pyfunction]
pub fn attention_backward<'py>(
    py: Python<'py>,
    d_out: Input<'py>,
    qkv: Input<'py>,
    out: Input<'py>,
    stats: Input<'py>,
    heads: (usize, usize),
    dropped: Dropped,
) -> PyResult<Array<'py>> {
    let (shape, length, width) = (qkv.shape(), qkv.shape()[0], query_width(&qkv, heads));
    let attention = attention_of(heads, width, dropped)?;
    let (d_out, qkv, out, stats) = (d_out.as_slice()?, qkv.as_slice()?, out.as_slice()?, stats.as_slice()?);
    let [d_qkv] = compute(py, [shape], |simd, [d_qkv]| {
        let mut scratch = zeros("scratch", core_attention::scratch(length, width))?;
        core_attention::backward(simd, d_qkv, d_out, qkv, out, stats, attention, &mut scratch)
    })?;
    Ok(d_qkv)
}

/// Dropout of one sequence's attention weights `[H, T, T]`, with the mask of `attention`; it is its own backward.
#[pyfunction]
pub fn attention_dropout<'py>(
    py: Python<'py>,
    weights: Input<'py>,
    dropped: Dropped,
) -> PyResult<Array<'py>> {
    let [heads, length, _] = *weights.shape() else { return Err(exception(Error::Zero { what: "heads" })) };
    let Attention { mask, sequence, .. } = attention_of((heads, heads), heads, dropped)?;
    let (shape, weights) = (weights.shape(), weights.as_slice()?);
    let [y] = compute(py, [shape], |simd, [y]| {
        let pairs = y.chunks_exact_mut(length * length).zip(weights.chunks_exact(length * length));
        for (head, (y, weights)) in (0..).zip(pairs) {
            let place = sequence.wrapping_mul(heads as u64).wrapping_add(head);
            core_dropout::forward(simd, y, weights, length, mask, place)?;
        }
        Ok(())
    })?;
    Ok(y)
}

/// Layer normalisation of rows; returns y, mean and rstd. An empty bias means no bias.
#[pyfunction]
pub fn layer_norm<'py>(
    py: Python<'py>,
    x: Input<'py>,
    weight: PyReadonlyArray1<'py, f32>,
    bias: PyReadonlyArray1<'py, f32>,
    epsilon: f32,
) -> PyResult<(Array<'py>, Array<'py>, Array<'py>)> {
    let shape = x.shape();
    let rows = &shape[..shape.len().saturating_sub(1)];
    let (x, weight, bias) = (x.as_slice()?, weight.as_slice()?, bias.as_slice()?);
    let [y, mean, rstd] = compute(py, [shape, rows, rows], |simd, [y, mean, rstd]| {
        core_layer_norm::forward(simd, y, mean, rstd, x, weight, bias, epsilon)
    })?;
    Ok((y, mean, rstd))
}

/// The gradients of x, weight and bias.
#[pyfunction]
pub fn layer_norm_backward<'py>(
    py: Python<'py>,
    d_y: Input<'py>,
    x: Input<'py>,
    mean: Input<'py>,
    rstd: Input<'py>,
    weight: PyReadonlyArray1<'py, f32>,
) -> PyResult<(Array<'py>, Array<'py>, Array<'py>)> {
    let (shape, width) = (x.shape(), width(&x));
    let (d_y, x, weight) = (d_y.as_slice()?, x.as_slice()?, weight.as_slice()?);
    let (mean, rstd) = (mean.as_slice()?, rstd.as_slice()?);
    let shapes = [shape, &[width], &[width]];
    let [d_x, d_weight, d_bias] = compute(py, shapes, |simd, [d_x, d_weight, d_bias]| {
        core_layer_norm::backward(simd, d_x, d_y, x, mean, rstd, weight)?;
        core_layer_norm::backward_parameters(simd, d_weight, d_bias, d_y, x, mean, rstd)
    })?;
    Ok((d_x, d_weight, d_bias))
}

/// Root mean square normalisation of rows; returns y and rstd.
#[pyfunction]
pub fn rms_norm<'py>(
    py: Python<'py>,
    x: Input<'py>,
    weight: PyReadonlyArray1<'py, f32>,
    epsilon: f32,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let shape = x.shape();
    let rows = &shape[..shape.len().saturating_sub(1)];
    let (x, weight) = (x.as_slice()?, weight.as_slice()?);
    let [y, rstd] = compute(py, [shape, rows], |simd, [y, rstd]| {
        core_rms_norm::forward(simd, y, rstd, x, weight, epsilon)
    })?;
    Ok((y, rstd))
}

/// The gradients of x and weight.
#[pyfunction]
pub fn rms_norm_backward<'py>(
    py: Python<'py>,
    d_y: Input<'py>,
    x: Input<'py>,
    rstd: Input<'py>,
    weight: PyReadonlyArray1<'py, f32>,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let (shape, width) = (x.shape(), width(&x));
    let (d_y, x) = (d_y.as_slice()?, x.as_slice()?);
    let (rstd, weight) = (rstd.as_slice()?, weight.as_slice()?);
    let [d_x, d_weight] = compute(py, [shape, &[width]], |simd, [d_x, d_weight]| {
        core_rms_norm::backward(simd, d_x, d_y, x, rstd, weight)?;
        core_rms_norm::backward_parameters(simd, d_weight, d_y, x, rstd)
    })?;
    Ok((d_x, d_weight))
}

/// The cosines and sines of rotary positions, `[length, head_width / 2]` each. Scaling: factor, low, high, original.
#[pyfunction]
pub fn rotary_table<'py>(
    py: Python<'py>,
    length: usize,
    head_width: usize,
    theta: f32,
    scaling: Option<(f32, f32, f32, usize)>,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let scaling = scaling.map(|(factor, low, high, original)| Scaling { factor, low, high, original });
    let shape: &[usize] = &[length, head_width / 2];
    let [cos, sin] = compute(py, [shape, shape], |_, [cos, sin]| {
        core_rotary::table(cos, sin, head_width, theta, scaling)
    })?;
    Ok((cos, sin))
}

/// `x [R, heads, head_width]`, rotated by the angles of a table, or back.
#[pyfunction]
pub fn rotary<'py>(
    py: Python<'py>,
    x: Input<'py>,
    cos: Input<'py>,
    sin: Input<'py>,
    back: bool,
) -> PyResult<Array<'py>> {
    let [_, heads, head_width] = *x.shape() else { return Err(exception(Error::Zero { what: "heads" })) };
    let (shape, x, cos, sin) = (x.shape(), x.as_slice()?, cos.as_slice()?, sin.as_slice()?);
    let rotate = if back { core_rotary::backward } else { core_rotary::forward };
    let [y] = compute(py, [shape], |simd, [y]| {
        y.copy_from_slice(x);
        rotate(simd, y, cos, sin, heads, head_width)
    })?;
    Ok(y)
}

/// SwiGLU, element by element.
#[pyfunction]
pub fn swiglu<'py>(py: Python<'py>, gate: Input<'py>, up: Input<'py>) -> PyResult<Array<'py>> {
    let (shape, gate, up) = (gate.shape(), gate.as_slice()?, up.as_slice()?);
    let [y] = compute(py, [shape], |simd, [y]| core_swiglu::forward(simd, y, gate, up))?;
    Ok(y)
}

/// The gradients of gate and up.
#[pyfunction]
pub fn swiglu_backward<'py>(
    py: Python<'py>,
    d_y: Input<'py>,
    gate: Input<'py>,
    up: Input<'py>,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let (shape, d_y, gate, up) = (gate.shape(), d_y.as_slice()?, gate.as_slice()?, up.as_slice()?);
    let [d_gate, d_up] = compute(py, [shape, shape], |simd, [d_gate, d_up]| {
        core_swiglu::backward(simd, d_gate, d_up, d_y, gate, up)
    })?;
    Ok((d_gate, d_up))
}

/// GELU, element by element.
#[pyfunction]
pub fn gelu<'py>(py: Python<'py>, x: Input<'py>, form: &str) -> PyResult<Array<'py>> {
    let (shape, x, form) = (x.shape(), x.as_slice()?, activation(form)?);
    let [y] = compute(py, [shape], |simd, [y]| core_gelu::forward(simd, y, x, form))?;
    Ok(y)
}

/// The gradient of x.
#[pyfunction]
pub fn gelu_backward<'py>(
    py: Python<'py>,
    d_y: Input<'py>,
    x: Input<'py>,
    form: &str,
) -> PyResult<Array<'py>> {
    let (shape, d_y, x, form) = (x.shape(), d_y.as_slice()?, x.as_slice()?, activation(form)?);
    let [d_x] = compute(py, [shape], |simd, [d_x]| core_gelu::backward(simd, d_x, d_y, x, form))?;
    Ok(d_x)
}

/// Dropout of the rows of the last two dimensions; it is its own backward.
#[pyfunction]
pub fn dropout<'py>(py: Python<'py>, x: Input<'py>, rate: f32, seed: u64, step: u64) -> PyResult<Array<'py>> {
    let mask = Mask::new(rate, seed, Stream::EmbeddingDropout, step, 0).map_err(exception)?;
    let (shape, width, x) = (x.shape(), width(&x), x.as_slice()?);
    let [y] = compute(py, [shape], |simd, [y]| core_dropout::forward(simd, y, x, width, mask, 0))?;
    Ok(y)
}

/// Minus the logarithm of each target's probability.
#[pyfunction]
pub fn cross_entropy<'py>(
    py: Python<'py>,
    logits: Input<'py>,
    targets: PyReadonlyArrayDyn<'py, i32>,
) -> PyResult<Array<'py>> {
    let (shape, vocab) = (targets.shape(), width(&logits));
    let (logits, targets) = (logits.as_slice()?, targets.as_slice()?);
    let [losses] = compute(py, [shape], |simd, [losses]| {
        core_cross_entropy::forward(simd, losses, logits, targets, vocab)
    })?;
    Ok(losses)
}

/// The losses, and the gradient of their sum divided by `counted`.
#[pyfunction]
pub fn cross_entropy_backward<'py>(
    py: Python<'py>,
    logits: Input<'py>,
    targets: PyReadonlyArrayDyn<'py, i32>,
    counted: usize,
) -> PyResult<(Array<'py>, Array<'py>)> {
    let (shapes, vocab) = ([targets.shape(), logits.shape()], width(&logits));
    let (logits, targets) = (logits.as_slice()?, targets.as_slice()?);
    let [losses, d_logits] = compute(py, shapes, |simd, [losses, d_logits]| {
        d_logits.copy_from_slice(logits);
        core_cross_entropy::backward(simd, losses, d_logits, targets, vocab, counted)
    })?;
    Ok((losses, d_logits))
}
