//! The operations of the Llama family: root mean square normalisation, rotary positions, SwiGLU.

use jostle::InstructionSet;
use jostle::ops::rotary::Scaling;
use jostle::ops::{rms_norm, rotary, swiglu};

use crate::common::{Random, assert_same_bits, instruction_sets};
use crate::{EPSILON, TIGHT, added, assert_near, differences, on_every_set, wide};

fn rms_norm_f64(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let rows = x.chunks(weight.len()).flat_map(|row| {
        let square = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let rstd = 1.0 / (square + f64::from(EPSILON)).sqrt();
        row.iter().zip(weight).map(move |(x, weight)| x * rstd * weight)
    });
    rows.collect()
}

#[test]
fn rms_norm_is_its_formula_and_its_gradients_are_its_slopes() {
    let mut random = Random::new(41);
    for (rows, width) in [(1, 1), (1, 2), (3, 5), (4, 16), (3, 33), (2, 100)] {
        let x: Vec<f32> = random.numbers(rows * width).iter().map(|x| 2.0 * x + 0.75).collect();
        let (weight, d_y) = (random.numbers(width), random.numbers(rows * width));
        let (before, before_weight) = (random.numbers(rows * width), random.numbers(width));
        let [y, rstd, d_x, d_weight] = on_every_set(|simd| {
            let (mut y, mut rstd) = (vec![9.0; rows * width], vec![9.0; rows]);
            rms_norm::forward(simd, &mut y, &mut rstd, &x, &weight, EPSILON).unwrap();
            let (mut d_x, mut d_weight) = (before.clone(), before_weight.clone());
            rms_norm::backward(simd, &mut d_x, &d_y, &x, &rstd, &weight).unwrap();
            rms_norm::backward_parameters(simd, &mut d_weight, &d_y, &x, &rstd).unwrap();
            [y, rstd, d_x, d_weight]
        });
        let what = |name: &str| format!("{name} of {rows}x{width}");
        let (x, weight) = (wide(&x), wide(&weight));
        assert_near(&y, &rms_norm_f64(&x, &weight), TIGHT, &what("y"));
        let ones: Vec<f64> = rms_norm_f64(&x, &vec![1.0; width]);
        let scales: Vec<f64> = x.chunks(width).zip(ones.chunks(width)).map(|(x, y)| y[0] / x[0]).collect();
        assert_near(&rstd, &scales, TIGHT, &what("rstd"));
        let slope = differences(&x, &d_y, |x| rms_norm_f64(x, &weight));
        assert_near(&d_x, &added(&before, &slope), 3e-6, &what("d_x onto what was there"));
        let slope = differences(&weight, &d_y, |weight| rms_norm_f64(&x, weight));
        assert_near(&d_weight, &added(&before_weight, &slope), TIGHT, &what("d_weight"));
    }
}

#[test]
fn rms_norm_of_zeros_is_zero() {
    for simd in instruction_sets() {
        let (mut y, mut rstd) = ([9.0; 3], [9.0]);
        rms_norm::forward(simd, &mut y, &mut rstd, &[0.0; 3], &[2.0; 3], 0.25).unwrap();
        assert_eq!((y, rstd), ([0.0; 3], [2.0]));
    }
}

