//! Single operations on the caller's buffers, for programs with a model of their own. Matrices are row-major and float.
//! Sizes of buffers are in bytes, all other sizes in elements. There is one file per operation, as in the core.

pub mod attention;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod gelu;
pub mod layer_norm;
pub mod linear;
pub mod matmul;
pub mod optimizer;
pub mod rms_norm;
pub mod rotary;
pub mod softmax;
pub mod swiglu;

use jostle::Error;

use crate::status::{Call, Refused};

/// The product of two sizes, refused if it overflows.
fn area(call: &Call, rows: usize, columns: usize) -> Result<usize, Refused> {
    let area = rows.checked_mul(columns);
    area.ok_or_else(|| call.refuse_as_core(&Error::TooLarge { what: "rows and width" }))
}

fn bytes(elements: usize) -> usize {
    elements.saturating_mul(size_of::<f32>())
}
