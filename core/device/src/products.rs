//! Products against the reference, bit by bit.

use jostle::InstructionSet;
use jostle::matmul::{Matrix, Size, Start, matmul, reference, scratch};

/// Elements of each operand: sides up to 11 and 70, with strides of up to twice that.
const LENGTH: usize = 11 * 70 * 2 + 64;

static mut OPERANDS: [[f32; LENGTH]; 5] = [[0.0; _]; _];

pub struct Random(pub u32);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// Of either sign, over eight powers of two.
    pub fn number(&mut self) -> f32 {
        let bits = self.bits();
        f32::from_bits((bits & 0x807f_ffff) | (123 + (bits >> 23 & 7)) << 23)
    }
}

/// The layouts of a matrix of `rows` by `columns`.
fn matrices(data: &[f32], rows: usize, columns: usize) -> [Matrix<'_>; 4] {
    [
        Matrix::new(data, columns),
        Matrix::new(data, columns + 3),
        Matrix::new(data, rows).transposed(),
        Matrix { data, row_stride: 2 * columns, column_stride: 2 },
    ]
}

/// The longest side of a product here.
const LARGEST: Size = Size { m: 64, n: 64, k: 64 };

/// The number of products compared, or the size of one that is wrong.
pub fn compare(sides: &[usize], inner: &[usize]) -> Result<u32, Size> {
    // SAFETY: the only thread, and no other borrow.
    let [a, b, bias, c, wanted] = unsafe { &mut *&raw mut OPERANDS };
    let mut random = Random(2463534242);
    for x in [&mut *a, &mut *b, &mut *bias] {
        x.iter_mut().for_each(|x| *x = random.number());
    }
    let (mut count, mut space) = (0, [0.0; scratch(LARGEST)]);
    for (m, n, k) in
        sides.iter().flat_map(|&m| sides.iter().flat_map(move |&n| inner.iter().map(move |&k| (m, n, k))))
    {
        let size = Size { m, n, k };
        for a in matrices(a, m, k) {
            for b in matrices(b, k, n) {
                for start in [Start::Zero, Start::Bias(bias), Start::Accumulate] {
                    let stride = n + count as usize % 3;
                    c.iter_mut().for_each(|c| *c = random.number());
                    *wanted = *c;
                    let done = matmul(InstructionSet::PORTABLE, size, (c, stride), start, a, b, &mut space);
                    let known = reference(size, (wanted, stride), start, a, b);
                    let same = c.iter().zip(&*wanted).all(|(c, wanted)| c.to_bits() == wanted.to_bits());
                    if done.is_err() || known.is_err() || !same {
                        return Err(size);
                    }
                    count += 1;
                }
            }
        }
    }
    Ok(count)
}

/// The instructions of a product whose sides are all `side`, for each layout of A and B that models use.
pub fn count(side: usize, counter: fn() -> u32) -> [u32; 3] {
    static mut LARGE: [[f32; 64 * 64]; 3] = [[0.5; _]; _];
    // SAFETY: as above.
    let [a, b, c] = unsafe { &mut *&raw mut LARGE };
    let (a, b) = (Matrix::new(a, side), Matrix::new(b, side));
    let (size, mut space) = (Size { m: side, n: side, k: side }, [0.0; scratch(LARGEST)]);
    [(a, b.transposed()), (a, b), (a.transposed(), b)].map(|(a, b)| {
        let before = counter();
        let result = matmul(InstructionSet::PORTABLE, size, (c, side), Start::Accumulate, a, b, &mut space);
        core::hint::black_box(&result);
        counter().wrapping_sub(before)
    })
}
