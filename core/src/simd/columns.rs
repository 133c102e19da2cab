//! Sums over the rows of matrices, column by column.

use super::slices::load_each;
use super::{Lanes, Vector};
use crate::fault;

/// Adds `f(row, in[row, column + i]...)` to `sums[i]`, row after row. Inputs have rows of `width`.
///
/// Each sum is read and written once, for any number of rows. Otherwise threads that sum neighbouring columns would
/// compete for a cache line at every row.
#[inline(always)]
pub(crate) fn add_columns<V: Vector, const N: usize>(
    sums: &mut [f32],
    column: usize,
    width: usize,
    inputs: [&[f32]; N],
    mut f: impl FnMut(usize, [V; N]) -> V,
) {
    let rows = inputs.first().and_then(|input| input.len().checked_div(width)).unwrap_or(0);
    let inside = column.checked_add(sums.len()).is_some_and(|end| end <= width);
    if !inside || inputs.iter().any(|input| input.len() != rows * width) {
        fault::report(&"sums of columns");
        return;
    }
    let mut from = inputs.map(|input| input.as_ptr().wrapping_add(column));
    let (vectors, rest) = V::Array::cut_mut(sums);
    // SAFETY: the columns are within rows of `width`, and each input has `rows` of them.
    unsafe {
        let vectors = add_vectors::<V, N, 8>(vectors, &mut from, rows, width, &mut f);
        let vectors = add_vectors::<V, N, 4>(vectors, &mut from, rows, width, &mut f);
        let vectors = add_vectors::<V, N, 2>(vectors, &mut from, rows, width, &mut f);
        add_vectors::<V, N, 1>(vectors, &mut from, rows, width, &mut f);
    }
    if !rest.is_empty() {
        let mut partial = V::load_partial(rest);
        for row in 0..rows {
            let mut values = [V::zero(); N];
            for (value, from) in values.iter_mut().zip(from) {
                // SAFETY: as above.
                let columns = unsafe { core::slice::from_raw_parts(from.add(row * width), rest.len()) };
                *value = V::load_partial(columns);
            }
            partial = partial.add(f(row, values));
        }
        partial.store_partial(rest);
    }
}

/// Sums groups of `COUNT` vectors of columns. Returns the remaining columns. The sums of a group stay in registers
/// for all rows. Each addition waits for the one before it, so several sums run at once.
///
/// # Safety
/// The inputs must be readable there in `rows` rows, `width` apart.
#[inline(always)]
unsafe fn add_vectors<'a, V: Vector, const N: usize, const COUNT: usize>(
    sums: &'a mut [V::Array],
    inputs: &mut [*const f32; N],
    rows: usize,
    width: usize,
    f: &mut impl FnMut(usize, [V; N]) -> V,
) -> &'a mut [V::Array] {
    let (blocks, rest) = sums.as_chunks_mut::<COUNT>();
    for sums in blocks {
        let mut partial = [V::zero(); COUNT];
        for (partial, sum) in partial.iter_mut().zip(&*sums) {
            *partial = V::load(sum);
        }
        for row in 0..rows {
            V::stay_rolled();
            let from = inputs.map(|from| from.wrapping_add(row * width));
            for (i, partial) in partial.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *partial = partial.add(f(row, unsafe { load_each(from, i) }));
            }
        }
        for (partial, sum) in partial.into_iter().zip(sums) {
            partial.store(sum);
        }
        *inputs = inputs.map(|from| from.wrapping_add(COUNT * V::LANES));
    }
    rest
}
