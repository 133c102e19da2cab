//! The operations of a transformer, forward and backward side by side, one a file. Each works on plain
//! slices, on the calling thread, and knows nothing of the model it is used in.
//!
//! Matrices are row-major. Outputs come first, gradients are called `d_` after what they are the gradient of.
//! `backward` adds to gradients of parameters and of inputs that others add to as well, and overwrites the
//! rest; each function says which.

pub mod attention;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod softmax;

use crate::error::{Error, exact_length};

/// The rows of a matrix with so many columns; none for a matrix without columns.
pub(crate) fn rows(x: &[f32], width: usize) -> core::slice::ChunksExact<'_, f32> {
    x.chunks_exact(width.max(1))
}

/// The rows, to be written.
pub(crate) fn rows_mut(x: &mut [f32], width: usize) -> core::slice::ChunksExactMut<'_, f32> {
    x.chunks_exact_mut(width.max(1))
}

/// The number of rows of `x`, which must be a multiple of `width`.
fn count_rows(what: &'static str, x: &[f32], width: usize) -> Result<usize, Error> {
    if width == 0 {
        return Err(Error::Zero { what: "width" });
    }
    let count = x.len().checked_div(width).unwrap_or(0);
    exact_length(what, x.len(), count.saturating_mul(width))?;
    Ok(count)
}

/// A bias may be left out.
fn optional_length(what: &'static str, given: usize, wanted: usize) -> Result<(), Error> {
    if given == 0 { Ok(()) } else { exact_length(what, given, wanted) }
}
