//! One row of C, as in generation. It reads B once, as fast as memory allows.

use super::packed::{COLUMNS, load, store};
use super::{Matrix, Size, Start};
use crate::simd::WideVector;

/// The number of contiguous rows of B in one pass over C.
const ROWS_AT_ONCE: usize = 8;

/// Whether [`row`] handles such a product.
#[inline(always)]
pub(super) fn serves(Size { m, n, .. }: Size, b: Matrix<'_>) -> bool {
    m == 1 && (b.column_stride == 1 || b.row_stride == 1 && n >= COLUMNS)
}

/// `C = start + A B` for one row.
///
/// # Safety
/// As for [`super::packed::product`], with sizes for which [`serves`] is true.
#[inline(always)]
pub(super) unsafe fn row<V: WideVector>(
    size: Size,
    c: *mut f32,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if b.column_stride == 1 {
            by_rows::<V>(size, c, start, a, b);
        } else {
            by_columns::<V>(size, c, start, a, b);
        }
    }
}

/// For contiguous rows of B: C stays in the first-level cache, while rows stream by, [`ROWS_AT_ONCE`].
///
/// # Safety
/// As for [`row`].
#[inline(always)]
unsafe fn by_rows<V: WideVector>(
    Size { n, k, .. }: Size,
    c: *mut f32,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    // SAFETY: columns stay below `n` and inner indices below `k`.
    unsafe {
        match start {
            Start::Zero => core::ptr::write_bytes(c, 0, n),
            Start::Bias(bias) => core::ptr::copy_nonoverlapping(bias.as_ptr(), c, n),
            Start::Accumulate => {}
        }
        let mut p = 0;
        while p < k {
            let steps = ROWS_AT_ONCE.min(k - p);
            let a_column = a.column_stride;
            let a = a.data.as_ptr().add(p * a_column);
            let mut factors = [V::zero(); ROWS_AT_ONCE];
            for (q, factor) in factors.iter_mut().enumerate().take(steps) {
                *factor = V::splat(*a.add(q * a_column));
            }
            let mut column = 0;
            while column < n {
                let width = COLUMNS.min(n - column);
                let (to, from) = (c.add(column), b.data.as_ptr().add(p * b.row_stride + column));
                let mut sum = load::<V>(to, width);
                if steps == ROWS_AT_ONCE && width == COLUMNS {
                    for (q, factor) in factors.iter().enumerate() {
                        sum = factor.mul_add(V::load(&*from.add(q * b.row_stride).cast()), sum);
                    }
                } else {
                    for q in 0..steps {
                        let factor = V::splat(*a.add(q * a_column));
                        sum = factor.mul_add(load::<V>(from.add(q * b.row_stride), width), sum);
                    }
                }
                store(sum, to, width);
                column += width;
            }
            p += steps;
        }
    }
}

/// For contiguous columns of B: sixteen at a time, transposed in registers.
///
/// # Safety
/// As for [`row`]; at least sixteen columns.
#[inline(always)]
unsafe fn by_columns<V: WideVector>(
    Size { n, k, .. }: Size,
    c: *mut f32,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    let whole = k - k % COLUMNS;
    let mut column = 0;
    while column < n {
        // The last sixteen reach back over finished columns, and do not change them.
        let done = COLUMNS.saturating_sub(n - column);
        let first = column - done;
        // SAFETY: columns stay below `n` and inner indices below `k`.
        unsafe {
            let (a_stride, b_stride) = (a.column_stride, b.column_stride);
            let (a, b) = (a.data.as_ptr(), b.data.as_ptr().add(first * b_stride));
            let mut sum = begin::<V>(start, c, first);
            sum = V::mul_add_transposed((a, a_stride), (b, b_stride), whole, sum);
            if whole < k {
                let mut rest = [[0.0; COLUMNS]; COLUMNS];
                V::transpose(rest.as_mut_ptr().cast(), b.add(whole), b_stride, k - whole);
                for (p, row) in (whole..k).zip(&rest) {
                    sum = V::splat(*a.add(p * a_stride)).mul_add(V::load(row), sum);
                }
            }
            if done == 0 {
                store(sum, c.add(column), COLUMNS);
            } else {
                let mut lanes = [0.0; COLUMNS];
                sum.store(&mut lanes);
                core::ptr::copy_nonoverlapping(lanes.as_ptr().add(done), c.add(column), COLUMNS - done);
            }
        }
        column = first + COLUMNS;
    }
}

/// The start of the chains of sixteen columns.
///
/// # Safety
/// All sixteen must be within C and the bias.
#[inline(always)]
unsafe fn begin<V: WideVector>(start: Start<'_>, c: *const f32, column: usize) -> V {
    // SAFETY: see above.
    unsafe {
        match start {
            Start::Zero => V::zero(),
            Start::Bias(bias) => V::load(&*bias.as_ptr().add(column).cast()),
            Start::Accumulate => V::load(&*c.add(column).cast()),
        }
    }
}
