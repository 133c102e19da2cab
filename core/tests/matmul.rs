//! Matrix products: the contract's bits, the bounds of every slice, and errors.

mod common;

use common::{Random, Threads, bits, compute, instruction_sets};
use jostle::matmul::{Matrix, Size, Start, matmul, matmul_parallel, reference, scratch};
use jostle::{Error, InstructionSet};

const GUARD: f32 = -7.25e30;

#[derive(Clone, Copy, Debug)]
enum From {
    Zero,
    Bias,
    Accumulate,
}

const STARTS: [From; 3] = [From::Zero, From::Bias, From::Accumulate];

/// One product: sizes, operands, and C's values before it.
struct Case {
    size: Size,
    a: Vec<f32>,
    b: Vec<f32>,
    a_transposed: bool,
    b_transposed: bool,
    bias: Vec<f32>,
    from: From,
    c: Vec<f32>,
    c_stride: usize,
    /// The stride of B's rows or columns in memory.
    b_apart: usize,
}

impl Case {
    fn new(
        random: &mut Random,
        (m, n, k): (usize, usize, usize),
        from: From,
        transposed: (bool, bool),
    ) -> Case {
        let c_stride = n + random.size(0, 5);
        let c_length = if m == 0 || n == 0 { 0 } else { (m - 1) * c_stride + n };
        let mut c = vec![GUARD; c_length];
        for row in c.chunks_mut(c_stride.max(1)) {
            row.iter_mut().take(n).for_each(|c| *c = random.number());
        }
        Case {
            size: Size { m, n, k },
            a: random.numbers(m * k),
            b: random.numbers(k * n),
            a_transposed: transposed.0,
            b_transposed: transposed.1,
            bias: random.numbers(n),
            from,
            c,
            c_stride,
            b_apart: 0,
        }
    }

    fn start(&self) -> Start<'_> {
        match self.from {
            From::Zero => Start::Zero,
            From::Bias => Start::Bias(&self.bias),
            From::Accumulate => Start::Accumulate,
        }
    }

    fn a(&self) -> Matrix<'_> {
        let Size { m, k, .. } = self.size;
        if self.a_transposed { Matrix::new(&self.a, m).transposed() } else { Matrix::new(&self.a, k) }
    }

    fn b(&self) -> Matrix<'_> {
        let Size { n, k, .. } = self.size;
        let line = if self.b_transposed { k } else { n } + self.b_apart;
        if self.b_transposed { Matrix::new(&self.b, line).transposed() } else { Matrix::new(&self.b, line) }
    }

    /// Increases that stride.
    fn spread_b(&mut self, apart: usize, filler: f32) {
        let line = if self.b_transposed { self.size.k } else { self.size.n };
        let fill = vec![filler; apart];
        self.b = self.b.chunks(line).flat_map(|line| line.iter().chain(&fill)).copied().collect();
        self.b_apart = apart;
    }

    fn wanted(&self) -> Vec<f32> {
        let mut c = self.c.clone();
        reference(self.size, (&mut c, self.c_stride), self.start(), self.a(), self.b()).unwrap();
        c
    }

    fn name(&self) -> String {
        let Size { m, n, k } = self.size;
        format!("{m}x{n}x{k} from {:?}, {}{}", self.from, self.a_transposed as u8, self.b_transposed as u8)
    }

    /// C by [`matmul`]. C and a scratch of the exact length have guards on both sides.
    fn got(&self, simd: InstructionSet) -> Vec<f32> {
        let (c_length, scratch_length) = (self.c.len(), scratch(self.size));
        const AROUND: usize = 40;
        let mut c = vec![GUARD; c_length + 2 * AROUND];
        c[AROUND..AROUND + c_length].copy_from_slice(&self.c);
        let mut space = vec![GUARD; scratch_length + 60_000];
        let (inner, after) = space.split_at_mut(scratch_length);
        let middle = &mut c[AROUND..AROUND + c_length];
        matmul(simd, self.size, (middle, self.c_stride), self.start(), self.a(), self.b(), inner).unwrap();
        assert!(after.iter().all(|x| *x == GUARD), "{}: wrote behind the scratch", self.name());
        let (before, rest) = c.split_at(AROUND);
        let (middle, after) = rest.split_at(c_length);
        assert!(before.iter().chain(after).all(|x| *x == GUARD), "{}: wrote around C", self.name());
        middle.to_vec()
    }

    fn parallel(&self, simd: InstructionSet, threads: usize, parts: usize) -> Vec<f32> {
        let worker = scratch(self.size);
        let mut space = vec![GUARD; worker * parts];
        let mut c = self.c.clone();
        let threads = Threads(threads);
        let operands = (self.start(), self.a(), self.b());
        let (start, a, b) = operands;
        matmul_parallel(
            compute(simd, &threads),
            self.size,
            (&mut c, self.c_stride),
            start,
            a,
            b,
            (&mut space, worker),
        )
        .unwrap();
        c
    }
}

