//! The fused multiply-add, the square root and tiles for processors without vectors or loops of their own. Only this file
//! emulates the first two.

pub(crate) use super::loops::{reduce, run};
use super::tile::{Form, SIDE, Strips};
pub(crate) use super::tile::{PACKED as BLOCK, row};

#[cfg(fused)]
pub(crate) use super::fused::{mul_add, sqrt};

/// `a * b + c` with one rounding.
#[cfg(not(fused))]
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    libm::fmaf(a, b, c)
}

#[cfg(not(fused))]
#[inline(always)]
pub(crate) fn sqrt(x: f32) -> f32 {
    libm::sqrtf(x)
}

#[inline(always)]
pub(crate) fn stay_rolled() {}

/// Copies four lines of A to `[k][4]`. `distance` is the distance between lines that are contiguous along the inner
/// index, or between steps of lines across it. A strip reads the copies once for every tile.
///
/// # Safety
/// `to` must be writable for `4 * k` elements, and `from` readable at every index named.
type Pack = unsafe extern "C" fn(to: *mut f32, distance: usize, from: *const f32, k: usize);

/// Computes a strip of packed rows.
///
/// # Safety
/// For every tile, sixteen elements of `start` and of C, and `k` steps of B, must be valid for the pointers. A must
/// hold `k` steps.
type Kernel = unsafe extern "C" fn(&Strips);

/// Computes all strips. Afterwards the fields describe the last one.
///
/// # Safety
/// As for [`Kernel`] and [`Pack`], at each strip.
pub(crate) unsafe fn compute(strips: &mut Strips) {
    loop {
        // SAFETY: the caller's promise.
        unsafe {
            (strips.code.pack)(strips.a, strips.distance, strips.rows, strips.k);
            (strips.code.kernel)(strips);
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

/// The functions that compute strips.
#[derive(Clone, Copy)]
pub(crate) struct Code {
    pack: Pack,
    kernel: Kernel,
}

pub(crate) fn code(a: Form, b: Form) -> Code {
    Code {
        pack: match a {
            Form::Along => pack_lines::<false>,
            Form::Across => pack_lines::<true>,
        },
        kernel: match b {
            Form::Along => strip::<false>,
            Form::Across => strip::<true>,
        },
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
