//! The loss, and its gradient.

use jostle::ops::cross_entropy;

use super::area;
use crate::border::Buffers;
use crate::compute::{Workers, jostle_compute};
use crate::status::{OrRefuse, call, jostle_error, jostle_status};

/// Writes `losses` [rows], minus the logarithm of each target's probability, from `logits` [rows, vocab] and `targets`
/// [rows]. Targets are in 0..vocab, or -1, which is ignored and has the loss 0.
///
/// # Safety
/// `compute` is NULL or readable; `losses` is writable, `logits` and `targets` readable for the given number of bytes; `error`
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
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let losses = buffers.write("losses", losses, losses_size, rows)?;
            let logits = buffers.read("logits", logits, logits_size, area(call, rows, vocab)?)?;
            let targets = buffers.read("targets", targets, targets_size, rows)?;
            cross_entropy::forward(simd, losses, logits, targets, vocab).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Writes `losses` as jostle_cross_entropy_forward does, and replaces `logits` by the gradient of the sum of losses divided by
/// `counted`. For the mean loss, `counted` is the number of targets other than -1.
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
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let losses = buffers.write("losses", losses, losses_size, rows)?;
            let logits = buffers.write("logits", logits, logits_size, area(call, rows, vocab)?)?;
            let targets = buffers.read("targets", targets, targets_size, rows)?;
            cross_entropy::backward(simd, losses, logits, targets, vocab, counted).or_refuse(call)?;
            Ok(())
        })
    }
}
