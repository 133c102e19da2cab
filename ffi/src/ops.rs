//! The operations alone, on the caller's buffers: for programs that have a model of their own. Matrices are
//! row-major and float; sizes of buffers are bytes, all other sizes elements.

use jostle::Error;
use jostle::matmul::{self, Matrix, Size, Start};
use jostle::ops::dropout::Mask;
use jostle::ops::{attention, cross_entropy, dropout, embedding, gelu, layer_norm, linear, softmax};
use jostle::optimizer::{clip_factor, gradient_norm};
use jostle::rng::Stream;

use crate::border::{self, Buffers, Output, Structure, input};
use crate::compute::{Workers, jostle_compute};
use crate::config::{self, jostle_recipe};
use crate::status::{Refusal, call, jostle_error, jostle_status};

/// Which dropout masks: streams with the same seed share nothing.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_stream {
    /// Of the embedding sum.
    JOSTLE_EMBEDDING_DROPOUT = 4,
    /// Of the attention weights.
    JOSTLE_ATTENTION_DROPOUT = 5,
    /// Of the attention's projection.
    JOSTLE_ATTENTION_PROJECTION_DROPOUT = 6,
    /// Of the MLP's projection.
    JOSTLE_MLP_PROJECTION_DROPOUT = 7,
}

/// A mask of dropout: which elements are zeroed is a function of these numbers, of row and column. Survivors are
/// divided by the probability to survive. Where NULL is given for a mask, nothing is dropped.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_mask {
    /// sizeof(jostle_mask).
    pub struct_size: u32,
    /// The probability that an element is zeroed, in [0, 1).
    pub rate: f32,
    /// A jostle_stream.
    pub stream: u32,
    /// 0.
    pub reserved: u32,
    /// The run's seed.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// The layer.
    pub layer: u64,
    /// The sequence's number in the step.
    pub sequence: u64,
}

// SAFETY: numbers, the first of which is `struct_size`.
unsafe impl Structure for jostle_mask {}

/// A matrix to be read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_matrix {
    /// Its first element.
    pub data: *const f32,
    /// Bytes that `data` has.
    pub size: usize,
    /// From one row to the next, in elements.
    pub row_stride: usize,
    /// From one column to the next, in elements: 1 for rows that lie as they are.
    pub column_stride: usize,
}

/// Where every element of a product starts.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_start {
    /// At zero; C is not read.
    JOSTLE_START_ZERO = 0,
    /// At the bias of its column; C is not read.
    JOSTLE_START_BIAS = 1,
    /// At what C holds.
    JOSTLE_START_ACCUMULATE = 2,
}

/// # Safety
/// `mask` is NULL or readable for as many bytes as its `struct_size` says.
unsafe fn mask(mask: *const jostle_mask) -> Result<(Option<Mask>, u64), Refusal> {
    use jostle_stream::*;
    if mask.is_null() {
        return Ok((None, 0));
    }
    // SAFETY: the caller's promise.
    let mask = unsafe { border::structure("mask", mask)? };
    let stream = match mask.stream {
        given if given == JOSTLE_EMBEDDING_DROPOUT as u32 => Stream::EmbeddingDropout,
        given if given == JOSTLE_ATTENTION_DROPOUT as u32 => Stream::AttentionDropout,
        given if given == JOSTLE_ATTENTION_PROJECTION_DROPOUT as u32 => Stream::AttentionProjectionDropout,
        given if given == JOSTLE_MLP_PROJECTION_DROPOUT as u32 => Stream::MlpProjectionDropout,
        given => return Err(Refusal::Choice { what: "stream", given }),
    };
    Ok((Mask::new(mask.rate, mask.seed, stream, mask.step, mask.layer)?, mask.sequence))
}

/// The product of two sizes, which must be one that can exist.
fn area(rows: usize, columns: usize) -> Result<usize, Refusal> {
    rows.checked_mul(columns).ok_or(Refusal::Core(Error::TooLarge { what: "rows and width" }))
}

