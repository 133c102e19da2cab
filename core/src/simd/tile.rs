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

/// Tiles side by side: four rows of `c[i, j] = start[i, j] + a[i, 0] * b[0, j] + ...`, four columns for each tile.
/// Distances are counted in elements. The order of the fields is part of the kernels.
#[repr(C)]
pub(crate) struct Strip {
    pub a: Lines,
    pub b: Lines,
    /// From behind the last step of one tile's B to the next tile's; it wraps around, as most go back.
    pub b_next: usize,
    pub k: usize,
    pub start: *const f32,
    pub start_row: usize,
    /// From one tile's starts to the next's.
    pub start_next: usize,
    pub c: *mut f32,
    pub c_row: usize,
    /// At least one.
    pub tiles: usize,
}

/// Computes a strip.
///
/// # Safety
/// For every tile, sixteen elements of `start` and of C and `k` steps of both operands must be within what the
/// pointers may reach.
pub(crate) type Kernel = unsafe extern "C" fn(&Strip);

/// Kernels in Rust. `None` where one would be of no use: no product in a model has such operands.
#[allow(dead_code, reason = "processors with a fused multiply-add have their own")]
pub(crate) fn kernel(a: Form, b: Form) -> Option<Kernel> {
    match (a, b) {
        (Form::Along, Form::Along) => Some(strip::<false, false>),
        (Form::Along, Form::Across) => Some(strip::<false, true>),
        (Form::Across, Form::Across) => Some(strip::<true, true>),
        (Form::Across, Form::Along) => None,
    }
}

/// # Safety
/// As for [`Kernel`].
unsafe extern "C" fn strip<const A_ACROSS: bool, const B_ACROSS: bool>(t: &Strip) {
    let (mut start, mut c, mut b) = (t.start, t.c, t.b.line);
    // SAFETY: see above.
    unsafe {
        for _ in 0..t.tiles {
            let mut a = t.a.line;
            let mut sums = [[0.0; SIDE]; SIDE];
            for (i, row) in sums.iter_mut().enumerate() {
                *row = *start.add(i * t.start_row).cast();
            }
            for _ in 0..t.k {
                let factors = step::<A_ACROSS>(&mut a, t.a.step);
                let row = step::<B_ACROSS>(&mut b, t.b.step);
                for (sums, a) in sums.iter_mut().zip(factors) {
                    for (sum, b) in sums.iter_mut().zip(row) {
                        *sum = mul_add(a, b, *sum);
                    }
                }
            }
            for (i, row) in sums.into_iter().enumerate() {
                *c.add(i * t.c_row).cast() = row;
            }
            start = start.wrapping_add(t.start_next);
            c = c.wrapping_add(SIDE);
            b = b.map(|line| line.wrapping_add(t.b_next));
        }
    }
}

/// The next element of each line.
///
/// # Safety
/// As for [`Kernel`].
#[inline(always)]
unsafe fn step<const ACROSS: bool>(line: &mut [*const f32; SIDE], step: usize) -> [f32; SIDE] {
    // SAFETY: see above.
    unsafe {
        if ACROSS {
            let elements = *line[0].cast();
            line[0] = line[0].wrapping_add(step);
            elements
        } else {
            line.each_mut().map(|line| {
                let element = **line;
                *line = line.wrapping_add(1);
                element
            })
        }
    }
}
