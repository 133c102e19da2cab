use std::vec;
use std::vec::Vec;
use std::{format, string::String};

use super::{InstructionSet, LANES, processor, vectorized};
use crate::test_common::{Random, assert_same_bits, bits, instruction_sets};

type Lanes = [f32; LANES];

/// Results that are exact to the bit, and results of arithmetic, where all NaNs are equal.
#[derive(Debug, Default)]
struct Results {
    exact: Vec<(&'static str, Vec<u32>)>,
    arithmetic: Vec<(&'static str, Vec<f32>)>,
}

vectorized! {
    /// All operations of the vocabulary on the same operands.
    fn operations<V>(results: &mut Results, a: &Lanes, b: &Lanes, c: &Lanes) {
        let lanes = |f: &dyn Fn(u32, [V; 3]) -> V| {
            let mut out = [0.0; LANES];
            super::map(&mut out, [a, b, c], |block, operands| f((block * V::LANES) as u32, operands));
            out
        };
        let (one, two) = (V::splat(1.0), V::splat(2.0));
        let mut exact = |name, f: &dyn Fn(u32, [V; 3]) -> V| results.exact.push((name, bits(&lanes(f))));
        exact("splat", &|_, _| V::splat(a[0]));
        exact("load, store", &|_, [a, _, _]| a);
        exact("max", &|_, [a, b, _]| a.max(b));
        exact("lt", &|_, [a, b, _]| V::select(a.lt(b), one, two));
        exact("select", &|_, [a, b, c]| V::select(a.lt(b), c, a));
        exact("abs", &|_, [a, _, _]| a.abs());
        exact("zero", &|_, _| V::zero());
        exact("splat_bits", &|_, _| V::from_bits(V::splat_bits(a[1].to_bits())));
        exact("lane_numbers", &|first, _| {
            V::from_bits(V::add_bits(V::lane_numbers(), V::splat_bits(first)))
        });
        type Bits = <V as Vector>::Bits;
        let mut of_bits = |name, f: &dyn Fn(Bits, Bits) -> Bits| {
            exact(name, &|_, [a, b, _]| V::from_bits(f(a.to_bits(), b.to_bits())));
        };
        of_bits("from_bits", &|a, _| a);
        of_bits("add_bits", &|a, b| V::add_bits(a, b));
        of_bits("mul_bits", &|a, b| V::mul_bits(a, b));
        of_bits("and_bits", &|a, b| V::and_bits(a, b));
        of_bits("xor_bits", &|a, b| V::xor_bits(a, b));
        of_bits("shift_left 1", &|a, _| V::shift_left::<1>(a));
        of_bits("shift_left 23", &|a, _| V::shift_left::<23>(a));
        of_bits("shift_right 1", &|a, _| V::shift_right::<1>(a));
        of_bits("shift_right 15", &|a, _| V::shift_right::<15>(a));
        of_bits("shift_right 16", &|a, _| V::shift_right::<16>(a));
        of_bits("shift_right 23", &|a, _| V::shift_right::<23>(a));
        exact("lt_bits", &|_, [a, b, _]| V::select(V::lt_bits(a.to_bits(), b.to_bits()), one, two));
        exact("from_signed", &|_, [a, _, _]| V::from_signed(a.to_bits()));
        for count in 0..=LANES {
            let mut to = *b;
            super::update(&mut to[..count], [&a[..count]], |_, _, [a]: [V; 1]| a);
            results.exact.push(("load_partial, store_partial", bits(&to)));
        }
        let mut arithmetic = |name, f: &dyn Fn(u32, [V; 3]) -> V| results.arithmetic.push((name, lanes(f).to_vec()));
        arithmetic("add", &|_, [a, b, _]| a.add(b));
        arithmetic("sub", &|_, [a, b, _]| a.sub(b));
        arithmetic("mul", &|_, [a, b, _]| a.mul(b));
        arithmetic("div", &|_, [a, b, _]| a.div(b));
        arithmetic("sqrt", &|_, [a, _, _]| a.sqrt());
        arithmetic("mul, add", &|_, [a, b, c]| a.mul(b).add(c));
        arithmetic("mul, sub", &|_, [a, b, c]| a.mul(b).sub(c));
        results.arithmetic.push(("sum", vec![super::sum([a], |[a]: [V; 1]| a)]));
        // NaN and the sign of zero depend on the order.
        let numbers = a.map(|x| if x.is_nan() { 0.0 } else { x });
        results.arithmetic.push(("maximum", vec![super::maximum::<V>(&numbers) + 0.0]));
    }
}

vectorized! {
    fn mul_add<V>(out: &mut Lanes, a: &Lanes, b: &Lanes, c: &Lanes) {
        V::load(a).mul_add(V::load(b), V::load(c)).store(out);
    } portable {
        for (i, out) in out.iter_mut().enumerate() {
            *out = processor::mul_add(a[i], b[i], c[i]);
        }
    }
}

fn results(simd: InstructionSet, [a, b, c]: &[Lanes; 3]) -> Results {
    let mut results = Results::default();
    operations(simd, &mut results, a, b, c);
    let mut fused = [0.0; LANES];
    mul_add(simd, &mut fused, a, b, c);
    results.arithmetic.push(("mul_add", fused.to_vec()));
    results
}

#[track_caller]
fn assert_equal(got: &Results, wanted: &Results, what: String) {
    assert_eq!(got.exact.len(), wanted.exact.len());
    for (got, wanted) in got.exact.iter().zip(&wanted.exact) {
        assert_eq!(got, wanted, "{what}");
    }
    assert_eq!(got.arithmetic.len(), wanted.arithmetic.len());
    for ((name, got), (_, wanted)) in got.arithmetic.iter().zip(&wanted.arithmetic) {
        for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
            let same = got.to_bits() == wanted.to_bits() || got.is_nan() && wanted.is_nan();
            assert!(same, "{name}, lane {i}: {got:e}, not {wanted:e} {what}");
        }
    }
}

const EDGES: [f32; 20] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-45,
    -1e-45,
    1.1e-38,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::EPSILON,
    1.0 + f32::EPSILON,
    1.0 - f32::EPSILON / 2.0,
    3e-20,
    1.5,
    16_777_217.0,
];