#[track_caller]
fn assert_contract(got: &[f32], wanted: &[f32], case: &Case, simd: InstructionSet) {
    let what = format!("{} with {}", case.name(), simd.name());
    if cfg!(feature = "matrixmultiply") {
        assert_close(got, wanted, case, &what);
    } else {
        common::assert_same_bits(got, wanted, what);
    }
}

/// Any order of k + 1 additions and k products has an error of at most (k + 2) u times the sum of magnitudes (Higham 2002,
/// section 3.1, u = 2^-24). Each of the two results may have that error.
#[track_caller]
fn assert_close(got: &[f32], wanted: &[f32], case: &Case, what: &str) {
    let Size { m, n, k } = case.size;
    let unit = 2.0_f64.powi(-24);
    for i in 0..m {
        for j in 0..n {
            let (a, b) = (case.a(), case.b());
            let mut magnitude = match case.from {
                From::Zero => 0.0,
                From::Bias => f64::from(case.bias[j].abs()),
                From::Accumulate => f64::from(case.c[i * case.c_stride + j].abs()),
            };
            for p in 0..k {
                let a = a.data[i * a.row_stride + p * a.column_stride];
                let b = b.data[p * b.row_stride + j * b.column_stride];
                magnitude += f64::from((a * b).abs());
            }
            let at = i * case.c_stride + j;
            let error = (f64::from(got[at]) - f64::from(wanted[at])).abs();
            let bound = 2.0 * (k + 2) as f64 * unit * magnitude;
            assert!(error <= bound, "{what}: [{i}, {j}] is {error:e} off; the bound is {bound:e}");
        }
    }
}

fn all_variants(random: &mut Random, sizes: (usize, usize, usize)) -> Vec<Case> {
    let mut cases = Vec::new();
    for from in STARTS {
        for transposed in [(false, false), (false, true), (true, false), (true, true)] {
            cases.push(Case::new(random, sizes, from, transposed));
        }
    }
    cases
}

#[test]
fn the_product_of_known_numbers_is_known() {
    let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7.0, 8.0, 9.0, 10.0, 11.0, 12.0]);
    for simd in instruction_sets() {
        let mut c = [0.0; 4];
        let size = Size { m: 2, n: 2, k: 3 };
        let mut space = vec![0.0; scratch(size)];
        let (a, b) = (Matrix::new(&a, 3), Matrix::new(&b, 2));
        matmul(simd, size, (&mut c, 2), Start::Bias(&[1000.0, 2000.0]), a, b, &mut space).unwrap();
        assert_eq!(c, [1058.0, 2064.0, 1139.0, 2154.0]);
    }
}

#[test]
fn the_reference_rounds_each_multiply_add_once_and_in_order() {
    // 1 + 2^-24 rounds to 1; a fused product keeps the bits that a rounded product loses.
    let (a, b) = ([1.0, 1.0 + f32::EPSILON, -1.0], [1.0, 1.0 - f32::EPSILON, 1.0]);
    let mut c = [0.0];
    let size = Size { m: 1, n: 1, k: 3 };
    reference(size, (&mut c, 1), Start::Zero, Matrix::new(&a, 3), Matrix::new(&b, 1)).unwrap();
    let second = f64::from(a[1]).mul_add(f64::from(b[1]), 1.0) as f32;
    assert_eq!(c[0], second - 1.0);
    let mut c = [-1.0];
    let size = Size { m: 1, n: 1, k: 1 };
    reference(size, (&mut c, 1), Start::Accumulate, Matrix::new(&a[1..2], 1), Matrix::new(&b[1..2], 1))
        .unwrap();
    assert_eq!(c[0], -f32::EPSILON * f32::EPSILON);
}

#[test]
fn small_products_equal_the_reference() {
    let mut random = Random::new(2);
    for _ in 0..150 {
        let sizes = (random.size(1, 40), random.size(1, 40), random.size(1, 40));
        for case in all_variants(&mut random, sizes) {
            let wanted = case.wanted();
            for simd in instruction_sets() {
                assert_contract(&case.got(simd), &wanted, &case, simd);
            }
        }
    }
}

