//! Token and position embeddings, forward and backward.

use jostle::ops::embedding;

use super::area;
use crate::border::Buffers;
use crate::compute::{Workers, jostle_compute};
use crate::status::{OrRefuse, call, jostle_error, jostle_status};

/// Writes `x` [rows, width]: for each of `tokens` [rows], its row of `wte` [vocab, width] plus its position's row of `wpe`
/// [context, width]. Positions start again at 0 after every `length` tokens.
///
/// # Safety
/// `compute` is NULL or readable; `x` is writable, `tokens`, `wte` and `wpe` readable for the given number of bytes; `error` is
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
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let x = buffers.write("x", x, x_size, area(call, rows, width)?)?;
            let tokens = buffers.read("tokens", tokens, tokens_size, rows)?;
            let wte = buffers.read("wte", wte, wte_size, area(call, vocab, width)?)?;
            let wpe = buffers.read("wpe", wpe, wpe_size, area(call, context, width)?)?;
            embedding::forward(simd, x, tokens, wte, wpe, width, length).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Adds the gradients of the embeddings to `d_wte` [vocab, width] and `d_wpe` [context, width], row after row, from
/// `d_x` [rows, width].
///
/// # Safety
/// As for jostle_embedding_forward; `d_wte` and `d_wpe` are writable, `d_x` readable for the given number of bytes.
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
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let d_wte = buffers.write("d_wte", d_wte, d_wte_size, area(call, vocab, width)?)?;
            let d_wpe = buffers.write("d_wpe", d_wpe, d_wpe_size, area(call, context, width)?)?;
            let d_x = buffers.read("d_x", d_x, d_x_size, area(call, rows, width)?)?;
            let tokens = buffers.read("tokens", tokens, tokens_size, rows)?;
            embedding::backward(simd, d_wte, d_wpe, d_x, tokens, width, length).or_refuse(call)?;
            Ok(())
        })
    }
}
