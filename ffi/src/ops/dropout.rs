//! Dropout, and its masks, which attention takes too.

use jostle::ops::dropout;
use jostle::ops::dropout::Mask;
use jostle::rng::Stream;

use super::area;
use core::mem::offset_of;

use crate::border::{self, Buffers, Structure};
use crate::compute::{Workers, jostle_compute};
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_error, jostle_status};

/// The place of dropout in the model. Masks of different streams are independent, also with the same seed.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_stream {
    /// The sum of the embeddings.
    JOSTLE_EMBEDDING_DROPOUT = 4,
    /// The attention weights.
    JOSTLE_ATTENTION_DROPOUT = 5,
    /// The output of the attention's projection.
    JOSTLE_ATTENTION_PROJECTION_DROPOUT = 6,
    /// The output of the MLP's projection.
    JOSTLE_MLP_PROJECTION_DROPOUT = 7,
}

/// A dropout mask. These numbers, the row and the column of an element determine whether it is zeroed. The other elements
/// are divided by the probability of being kept. NULL instead of a mask drops nothing.
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

// SAFETY: numbers and pointers without padding; `struct_size` comes first.
unsafe impl Structure for jostle_mask {
    const FIRST_SIZE: usize = offset_of!(jostle_mask, sequence) + size_of::<u64>();
}

/// # Safety
/// `mask` is NULL or readable for as many bytes as its `struct_size` says.
pub(super) unsafe fn mask(call: &Call, mask: *const jostle_mask) -> Result<(Option<Mask>, u64), Refused> {
    use jostle_stream::*;
    if mask.is_null() {
        return Ok((None, 0));
    }
    // SAFETY: the caller's promise is the same.
    let mask = unsafe { border::structure(call, "mask", mask)? };
    let stream = match mask.stream {
        given if given == JOSTLE_EMBEDDING_DROPOUT as u32 => Stream::EmbeddingDropout,
        given if given == JOSTLE_ATTENTION_DROPOUT as u32 => Stream::AttentionDropout,
        given if given == JOSTLE_ATTENTION_PROJECTION_DROPOUT as u32 => Stream::AttentionProjectionDropout,
        given if given == JOSTLE_MLP_PROJECTION_DROPOUT as u32 => Stream::MlpProjectionDropout,
        given => return Err(call.refuse(Refusal::Choice { what: "stream", given })),
    };
    let made = Mask::new(mask.rate, mask.seed, stream, mask.step, mask.layer).or_refuse(call)?;
    Ok((made, mask.sequence))
}

/// y = dropout(x), both [rows, width] (Srivastava et al. 2014, inverted). It is its own backward: d_x = dropout(d_y) with the
/// same mask.
///
/// # Safety
/// `compute` and `mask` are NULL or readable; `y` is writable, `x` readable for the given number of bytes; `error` is NULL or
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
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let (mask, sequence) = self::mask(call, mask)?;
            let elements = area(call, rows, width)?;
            let y = buffers.write("y", y, y_size, elements)?;
            let x = buffers.read("x", x, x_size, elements)?;
            dropout::forward(simd, y, x, width, mask, sequence).or_refuse(call)?;
            Ok(())
        })
    }
}