#[test]
fn products_that_cross_blocks_equal_the_reference() {
    let mut random = Random::new(3);
    for sizes in [
        // A B with a small stride, which is packed; one with a large stride; an A with a large stride.
        (258, 150, 70),
        (17, 700, 800),
        (690, 17, 770),
        (85, 257, 257),
        (84, 256, 256),
        (16, 272, 512),
        (15, 700, 300),
        (200, 17, 513),
        (1, 530, 520),
        (7, 530, 260),
        (300, 1, 300),
        (169, 33, 1),
    ] {
        for case in all_variants(&mut random, sizes) {
            let wanted = case.wanted();
            for simd in instruction_sets() {
                assert_contract(&case.got(simd), &wanted, &case, simd);
            }
        }
    }
}

#[test]
fn single_rows_equal_the_reference() {
    let mut random = Random::new(11);
    for n in [1, 15, 16, 17, 31, 32, 33, 100] {
        for k in [1, 7, 15, 16, 17, 32, 33, 63, 67] {
            for mut case in all_variants(&mut random, (1, n, k)) {
                let wanted = case.wanted();
                for simd in instruction_sets() {
                    assert_contract(&case.got(simd), &wanted, &case, simd);
                }
                // The same B with a larger stride, like a head within rows of keys.
                let apart = random.size(1, 40);
                case.spread_b(apart, random.number());
                for simd in instruction_sets() {
                    assert_contract(&case.got(simd), &wanted, &case, simd);
                }
            }
        }
    }
}

#[test]
fn few_rows_and_many_columns_stay_within_the_scratch() {
    let mut random = Random::new(4);
    for m in 1..=17 {
        for case in all_variants(&mut random, (m, 1500, 20)) {
            let wanted = case.wanted();
            for simd in instruction_sets() {
                assert_contract(&case.got(simd), &wanted, &case, simd);
            }
        }
    }
}

/// Sizes without an element of C take no time, and a single column may have any stride.
#[test]
fn absurd_sizes_and_strides_are_harmless() {
    let nothing = Matrix { data: &[], row_stride: 1, column_stride: 1 };
    let one = Matrix { data: &[2.0], row_stride: usize::MAX, column_stride: usize::MAX };
    let compute = jostle::Compute::serial();
    for size in [Size { m: 0, n: 1 << 60, k: 0 }, Size { m: 1 << 60, n: 0, k: 0 }] {
        let mut room = vec![0.0; scratch(size)];
        let (start, room) = (Start::Zero, &mut room[..]);
        assert_eq!(matmul(compute.simd, size, (&mut [], 0), start, nothing, nothing, room), Ok(()));
        let room = (room, scratch(size));
        assert_eq!(matmul_parallel(compute, size, (&mut [], 0), start, nothing, nothing, room), Ok(()));
    }
    let size = Size { m: 1, n: 1, k: 1 };
    let (mut c, mut room) = ([0.0], vec![0.0; scratch(size)]);
    matmul(compute.simd, size, (&mut c, usize::MAX), Start::Zero, one, one, &mut room).unwrap();
    assert_eq!(c, [4.0]);
}

#[test]
fn an_empty_inner_index_gives_the_start() {
    let mut random = Random::new(5);
    for sizes in [(3, 5, 0), (20, 40, 0), (0, 5, 3), (3, 0, 5), (0, 0, 0), (17, 300, 0)] {
        for case in all_variants(&mut random, sizes) {
            let wanted = case.wanted();
            for simd in instruction_sets() {
                assert_contract(&case.got(simd), &wanted, &case, simd);
                assert_contract(&case.parallel(simd, 3, 3), &wanted, &case, simd);
            }
        }
    }
}

