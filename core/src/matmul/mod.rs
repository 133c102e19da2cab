//! Matrix products. Knows nothing of models.
//!
//! # The contract
//! `C[m, n] = start + A[m, 0] * B[0, n] + A[m, 1] * B[1, n] + ...`, as one chain of fused multiply-adds over the
//! inner index in ascending order, for every element of C. `start` is zero, a bias, or the value of C. Vector lanes
//! are columns of C, blocks of the inner index store and reload the same f32, and threads share the elements of C. So
//! the instruction set, the blocking and the number of threads do not change a single bit. [`reference()`] is the
//! contract in ten lines.

#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, unused_imports, reason = "without vectors")
)]
pub(crate) mod causal;
#[cfg_attr(
    any(feature = "matrixmultiply", not(any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code, unused_imports, reason = "without vectors, or where that crate computes the products")
)]
mod packed;
#[cfg_attr(feature = "matrixmultiply", allow(dead_code, reason = "that crate computes the products"))]
mod portable;
#[cfg_attr(
    any(feature = "matrixmultiply", not(any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code, reason = "without vectors, or where that crate computes the products")
)]
mod row;

use core::ops::Range;

use crate::error::Error;
use crate::fault;
#[cfg(not(target_os = "none"))]
use crate::parallel::Turn;
use crate::parallel::{Compute, PerUnit, Shared, share};
use crate::simd::InstructionSet;
use crate::target::Target;

#[cfg(not(target_os = "none"))]
pub(crate) use packed::CLOSE;
pub use packed::scratch;
pub(crate) use packed::scratch_on;

/// An input matrix: element `[i, j]` is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// The distance from one row to the next, in elements.
    pub row_stride: usize,
    /// The distance from one column to the next, in elements.
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Contiguous rows of `columns` elements.
    pub const fn new(data: &'a [f32], columns: usize) -> Matrix<'a> {
        Matrix { data, row_stride: columns, column_stride: 1 }
    }

    /// The part that begins at element `[row, column]`.
    pub(crate) fn from(self, row: usize, column: usize) -> Matrix<'a> {
        let first = row * self.row_stride + column * self.column_stride;
        Matrix { data: self.data.get(first..).unwrap_or_default(), ..self }
    }

    /// The transposed matrix, without moving an element.
    pub const fn transposed(self) -> Matrix<'a> {
        Matrix { data: self.data, row_stride: self.column_stride, column_stride: self.row_stride }
    }
}

/// With this many rows, computing a product in parts takes hardly longer.
pub(crate) const fn rows_enough(target: Target) -> usize {
    match target {
        Target::Vectors => 128,
        Target::Portable => 4,
    }
}

/// The causal mask of a product whose sides are positions. Whole masked tiles are skipped; other masked elements may
/// be computed.
#[derive(Clone, Copy)]
pub(crate) enum Causal {
    /// No mask.
    Whole,
    /// C holds scores: columns after `row + first` are not needed.
    Columns { first: usize },
    /// A holds weights: they are zero after the inner index `row + first`.
    Inner { first: usize },
    /// A holds weights, transposed: they are zero before the inner index `row - first`.
    InnerTransposed { first: usize },
}

impl Causal {
    /// The number of the `n` columns that rows up to `below` need.
    #[inline(always)]
    fn columns(self, below: usize, n: usize) -> usize {
        match self {
            Causal::Columns { first } => n.min(below + first),
            _ => n,
        }
    }

    /// The mask of the rows from `row` on, as a separate product.
    fn from(self, row: usize) -> Causal {
        match self {
            Causal::Whole => Causal::Whole,
            Causal::Columns { first } => Causal::Columns { first: first + row },
            Causal::Inner { first } => Causal::Inner { first: first + row },
            Causal::InnerTransposed { first } => Causal::InnerTransposed { first: first.saturating_sub(row) },
        }
    }

    /// The steps of the inner block `inner`, counted from its first, for a tile of rows and the columns from `column`
    /// on; `None` if the tile is masked.
    #[inline(always)]
    fn steps(self, rows: Range<usize>, column: usize, inner: Range<usize>) -> Option<Range<usize>> {
        let length = inner.end - inner.start;
        match self {
            Causal::Whole => Some(0..length),
            Causal::Columns { .. } => (column < self.columns(rows.end, usize::MAX)).then_some(0..length),
            Causal::Inner { first } => Some(0..length.min((rows.end + first).saturating_sub(inner.start))),
            Causal::InnerTransposed { first } => {
                Some(length.min(rows.start.saturating_sub(first).saturating_sub(inner.start))..length)
            }
        }
    }
}

/// Queries `first..first + count` of one head, and the keys up to the last query.
#[derive(Clone, Copy)]
pub(crate) struct Queries {
    pub first: usize,
    pub count: usize,
    /// `first + count`.
    pub keys: usize,
    /// C / H.
    pub head_width: usize,
}

