//! The affine map `y = x W + b`, with `W [in, out]` as in Hugging Face GPT-2's `Conv1D`.

use super::{count_rows, optional_length};
use crate::error::{Error, exact_length};
use crate::matmul::{Matrix, Size, Start, matmul};
use crate::simd::{self, InstructionSet, vectorized};

/// Writes `y [R, out]` from `x [R, in]`, `weight [in, out]` and `bias [out]` (or an empty one).
///
/// `width` is `in`; the scratch is [`crate::matmul::scratch`]`(R, out, in)`.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    simd: InstructionSet,
    y: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    width: usize,
    scratch: &mut [f32],
) -> Result<(), Error> {
    let size = sizes(("y", y), ("x", x), ("weight", weight), width)?;
    optional_length("bias", bias.len(), size.n)?;
    let start = if bias.is_empty() { Start::Zero } else { Start::Bias(bias) };
    matmul(simd, size, (y, size.n), start, Matrix::new(x, width), Matrix::new(weight, size.n), scratch)
}

/// Writes `d_x [R, in]` from `d_y [R, out]` and the weight.
///
/// The scratch is [`crate::matmul::scratch`]`(R, in, out)`.
pub fn backward(
    simd: InstructionSet,
    d_x: &mut [f32],
    d_y: &[f32],
    weight: &[f32],
    width: usize,
    scratch: &mut [f32],
) -> Result<(), Error> {
    let Size { m, n, k } = sizes(("d_y", d_y), ("d_x", d_x), ("weight", weight), width)?;
    let size = Size { m, n: k, k: n };
    matmul(
        simd,
        size,
        (d_x, k),
        Start::Zero,
        Matrix::new(d_y, n),
        Matrix::new(weight, n).transposed(),
        scratch,
    )
}

/// Adds the gradients of the parameters to `d_weight [in, out]` and `d_bias [out]` (or an empty one), row
/// after row.
///
/// The scratch is [`crate::matmul::scratch`]`(in, out, R)`.
#[allow(clippy::too_many_arguments)]
pub fn backward_parameters(
    simd: InstructionSet,
    d_weight: &mut [f32],
    d_bias: &mut [f32],
    x: &[f32],
    d_y: &[f32],
    width: usize,
    scratch: &mut [f32],
) -> Result<(), Error> {
    let Size { m, n, k } = sizes(("d_y", d_y), ("x", x), ("d_weight", d_weight), width)?;
    optional_length("d_bias", d_bias.len(), n)?;
    let size = Size { m: k, n, k: m };
    let x = Matrix::new(x, width).transposed();
    matmul(simd, size, (d_weight, n), Start::Accumulate, x, Matrix::new(d_y, n), scratch)?;
    bias_gradient(simd, d_bias, 0, n, d_y);
    Ok(())
}

/// A slice with the name that its caller knows.
type Named<'a> = (&'static str, &'a [f32]);

/// The size of `y = x W`, from the slices' lengths.
fn sizes(y: Named<'_>, x: Named<'_>, weight: Named<'_>, width: usize) -> Result<Size, Error> {
    let count = count_rows(x.0, x.1, width)?;
    let columns = count_rows(weight.0, weight.1, width)?;
    exact_length(y.0, y.1.len(), count.saturating_mul(columns))?;
    Ok(Size { m: count, n: columns, k: width })
}

vectorized! {
    /// Adds the sums of columns `column..column + d_bias.len()` of `d_y [R, width]`.
    #[inline(never)]
    pub(crate) fn bias_gradient<V>(d_bias: &mut [f32], column: usize, width: usize, d_y: &[f32]) {
        simd::add_rows::<V>(d_bias, column, width, d_y);
    }
}