#[test]
fn extreme_numbers_take_the_same_course_on_every_set() {
    if cfg!(feature = "matrixmultiply") {
        return;
    }
    let mut random = Random::new(6);
    for _ in 0..40 {
        let sizes = (random.size(1, 20), random.size(1, 40), random.size(1, 12));
        for mut case in all_variants(&mut random, sizes) {
            // Products are denormal, overflow, or cancel to zeros of either sign.
            let numbers = [0.0, -0.0, 1e-38, -1e-42, 3e-20, -2e19, 1.5e19, 1e-45, 1.0, -1.0];
            for x in case.a.iter_mut().chain(&mut case.b) {
                *x = numbers[random.size(0, numbers.len() - 1)];
            }
            let wanted = case.wanted();
            for simd in instruction_sets() {
                for (i, (got, wanted)) in case.got(simd).iter().zip(&wanted).enumerate() {
                    let same = got.to_bits() == wanted.to_bits() || got.is_nan() && wanted.is_nan();
                    assert!(same, "{} with {}: {i}: {got:e}, not {wanted:e}", case.name(), simd.name());
                }
            }
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let mut random = Random::new(7);
    for sizes in [(3, 5, 7), (40, 60, 50), (61, 130, 90), (200, 40, 30), (33, 300, 20), (7, 1000, 13)] {
        for case in all_variants(&mut random, sizes) {
            let wanted = case.wanted();
            for simd in instruction_sets() {
                for (threads, parts) in [(1, 1), (2, 2), (3, 3), (5, 5), (5, 2), (2, 7)] {
                    assert_contract(&case.parallel(simd, threads, parts), &wanted, &case, simd);
                }
            }
        }
    }
}

#[test]
fn a_part_of_scratch_may_exceed_the_whole() {
    let mut random = Random::new(8);
    let case = Case::new(&mut random, (64, 64, 64), From::Zero, (false, false));
    let mut c = case.c.clone();
    let mut space = vec![0.0; scratch(case.size)];
    let (threads, size, a, b) = (Threads(3), case.size, case.a(), case.b());
    let simd = InstructionSet::detect();
    let c_part = (&mut c[..], case.c_stride);
    matmul_parallel(compute(simd, &threads), size, c_part, Start::Zero, a, b, (&mut space, usize::MAX))
        .unwrap();
    assert_contract(&c, &case.wanted(), &case, simd);
}

/// The errors of all calls for a case with one slice cut short. They may not write anything.
fn refusals(case: &Case, cut: impl Fn(&'static str, usize) -> usize) -> Vec<Error> {
    let (a, b) = (case.a(), case.b());
    let a = Matrix { data: &a.data[..cut("A", a.data.len())], ..a };
    let b = Matrix { data: &b.data[..cut("B", b.data.len())], ..b };
    let start = match case.start() {
        Start::Bias(bias) => Start::Bias(&bias[..cut("bias", bias.len())]),
        other => other,
    };
    let mut c = case.c[..cut("C", case.c.len())].to_vec();
    let before = bits(&c);
    let mut space = vec![GUARD; cut("scratch", scratch(case.size))];
    let stride = cut("row of C", case.c_stride);
    let mut errors = Vec::new();
    for simd in instruction_sets() {
        errors.push(matmul(simd, case.size, (&mut c, stride), start, a, b, &mut space).unwrap_err());
        let (threads, worker) = (Threads(2), space.len());
        let compute = compute(simd, &threads);
        let scratch = (&mut space[..], worker);
        errors.push(matmul_parallel(compute, case.size, (&mut c, stride), start, a, b, scratch).unwrap_err());
        assert_eq!(bits(&c), before);
        assert!(space.iter().all(|x| *x == GUARD));
    }
    errors
}

#[test]
fn a_slice_one_element_short_is_refused_and_nothing_written() {
    let mut random = Random::new(9);
    for mut case in all_variants(&mut random, (5, 33, 9)) {
        let Size { m, n, k } = case.size;
        let c_length = case.c.len();
        for (what, wanted) in
            [("A", m * k), ("B", k * n), ("bias", n), ("C", c_length), ("scratch", scratch(case.size))]
        {
            if what == "bias" && !matches!(case.from, From::Bias) {
                continue;
            }
            let cut = |name, length| if name == what { length - 1 } else { length };
            for error in refusals(&case, cut) {
                assert_eq!(error, Error::Length { what, given: wanted - 1, wanted });
            }
        }
        case.c_stride = n - 1;
        for error in refusals(&case, |_, length| length) {
            assert_eq!(error, Error::Length { what: "row of C", given: n - 1, wanted: n });
        }
    }
}

#[test]
fn sizes_that_overflow_are_refused() {
    let huge = usize::MAX / 2;
    let space = &mut [0.0; 0][..];
    let size = Size { m: huge, n: 1, k: huge };
    let data = [0.0; 4];
    let (a, b) = (Matrix::new(&data, huge), Matrix::new(&data, 1));
    let mut c = [GUARD; 4];
    let result = matmul(InstructionSet::PORTABLE, size, (&mut c, huge), Start::Zero, a, b, space);
    assert_eq!(result, Err(Error::TooLarge { what: "C" }));
    let size = Size { m: 3, n: 1, k: huge };
    let result = matmul(InstructionSet::PORTABLE, size, (&mut c, 1), Start::Zero, a, b, space);
    assert_eq!(result, Err(Error::TooLarge { what: "A" }));
    assert_eq!(c, [GUARD; 4]);
}

#[test]
fn scratch_grows_with_every_size() {
    let mut random = Random::new(10);
    for _ in 0..10_000 {
        let [m, n, k] = [(); 3].map(|()| random.size(0, 400));
        let [of_m, of_n, of_k] = [(); 3].map(|()| random.size(0, 100));
        let more = scratch(Size { m: m + of_m, n: n + of_n, k: k + of_k });
        assert!(scratch(Size { m, n, k }) <= more, "{m} {n} {k}");
    }
}
