//! Matrix products.

use jostle::Error;
use jostle::matmul::{self, Matrix, Size, Start};

use super::bytes;
use crate::border::{Buffers, input};
use crate::compute::{Workers, jostle_compute};
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_error, jostle_status};

/// A matrix that is read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_matrix {
    /// Its first element.
    pub data: *const f32,
    /// The size of `data` in bytes.
    pub size: usize,
    /// The distance from one row to the next, in elements.
    pub row_stride: usize,
    /// The distance from one column to the next, in elements; 1 for a row-major matrix.
    pub column_stride: usize,
}

/// The value that each element of a product starts from.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_start {
    /// Zero; C is not read.
    JOSTLE_START_ZERO = 0,
    /// The bias of its column; C is not read.
    JOSTLE_START_BIAS = 1,
    /// The element of C.
    JOSTLE_START_ACCUMULATE = 2,
}

/// The number of elements from the first to the last of a matrix with these strides.
fn reach(
    call: &Call,
    what: &'static str,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
) -> Result<usize, Refused> {
    let (Some(row), Some(column)) = (rows.checked_sub(1), columns.checked_sub(1)) else { return Ok(0) };
    let last = row.checked_mul(row_stride).zip(column.checked_mul(column_stride));
    let count = last.and_then(|(row, column)| row.checked_add(column)?.checked_add(1));
    count.ok_or_else(|| call.refuse_as_core(&Error::TooLarge { what }))
}

/// The size in bytes of the scratch that a product of an [m, k] by a [k, n] matrix needs on one thread. A smaller product
/// does not need more.
#[unsafe(no_mangle)]
pub extern "C" fn jostle_matmul_scratch_size(m: usize, n: usize, k: usize) -> usize {
    bytes(matmul::scratch(Size { m, n, k }))
}

/// C = start + A B, with C [m, n] of rows `c_stride` elements apart, A [m, k], B [k, n]. Each element is one chain
/// of fused multiply-adds over the inner index in ascending order. To transpose a matrix, exchange its strides.
///
/// `start`: a jostle_start; `bias` [n] is only read with JOSTLE_START_BIAS. Each thread needs jostle_matmul_scratch_size bytes
/// of `scratch`, whose size limits the number of threads that work.
///
/// # Safety
/// `compute` is NULL or readable; `a` and `b` are readable and their data is; `bias` is readable, `c` and `scratch`
/// writable for the given number of bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_matmul(
    compute: *const jostle_compute,
    m: usize,
    n: usize,
    k: usize,
    c: *mut f32,
    c_size: usize,
    c_stride: usize,
    start: u32,
    bias: *const f32,
    bias_size: usize,
    a: *const jostle_matrix,
    b: *const jostle_matrix,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let workers = Workers::new(call, compute)?;
            let (a, b) = (input(call, "a", a)?, input(call, "b", b)?);
            let c = buffers.write("c", c, c_size, reach(call, "c", m, n, c_stride, 1)?)?;
            let mut matrix = |what, given: &jostle_matrix, rows, columns| {
                let jostle_matrix { data, size, row_stride, column_stride } = *given;
                let wanted = reach(call, what, rows, columns, row_stride, column_stride)?;
                let data = buffers.read(what, data, size, wanted)?;
                Ok::<_, Refused>(Matrix { data, row_stride, column_stride })
            };
            let (a, b) = (matrix("a", a, m, k)?, matrix("b", b, k, n)?);
            let start = match start {
                given if given == jostle_start::JOSTLE_START_ZERO as u32 => Start::Zero,
                given if given == jostle_start::JOSTLE_START_BIAS as u32 => {
                    Start::Bias(buffers.read("bias", bias, bias_size, n)?)
                }
                given if given == jostle_start::JOSTLE_START_ACCUMULATE as u32 => Start::Accumulate,
                given => return Err(call.refuse(Refusal::Choice { what: "start", given })),
            };
            let size = Size { m, n, k };
            let one = matmul::scratch(size);
            let compute = workers.compute();
            let room = scratch_size.checked_div(bytes(one)).unwrap_or(0);
            let parts = room.min(compute.parallel.threads()).max(1);
            let scratch = buffers.write("scratch", scratch, scratch_size, one.saturating_mul(parts))?;
            matmul::matmul_parallel(compute, size, (c, c_stride), start, a, b, (scratch, one))
                .or_refuse(call)?;
            Ok(())
        })
    }
}