fn silu_f64(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

#[test]
fn swiglu_is_its_formula_and_its_gradients_are_its_slopes() {
    let mut random = Random::new(42);
    for (length, size) in [(1, 1.0), (15, 1.0), (16, 2.0), (1001, 8.0)] {
        let gate: Vec<f32> = random.numbers(length).iter().map(|x| size * x).collect();
        let (up, d_y) = (random.numbers(length), random.numbers(length));
        let [y, d_gate, d_up] = on_every_set(|simd| {
            let (mut y, mut d_gate, mut d_up) = (vec![9.0; length], vec![9.0; length], vec![9.0; length]);
            swiglu::forward(simd, &mut y, &gate, &up).unwrap();
            swiglu::backward(simd, &mut d_gate, &mut d_up, &d_y, &gate, &up).unwrap();
            [y, d_gate, d_up]
        });
        let (gate, up) = (wide(&gate), wide(&up));
        let f = |gate: f64, up: f64| vec![silu_f64(gate) * up];
        let elements = || gate.iter().zip(&up).zip(&d_y);
        let wanted: Vec<f64> = elements().map(|((gate, up), _)| f(*gate, *up)[0]).collect();
        assert_near(&y, &wanted, TIGHT, "y");
        let slope = elements().map(|((gate, up), d_y)| differences(&[*gate], &[*d_y], |x| f(x[0], *up))[0]);
        assert_near(&d_gate, &slope.collect::<Vec<_>>(), TIGHT, "d_gate");
        let slope = elements().map(|((gate, up), d_y)| differences(&[*up], &[*d_y], |x| f(*gate, x[0]))[0]);
        assert_near(&d_up, &slope.collect::<Vec<_>>(), TIGHT, "d_up");
    }
}

#[test]
fn swiglu_of_large_gates_is_the_product_or_zero() {
    for simd in instruction_sets() {
        for gate in [100.0, 1e10, f32::MAX / 4.0, f32::INFINITY] {
            let (mut y, mut d_gate, mut d_up) = ([9.0; 2], [9.0; 2], [9.0; 2]);
            let (gates, up) = ([gate, -gate], [2.0; 2]);
            swiglu::forward(simd, &mut y, &gates, &up).unwrap();
            swiglu::backward(simd, &mut d_gate, &mut d_up, &[1.0; 2], &gates, &up).unwrap();
            assert_eq!((y, d_gate, d_up), ([2.0 * gate, 0.0], [2.0, 0.0], [gate, 0.0]), "{gate}");
        }
        let mut y = [9.0];
        swiglu::forward(simd, &mut y, &[f32::NAN], &[1.0]).unwrap();
        assert!(y[0].is_nan());
    }
}

fn table(length: usize, head_width: usize, theta: f32, scaling: Option<Scaling>) -> [Vec<f32>; 2] {
    let (mut cos, mut sin) = (vec![9.0; length * head_width / 2], vec![9.0; length * head_width / 2]);
    rotary::table(&mut cos, &mut sin, head_width, theta, scaling).unwrap();
    [cos, sin]
}

/// The frequency of pair i, rounded where the contract says.
fn frequency(i: usize, head_width: usize, theta: f32) -> f32 {
    let exponent = (2 * i) as f32 / head_width as f32;
    1.0 / libm::pow(theta.into(), exponent.into()) as f32
}

#[test]
fn the_rotary_table_has_the_angles_of_the_contract() {
    for (length, head_width, theta) in [(70, 2, 1e4), (2049, 64, 1e4), (300, 48, 5e5), (131_073, 6, 1e6)] {
        let [cos, sin] = table(length, head_width, theta, None);
        let pairs = cos.chunks(head_width / 2).zip(sin.chunks(head_width / 2));
        for (position, (cos, sin)) in pairs.enumerate() {
            for (i, (cos, sin)) in cos.iter().zip(sin).enumerate() {
                let angle = f64::from(position as f32 * frequency(i, head_width, theta));
                let wanted = [libm::cos(angle) as f32, libm::sin(angle) as f32];
                assert_eq!([*cos, *sin], wanted, "pair {i} of position {position}, width {head_width}");
            }
        }
    }
}

/// Fast pairs keep their frequency, slow pairs are slowed down by the whole factor, and the other pairs by less.
#[test]
fn scaling_changes_slow_rotations_alone() {
    let scaling = Scaling { factor: 8.0, low: 1.0, high: 4.0, original: 8192 };
    let (half, theta) = (32, 5e5);
    let [_, sin] = table(2, 2 * half, theta, Some(scaling));
    let mut kinds = [0; 3];
    for (i, sin) in sin[half..].iter().enumerate() {
        let plain = f64::from(frequency(i, 2 * half, theta));
        let turns = 8192.0 * plain / std::f64::consts::TAU;
        let between = (turns.clamp(1.0, 4.0) - 1.0) / 3.0;
        let wanted = (plain / 8.0 + between * (plain - plain / 8.0)).sin();
        assert!((f64::from(*sin) / wanted - 1.0).abs() < 1e-6, "pair {i}: {sin}, not {wanted}");
        kinds[if between == 0.0 {
            0
        } else if between == 1.0 {
            2
        } else {
            1
        }] += 1;
    }
    assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
}

fn rotary_f64(x: &[f64], cos: &[f32], sin: &[f32], heads: usize, half: usize) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for (at, (x, y)) in x.chunks(2 * half).zip(y.chunks_mut(2 * half)).enumerate() {
        for i in 0..half {
            let entry = at / heads * half + i;
            let (cos, sin) = (f64::from(cos[entry]), f64::from(sin[entry]));
            y[i] = x[i] * cos - x[i + half] * sin;
            y[i + half] = x[i + half] * cos + x[i] * sin;
        }
    }
    y
}

#[test]
fn rotary_is_its_formula_and_its_gradient_is_its_slope() {
    let mut random = Random::new(43);
    for (rows, heads, head_width) in [(1, 1, 2), (3, 2, 8), (5, 3, 6), (2, 1, 32), (4, 2, 70)] {
        let x = random.numbers(rows * heads * head_width);
        let d_y = random.numbers(x.len());
        let [cos, sin] = table(rows, head_width, 100.0, None);
        let [y, d_x] = on_every_set(|simd| {
            let (mut y, mut d_x) = (x.clone(), d_y.clone());
            rotary::forward(simd, &mut y, &cos, &sin, heads, head_width).unwrap();
            rotary::backward(simd, &mut d_x, &cos, &sin, heads, head_width).unwrap();
            [y, d_x]
        });
        let f = |x: &[f64]| rotary_f64(x, &cos, &sin, heads, head_width / 2);
        let x = wide(&x);
        assert_near(&y, &f(&x), TIGHT, "y");
        assert_near(&d_x, &differences(&x, &d_y, f), TIGHT, "d_x");
    }
}

#[test]
fn scores_of_rotated_heads_depend_on_the_distance_alone() {
    let mut random = Random::new(44);
    let (length, head_width) = (40, 16);
    let [cos, sin] = table(length, head_width, 1e4, None);
    let rotated = |x: &[f32]| {
        let mut x = x.repeat(length);
        rotary::forward(InstructionSet::detect(), &mut x, &cos, &sin, 1, head_width).unwrap();
        x
    };
    let (query, key) = (random.numbers(head_width), random.numbers(head_width));
    let (queries, keys) = (rotated(&query), rotated(&key));
    assert_same_bits(&queries[..head_width], &query, "position 0");
    let row = |x: &[f32], position: usize| wide(&x[position * head_width..][..head_width]);
    let score = |i, j| row(&queries, i).iter().zip(row(&keys, j)).map(|(q, k)| q * k).sum::<f64>();
    for distance in 0..20 {
        for position in 1..20 {
            let (near, far) = (score(distance, 0), score(position + distance, position));
            assert!((near - far).abs() < 1e-5, "{distance} at {position}: {near} {far}");
        }
        assert!((score(distance + 1, 0) - score(distance, 0)).abs() > 1e-5);
    }
}
