//! Sums over the rows of matrices, column by column.

use super::{Lanes, Vector};

/// Vectors of columns whose sums stay in registers through all rows.
const ABREAST: usize = 4;

/// Adds to `sums[i]`, row after row, `f(row, in[row, column + i]...)`, of inputs with rows of `width`.
///
/// Sums meet memory once, however many the rows: threads that add up neighbouring columns would otherwise wrest a
/// cache line from each other at every row.
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
        debug_assert!(false, "slices that do not fit");
        return;
    }
    let mut from = inputs.map(|input| input.as_ptr().wrapping_add(column));
    let (vectors, rest) = V::Array::cut_mut(sums);
    let mut blocks = vectors.chunks_exact_mut(ABREAST);
    for block in &mut blocks {
        let mut partial = [V::zero(); ABREAST];
        for (partial, sum) in partial.iter_mut().zip(&*block) {
            *partial = V::load(sum);
        }
        for row in 0..rows {
            V::stay_rolled();
            for (i, partial) in partial.iter_mut().enumerate() {
                let place = row * width + i * V::LANES;
                // SAFETY: the columns lie within rows of `width`, of which each input has `rows`.
                *partial = partial.add(f(row, unsafe { load_at(from, place) }));
            }
        }
        for (partial, sum) in partial.into_iter().zip(block) {
            partial.store(sum);
        }
        from = from.map(|from| from.wrapping_add(ABREAST * V::LANES));
    }
    for sum in blocks.into_remainder() {
        let mut partial = V::load(sum);
        for row in 0..rows {
            V::stay_rolled();
            // SAFETY: the columns lie within rows of `width`, of which each input has `rows`.
            partial = partial.add(f(row, unsafe { load_at(from, row * width) }));
        }
        partial.store(sum);
        from = from.map(|from| from.wrapping_add(V::LANES));
    }
    if !rest.is_empty() {
        let mut partial = V::load_partial(rest);
        for row in 0..rows {
            let mut values = [V::zero(); N];
            for (value, from) in values.iter_mut().zip(from) {
                // SAFETY: the columns lie within rows of `width`, of which each input has `rows`.
                let columns = unsafe { core::slice::from_raw_parts(from.add(row * width), rest.len()) };
                *value = V::load_partial(columns);
            }
            partial = partial.add(f(row, values));
        }
        partial.store_partial(rest);
    }
}

/// The vectors that begin at element `place`.
///
/// # Safety
/// All must be readable.
#[inline(always)]
unsafe fn load_at<V: Vector, const N: usize>(from: [*const f32; N], place: usize) -> [V; N] {
    let mut vectors = [V::zero(); N];
    for (vector, from) in vectors.iter_mut().zip(from) {
        // SAFETY: the caller vouches for it.
        *vector = V::load(unsafe { &*from.add(place).cast::<V::Array>() });
    }
    vectors
}
