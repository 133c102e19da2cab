//! What a product is made of on machines without vectors: tiles of four rows by four columns, sixteen chains of
//! multiply-adds in as many registers.

use super::scalar::mul_add;

/// Rows and columns of a tile.
pub(crate) const SIDE: usize = 4;

/// Which way an operand of a tile is contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Along the inner index: four lines, each with its own pointer.
    Along,
    /// Across it: four elements at each step, `step` apart.
    Across,
}

/// An operand's four lines: rows of A, or columns of B.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    /// The first element of each line; where they lie across, only the first line's is used.
    pub line: [*const f32; SIDE],
    /// From one inner index to the next, in elements; where they lie along, it is one and not used.
    pub step: usize,
}

/// One tile: `c[i, j] = start[i, j] + a[i, 0] * b[0, j] + ...`. The order of the fields is part of the kernels.
#[repr(C)]
pub(crate) struct Tile {
    pub start: *const f32,
    /// From one row to the next, in elements, as in C.
    pub start_row: usize,
    pub c: *mut f32,
    pub c_row: usize,
    pub k: usize,
    pub a: Lines,
    pub b: Lines,
}

/// Computes a tile.
///
/// # Safety
/// Sixteen elements of `start` and of C and `k` steps of both operands must be within what the pointers may reach.
pub(crate) type Kernel = unsafe extern "C" fn(&Tile);

#[allow(dead_code, reason = "Cortex-M has its own")]
pub(crate) fn kernel(a: Form, b: Form) -> Option<Kernel> {
    match (a, b) {
        (Form::Along, Form::Along) => Some(tile::<false, false>),
        (Form::Along, Form::Across) => Some(tile::<false, true>),
        (Form::Across, Form::Across) => Some(tile::<true, true>),
        (Form::Across, Form::Along) => None,
    }
}

/// # Safety
/// As for [`Kernel`].
unsafe extern "C" fn tile<const A_ACROSS: bool, const B_ACROSS: bool>(t: &Tile) {
    // SAFETY: see above.
    unsafe {
        let mut sums = [[0.0; SIDE]; SIDE];
        for (i, row) in sums.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate() {
                *sum = *t.start.add(i * t.start_row + j);
            }
        }
        for p in 0..t.k {
            let (mut a, mut b) = ([0.0; SIDE], [0.0; SIDE]);
            for (i, a) in a.iter_mut().enumerate() {
                *a = if A_ACROSS { *t.a.line[0].add(p * t.a.step + i) } else { *t.a.line[i].add(p) };
            }
            for (j, b) in b.iter_mut().enumerate() {
                *b = if B_ACROSS { *t.b.line[0].add(p * t.b.step + j) } else { *t.b.line[j].add(p) };
            }
            for (row, a) in sums.iter_mut().zip(a) {
                for (sum, b) in row.iter_mut().zip(b) {
                    *sum = mul_add(a, b, *sum);
                }
            }
        }
        for (i, row) in sums.into_iter().enumerate() {
            for (j, sum) in row.into_iter().enumerate() {
                *t.c.add(i * t.c_row + j) = sum;
            }
        }
    }
}
