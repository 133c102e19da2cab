//! The loops of a step, apart from products.

use super::super::assembly::exponentials;
use super::super::loops::{Loop, NormedRow, count};
use super::elementwise;
use super::exponential::{EXPONENTIAL, GELU};

unsafe extern "C" {
    fn jostle_exp(x: *mut f32, count: usize, numbers: &[f32; 11], scale: f32, maximum: f32) -> usize;
    fn jostle_gelu(y: *mut f32, x: *const f32, count: usize, numbers: &[f32; 21]);
    fn jostle_gelu_exchange(x: *mut f32, d_y: *mut f32, count: usize, numbers: &[f32; 21]);
}

#[inline(always)]
pub(crate) fn run(one: Loop<'_>) -> bool {
    // SAFETY: all slices have `count` elements.
    unsafe {
        match one {
            Loop::Copy { y, x } => elementwise::copy(y.as_mut_ptr(), x.as_ptr(), count([&*y, x])),
            Loop::Add { x, y } => elementwise::add(x.as_mut_ptr(), y.as_ptr(), count([&*x, y])),
            Loop::AddColumns { sums, column, width, x } => {
                let rows = x.len().checked_div(width).unwrap_or(0);
                debug_assert!(column + sums.len() <= width, "columns that are not there");
                let count = sums.len().min(width.saturating_sub(column));
                let x = x.as_ptr().wrapping_add(column);
                elementwise::add_columns(sums.as_mut_ptr(), x, count, rows, width);
            }
            Loop::Multiply { x, y } => elementwise::multiply(x.as_mut_ptr(), y.as_ptr(), count([&*x, y])),
            Loop::Scale { x, factor } => elementwise::scale(x.as_mut_ptr(), x.len(), factor),
            Loop::SoftmaxGradient { e, d_y, reciprocal, dot, scale } => {
                let count = count([&*e, &*d_y]);
                let (e, d_y) = (e.as_mut_ptr(), d_y.as_mut_ptr());
                elementwise::softmax_gradient(e, d_y, count, reciprocal, dot, scale);
            }
            Loop::SubtractScaled { x, y, factor } => {
                elementwise::subtract_scaled(x.as_mut_ptr(), y.as_ptr(), count([&*x, y]), factor);
            }
            Loop::Clear { x } => elementwise::clear(x.as_mut_ptr(), x.len()),
            Loop::Exp { x, scale, maximum } => {
                let kernel = |x, count| jostle_exp(x, count, &EXPONENTIAL, scale, maximum);
                exponentials(x, scale, maximum, kernel);
            }
            Loop::Gelu { y, x } => jostle_gelu(y.as_mut_ptr(), x.as_ptr(), count([&*y, x]), &GELU),
            Loop::GeluExchange { x, d_y } => {
                let count = count([&*x, &*d_y]);
                jostle_gelu_exchange(x.as_mut_ptr(), d_y.as_mut_ptr(), count, &GELU);
            }
            Loop::AdamW { changed: [x, m, v], gradient, numbers } => {
                let count = count([&*x, &*m, &*v, gradient]);
                let (x, m, v) = (x.as_mut_ptr(), m.as_mut_ptr(), v.as_mut_ptr());
                elementwise::adamw(x, m, v, gradient.as_ptr(), count, *numbers);
            }
            Loop::Norm { y, x, weight, bias: [], row } => {
                // A sum that starts with this zero has the same bits as a sum without it.
                y.fill(-0.0);
                let count = count([&*y, x, weight]);
                elementwise::norm_weight(y.as_mut_ptr(), weight.as_ptr(), x.as_ptr(), count, row);
            }
            Loop::Norm { y, x, weight, bias, row } => {
                let count = count([&*y, x, weight, bias]);
                elementwise::norm(y.as_mut_ptr(), x.as_ptr(), weight.as_ptr(), bias.as_ptr(), count, row);
            }
            Loop::NormInput { d_x, d_y, weight, x, row, means } => {
                let count = count([&*d_x, d_y, weight, x]);
                let (d_x, d_y, weight, x) = (d_x.as_mut_ptr(), d_y.as_ptr(), weight.as_ptr(), x.as_ptr());
                elementwise::norm_input(d_x, d_y, weight, x, count, row, means);
            }
            Loop::NormWeight { d_weight, column, width, d_y, x, mean, rstd } => {
                let all = d_y.chunks_exact(width.max(1)).zip(x.chunks_exact(width.max(1)));
                for (((d_y, x), &mean), &rstd) in all.zip(mean).zip(rstd) {
                    let [d_y, x] = [d_y, x].map(|row| row.get(column..).unwrap_or_default());
                    let count = d_weight.len().min(d_y.len()).min(x.len());
                    let (d_weight, row) = (d_weight.as_mut_ptr(), NormedRow { mean, rstd });
                    elementwise::norm_weight(d_weight, d_y.as_ptr(), x.as_ptr(), count, row);
                }
            }
        }
    }
    true
}
