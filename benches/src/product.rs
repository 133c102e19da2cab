//! The shapes of matrix products that training needs, and three libraries that compute them on one thread.

use jostle::InstructionSet;
use jostle::matmul::{Matrix, Size, Start, matmul, scratch};

use crate::floats::{Floats, random, zeros};

/// One product: C `[m, n]` from A `[m, k]` and B `[k, n]`, row-major where not transposed.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its role in a training step.
    pub role: &'static str,
    /// Rows of C.
    pub m: usize,
    /// The inner index.
    pub k: usize,
    /// Columns of C.
    pub n: usize,
    /// Whether A lies `[k, m]` in memory.
    pub a_transposed: bool,
    /// Whether B lies `[n, k]` in memory.
    pub b_transposed: bool,
    /// Whether the product is added to C.
    pub accumulate: bool,
}

impl Shape {
    /// `m x k x n`, with a `'` behind a transposed operand's side and a `+` where C is added to.
    pub fn name(&self) -> String {
        let mark = |yes, mark| if yes { mark } else { "" };
        let Shape { m, k, n, .. } = self;
        format!(
            "{m}x{k}x{n}{}{}{}",
            mark(self.a_transposed, " A'"),
            mark(self.b_transposed, " B'"),
            mark(self.accumulate, " +"),
        )
    }

    /// Floating-point operations: a multiply-add counts as two.
    pub fn operations(&self) -> u64 {
        2 * (self.m * self.k * self.n) as u64
    }
}

/// `y = x W`: m rows, k inputs, n outputs.
const fn forward(m: usize, k: usize, n: usize) -> Shape {
    Shape { role: "forward", m, k, n, a_transposed: false, b_transposed: false, accumulate: false }
}

/// `d_x = d_y W^T` of the forward product with these sizes.
const fn backward(m: usize, k: usize, n: usize) -> Shape {
    Shape { role: "d_x", m, k: n, n: k, b_transposed: true, ..forward(m, k, n) }
}

/// `d_W += x^T d_y` of the forward product with these sizes.
const fn weights(m: usize, k: usize, n: usize) -> Shape {
    Shape { role: "d_W", m: k, k: m, n, a_transposed: true, accumulate: true, ..forward(m, k, n) }
}

/// The shapes of the table and the benchmark.
pub const SHAPES: &[Shape] = &[
    forward(64, 64, 64),
    // tiny: 256 rows, width 32
    forward(256, 32, 96),
    forward(256, 32, 128),
    backward(256, 32, 128),
    weights(256, 32, 128),
    // small: 768 rows, width 128
    forward(768, 128, 384),
    forward(768, 128, 128),
    forward(768, 128, 512),
    forward(768, 512, 128),
    backward(768, 128, 384),
    backward(768, 128, 128),
    backward(768, 128, 512),
    backward(768, 512, 128),
    weights(768, 128, 384),
    weights(768, 128, 128),
    weights(768, 128, 512),
    weights(768, 512, 128),
    // medium: 4096 rows, width 384
    forward(4096, 384, 1152),
    forward(4096, 384, 1536),
    backward(4096, 384, 1536),
    backward(4096, 1536, 384),
    backward(4096, 384, 1152),
    weights(4096, 384, 1536),
    weights(4096, 1536, 384),
    // gpt2: 256 rows, width 768
    forward(256, 768, 2304),
    forward(256, 768, 3072),
    forward(256, 3072, 768),
    backward(256, 768, 2304),
    backward(256, 768, 3072),
    backward(256, 3072, 768),
    weights(256, 768, 2304),
    weights(256, 768, 3072),
    weights(256, 3072, 768),
    // generation: one row; the second is the tied head's product
    forward(1, 768, 3072),
    backward(1, 768, 3072),
];

/// A library that computes products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// This project.
    Jostle,
    /// The `matrixmultiply` crate.
    MatrixMultiply,
    /// The `gemm` crate of the faer family.
    Gemm,
}

impl Library {
    /// All, this project first.
    pub const ALL: [Library; 3] = [Library::Jostle, Library::MatrixMultiply, Library::Gemm];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Library::Jostle => "jostle",
            Library::MatrixMultiply => "matrixmultiply",
            Library::Gemm => "gemm",
        }
    }
}

/// The operands of one shape, and space to work in.
pub struct Operands {
    shape: Shape,
    simd: InstructionSet,
    a: Floats,
    b: Floats,
    c: Floats,
    scratch: Floats,
}

impl Operands {
    /// Filled with numbers between minus and plus one half.
    pub fn new(shape: Shape, simd: InstructionSet) -> Operands {
        let Shape { m, k, n, .. } = shape;
        let [a, b, c] = [m * k, k * n, m * n].map(random);
        Operands { shape, simd, a, b, c, scratch: zeros(scratch(Size { m, n, k })) }
    }

    /// Computes the product once.
    pub fn compute(&mut self, library: Library) {
        let Shape { m, k, n, accumulate, .. } = self.shape;
        let operand = |data, rows, columns, transposed| {
            if transposed { Matrix::new(data, rows).transposed() } else { Matrix::new(data, columns) }
        };
        let a = operand(&self.a, m, k, self.shape.a_transposed);
        let b = operand(&self.b, k, n, self.shape.b_transposed);
        let (a_row, a_column) = (a.row_stride as isize, a.column_stride as isize);
        let (b_row, b_column) = (b.row_stride as isize, b.column_stride as isize);
        let c = &mut self.c[..];
        assert_eq!((a.data.len(), b.data.len(), c.len()), (m * k, k * n, m * n));
        match library {
            Library::Jostle => {
                let start = if accumulate { Start::Accumulate } else { Start::Zero };
                let size = Size { m, n, k };
                matmul(self.simd, size, (c, n), start, a, b, &mut self.scratch).expect("sizes agree");
            }
            Library::MatrixMultiply => {
                let (a, b, c) = (a.data.as_ptr(), b.data.as_ptr(), c.as_mut_ptr());
                let beta = if accumulate { 1.0 } else { 0.0 };
                // SAFETY: the three matrices have the lengths that sizes and strides imply.
                unsafe {
                    matrixmultiply::sgemm(
                        m, k, n, 1.0, a, a_row, a_column, b, b_row, b_column, beta, c, n as isize, 1,
                    );
                }
            }
            Library::Gemm => {
                let (a, b, c) = (a.data.as_ptr(), b.data.as_ptr(), c.as_mut_ptr());
                let none = gemm::Parallelism::None;
                // SAFETY: as above.
                unsafe {
                    gemm::gemm(
                        m, n, k, c, 1, n as isize, accumulate, a, a_column, a_row, b, b_column, b_row, 1.0,
                        1.0, false, false, false, none,
                    );
                }
            }
        }
    }

    /// C, as the last product left it.
    pub fn result(&self) -> &[f32] {
        &self.c
    }
}