/// The start of every element's chain of multiply-adds.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// Zero; C is not read.
    Zero,
    /// The bias of its column, `[n]`; C is not read.
    Bias(&'a [f32]),
    /// The value of C.
    Accumulate,
}

impl Start<'_> {
    /// The start of some columns.
    fn from(self, columns: &Range<usize>) -> Self {
        match self {
            Start::Bias(bias) => Start::Bias(bias.get(columns.clone()).unwrap_or_default()),
            other => other,
        }
    }
}

/// The sizes of a product: C is `[m, n]`, A is `[m, k]`, B is `[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// The inner index.
    pub k: usize,
}

/// The number of elements that rows and columns with these strides span.
#[inline(never)]
fn reach(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> Option<usize> {
    let (Some(last_row), Some(last_column)) = (rows.checked_sub(1), columns.checked_sub(1)) else {
        return Some(0);
    };
    last_row.checked_mul(row_stride)?.checked_add(last_column.checked_mul(column_stride)?)?.checked_add(1)
}

fn check(
    size: Size,
    c_length: usize,
    c_stride: usize,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scratch_length: usize,
) -> Result<(), Error> {
    let Size { m, n, k } = size;
    let bias = match start {
        Start::Bias(bias) => bias.len(),
        Start::Zero | Start::Accumulate => n,
    };
    let long_enough = |what, given: usize, wanted: Option<usize>| match wanted {
        Some(wanted) if given >= wanted => Ok(()),
        Some(wanted) => Err(Error::Length { what, given, wanted }),
        None => Err(Error::TooLarge { what }),
    };
    if m > 1 && c_stride < n {
        return Err(Error::Length { what: "row of C", given: c_stride, wanted: n });
    }
    long_enough("C", c_length, reach(m, n, c_stride, 1))?;
    long_enough("A", a.data.len(), reach(m, k, a.row_stride, a.column_stride))?;
    long_enough("B", b.data.len(), reach(k, n, b.row_stride, b.column_stride))?;
    long_enough("bias", bias, Some(n))?;
    long_enough("scratch", scratch_length, Some(scratch(size)))
}

/// `C = start + A B` on the calling thread.
///
/// The rows of `c` are `c_stride` apart. `scratch` has at least [`scratch`] elements.
pub fn matmul(
    simd: InstructionSet,
    size: Size,
    (c, c_stride): PerUnit<'_>,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scratch: &mut [f32],
) -> Result<(), Error> {
    check(size, c.len(), c_stride, start, a, b, scratch.len())?;
    if size.m == 0 || size.n == 0 {
        return Ok(());
    }
    // SAFETY: just checked.
    unsafe { product(simd, size, c.as_mut_ptr(), c_stride, start, a, b, Causal::Whole, scratch) };
    Ok(())
}

/// [`matmul`] for sizes that the layout guarantees: a mismatch is a bug, which debug builds report and
/// others leave without effect.
pub(crate) fn matmul_trusted(
    simd: InstructionSet,
    size: Size,
    c: PerUnit<'_>,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scratch: &mut [f32],
) {
    causal_trusted(simd, size, c, start, a, b, Causal::Whole, scratch);
}

/// [`matmul_trusted`] under a causal mask.
#[allow(clippy::too_many_arguments)]
#[inline(never)]
pub(crate) fn causal_trusted(
    simd: InstructionSet,
    size: Size,
    (c, c_stride): PerUnit<'_>,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    mask: Causal,
    scratch: &mut [f32],
) {
    match check(size, c.len(), c_stride, start, a, b, scratch.len()) {
        // SAFETY: just checked.
        Ok(()) => unsafe { product(simd, size, c.as_mut_ptr(), c_stride, start, a, b, mask, scratch) },
        Err(_) => fault::report(&"matmul"),
    }
}

/// [`matmul`] on all threads, which share the longer side of C.
///
/// Each worker gets a part of `worker_scratch` elements of `scratch`.
pub fn matmul_parallel(
    compute: Compute<'_>,
    size: Size,
    (c, c_stride): PerUnit<'_>,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    (scratch, worker_scratch): PerUnit<'_>,
) -> Result<(), Error> {
    check(size, c.len(), c_stride, start, a, b, scratch.len().min(worker_scratch))?;
    let Size { m, n, k } = size;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let worker_scratch = worker_scratch.min(scratch.len());
    let most = scratch.len().checked_div(worker_scratch).unwrap_or(usize::MAX);
    let by_columns = n >= m;
    let units = if by_columns { n.div_ceil(packed::COLUMNS) } else { m };
    let work = m.saturating_mul(n).saturating_mul(k);
    let workers = compute.workers(units, work, most);
    let c = Shared(c.as_mut_ptr());
    let scratch = Shared(scratch.as_mut_ptr());
    compute.parallel.run(workers, &|worker| {
        let range = share(units, workers, worker);
        let (rows, columns) = if by_columns {
            (0..m, range.start * packed::COLUMNS..n.min(range.end * packed::COLUMNS))
        } else {
            (range, 0..n)
        };
        let (start, a, b) = (start.from(&columns), a.from(rows.start, 0), b.from(0, columns.start));
        let size = Size { m: rows.end - rows.start, n: columns.end - columns.start, k };
        // SAFETY: all sizes were checked for the whole product. Workers' parts of C and of the scratch are disjoint,
        // and `run` returns before the borrows end.
        unsafe {
            let c = c.pointer().add(rows.start * c_stride + columns.start);
            let scratch = scratch.pointer().add(worker * worker_scratch);
            let scratch = core::slice::from_raw_parts_mut(scratch, worker_scratch);
            product(compute.simd, size, c, c_stride, start, a, b, Causal::Whole, scratch);
        }
    });
    Ok(())
}

/// [`matmul_trusted`], where C is the end of the remaining elements in a relay: `at_once` columns at a time.
#[cfg(not(target_os = "none"))]
#[allow(clippy::too_many_arguments)]
pub(crate) fn matmul_in_turn(
    simd: InstructionSet,
    size: Size,
    turn: &mut Turn<'_>,
    at_once: usize,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scratch: &mut [f32],
) {
    let Size { m, n, k } = size;
    if check(size, m.saturating_mul(n), n, start, a, b, scratch.len()).is_err() {
        fault::report(&"matmul in turn");
        return;
    }
    turn.last_by_columns([m, n], at_once, |c, columns| {
        let (start, b) = (start.from(&columns), b.from(0, columns.start));
        let size = Size { m, n: columns.len(), k };
        // SAFETY: all sizes were checked for the whole product. Nobody else uses these columns of C meanwhile.
        unsafe { product(simd, size, c.add(columns.start), n, start, a, b, Causal::Whole, scratch) };
    });
}

/// The contract as readable code: the same bits as [`matmul`], element by element.
pub fn reference(
    size: Size,
    (c, c_stride): PerUnit<'_>,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
) -> Result<(), Error> {
    check(size, c.len(), c_stride, start, a, b, usize::MAX)?;
    for (i, row) in c.chunks_mut(c_stride.max(1)).take(size.m).enumerate() {
        for (j, element) in row.iter_mut().take(size.n).enumerate() {
            let mut sum = match start {
                Start::Zero => 0.0,
                Start::Bias(bias) => bias.get(j).copied().unwrap_or_default(),
                Start::Accumulate => *element,
            };
            for p in 0..size.k {
                let a = a.data.get(i * a.row_stride + p * a.column_stride).copied().unwrap_or_default();
                let b = b.data.get(p * b.row_stride + j * b.column_stride).copied().unwrap_or_default();
                sum = libm::fmaf(a, b, sum);
            }
            *element = sum;
        }
    }
    Ok(())
}

/// `C = start + A B`.
///
/// # Safety
/// - Every index that `size` and the strides imply must be within the matrices, C and the bias.
/// - C must be writable, and nobody else may use it meanwhile.
/// - `space` must hold [`scratch`] elements.
#[cfg(not(feature = "matrixmultiply"))]
#[allow(clippy::too_many_arguments)]
unsafe fn product(
    simd: InstructionSet,
    size: Size,
    c: *mut f32,
    c_stride: usize,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    causal: Causal,
    space: &mut [f32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        if simd.has_vectors() {
            packed::product(simd, size, c, c_stride, start, a, b, causal, space);
        } else {
            portable::product(size, c, c_stride, start, a, b, causal, space);
        }
    }
}

/// The product of the `matrixmultiply` crate, with another order of summation, for comparison.
///
/// # Safety
/// As for the product that it replaces.
#[cfg(feature = "matrixmultiply")]
#[allow(clippy::too_many_arguments)]
unsafe fn product(
    _: InstructionSet,
    Size { m, n, k }: Size,
    c: *mut f32,
    c_stride: usize,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    _: Causal,
    _: &mut [f32],
) {
    if let Start::Bias(bias) = start {
        for i in 0..m {
            // SAFETY: the caller promises `m` rows of `n`, and a bias of `n`.
            unsafe { core::ptr::copy_nonoverlapping(bias.as_ptr(), c.add(i * c_stride), n) };
        }
    }
    let beta = if let Start::Zero = start { 0.0 } else { 1.0 };
    let stride = |n: usize| n as isize;
    // SAFETY: the caller promises every index.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.data.as_ptr(),
            stride(a.row_stride),
            stride(a.column_stride),
            b.data.as_ptr(),
            stride(b.row_stride),
            stride(b.column_stride),
            beta,
            c,
            stride(c_stride),
            1,
        );
    }
}
