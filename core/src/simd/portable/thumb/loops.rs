//! The loops of a step, apart from products, in assembly. `vmla` rounds the product and the sum, `vfma` only the sum.

use super::super::assembly::exponentials;
use super::super::loops::{AdamW, Loop, NormedRow, count};
use super::exponential::{EXPONENTIAL, Exp, GELU, Gelu};

unsafe extern "C" {
    fn jostle_add(x: *mut f32, y: *const f32, count: usize);
    fn jostle_copy(y: *mut f32, x: *const f32, count: usize);
    fn jostle_add_columns(sums: *mut f32, x: *const f32, rows: usize, width: usize, count: usize);
    fn jostle_multiply(x: *mut f32, y: *const f32, count: usize);
    fn jostle_adamw(
        x: *mut f32,
        m: *mut f32,
        v: *mut f32,
        gradient: *const f32,
        count: usize,
        numbers: &AdamW,
    );
    fn jostle_norm(
        y: *mut f32,
        x: *const f32,
        weight: *const f32,
        bias: *const f32,
        count: usize,
        mean: f32,
        rstd: f32,
    );
    fn jostle_norm_input(
        d_x: *mut f32,
        d_y: *const f32,
        weight: *const f32,
        x: *const f32,
        count: usize,
        mean: f32,
        rstd: f32,
        d_mean: f32,
        d_scale: f32,
    );
    fn jostle_norm_weight(
        d_weight: *mut f32,
        d_y: *const f32,
        x: *const f32,
        count: usize,
        mean: f32,
        rstd: f32,
    );
    fn jostle_scale(x: *mut f32, count: usize, factor: f32);
    fn jostle_softmax_gradient(
        e: *mut f32,
        d_y: *mut f32,
        count: usize,
        reciprocal: f32,
        dot: f32,
        scale: f32,
    );
    fn jostle_subtract_scaled(x: *mut f32, y: *const f32, count: usize, factor: f32);
    fn jostle_clear(x: *mut f32, count: usize);
    fn jostle_exp(x: *mut f32, count: usize, numbers: &Exp, scale: f32, maximum: f32) -> usize;
    fn jostle_gelu(y: *mut f32, x: *const f32, pairs: usize, numbers: &Gelu);
    fn jostle_gelu_exchange(x: *mut f32, d_y: *mut f32, pairs: usize, numbers: &Gelu);
}

#[inline(always)]
pub(crate) fn run(one: Loop<'_>) -> bool {
    // SAFETY: all slices have `count` elements.
    unsafe {
        match one {
            Loop::Copy { y, x } => jostle_copy(y.as_mut_ptr(), x.as_ptr(), count([&*y, x])),
            Loop::Add { x, y } => jostle_add(x.as_mut_ptr(), y.as_ptr(), count([x, y])),
            Loop::AddColumns { sums, column, width, x } => {
                let rows = x.len().checked_div(width).unwrap_or(0);
                debug_assert!(column + sums.len() <= width, "columns that are not there");
                let count = sums.len().min(width.saturating_sub(column));
                if rows > 0 {
                    jostle_add_columns(sums.as_mut_ptr(), x.as_ptr().add(column), rows, width, count);
                }
            }
            Loop::Multiply { x, y } => jostle_multiply(x.as_mut_ptr(), y.as_ptr(), count([x, y])),
            Loop::Scale { x, factor } => jostle_scale(x.as_mut_ptr(), x.len(), factor),
            Loop::SoftmaxGradient { e, d_y, reciprocal, dot, scale } => {
                let count = count([&*e, &*d_y]);
                jostle_softmax_gradient(e.as_mut_ptr(), d_y.as_mut_ptr(), count, reciprocal, dot, scale);
            }
            Loop::SubtractScaled { x, y, factor } => {
                jostle_subtract_scaled(x.as_mut_ptr(), y.as_ptr(), count([x, y]), factor);
            }
            Loop::Clear { x } => jostle_clear(x.as_mut_ptr(), x.len()),
            Loop::Exp { x, scale, maximum } => {
                let kernel = |x, count| jostle_exp(x, count, &EXPONENTIAL, scale, maximum);
                exponentials(x, scale, maximum, kernel);
            }
            Loop::Gelu { y, x } => {
                let count = count([&*y, x]);
                jostle_gelu(y.as_mut_ptr(), x.as_ptr(), count / 2, &GELU);
                if count % 2 > 0 {
                    let (y, mut last) = (y.as_mut_ptr().add(count - 1), [*x.as_ptr().add(count - 1); 2]);
                    jostle_gelu(last.as_mut_ptr(), last.as_ptr(), 1, &GELU);
                    *y = last[0];
                }
            }
            Loop::GeluExchange { x, d_y } => {
                let count = count([&*x, &*d_y]);
                jostle_gelu_exchange(x.as_mut_ptr(), d_y.as_mut_ptr(), count / 2, &GELU);
                if count % 2 > 0 {
                    let last = [&mut *x, &mut *d_y].map(|slice| slice.as_mut_ptr().add(count - 1));
                    let mut pairs = last.map(|last| [*last; 2]);
                    let [of_x, of_d_y] = &mut pairs;
                    jostle_gelu_exchange(of_x.as_mut_ptr(), of_d_y.as_mut_ptr(), 1, &GELU);
                    for (last, [value, _]) in last.into_iter().zip(pairs) {
                        *last = value;
                    }
                }
            }
            Loop::AdamW { changed: [x, m, v], gradient, numbers } => {
                let count = count([&*x, &*m, &*v, gradient]);
                let (x, m, v) = (x.as_mut_ptr(), m.as_mut_ptr(), v.as_mut_ptr());
                jostle_adamw(x, m, v, gradient.as_ptr(), count, numbers);
            }
            Loop::Norm { y, x, weight, bias: [], row: NormedRow { mean, rstd } } => {
                // A sum that starts with this zero has the same bits as a sum without it.
                y.fill(-0.0);
                let count = count([&*y, x, weight]);
                jostle_norm_weight(y.as_mut_ptr(), weight.as_ptr(), x.as_ptr(), count, mean, rstd);
            }
            Loop::Norm { y, x, weight, bias, row: NormedRow { mean, rstd } } => {
                let count = count([&*y, x, weight, bias]);
                jostle_norm(y.as_mut_ptr(), x.as_ptr(), weight.as_ptr(), bias.as_ptr(), count, mean, rstd);
            }
            Loop::NormInput {
                d_x,
                d_y,
                weight,
                x,
                row: NormedRow { mean, rstd },
                means: [d_mean, d_scale],
            } => {
                let count = count([&*d_x, d_y, weight, x]);
                let (d_x, d_y, weight, x) = (d_x.as_mut_ptr(), d_y.as_ptr(), weight.as_ptr(), x.as_ptr());
                jostle_norm_input(d_x, d_y, weight, x, count, mean, rstd, d_mean, d_scale);
            }
            Loop::NormWeight { d_weight, column, width, d_y, x, mean, rstd } => {
                let all = d_y.chunks_exact(width.max(1)).zip(x.chunks_exact(width.max(1)));
                for (((d_y, x), mean), rstd) in all.zip(mean).zip(rstd) {
                    let [d_y, x] = [d_y, x].map(|row| row.get(column..).unwrap_or_default());
                    let count = d_weight.len().min(d_y.len()).min(x.len());
                    jostle_norm_weight(d_weight.as_mut_ptr(), d_y.as_ptr(), x.as_ptr(), count, *mean, *rstd);
                }
            }
        }
    }
    true
}
