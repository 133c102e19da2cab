//! Layer normalisation (Ba, Kiros & Hinton 2016), as PyTorch's `LayerNorm`, with the population variance.
//!
//! `y = (x - mean) / sqrt(variance + epsilon) * weight + bias`, row by row.

use super::{count_rows, optional_length, rows, rows_mut};
use crate::error::{Error, exact_length};
use crate::simd::{self, InstructionSet, Loop, NormedRow, Reduction, vectorized};

/// Normalises R rows of C.
///
/// Writes `y [R, C]`, `mean [R]` and `rstd [R]` (one over the standard deviation) from `x [R, C]`,
/// `weight [C]` and `bias [C]` (or an empty one).
#[allow(clippy::too_many_arguments)]
pub fn forward(
    simd: InstructionSet,
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
) -> Result<(), Error> {
    let count = count_rows("x", x, weight.len())?;
    exact_length("y", y.len(), x.len())?;
    exact_length("mean", mean.len(), count)?;
    exact_length("rstd", rstd.len(), count)?;
    optional_length("bias", bias.len(), weight.len())?;
    statistics(simd, mean, rstd, x, weight.len(), epsilon);
    apply(simd, y, x, mean, rstd, weight, bias);
    Ok(())
}

/// Adds the gradient of the input to `d_x [R, C]`, from `d_y [R, C]`, `x`, and the statistics of [`forward`].
pub fn backward(
    simd: InstructionSet,
    d_x: &mut [f32],
    d_y: &[f32],
    x: &[f32],
    mean: &[f32],
    rstd: &[f32],
    weight: &[f32],
) -> Result<(), Error> {
    let count = count_rows("x", x, weight.len())?;
    exact_length("d_x", d_x.len(), x.len())?;
    exact_length("d_y", d_y.len(), x.len())?;
    exact_length("mean", mean.len(), count)?;
    exact_length("rstd", rstd.len(), count)?;
    backward_input(simd, d_x, d_y, x, mean, rstd, weight);
    Ok(())
}

/// Adds the gradients of the parameters to `d_weight [C]` and `d_bias [C]` (or an empty one), row after row.
pub fn backward_parameters(
    simd: InstructionSet,
    d_weight: &mut [f32],
    d_bias: &mut [f32],
    d_y: &[f32],
    x: &[f32],
    mean: &[f32],
    rstd: &[f32],
) -> Result<(), Error> {
    let count = count_rows("x", x, d_weight.len())?;
    exact_length("d_y", d_y.len(), x.len())?;
    exact_length("mean", mean.len(), count)?;
    exact_length("rstd", rstd.len(), count)?;
    optional_length("d_bias", d_bias.len(), d_weight.len())?;
    let width = d_weight.len();
    parameter_gradients(simd, d_weight, d_bias, 0, width, d_y, x, mean, rstd);
    Ok(())
}

vectorized! {
    /// The mean and the reciprocal standard deviation of each row.
    #[inline(never)]
    pub(crate) fn statistics<V>(mean: &mut [f32], rstd: &mut [f32], x: &[f32], width: usize, epsilon: f32) {
        let share = V::splat(1.0).div(V::splat(width as f32));
        let reciprocal = |squares: V| V::splat(1.0).div(squares.mul(share).add(V::splat(epsilon)).sqrt());
        for ((mean, rstd), x) in mean.iter_mut().zip(&mut *rstd).zip(rows(x, width)) {
            let average = V::splat(simd::total::<V>(x)).mul(share);
            let squares = V::reduce(Reduction::SquaredDeviations { x, mean: average.first() });
            let squares = squares.unwrap_or_else(|| simd::sum([x], |[x]: [V; 1]| {
                let centred = x.sub(average);
                centred.mul(centred)
            }));
            *mean = average.first();
            *rstd = if V::LANES == 1 { reciprocal(V::splat(squares)).first() } else { squares };
        }
        if V::LANES > 1 {
            // Quotients and roots have a long latency, so many rows are computed together.
            simd::update(rstd, [], |_, squares: V, []| reciprocal(squares));
        }
    }
}

