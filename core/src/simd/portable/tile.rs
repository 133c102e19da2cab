//! The tiles of products on portable targets: four rows by four columns, sixteen chains of multiply-adds in sixteen
//! registers.

use super::processor::{Code, mul_add, stay_rolled};

/// The rows and columns of a tile.
pub(crate) const SIDE: usize = 4;

/// The steps of the inner index that fit into the space for a packed A.
pub(crate) const PACKED: usize = 48;

/// The direction in which an operand of a tile is contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Along the inner index: four lines, each with its own pointer.
    Along,
    /// Across it: four elements at each step, `step` apart.
    Across,
}

/// Strips of tiles, one below the other. A strip is four rows of tiles side by side, four columns for each tile:
///
/// `c[i, j] = start[i, j] + a[i, 0] * b[0, j] + ...`
///
/// Distances are in elements. The kernels depend on the order of the fields.
#[repr(C)]
pub(crate) struct Strips {
    /// The space for four packed rows of A, if they are packed.
    pub a: *mut f32,
    /// The distance between rows of A, or between their steps if they are across.
    pub distance: usize,
    /// The first step of the first row.
    pub rows: *const f32,
    pub k: usize,
    /// The distance from the end of a tile's B to the next tile's B. It wraps around, because it is mostly negative.
    pub b_next: usize,
    /// At least one.
    pub tiles: usize,
    /// The starts: C, or the same for all rows: four for each tile, or one tile of zeros for all.
    pub start: *const f32,
    pub c: *mut f32,
    /// The first elements of four columns. If they are across, only the first is used.
    pub b: [*const f32; SIDE],
    /// The distance between steps of B, if they are across.
    pub b_step: usize,
    pub start_row: usize,
    /// The distance between the starts of tiles.
    pub start_next: usize,
    pub c_row: usize,
    pub code: Code,
    pub next: Next,
    /// The number of strips; at least one.
    pub count: usize,
}

/// The increments from one strip to the next. They may wrap around.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Next {
    pub rows: usize,
    pub k: usize,
    pub b_next: usize,
    pub tiles: usize,
    pub start: usize,
    pub c: usize,
    pub b: usize,
}

/// Four columns of one row: `sums[j] += a[0] * b[0, j] + ...`, over `k` elements. For processors without a loop of their own.
///
/// # Safety
/// `a` must be readable for `k` elements, and `b` at all steps of four columns, with these distances between columns and
/// between steps. One of the distances is 1.
#[allow(dead_code, reason = "one processor has its own")]
#[inline(never)]
pub(crate) unsafe fn row(
    sums: &mut [f32; SIDE],
    mut a: *const f32,
    mut b: *const f32,
    column: usize,
    step: usize,
    k: usize,
) {
    let mut chains = *sums;
    for _ in 0..k {
        stay_rolled();
        for (i, sum) in chains.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *sum = unsafe { mul_add(*a, *b.add(i * column), *sum) };
        }
        (a, b) = (a.wrapping_add(1), b.wrapping_add(step));
    }
    *sums = chains;
}