/// Elements that rows and columns with these strides reach over.
fn reach(
    what: &'static str,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
) -> Result<usize, Refusal> {
    let (Some(row), Some(column)) = (rows.checked_sub(1), columns.checked_sub(1)) else { return Ok(0) };
    let last = row.checked_mul(row_stride).zip(column.checked_mul(column_stride));
    let count = last.and_then(|(row, column)| row.checked_add(column)?.checked_add(1));
    count.ok_or(Refusal::Core(Error::TooLarge { what }))
}

fn bytes(elements: usize) -> usize {
    elements.saturating_mul(size_of::<f32>())
}

/// Bytes of scratch that a product of an [m, k] by a [k, n] matrix needs on one thread; a smaller product needs no
/// more.
#[unsafe(no_mangle)]
pub extern "C" fn jostle_matmul_scratch_size(m: usize, n: usize, k: usize) -> usize {
    bytes(matmul::scratch(m, n, k))
}

/// C = start + A B, with C [m, n] of rows `c_stride` elements apart, A [m, k], B [k, n]. Each element is one chain
/// of fused multiply-adds over the inner index in ascending order. Transposed matrices have their strides
/// exchanged.
///
/// `start`: a jostle_start; `bias` [n] is looked at with JOSTLE_START_BIAS only. As many threads work as `scratch`
/// has room for, at jostle_matmul_scratch_size bytes each.
///
/// # Safety
/// `compute` is NULL or readable; `a` and `b` are readable and their data is; `bias` is readable, `c` and `scratch`
/// writable for so many bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_matmul(
    compute: *const jostle_compute,
    m: usize,
    n: usize,
    k: usize,
    c: *mut f32,
    c_size: usize,
    c_stride: usize,
    start: u32,
    bias: *const f32,
    bias_size: usize,
    a: *const jostle_matrix,
    b: *const jostle_matrix,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let workers = Workers::new(compute)?;
            let (a, b) = (input("a", a)?, input("b", b)?);
            let c = buffers.write("c", c, c_size, reach("c", m, n, c_stride, 1)?)?;
            let mut matrix = |what, given: &jostle_matrix, rows, columns| {
                let jostle_matrix { data, size, row_stride, column_stride } = *given;
                let wanted = reach(what, rows, columns, row_stride, column_stride)?;
                let data = buffers.read(what, data, size, wanted)?;
                Ok::<_, Refusal>(Matrix { data, row_stride, column_stride })
            };
            let (a, b) = (matrix("a", a, m, k)?, matrix("b", b, k, n)?);
            let start = match start {
                given if given == jostle_start::JOSTLE_START_ZERO as u32 => Start::Zero,
                given if given == jostle_start::JOSTLE_START_BIAS as u32 => {
                    Start::Bias(buffers.read("bias", bias, bias_size, n)?)
                }
                given if given == jostle_start::JOSTLE_START_ACCUMULATE as u32 => Start::Accumulate,
                given => return Err(Refusal::Choice { what: "start", given }),
            };
            let one = matmul::scratch(m, n, k);
            let compute = workers.compute();
            let room = scratch_size.checked_div(bytes(one)).unwrap_or(0);
            let parts = room.min(compute.parallel.threads()).max(1);
            let scratch = buffers.write("scratch", scratch, scratch_size, one.saturating_mul(parts))?;
            let size = Size { m, n, k };
            matmul::matmul_parallel(compute, size, (c, c_stride), start, a, b, (scratch, one))?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// y = x W + b, with y [rows, out], x [rows, in], W [in, out] and b [out] or NULL.