vectorized! {
    /// The normalised rows, from known statistics. Backward recomputes them with this function.
    #[inline(never)]
    pub(crate) fn apply<V>(
        y: &mut [f32], x: &[f32], mean: &[f32], rstd: &[f32], weight: &[f32], bias: &[f32],
    ) {
        let width = weight.len();
        for (((y, x), mean), rstd) in rows_mut(y, width).zip(rows(x, width)).zip(mean).zip(rstd) {
            let row = NormedRow { mean: *mean, rstd: *rstd };
            if V::run(Loop::Norm { y: &mut *y, x, weight, bias, row }) {
                continue;
            }
            let (mean, rstd) = (V::splat(*mean), V::splat(*rstd));
            if bias.is_empty() {
                simd::map(y, [x, weight], |_, [x, weight]: [V; 2]| x.sub(mean).mul(rstd).mul(weight));
            } else {
                simd::map(y, [x, weight, bias], |_, [x, weight, bias]: [V; 3]| {
                    x.sub(mean).mul(rstd).mul(weight).add(bias)
                });
            }
        }
    }
}

vectorized! {
    #[inline(never)]
    pub(crate) fn backward_input<V>(
        d_x: &mut [f32], d_y: &[f32], x: &[f32], mean: &[f32], rstd: &[f32], weight: &[f32],
    ) {
        let width = weight.len();
        let share = V::splat(1.0).div(V::splat(width as f32));
        let d_y = rows(d_y, width);
        for ((((d_x, d_y), x), mean), rstd) in rows_mut(d_x, width).zip(d_y).zip(rows(x, width)).zip(mean).zip(rstd) {
            let row = NormedRow { mean: *mean, rstd: *rstd };
            let (mean, rstd) = (V::splat(*mean), V::splat(*rstd));
            let d_mean = V::splat(simd::dot::<V>(d_y, weight)).mul(share);
            let d_scale = V::reduce(Reduction::NormDot { d_y, weight, x, row });
            let d_scale = d_scale.unwrap_or_else(|| simd::sum([d_y, weight, x], |[d_y, weight, x]: [V; 3]| {
                d_y.mul(weight).mul(x.sub(mean).mul(rstd))
            }));
            let d_scale = V::splat(d_scale).mul(share);
            let means = [d_mean.first(), d_scale.first()];
            if V::run(Loop::NormInput { d_x: &mut *d_x, d_y, weight, x, row, means }) {
                continue;
            }
            simd::update(d_x, [d_y, weight, x], |_, d_x, [d_y, weight, x]: [V; 3]| {
                let normed = x.sub(mean).mul(rstd);
                d_x.add(d_y.mul(weight).sub(d_mean).sub(normed.mul(d_scale)).mul(rstd))
            });
        }
    }
}

vectorized! {
    /// The gradients of columns `column..column + d_weight.len()` of `width`.
    #[inline(never)]
    pub(crate) fn parameter_gradients<V>(
        d_weight: &mut [f32],
        d_bias: &mut [f32],
        column: usize,
        width: usize,
        d_y: &[f32],
        x: &[f32],
        mean: &[f32],
        rstd: &[f32],
    ) {
        if !V::run(Loop::NormWeight { d_weight: &mut *d_weight, column, width, d_y, x, mean, rstd }) {
            simd::add_columns(d_weight, column, width, [d_y, x], |row, [d_y, x]: [V; 2]| {
                let of_row = |values: &[f32]| V::splat(values.get(row).copied().unwrap_or_default());
                d_y.mul(x.sub(of_row(mean)).mul(of_row(rstd)))
            });
        }
        simd::add_rows::<V>(d_bias, column, width, d_y);
    }
}
