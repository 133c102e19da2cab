use core::ops::RangeInclusive;
use std::thread;
use std::vec;
use std::vec::Vec;

use crate::simd::{self, InstructionSet, vectorized};
use crate::test_common::{Random, instruction_sets};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    ExpOfNegative,
    Log,
    Normal,
}

const FUNCTIONS: [Function; 3] = [ExpOfNegative, Log, Normal];

use Function::*;

vectorized! {
    fn evaluate<V>(y: &mut [f32], x: &[f32], function: Function) {
        match function {
            ExpOfNegative => simd::map(y, [x], |_, [x]: [V; 1]| super::exp_of_negative(x)),
            Log => simd::map(y, [x], |_, [x]: [V; 1]| super::log(x)),
            Normal => simd::map(y, [x], |_, [x]: [V; 1]| {
                let (_, tail, _) = super::normal_tail(x);
                V::select(x.lt(V::zero()), tail, V::splat(1.0).sub(tail))
            }),
        }
    }
}

impl Function {
    /// The exact value, to the precision of an f64.
    fn exact(self, x: f64) -> f64 {
        match self {
            ExpOfNegative => libm::exp(x),
            // Five times as fast as the function of the `libm` crate.
            Log => x.ln(),
            Normal => 0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2),
        }
    }

    /// The weighted error. In the normal distribution's lower half, floats are denser than in the upper half, but the
    /// absolute error is about the same. Farther down, the rounding of the exponent's square dominates.
    fn counted(self, x: f32, ulps: f64) -> f64 {
        if self == Normal && x < 0.0 { ulps / (1.65 * (1.0 + f64::from(x * x))) } else { ulps }
    }

    /// The largest allowed error in weighted ulps. The measured errors over all floats are smaller: 0.905 (exp),
    /// 0.875 (log) and 1.714.
    fn bound(self) -> f64 {
        match self {
            ExpOfNegative => 0.91,
            Log => 0.88,
            Normal => 1.72,
        }
    }

    fn one(self, simd: InstructionSet, x: f32) -> f32 {
        let mut y = [0.0];
        evaluate(simd, &mut y, &[x], self);
        y[0]
    }
}

/// The distance from the exact value, in units of its last place as an f32 (2^-149 for denormals). Infinity counts as
/// 2^128, which would be the next float.
fn ulps(y: f32, exact: f64) -> f64 {
    let exponent = (((exact.to_bits() >> 52) & 0x7ff) as i64 - 1023).clamp(-126, 127);
    let unit = f64::from_bits(((exponent - 23 + 1023) as u64) << 52);
    let limit = 2.0_f64.powi(128);
    ((f64::from(y).clamp(-limit, limit) - exact.clamp(-limit, limit)) / unit).abs()
}

/// Floats with the same sign in order of magnitude, and a source of their exact values.
struct Region {
    function: Function,
    bits: RangeInclusive<u32>,
    exact: Exact,
}

enum Exact {
    /// The f64 function of the `libm` crate.
    Libm,
    /// The function is so flat there that its correctly rounded value is constant.
    Constant(f32),
}

fn regions() -> Vec<Region> {
    const SIGN: u32 = 1 << 31;
    let float = |x: f32| x.to_bits();
    let (tiny, largest) = (float(1.0 / 67_108_864.0), float(f32::MAX));
    let region = |function, bits, exact| Region { function, bits, exact };
    vec![
        region(Log, float(f32::MIN_POSITIVE)..=largest, Exact::Libm),
        region(ExpOfNegative, SIGN..=SIGN | tiny, Exact::Constant(1.0)),
        region(ExpOfNegative, SIGN | tiny..=float(-87.3), Exact::Libm),
        region(Normal, 0..=tiny, Exact::Constant(0.5)),
        region(Normal, tiny..=float(5.6), Exact::Libm),
        region(Normal, float(5.6)..=largest, Exact::Constant(1.0)),
        region(Normal, SIGN..=SIGN | tiny, Exact::Constant(0.5)),
        region(Normal, SIGN | tiny..=float(-13.0), Exact::Libm),
    ]
}