///
/// `scratch`: jostle_matmul_scratch_size(rows, out, in) bytes.
///
/// # Safety
/// `compute` is NULL or readable; `y` and `scratch` are writable, `x`, `weight` and `bias` readable for so many
/// bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_linear_forward(
    compute: *const jostle_compute,
    rows: usize,
    inputs: usize,
    outputs: usize,
    y: *mut f32,
    y_size: usize,
    x: *const f32,
    x_size: usize,
    weight: *const f32,
    weight_size: usize,
    bias: *const f32,
    bias_size: usize,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let y = buffers.write("y", y, y_size, area(rows, outputs)?)?;
            let x = buffers.read("x", x, x_size, area(rows, inputs)?)?;
            let weight = buffers.read("weight", weight, weight_size, area(inputs, outputs)?)?;
            let bias = buffers.read_optional("bias", bias, bias_size, outputs)?;
            let wanted = matmul::scratch(rows, outputs, inputs);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            linear::forward(simd, y, x, weight, bias, inputs, scratch)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Writes d_x [rows, in] from d_y [rows, out] and W [in, out].
///
/// `scratch`: jostle_matmul_scratch_size(rows, in, out) bytes.
///
/// # Safety
/// As for jostle_linear_forward.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_linear_backward(
    compute: *const jostle_compute,
    rows: usize,
    inputs: usize,
    outputs: usize,
    d_x: *mut f32,
    d_x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    weight: *const f32,
    weight_size: usize,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let d_x = buffers.write("d_x", d_x, d_x_size, area(rows, inputs)?)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, area(rows, outputs)?)?;
            let weight = buffers.read("weight", weight, weight_size, area(inputs, outputs)?)?;
            let wanted = matmul::scratch(rows, inputs, outputs);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            linear::backward(simd, d_x, d_y, weight, inputs, scratch)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Adds the gradients of the parameters to d_weight [in, out] and d_bias [out] (or NULL), from x [rows, in] and
/// d_y [rows, out].
///
/// `scratch`: jostle_matmul_scratch_size(in, out, rows) bytes.
///
/// # Safety
/// As for jostle_linear_forward; `d_weight` and `d_bias` are writable for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_linear_backward_parameters(
    compute: *const jostle_compute,
    rows: usize,
    inputs: usize,
    outputs: usize,
    d_weight: *mut f32,
    d_weight_size: usize,
    d_bias: *mut f32,
    d_bias_size: usize,
    x: *const f32,
    x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let d_weight = buffers.write("d_weight", d_weight, d_weight_size, area(inputs, outputs)?)?;
            let d_bias = buffers.write_optional("d_bias", d_bias, d_bias_size, outputs)?;
            let x = buffers.read("x", x, x_size, area(rows, inputs)?)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, area(rows, outputs)?)?;
            let wanted = matmul::scratch(inputs, outputs, rows);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            linear::backward_parameters(simd, d_weight, d_bias, x, d_y, inputs, scratch)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Bytes of scratch that the attention functions need.
#[unsafe(no_mangle)]
pub extern "C" fn jostle_attention_scratch_size(length: usize, width: usize) -> usize {
    bytes(attention::scratch(length, width))
}

/// Causal multi-head attention over one sequence (Vaswani et al. 2017): for each head, scores q k^T / sqrt(C / H),
/// minus infinity where a key comes later than its query, softmax, dropout, times v.
///
/// Writes `out` [length, width] and `stats` [heads, length, 2] (each row's greatest score, and one over its sum of
/// exponentials, for jostle_attention_backward) from `qkv` [length, 3 width].
///
/// `scratch`: jostle_attention_scratch_size bytes.
///
/// # Safety
/// `compute` and `mask` are NULL or readable; `out`, `stats` and `scratch` are writable, `qkv` readable for so many
/// bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_attention_forward(
    compute: *const jostle_compute,
    length: usize,
    width: usize,
    heads: usize,
    mask: *const jostle_mask,
    out: *mut f32,
    out_size: usize,
    stats: *mut f32,
    stats_size: usize,
    qkv: *const f32,
    qkv_size: usize,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let attention = self::attention(heads, width, mask)?;
            let elements = area(length, width)?;
            let out = buffers.write("out", out, out_size, elements)?;
            let stats = buffers.write("stats", stats, stats_size, area(heads, area(length, 2)?)?)?;
            let qkv = buffers.read("qkv", qkv, qkv_size, area(elements, 3)?)?;
            let wanted = attention::scratch(length, width);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            attention::forward(simd, out, stats, qkv, attention, scratch)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// # Safety
