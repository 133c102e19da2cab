//! Root mean square normalisation (Zhang & Sennrich 2019), as Llama's.
//!
//! `y = x / sqrt(mean(x^2) + epsilon) * weight`, row by row.

use super::{count_rows, rows, rows_mut};
use crate::error::{Error, exact_length};
use crate::simd::{self, InstructionSet, Loop, NormedRow, Reduction, vectorized};

/// Normalises R rows of C.
///
/// Writes `y [R, C]` and `rstd [R]` (one over the root mean square) from `x [R, C]` and `weight [C]`.
pub fn forward(
    simd: InstructionSet,
    y: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
) -> Result<(), Error> {
    let count = count_rows("x", x, weight.len())?;
    exact_length("y", y.len(), x.len())?;
    exact_length("rstd", rstd.len(), count)?;
    statistics(simd, rstd, x, weight.len(), epsilon);
    apply(simd, y, x, rstd, weight);
    Ok(())
}

/// Adds the gradient of the input to `d_x [R, C]`, from `d_y [R, C]`, `x`, and the statistics of [`forward`].
pub fn backward(
    simd: InstructionSet,
    d_x: &mut [f32],
    d_y: &[f32],
    x: &[f32],
    rstd: &[f32],
    weight: &[f32],
) -> Result<(), Error> {
    let count = count_rows("x", x, weight.len())?;
    exact_length("d_x", d_x.len(), x.len())?;
    exact_length("d_y", d_y.len(), x.len())?;
    exact_length("rstd", rstd.len(), count)?;
    backward_input(simd, d_x, d_y, x, rstd, weight);
    Ok(())
}

/// Adds the gradient of the weight to `d_weight [C]`, row after row.
pub fn backward_parameters(
    simd: InstructionSet,
    d_weight: &mut [f32],
    d_y: &[f32],
    x: &[f32],
    rstd: &[f32],
) -> Result<(), Error> {
    let width = d_weight.len();
    let count = count_rows("x", x, width)?;
    exact_length("d_y", d_y.len(), x.len())?;
    exact_length("rstd", rstd.len(), count)?;
    parameter_gradients(simd, d_weight, 0, width, d_y, x, rstd);
    Ok(())
}

vectorized! {
    /// One over the root mean square of each row.
    #[inline(never)]
    pub(crate) fn statistics<V>(rstd: &mut [f32], x: &[f32], width: usize, epsilon: f32) {
        let share = V::splat(1.0).div(V::splat(width as f32));
        let reciprocal = |squares: V| V::splat(1.0).div(squares.mul(share).add(V::splat(epsilon)).sqrt());
        for (rstd, x) in rstd.iter_mut().zip(rows(x, width)) {
            let squares = simd::dot::<V>(x, x);
            *rstd = if V::LANES == 1 { reciprocal(V::splat(squares)).first() } else { squares };
        }
        if V::LANES > 1 {
            // Quotients and roots have a long latency, so many rows are computed together.
            simd::update(rstd, [], |_, squares: V, []| reciprocal(squares));
        }
    }
}

vectorized! {
    /// The normalised rows, from known statistics. The loops of layer normalisation serve here with a mean of zero, which
    /// changes no bit.
    #[inline(never)]
    pub(crate) fn apply<V>(y: &mut [f32], x: &[f32], rstd: &[f32], weight: &[f32]) {
        let width = weight.len();
        for ((y, x), rstd) in rows_mut(y, width).zip(rows(x, width)).zip(rstd) {
            let row = NormedRow { mean: 0.0, rstd: *rstd };
            if V::run(Loop::Norm { y: &mut *y, x, weight, bias: &[], row }) {
                continue;
            }
            let rstd = V::splat(*rstd);
            simd::map(y, [x, weight], |_, [x, weight]: [V; 2]| x.mul(rstd).mul(weight));
        }
    }
}

vectorized! {
    #[inline(never)]
    pub(crate) fn backward_input<V>(d_x: &mut [f32], d_y: &[f32], x: &[f32], rstd: &[f32], weight: &[f32]) {
        let width = weight.len();
        let share = V::splat(1.0).div(V::splat(width as f32));
        let rows = rows_mut(d_x, width).zip(rows(d_y, width)).zip(rows(x, width)).zip(rstd);
        for (((d_x, d_y), x), rstd) in rows {
            let row = NormedRow { mean: 0.0, rstd: *rstd };
            let rstd = V::splat(*rstd);
            let d_scale = V::reduce(Reduction::NormDot { d_y, weight, x, row });
            let d_scale = d_scale.unwrap_or_else(|| simd::sum([d_y, weight, x], |[d_y, weight, x]: [V; 3]| {
                d_y.mul(weight).mul(x.mul(rstd))
            }));
            let d_scale = V::splat(d_scale).mul(share);
            let means = [0.0, d_scale.first()];
            if V::run(Loop::NormInput { d_x: &mut *d_x, d_y, weight, x, row, means }) {
                continue;
            }
            simd::update(d_x, [d_y, weight, x], |_, d_x, [d_y, weight, x]: [V; 3]| {
                d_x.add(d_y.mul(weight).sub(x.mul(rstd).mul(d_scale)).mul(rstd))
            });
        }
    }
}

vectorized! {
    /// The backward pass in exchanged buffers: `d_y` becomes the gradient of the input, and `x` becomes each element's term of the
    /// gradient of the weight.
    #[inline(never)]
    pub(crate) fn exchange<V>(d_y: &mut [f32], x: &mut [f32], rstd: &[f32], weight: &[f32]) {
        let width = weight.len();
        let share = V::splat(1.0).div(V::splat(width as f32));
        for ((d_y, x), rstd) in rows_mut(d_y, width).zip(rows_mut(x, width)).zip(rstd) {
            let rstd = V::splat(*rstd);
            let d_scale = simd::sum([&*d_y, weight, &*x], |[d_y, weight, x]: [V; 3]| {
                d_y.mul(weight).mul(x.mul(rstd))
            });
            let d_scale = V::splat(d_scale).mul(share);
            simd::update_all([d_y, x], [weight], |_, [d_y, x]: [V; 2], [weight]| {
                let normed = x.mul(rstd);
                [d_y.mul(weight).sub(normed.mul(d_scale)).mul(rstd), d_y.mul(normed)]
            });
        }
    }
}

vectorized! {
    /// The gradients of columns `column..column + d_weight.len()` of `width`.
    #[inline(never)]
    pub(crate) fn parameter_gradients<V>(
        d_weight: &mut [f32],
        column: usize,
        width: usize,
        d_y: &[f32],
        x: &[f32],
        rstd: &[f32],
    ) {
        simd::add_columns(d_weight, column, width, [d_y, x], |row, [d_y, x]: [V; 2]| {
            d_y.mul(x.mul(V::splat(rstd.get(row).copied().unwrap_or_default())))
        });
    }
}