/// The greatest error over every `stride`th float of a region, and its argument.
fn greatest_error(simd: InstructionSet, region: &Region, stride: u32) -> (f64, f32) {
    const BLOCK: usize = 1024;
    let (first, last) = (*region.bits.start(), *region.bits.end());
    if let Exact::Constant(value) = region.exact {
        for end in [first, last] {
            let exact = region.function.exact(f64::from(f32::from_bits(end)));
            assert_eq!(exact as f32, value, "{:?} at {:e}", region.function, f32::from_bits(end));
        }
    }
    let count = (last - first) / stride + 1;
    let one_thread = |thread: u32, threads: u32| {
        let mut worst = (0.0, 0.0);
        let (mut x, mut y) = ([0.0; BLOCK], [0.0; BLOCK]);
        let bound = |thread: u32| (u64::from(count) * u64::from(thread) / u64::from(threads)) as u32;
        for start in (bound(thread)..bound(thread + 1)).step_by(BLOCK) {
            for (i, x) in x.iter_mut().enumerate() {
                let number = count.saturating_sub(1).min(start + i as u32);
                *x = f32::from_bits(first + number * stride);
            }
            evaluate(simd, &mut y, &x, region.function);
            let mut all = |error: &dyn Fn(f32, f32) -> f64| {
                for (x, y) in x.iter().zip(&y) {
                    let error = error(*x, *y);
                    let error = if error.is_nan() { f64::INFINITY } else { error };
                    if error > worst.0 {
                        worst = (error, *x);
                    }
                }
            };
            match region.exact {
                Exact::Constant(value) => {
                    if y != [value; BLOCK] {
                        all(&|_, y| ulps(y, f64::from(value)));
                    }
                }
                Exact::Libm => {
                    all(&|x, y| region.function.counted(x, ulps(y, region.function.exact(f64::from(x)))))
                }
            }
        }
        worst
    };
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u32);
    thread::scope(|scope| {
        let one_thread = &one_thread;
        let workers: Vec<_> = (0..threads).map(|i| scope.spawn(move || one_thread(i, threads))).collect();
        let results = workers.into_iter().map(|worker| worker.join().unwrap());
        results.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    })
}

/// The fastest set is compared with the exact values, the others with its bits.
fn assert_within_bounds(stride: u32) {
    let simd = *instruction_sets().last().unwrap();
    let mut results = Vec::new();
    for function in FUNCTIONS {
        let regions = regions().into_iter().filter(|region| region.function == function);
        let errors = regions.map(|region| greatest_error(simd, &region, stride));
        let (error, at) = errors.fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        std::println!("{function:?}: at most {error:.3} ulp, at {at:e} ({:#010x})", at.to_bits());
        results.push((function, error, at));
    }
    for (function, error, at) in results {
        assert!(error <= function.bound(), "{function:?} is {error} ulp off at {at:e}");
    }
}

#[test]
fn functions_are_within_their_bounds_at_every_1021st_float() {
    assert_within_bounds(1021);
}

#[test]
#[ignore = "exhaustive: about a minute on two cores"]
fn functions_are_within_their_bounds_at_all_floats() {
    assert_within_bounds(1);
}

#[test]
fn special_values_are_what_the_standard_library_gives() {
    let (inf, nan, least) = (f32::INFINITY, f32::NAN, f32::from_bits(1));
    let denormal = f32::from_bits(0x0012_3456);
    for simd in instruction_sets() {
        for x in [0.0, -0.0, -denormal] {
            assert_eq!(ExpOfNegative.one(simd, x), 1.0, "exp({x:e}) with {}", simd.name());
        }
        for x in [-87.69, -88.0, -89.0, -104.0, f32::MIN, -inf] {
            let y = ExpOfNegative.one(simd, x);
            assert_eq!(y.to_bits(), 0, "exp({x:e}) is {y:e} with {}", simd.name());
        }
        for (x, y) in [(1.0, 0.0), (inf, inf), (0.0, -inf), (-0.0, -inf)] {
            assert_eq!(Log.one(simd, x).to_bits(), f32::to_bits(y), "log({x:e}) with {}", simd.name());
        }
        for x in [-inf, -1.0, f32::MIN, -f32::MIN_POSITIVE, -denormal] {
            assert!(Log.one(simd, x).is_nan(), "log({x:e}) with {}", simd.name());
        }
        for x in [least, denormal, f32::from_bits(0x007f_ffff)] {
            let error = ulps(Log.one(simd, x), Log.exact(f64::from(x)));
            assert!(error <= Log.bound(), "log({x:e}) is {error} ulp off with {}", simd.name());
        }
        for (x, y) in [(0.0, 0.5), (inf, 1.0), (-inf, 0.0), (f32::MAX, 1.0), (f32::MIN, 0.0), (-13.25, 0.0)] {
            assert_eq!(Normal.one(simd, x).to_bits(), f32::to_bits(y), "normal({x:e}) with {}", simd.name());
        }
        for function in FUNCTIONS {
            for x in [nan, -nan] {
                assert!(function.one(simd, x).is_nan(), "{function:?} of NaN with {}", simd.name());
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let mut random = Random::new(1);
    let mut x: Vec<f32> = (0..500_000).map(|_| random.any()).collect();
    x.extend((0..1_000_000).map(|_| random.number() * 16.0));
    x.extend((0..500_001).map(|_| random.number() * 110.0));
    for function in FUNCTIONS {
        let mut wanted = vec![0.0; x.len()];
        evaluate(InstructionSet::PORTABLE, &mut wanted, &x, function);
        for simd in instruction_sets() {
            let mut y = vec![0.0; x.len()];
            evaluate(simd, &mut y, &x, function);
            for ((y, wanted), x) in y.iter().zip(&wanted).zip(&x) {
                let same = y.to_bits() == wanted.to_bits() || y.is_nan() && wanted.is_nan();
                assert!(same, "{function:?}({x:e}) is {y:e} with {}, else {wanted:e}", simd.name());
            }
        }
    }
}