/// `mask` is NULL or readable.
unsafe fn attention(
    heads: usize,
    width: usize,
    mask: *const jostle_mask,
) -> Result<attention::Attention, Refusal> {
    // SAFETY: the caller's promise.
    let (mask, sequence) = unsafe { self::mask(mask)? };
    Ok(attention::Attention { heads, width, mask, sequence })
}

/// Writes `d_qkv` [length, 3 width] from `d_out` [length, width] and what jostle_attention_forward read and wrote,
/// with the same mask.
///
/// # Safety
/// As for jostle_attention_forward; `d_qkv` is writable, `d_out`, `out` and `stats` readable for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_attention_backward(
    compute: *const jostle_compute,
    length: usize,
    width: usize,
    heads: usize,
    mask: *const jostle_mask,
    d_qkv: *mut f32,
    d_qkv_size: usize,
    d_out: *const f32,
    d_out_size: usize,
    qkv: *const f32,
    qkv_size: usize,
    out: *const f32,
    out_size: usize,
    stats: *const f32,
    stats_size: usize,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let attention = self::attention(heads, width, mask)?;
            let elements = area(length, width)?;
            let d_qkv = buffers.write("d_qkv", d_qkv, d_qkv_size, area(elements, 3)?)?;
            let d_out = buffers.read("d_out", d_out, d_out_size, elements)?;
            let qkv = buffers.read("qkv", qkv, qkv_size, area(elements, 3)?)?;
            let out = buffers.read("out", out, out_size, elements)?;
            let stats = buffers.read("stats", stats, stats_size, area(heads, area(length, 2)?)?)?;
            let wanted = attention::scratch(length, width);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            attention::backward(simd, d_qkv, d_out, qkv, out, stats, attention, scratch)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Writes the attention weights [heads, length, length] of one sequence before dropout, for looking at.
///
/// # Safety
/// As for jostle_attention_forward; `weights` is writable for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_attention_weights(
    compute: *const jostle_compute,
    length: usize,
    width: usize,
    heads: usize,
    weights: *mut f32,
    weights_size: usize,
    qkv: *const f32,
    qkv_size: usize,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let attention = self::attention(heads, width, core::ptr::null())?;
            let wanted = area(heads, area(length, length)?)?;
            let weights = buffers.write("weights", weights, weights_size, wanted)?;
            let qkv = buffers.read("qkv", qkv, qkv_size, area(area(length, width)?, 3)?)?;
            let wanted = attention::scratch(length, width);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            attention::weights(simd, weights, qkv, attention, scratch)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Replaces each row of `x` [rows, width] by its softmax.
///
/// # Safety
/// `compute` is NULL or readable, `x` writable for `x_size` bytes, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_softmax_forward(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    x: *mut f32,
    x_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let x = Buffers::new().write("x", x, x_size, area(rows, width)?)?;
            softmax::forward(simd, x, width)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Writes the gradient of the scores, d_x = y (d_y - sum(d_y y)) row by row; all [rows, width].
///
/// # Safety
/// `compute` is NULL or readable; `d_x` is writable, `d_y` and `y` readable for so many bytes; `error` is NULL or
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_softmax_backward(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    d_x: *mut f32,
    d_x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    y: *const f32,
    y_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let elements = area(rows, width)?;
            let d_x = buffers.write("d_x", d_x, d_x_size, elements)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, elements)?;
            let y = buffers.read("y", y, y_size, elements)?;
            softmax::backward(simd, d_x, d_y, y, width)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Sets row i of `scores` [rows, width] to minus infinity after column i + `offset`: the causal mask.
