//! The operations of a transformer, one a file, with forward and backward side by side. Each works on plain slices on
//! the calling thread, and knows nothing of the model around it.
//!
//! Matrices are row-major. Outputs are the first arguments. `d_x` is the gradient of `x`. Gradients of parameters are
//! added to. Gradients of inputs are overwritten, or added to if the input is also used elsewhere; each function says
//! which.

pub mod attention;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod rms_norm;
pub mod rotary;
pub mod softmax;
pub mod swiglu;

use crate::error::{Error, exact_length};

/// The whole rows of a matrix, in order.
pub(crate) struct Rows<S> {
    rest: S,
    width: usize,
}

impl<'a, T> Iterator for Rows<&'a [T]> {
    type Item = &'a [T];

    #[inline]
    fn next(&mut self) -> Option<&'a [T]> {
        self.rest.split_off(..self.width)
    }
}

impl<'a, T> Iterator for Rows<&'a mut [T]> {
    type Item = &'a mut [T];

    #[inline]
    fn next(&mut self) -> Option<&'a mut [T]> {
        self.rest.split_off_mut(..self.width)
    }
}

/// The rows of a matrix with `width` columns. A matrix without columns has no rows. `chunks_exact` would divide, and
/// would check the divisor again wherever two iterators are zipped.
#[inline]
pub(crate) fn rows<T>(x: &[T], width: usize) -> Rows<&[T]> {
    Rows { rest: x, width: row_len(width) }
}

/// The rows, for writing.
#[inline]
pub(crate) fn rows_mut<T>(x: &mut [T], width: usize) -> Rows<&mut [T]> {
    Rows { rest: x, width: row_len(width) }
}

/// The length of a row. A matrix without columns gets a length that no slice has.
#[inline]
const fn row_len(width: usize) -> usize {
    if width == 0 { usize::MAX } else { width }
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