#[test]
fn every_operation_on_edge_values_equals_portable() {
    let mut random = Random::new(11);
    for _ in 0..3000 {
        let operands = [(); 3].map(|_| [(); LANES].map(|_| EDGES[random.size(0, EDGES.len() - 1)]));
        let wanted = results(InstructionSet::PORTABLE, &operands);
        for simd in instruction_sets() {
            assert_equal(&results(simd, &operands), &wanted, format!("{} {operands:?}", simd.name()));
        }
    }
}

#[test]
fn every_operation_on_random_values_equals_portable() {
    let mut random = Random::new(12);
    for i in 0..10_000 {
        let any = i % 2 == 0;
        let operands = [(); 3].map(|_| [(); LANES].map(|_| if any { random.any() } else { random.number() }));
        let wanted = results(InstructionSet::PORTABLE, &operands);
        for simd in instruction_sets() {
            assert_equal(&results(simd, &operands), &wanted, format!("{} {operands:?}", simd.name()));
        }
    }
}

/// Compares the portable set with the language, because the comparisons above rest on it.
#[test]
fn portable_means_what_its_names_say() {
    let mut random = Random::new(13);
    for i in 0..5000 {
        let operands: [Lanes; 3] = [(); 3].map(|_| {
            [(); LANES]
                .map(|_| if i % 2 == 0 { EDGES[random.size(0, EDGES.len() - 1)] } else { random.any() })
        });
        let [a, b, c] = operands;
        let results = results(InstructionSet::PORTABLE, &operands);
        let exact = |name| results.exact.iter().find(|(n, _)| *n == name).unwrap().1.clone();
        let arithmetic = |name| results.arithmetic.iter().find(|(n, _)| *n == name).unwrap().1.clone();
        for j in 0..LANES {
            let (a, b, c) = (a[j], b[j], c[j]);
            let (x, y) = (a.to_bits(), b.to_bits());
            assert_eq!(exact("max")[j], if a > b { a } else { b }.to_bits());
            assert_eq!(exact("lt")[j], if a < b { 1.0_f32 } else { 2.0 }.to_bits());
            assert_eq!(exact("select")[j], if a < b { c } else { a }.to_bits());
            assert_eq!(exact("abs")[j], a.abs().to_bits());
            assert_eq!(exact("lane_numbers")[j], j as u32);
            assert_eq!(exact("add_bits")[j], x.wrapping_add(y));
            assert_eq!(exact("mul_bits")[j], x.wrapping_mul(y));
            assert_eq!(exact("and_bits")[j], x & y);
            assert_eq!(exact("xor_bits")[j], x ^ y);
            assert_eq!(exact("shift_left 23")[j], x << 23);
            assert_eq!(exact("shift_right 15")[j], x >> 15);
            assert_eq!(exact("lt_bits")[j], if (x as i32) < y as i32 { 1.0_f32 } else { 2.0 }.to_bits());
            assert_eq!(exact("from_signed")[j], (x as i32 as f32).to_bits());
            let same = |name, wanted: f32| {
                let got: f32 = arithmetic(name)[j];
                let same = got.to_bits() == wanted.to_bits() || got.is_nan() && wanted.is_nan();
                assert!(same, "{name} of {a:e}, {b:e}, {c:e} is {got:e}, not {wanted:e}");
            };
            same("add", a + b);
            same("sub", a - b);
            same("mul", a * b);
            same("div", a / b);
            same("sqrt", a.sqrt());
            same("mul_add", a.mul_add(b, c));
            same("mul, add", a * b + c);
            same("mul, sub", a * b - c);
        }
        let four = |i: usize| (a[i] + a[i + 8]) + (a[i + 4] + a[i + 12]);
        let tree = (four(0) + four(2)) + (four(1) + four(3));
        let got = arithmetic("sum")[0];
        assert!(got.to_bits() == tree.to_bits() || got.is_nan() && tree.is_nan(), "{got:e}, not {tree:e}");
        let numbers = a.map(|x| if x.is_nan() { 0.0 } else { x });
        assert_eq!(arithmetic("maximum")[0], numbers.into_iter().fold(f32::NEG_INFINITY, f32::max));
    }
}