///
/// # Safety
/// `scores` is writable for `scores_size` bytes, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_causal_mask(
    rows: usize,
    width: usize,
    offset: usize,
    scores: *mut f32,
    scores_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        // SAFETY: the caller's promise.
        let scores = unsafe { Buffers::new().write("scores", scores, scores_size, area(rows, width)?)? };
        softmax::causal_mask(scores, width, offset)?;
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Layer normalisation (Ba, Kiros & Hinton 2016): y = (x - mean) / sqrt(variance + epsilon) * weight + bias, row by
/// row. Writes `y` [rows, width], `mean` [rows] and `rstd` [rows] (one over the standard deviation) from `x`,
/// `weight` [width] and `bias` [width] (or NULL).
///
/// # Safety
/// `compute` is NULL or readable; `y`, `mean` and `rstd` are writable, `x`, `weight` and `bias` readable for so many
/// bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_layer_norm_forward(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    epsilon: f32,
    y: *mut f32,
    y_size: usize,
    mean: *mut f32,
    mean_size: usize,
    rstd: *mut f32,
    rstd_size: usize,
    x: *const f32,
    x_size: usize,
    weight: *const f32,
    weight_size: usize,
    bias: *const f32,
    bias_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let elements = area(rows, width)?;
            let y = buffers.write("y", y, y_size, elements)?;
            let mean = buffers.write("mean", mean, mean_size, rows)?;
            let rstd = buffers.write("rstd", rstd, rstd_size, rows)?;
            let x = buffers.read("x", x, x_size, elements)?;
            let weight = buffers.read("weight", weight, weight_size, width)?;
            let bias = buffers.read_optional("bias", bias, bias_size, width)?;
            layer_norm::forward(simd, y, mean, rstd, x, weight, bias, epsilon)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Adds the gradient of the input to `d_x` [rows, width], from `d_y`, `x` and what jostle_layer_norm_forward left.
///
/// # Safety
/// As for jostle_layer_norm_forward; `d_x` is writable, `d_y`, `mean` and `rstd` readable for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_layer_norm_backward(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    d_x: *mut f32,
    d_x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    x: *const f32,
    x_size: usize,
    mean: *const f32,
    mean_size: usize,
    rstd: *const f32,
    rstd_size: usize,
    weight: *const f32,
    weight_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let elements = area(rows, width)?;
            let d_x = buffers.write("d_x", d_x, d_x_size, elements)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, elements)?;
            let x = buffers.read("x", x, x_size, elements)?;
            let mean = buffers.read("mean", mean, mean_size, rows)?;
            let rstd = buffers.read("rstd", rstd, rstd_size, rows)?;
            let weight = buffers.read("weight", weight, weight_size, width)?;
            layer_norm::backward(simd, d_x, d_y, x, mean, rstd, weight)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Adds the gradients of the parameters to `d_weight` [width] and `d_bias` [width] (or NULL), row after row.
///
/// # Safety
/// As for jostle_layer_norm_backward; `d_weight` and `d_bias` are writable for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_layer_norm_backward_parameters(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    d_weight: *mut f32,
    d_weight_size: usize,
    d_bias: *mut f32,
    d_bias_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    x: *const f32,
    x_size: usize,
    mean: *const f32,
    mean_size: usize,
    rstd: *const f32,
    rstd_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let elements = area(rows, width)?;
            let d_weight = buffers.write("d_weight", d_weight, d_weight_size, width)?;
            let d_bias = buffers.write_optional("d_bias", d_bias, d_bias_size, width)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, elements)?;
            let x = buffers.read("x", x, x_size, elements)?;
            let mean = buffers.read("mean", mean, mean_size, rows)?;
            let rstd = buffers.read("rstd", rstd, rstd_size, rows)?;
            layer_norm::backward_parameters(simd, d_weight, d_bias, d_y, x, mean, rstd)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// y = gelu(x), `count` elements (Hendrycks & Gimpel 2016). `activation`: a jostle_activation.
