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

/// Copies four lines of A to `[k][4]`, `distance` elements apart: lines that lie along the inner index, or steps of
/// lines across it. A strip reads each of them once for every tile.
///
/// # Safety
/// `to` must be writable for `4 * k` elements, and `from` readable at every index named.
pub(crate) type Pack = unsafe extern "C" fn(to: *mut f32, distance: usize, from: *const f32, k: usize);

/// Strips of tiles, one below the other. A strip is tiles side by side: four rows of
/// `c[i, j] = start[i, j] + a[i, 0] * b[0, j] + ...`, four columns for each tile. Distances are counted in elements. The
/// order of the fields is part of the kernels.
#[repr(C)]
pub(crate) struct Strips {
    /// Where four rows of A are packed.
    pub a: *mut f32,
    /// From one of them to the next, or from one of their steps to the next where they lie across.
    pub distance: usize,
    /// The first one's first step.
    pub rows: *const f32,
    pub k: usize,
    /// From behind the last step of one tile's B to the next tile's; it wraps around, as most go back.
    pub b_next: usize,
    /// At least one.
    pub tiles: usize,
    /// C, or else the same for all rows: four for each tile, or a tile's zeros for all tiles.
    pub start: *const f32,
    pub c: *mut f32,
    /// The first elements of four columns; where they lie across, only the first one's is used.
    pub b: [*const f32; SIDE],
    /// From one step of B to the next, where they lie across.
    pub b_step: usize,
    pub start_row: usize,
    /// From one tile's starts to the next's.
    pub start_next: usize,
    pub c_row: usize,
    pub pack: Pack,
    pub kernel: Kernel,
    pub next: Next,
    /// How many strips; at least one.
    pub count: usize,
}

/// What is added from one strip to the next; it may wrap around.
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

/// Computes a strip of packed rows.
///
/// # Safety
/// For every tile, sixteen elements of `start` and of C and `k` steps of B must be within what the pointers may reach,
/// and A hold `k` steps.
pub(crate) type Kernel = unsafe extern "C" fn(&Strips);

/// Computes all strips, which leaves the fields at the last one.
///
/// # Safety
/// As for [`Kernel`] and [`Pack`], at each strip.
#[allow(dead_code, reason = "Cortex-M has its own")]
pub(crate) unsafe fn compute(strips: &mut Strips) {
    loop {
        // SAFETY: passed on from the caller.
        unsafe {
            (strips.pack)(strips.a, strips.distance, strips.rows, strips.k);
            (strips.kernel)(strips);
        }
        strips.count -= 1;
        if strips.count == 0 {
            break;
        }
        let next = strips.next;
        strips.rows = strips.rows.wrapping_add(next.rows);
        strips.k = strips.k.wrapping_add(next.k);
        strips.b_next = strips.b_next.wrapping_add(next.b_next);
        strips.tiles = strips.tiles.wrapping_add(next.tiles);
        strips.start = strips.start.wrapping_add(next.start);
        strips.c = strips.c.wrapping_add(next.c);
        strips.b = strips.b.map(|line| line.wrapping_add(next.b));
    }
}

/// What a strip is computed with in plain Rust.
#[allow(dead_code, reason = "processors with a fused multiply-add have their own")]
pub(crate) fn kernel(b: Form) -> Kernel {
    match b {
        Form::Along => strip::<false>,
        Form::Across => strip::<true>,
    }
}

#[allow(dead_code, reason = "Cortex-M has its own")]
pub(crate) fn pack(a: Form) -> Pack {
    match a {
        Form::Along => pack_lines::<false>,
        Form::Across => pack_lines::<true>,
    }
}

/// # Safety
/// As for [`Pack`].
unsafe extern "C" fn pack_lines<const ACROSS: bool>(
    to: *mut f32,
    distance: usize,
    from: *const f32,
    k: usize,
) {
    let (line, step) = if ACROSS { (1, distance) } else { (distance, 1) };
    for p in 0..k {
        for i in 0..SIDE {
            // SAFETY: see above.
            unsafe { *to.add(p * SIDE + i) = *from.add(i * line + p * step) };
        }
    }
}

/// # Safety
/// As for [`Kernel`].
unsafe extern "C" fn strip<const ACROSS: bool>(t: &Strips) {
    let (mut start, mut c, mut b) = (t.start, t.c, t.b);
    // SAFETY: see above.
    unsafe {
        for _ in 0..t.tiles {
            let mut sums = [[0.0; SIDE]; SIDE];
            for (i, row) in sums.iter_mut().enumerate() {
                *row = *start.add(i * t.start_row).cast();
            }
            for p in 0..t.k {
                let a: [f32; SIDE] = *t.a.add(p * SIDE).cast();
                let row: [f32; SIDE] = if ACROSS {
                    let row = *b[0].cast();
                    b[0] = b[0].wrapping_add(t.b_step);
                    row
                } else {
                    let row = b.map(|line| *line);
                    b = b.map(|line| line.wrapping_add(1));
                    row
                };
                for (sums, a) in sums.iter_mut().zip(a) {
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