vectorized! {
    fn transposed<V>(to: &mut [f32], from: &[f32], stride: usize, count: usize) {
        assert!(to.len() == LANES * count && from.len() >= (LANES - 1) * stride + count);
        // SAFETY: just checked.
        unsafe { V::transpose(to.as_mut_ptr(), from.as_ptr(), stride, count) };
    } portable {
        unreachable!()
    }
}

#[test]
fn transposing_works_for_every_count_and_stride() {
    let mut random = Random::new(14);
    for count in 1..40 {
        for stride in [count, count + 1, count + 7] {
            let from = random.numbers((LANES - 1) * stride + count);
            let wanted: Vec<f32> =
                (0..LANES * count).map(|i| from[(i % LANES) * stride + i / LANES]).collect();
            for simd in instruction_sets().into_iter().filter(|simd| simd.has_vectors()) {
                let mut to = vec![0.0; LANES * count];
                transposed(simd, &mut to, &from, stride, count);
                assert_same_bits(&to, &wanted, format!("{count}, {stride} with {}", simd.name()));
            }
        }
    }
}

vectorized! {
    fn loops<V>(mapped: &mut [f32], updated: &mut [f32], x: &[f32]) -> [f32; 2] {
        let number = |block: usize| {
            V::from_signed(V::add_bits(V::lane_numbers(), V::splat_bits((block * V::LANES) as u32)))
        };
        super::map(mapped, [x], |block, [x]: [V; 1]| x.add(number(block)));
        super::update(updated, [x], |block, y, [x]: [V; 1]| y.mul(x).sub(number(block)));
        [super::sum([x], |[x]: [V; 1]| x.add(V::splat(1.0))), super::maximum::<V>(x)]
    }
}

#[test]
fn loops_cover_every_length_and_sum_in_sixteen_lanes() {
    let mut random = Random::new(15);
    for length in 0..100 {
        let (x, before) = (random.numbers(length), random.numbers(length));
        let mut lanes = [0.0_f32; LANES];
        x.iter().enumerate().for_each(|(i, x)| lanes[i % LANES] += x + 1.0);
        let four = |i: usize| (lanes[i] + lanes[i + 8]) + (lanes[i + 4] + lanes[i + 12]);
        let wanted_sum = (four(0) + four(2)) + (four(1) + four(3));
        let wanted_maximum = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let wanted_map: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + i as f32).collect();
        let updates = before.iter().zip(&x).enumerate();
        let wanted_update: Vec<f32> = updates.map(|(i, (y, x))| y * x - i as f32).collect();
        for simd in instruction_sets() {
            let (mut mapped, mut updated) = (vec![0.0; length], before.clone());
            let [sum, maximum] = loops(simd, &mut mapped, &mut updated, &x);
            assert_same_bits(&mapped, &wanted_map, "map");
            assert_same_bits(&updated, &wanted_update, "update");
            assert_eq!(sum.to_bits(), wanted_sum.to_bits(), "{length} with {}", simd.name());
            assert_eq!(maximum, wanted_maximum, "{length} with {}", simd.name());
        }
    }
}

#[test]
fn a_set_is_found_by_its_name_and_no_other() {
    for simd in instruction_sets() {
        assert_eq!(InstructionSet::named(simd.name()), Ok(simd));
        assert!(InstructionSet::NAMES.contains(&simd.name()));
    }
    for name in ["", "AVX2", "sse", "portable "] {
        assert_eq!(InstructionSet::named(name), Err(crate::Error::InstructionSet));
    }
    assert_eq!(InstructionSet::named(InstructionSet::detect().name()), Ok(InstructionSet::detect()));
}