///
/// # Safety
/// `compute` is NULL or readable; `y` is writable, `x` readable for so many bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_gelu_forward(
    compute: *const jostle_compute,
    count: usize,
    activation: u32,
    y: *mut f32,
    y_size: usize,
    x: *const f32,
    x_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let y = buffers.write("y", y, y_size, count)?;
            let x = buffers.read("x", x, x_size, count)?;
            gelu::forward(simd, y, x, config::activation(activation)?)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// d_x = d_y gelu'(x), `count` elements.
///
/// # Safety
/// As for jostle_gelu_forward; `d_x` is writable, `d_y` readable for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_gelu_backward(
    compute: *const jostle_compute,
    count: usize,
    activation: u32,
    d_x: *mut f32,
    d_x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    x: *const f32,
    x_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let d_x = buffers.write("d_x", d_x, d_x_size, count)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, count)?;
            let x = buffers.read("x", x, x_size, count)?;
            gelu::backward(simd, d_x, d_y, x, config::activation(activation)?)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// y = dropout(x), both [rows, width] (Srivastava et al. 2014, inverted). Its own backward: d_x = dropout(d_y) with
/// the same mask.
///
/// # Safety
/// `compute` and `mask` are NULL or readable; `y` is writable, `x` readable for so many bytes; `error` is NULL or
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_dropout(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    mask: *const jostle_mask,
    y: *mut f32,
    y_size: usize,
    x: *const f32,
    x_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let (mask, sequence) = self::mask(mask)?;
            let elements = area(rows, width)?;
            let y = buffers.write("y", y, y_size, elements)?;
            let x = buffers.read("x", x, x_size, elements)?;
            dropout::forward(simd, y, x, width, mask, sequence)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Writes `losses` [rows], minus the logarithm of each target's probability, from `logits` [rows, vocab] and
/// `targets` [rows], each in 0..vocab or -1: ignored, loss 0.
///
/// # Safety
/// `compute` is NULL or readable; `losses` is writable, `logits` and `targets` readable for so many bytes; `error`
/// is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_cross_entropy_forward(
    compute: *const jostle_compute,
    rows: usize,
    vocab: usize,
    losses: *mut f32,
    losses_size: usize,
    logits: *const f32,
    logits_size: usize,
    targets: *const i32,
    targets_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let losses = buffers.write("losses", losses, losses_size, rows)?;
            let logits = buffers.read("logits", logits, logits_size, area(rows, vocab)?)?;
            let targets = buffers.read("targets", targets, targets_size, rows)?;
            cross_entropy::forward(simd, losses, logits, targets, vocab)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Writes `losses` as jostle_cross_entropy_forward and replaces `logits` by their gradient: of the sum of losses
/// divided by `counted`, which for a mean is the number of targets other than -1.
///
/// # Safety
/// As for jostle_cross_entropy_forward; `logits` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_cross_entropy_backward(
    compute: *const jostle_compute,
    rows: usize,
    vocab: usize,
    counted: usize,
    losses: *mut f32,
    losses_size: usize,
    logits: *mut f32,
    logits_size: usize,
    targets: *const i32,
    targets_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let losses = buffers.write("losses", losses, losses_size, rows)?;
            let logits = buffers.write("logits", logits, logits_size, area(rows, vocab)?)?;
            let targets = buffers.read("targets", targets, targets_size, rows)?;
            cross_entropy::backward(simd, losses, logits, targets, vocab, counted)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Writes `x` [rows, width]: the row of `wte` [vocab, width] that each of `tokens` [rows] names, plus the row of
/// `wpe` [context, width] of its position, which starts at 0 again every `length` tokens.
///
/// # Safety
/// `compute` is NULL or readable; `x` is writable, `tokens`, `wte` and `wpe` readable for so many bytes; `error` is
/// NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_embedding_forward(
    compute: *const jostle_compute,
    rows: usize,
    length: usize,
    width: usize,
    vocab: usize,
    context: usize,
    x: *mut f32,
    x_size: usize,
    tokens: *const i32,
    tokens_size: usize,
    wte: *const f32,
    wte_size: usize,
    wpe: *const f32,
    wpe_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let x = buffers.write("x", x, x_size, area(rows, width)?)?;
            let tokens = buffers.read("tokens", tokens, tokens_size, rows)?;
            let wte = buffers.read("wte", wte, wte_size, area(vocab, width)?)?;
            let wpe = buffers.read("wpe", wpe, wpe_size, area(context, width)?)?;
            embedding::forward(simd, x, tokens, wte, wpe, width, length)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Adds the gradients of the embeddings to `d_wte` [vocab, width] and `d_wpe` [context, width], row after row, from
/// `d_x` [rows, width].
///
/// # Safety
/// As for jostle_embedding_forward; `d_wte` and `d_wpe` are writable, `d_x` readable for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_embedding_backward(
    compute: *const jostle_compute,
    rows: usize,
    length: usize,
    width: usize,
    vocab: usize,
    context: usize,
    d_wte: *mut f32,
    d_wte_size: usize,
    d_wpe: *mut f32,
    d_wpe_size: usize,
    d_x: *const f32,
    d_x_size: usize,
    tokens: *const i32,
    tokens_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let simd = Workers::new(compute)?.simd();
            let d_wte = buffers.write("d_wte", d_wte, d_wte_size, area(vocab, width)?)?;
            let d_wpe = buffers.write("d_wpe", d_wpe, d_wpe_size, area(context, width)?)?;
            let d_x = buffers.read("d_x", d_x, d_x_size, area(rows, width)?)?;
            let tokens = buffers.read("tokens", tokens, tokens_size, rows)?;
            embedding::backward(simd, d_wte, d_wpe, d_x, tokens, width, length)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// The global norm of `count` gradients, in an order of summation that no number of threads changes.
///
/// # Safety
/// `compute` is NULL or readable, `gradients` readable for so many bytes, `norm` writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_gradient_norm(
    compute: *const jostle_compute,
    count: usize,
    gradients: *const f32,
    gradients_size: usize,
    norm: *mut f32,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        // SAFETY: the caller's promise.
        unsafe {
            let norm = Output::new("norm", norm)?;
            let workers = Workers::new(compute)?;
            let gradients = Buffers::new().read("gradients", gradients, gradients_size, count)?;
            norm.write(gradient_norm(workers.compute(), gradients));
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// The factor that brings a gradient of this norm to at most `clip` (PyTorch's clip_grad_norm_).
#[unsafe(no_mangle)]
pub extern "C" fn jostle_clip_factor(norm: f32, clip: f32) -> f32 {
    clip_factor(norm, clip)
}

/// Changes one tensor `x` of `count` elements along its gradient times `factor` (that of clipping, or 1), at `step`
/// counted from 0, by the recipe's optimiser: AdamW, or SGD. The recipe's schedule is not looked at.
///
/// `state`: what the optimiser keeps, zero before the first step: for AdamW first moments, then second moments; for
/// SGD with momentum, velocities; for SGD without, NULL. `decays`: 1 where weight decay applies, as it does to
/// matrices, else 0.
///
/// # Safety
/// `compute` is NULL or readable, `recipe` readable; `x` and `state` are writable, `gradient` readable for so many
/// bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_optimizer_update(
    compute: *const jostle_compute,
    recipe: *const jostle_recipe,
    count: usize,
    x: *mut f32,
    x_size: usize,
    gradient: *const f32,
    gradient_size: usize,
    state: *mut f32,
    state_size: usize,
    decays: u32,
    step: u64,
    learning_rate: f32,
    factor: f32,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let workers = Workers::new(compute)?;
            let optimizer = border::structure("recipe", recipe)?.optimizer()?;
            let decays = config::flag("decays", decays)?;
            let x = buffers.write("x", x, x_size, count)?;
            let gradient = buffers.read("gradient", gradient, gradient_size, count)?;
            let wanted = area(count, optimizer.state().per_parameter())?;
            let state = buffers.write("state", state, state_size, wanted)?;
            let compute = workers.compute();
            optimizer.update_tensor(compute, x, gradient, state, decays, step, learning_rate, factor)?;
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}
