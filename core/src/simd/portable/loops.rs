//! Loops over whole slices that an instruction set may implement itself, where compilers need two to eight times the
//! instructions. Each gives the bits of the operation that calls it.

/// Element by element, over slices of one length.
#[allow(dead_code, reason = "Cortex-M and RISC-V have their own")]
pub(crate) enum Loop<'a> {
    /// `y = x`.
    Copy { y: &'a mut [f32], x: &'a [f32] },
    /// `x += y`.
    Add { x: &'a mut [f32], y: &'a [f32] },
    /// `sums += x`, row after row, for the columns from `column` on of rows of `width`.
    AddColumns { sums: &'a mut [f32], column: usize, width: usize, x: &'a [f32] },
    /// `x *= y`.
    Multiply { x: &'a mut [f32], y: &'a [f32] },
    /// `x *= factor`.
    Scale { x: &'a mut [f32], factor: f32 },
    /// For exponentials `e` and the gradient of a softmax: `e *= reciprocal` and `d_y = e (d_y - dot) scale`.
    SoftmaxGradient { e: &'a mut [f32], d_y: &'a mut [f32], reciprocal: f32, dot: f32, scale: f32 },
    /// `x -= y * factor`.
    SubtractScaled { x: &'a mut [f32], y: &'a [f32], factor: f32 },
    /// `x = 0`.
    Clear { x: &'a mut [f32] },
    /// `x = exp(x * scale - maximum)`, whose arguments are at most zero.
    Exp { x: &'a mut [f32], scale: f32, maximum: f32 },
    /// `y = gelu(x)`, the exact form.
    Gelu { y: &'a mut [f32], x: &'a [f32] },
    /// `x = d_y gelu'(x)` and `d_y = gelu(x)` at once.
    GeluExchange { x: &'a mut [f32], d_y: &'a mut [f32] },
    /// Parameters and first and second moments, in `changed`.
    AdamW { changed: [&'a mut [f32]; 3], gradient: &'a [f32], numbers: &'a AdamW },
    /// `y = normed(x) * weight + bias`.
    Norm { y: &'a mut [f32], x: &'a [f32], weight: &'a [f32], bias: &'a [f32], row: NormedRow },
    /// `d_x += (d_y * weight - d_mean - normed(x) * d_scale) * rstd`.
    NormInput {
        d_x: &'a mut [f32],
        d_y: &'a [f32],
        weight: &'a [f32],
        x: &'a [f32],
        row: NormedRow,
        means: [f32; 2],
    },
    /// `d_weight += d_y * normed(x)`, row after row, for the columns from `column` on of rows of `width`.
    NormWeight {
        d_weight: &'a mut [f32],
        column: usize,
        width: usize,
        d_y: &'a [f32],
        x: &'a [f32],
        mean: &'a [f32],
        rstd: &'a [f32],
    },
}

/// A [`Sum`](crate::simd::Sum) over slices of one length.
#[allow(dead_code, reason = "as above")]
pub(crate) enum Reduction<'a> {
    /// The sum of x.
    Sum { x: &'a [f32] },
    /// The sum of the squares of `x - mean`.
    SquaredDeviations { x: &'a [f32], mean: f32 },
    /// The sum of the squares of x.
    Squares { x: &'a [f32] },
    /// The sum of `x * y`.
    Dot { x: &'a [f32], y: &'a [f32] },
    /// The sum of `d_y * weight * normed(x)`.
    NormDot { d_y: &'a [f32], weight: &'a [f32], x: &'a [f32], row: NormedRow },
}

/// The statistics of a row: `normed(x) = (x - mean) * rstd`.
#[allow(dead_code, reason = "as above")]
#[derive(Clone, Copy)]
pub(crate) struct NormedRow {
    pub mean: f32,
    pub rstd: f32,
}

/// AdamW's numbers for one tensor at one step. The order of the fields is part of the loops.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct AdamW {
    /// The factor of weight decay.
    pub keep: f32,
    /// The factor of clipping.
    pub factor: f32,
    pub beta1: f32,
    /// 1 - `beta1`.
    pub fresh1: f32,
    pub beta2: f32,
    /// 1 - `beta2`.
    pub fresh2: f32,
    pub step_size: f32,
    pub second_scale: f32,
    pub epsilon: f32,
}

/// The number of elements, which all slices have.
#[allow(dead_code, reason = "as above")]
#[inline(always)]
pub(super) fn count<const N: usize>(slices: [&[f32]; N]) -> usize {
    let first = slices.first().map_or(0, |slice| slice.len());
    debug_assert!(slices.iter().all(|slice| slice.len() == first), "slices of different lengths");
    slices.iter().fold(first, |least, slice| least.min(slice.len()))
}

/// Runs a loop, if there is one.
#[allow(dead_code, reason = "as above")]
#[inline(always)]
pub(crate) fn run(_: Loop<'_>) -> bool {
    false
}

/// The sum, if there is a loop for it.
#[allow(dead_code, reason = "as above")]
#[inline(always)]
pub(crate) fn reduce(_: Reduction<'_>) -> Option<f32> {
    None
}
