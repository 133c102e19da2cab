//! Causal attention over one sequence, forward and backward.

use jostle::Error;
use jostle::ops::attention;

use super::dropout::{jostle_mask, mask as dropout_mask};
use super::{area, bytes};
use crate::border::Buffers;
use crate::compute::{Workers, jostle_compute};
use crate::status::{Call, OrRefuse, Refused, call, jostle_error, jostle_status};

/// The size in bytes of the scratch that the attention functions need.
#[unsafe(no_mangle)]
pub extern "C" fn jostle_attention_scratch_size(length: usize, width: usize) -> usize {
    bytes(attention::scratch(length, width))
}

/// Causal multi-head attention over one sequence (Vaswani et al. 2017). For each head: scores q k^T / sqrt(C / H), minus
/// infinity for keys later than the query, softmax, dropout, times v.
///
/// Writes `out` [length, width] and `stats` [heads, length, 2] from `qkv` [length, 3 width]. The stats of a row are its
/// largest score and one over its sum of exponentials; jostle_attention_backward needs them.
///
/// `scratch`: jostle_attention_scratch_size bytes.
///
/// # Safety
/// `compute` and `mask` are NULL or readable; `out`, `stats` and `scratch` are writable, `qkv` readable for the given
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
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let attention = self::attention(call, heads, heads, width, mask)?;
            let elements = area(call, length, width)?;
            let out = buffers.write("out", out, out_size, elements)?;
            let stats =
                buffers.write("stats", stats, stats_size, area(call, heads, area(call, length, 2)?)?)?;
            let qkv = buffers.read("qkv", qkv, qkv_size, area(call, elements, 3)?)?;
            let wanted = attention::scratch(length, width);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            attention::forward(simd, out, stats, qkv, attention, scratch).or_refuse(call)?;
            Ok(())
        })
    }
}

/// # Safety
/// `mask` is NULL or readable.
unsafe fn attention(
    call: &Call,
    heads: usize,
    kv_heads: usize,
    width: usize,
    mask: *const jostle_mask,
) -> Result<attention::Attention, Refused> {
    // SAFETY: the caller's promise is the same.
    let (mask, sequence) = unsafe { dropout_mask(call, mask)? };
    Ok(attention::Attention { heads, kv_heads, width, mask, sequence })
}

/// Writes `d_qkv` [length, 3 width] from `d_out` [length, width] and from the inputs and outputs of
/// jostle_attention_forward, with the same mask.
///
/// # Safety
/// As for jostle_attention_forward; `d_qkv` is writable, `d_out`, `out` and `stats` readable for the given number of bytes.
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
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let attention = self::attention(call, heads, heads, width, mask)?;
            let elements = area(call, length, width)?;
            let d_qkv = buffers.write("d_qkv", d_qkv, d_qkv_size, area(call, elements, 3)?)?;
            let d_out = buffers.read("d_out", d_out, d_out_size, elements)?;
            let qkv = buffers.read("qkv", qkv, qkv_size, area(call, elements, 3)?)?;
            let out = buffers.read("out", out, out_size, elements)?;
            let stats =
                buffers.read("stats", stats, stats_size, area(call, heads, area(call, length, 2)?)?)?;
            let wanted = attention::scratch(length, width);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            attention::backward(simd, d_qkv, d_out, qkv, out, stats, attention, scratch).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Writes the attention weights [heads, length, length] of one sequence before dropout, to inspect a model.
///
/// # Safety
/// As for jostle_attention_forward; `weights` is writable for the given number of bytes.
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
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let attention = self::attention(call, heads, heads, width, core::ptr::null())?;
            let wanted = area(call, heads, area(call, length, length)?)?;
            let weights = buffers.write("weights", weights, weights_size, wanted)?;
            let qkv = buffers.read("qkv", qkv, qkv_size, area(call, area(call, length, width)?, 3)?)?;
            let wanted = attention::scratch(length, width);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            attention::weights(simd, weights, qkv, attention, scratch).or_refuse(call)?;
            Ok(())
        })
    }
}

/// The columns of the queries, and of a row of qkv, in grouped attention.
fn columns(call: &Call, heads: usize, kv_heads: usize, head_width: usize) -> Result<[usize; 2], Refused> {
    if head_width == 0 {
        return Err(call.refuse_as_core(&Error::Zero { what: "head_width" }));
    }
    let all = heads.saturating_add(kv_heads.saturating_mul(2));
    Ok([area(call, heads, head_width)?, area(call, all, head_width)?])
}

/// As jostle_attention_forward, for query heads that share keys and values (Ainslie et al. 2023). Query head h uses
/// key/value head h / (heads / kv_heads). `kv_heads` divides `heads`.
///
/// Writes `out` [length, heads, head_width] and `stats` [heads, length, 2] from `qkv` [length, heads + 2 kv_heads,
/// head_width]. A row holds queries, then keys, then values.
///
/// `scratch`: jostle_attention_scratch_size(length, heads * head_width) bytes.
///
/// # Safety
/// As for jostle_attention_forward.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_grouped_attention_forward(
    compute: *const jostle_compute,
    length: usize,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
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
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let [width, row] = columns(call, heads, kv_heads, head_width)?;
            let attention = self::attention(call, heads, kv_heads, width, mask)?;
            let out = buffers.write("out", out, out_size, area(call, length, width)?)?;
            let stats =
                buffers.write("stats", stats, stats_size, area(call, heads, area(call, length, 2)?)?)?;
            let qkv = buffers.read("qkv", qkv, qkv_size, area(call, length, row)?)?;
            let wanted = attention::scratch(length, width);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            attention::forward(simd, out, stats, qkv, attention, scratch).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Writes `d_qkv`, of the shape of `qkv`, from `d_out`, of the shape of `out`, and from the inputs and outputs of
/// jostle_grouped_attention_forward, with the same mask. The query heads of a group add to the gradients of their
/// keys and values in ascending order.
///
/// # Safety
/// As for jostle_attention_backward.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_grouped_attention_backward(
    compute: *const jostle_compute,
    length: usize,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
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
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let [width, row] = columns(call, heads, kv_heads, head_width)?;
            let attention = self::attention(call, heads, kv_heads, width, mask)?;
            let (elements, all) = (area(call, length, width)?, area(call, length, row)?);
            let d_qkv = buffers.write("d_qkv", d_qkv, d_qkv_size, all)?;
            let d_out = buffers.read("d_out", d_out, d_out_size, elements)?;
            let qkv = buffers.read("qkv", qkv, qkv_size, all)?;
            let out = buffers.read("out", out, out_size, elements)?;
            let stats =
                buffers.read("stats", stats, stats_size, area(call, heads, area(call, length, 2)?)?)?;
            let wanted = attention::scratch(length, width);
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            attention::backward(simd, d_qkv, d_out, qkv, out, stats, attention, scratch).or_refuse(call)?;
            Ok(())
        })
    }
}
