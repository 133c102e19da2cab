//! Single operations against PyTorch's numbers in f64, which `core/tests/golden/make.py` writes.

use jostle::ops::attention::{self, Attention};
use jostle::ops::rotary::{self, Scaling};
use jostle::ops::{rms_norm, swiglu};
use safetensors::SafeTensors;

use crate::common::assert_same_bits;
use crate::{TIGHT, assert_near, on_every_set, wide};

/// A file's tensor, and the last size of its shape.
fn tensor(file: &[u8], name: &str) -> (Vec<f32>, usize) {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let (words, _) = tensor.data().as_chunks::<4>();
    (words.iter().map(|word| f32::from_le_bytes(*word)).collect(), *tensor.shape().last().unwrap())
}

macro_rules! golden {
    ($name:literal) => {
        |tensor_name: &str| {
            tensor(include_bytes!(concat!("../golden/operations/", $name, ".safetensors")), tensor_name)
        }
    };
}

#[track_caller]
fn check(names: &[&str], found: &[Vec<f32>], of: impl Fn(&str) -> (Vec<f32>, usize)) {
    for (name, found) in names.iter().zip(found) {
        assert_near(found, &wide(&of(name).0), TIGHT, name);
    }
}

#[test]
fn rms_norm_has_pytorchs_numbers() {
    let of = golden!("rms_norm");
    let ((x, width), (weight, _), (d_y, _)) = (of("x"), of("weight"), of("d_y"));
    let found = on_every_set(|simd| {
        let (mut y, mut rstd) = (vec![9.0; x.len()], vec![9.0; x.len() / width]);
        rms_norm::forward(simd, &mut y, &mut rstd, &x, &weight, 1e-5).unwrap();
        let (mut d_x, mut d_weight) = (vec![0.0; x.len()], vec![0.0; width]);
        rms_norm::backward(simd, &mut d_x, &d_y, &x, &rstd, &weight).unwrap();
        rms_norm::backward_parameters(simd, &mut d_weight, &d_y, &x, &rstd).unwrap();
        [y, d_x, d_weight]
    });
    check(&["y", "d_x", "d_weight"], &found, of);
}

#[test]
fn swiglu_has_pytorchs_numbers() {
    let of = golden!("swiglu");
    let ((gate, length), (up, _), (d_y, _)) = (of("gate"), of("up"), of("d_y"));
    let found = on_every_set(|simd| {
        let [mut y, mut d_gate, mut d_up] = [const { Vec::new() }; 3].map(|_: Vec<f32>| vec![9.0; length]);
        swiglu::forward(simd, &mut y, &gate, &up).unwrap();
        swiglu::backward(simd, &mut d_gate, &mut d_up, &d_y, &gate, &up).unwrap();
        [y, d_gate, d_up]
    });
    check(&["y", "d_gate", "d_up"], &found, of);
}

fn check_rotary(theta: f32, scaling: Option<Scaling>, of: impl Fn(&str) -> (Vec<f32>, usize)) {
    let ((x, head_width), (d_y, _), (wanted, _)) = (of("x"), of("d_y"), of("cos"));
    let (mut cos, mut sin) = (vec![9.0; wanted.len()], vec![9.0; wanted.len()]);
    rotary::table(&mut cos, &mut sin, head_width, theta, scaling).unwrap();
    assert_same_bits(&cos, &wanted, "cos");
    assert_same_bits(&sin, &of("sin").0, "sin");
    let heads = x.len() / (2 * cos.len());
    let found = on_every_set(|simd| {
        let (mut y, mut d_x) = (x.clone(), d_y.clone());
        rotary::forward(simd, &mut y, &cos, &sin, heads, head_width).unwrap();
        rotary::backward(simd, &mut d_x, &cos, &sin, heads, head_width).unwrap();
        [y, d_x]
    });
    check(&["y", "d_x"], &found, of);
}

#[test]
fn rotary_has_pytorchs_numbers_and_its_table_their_bits() {
    check_rotary(1e4, None, golden!("rotary_plain"));
    check_rotary(1e5, None, golden!("rotary_odd"));
    check_rotary(1e6, None, golden!("rotary_wide"));
    let scaling = Scaling { factor: 32.0, low: 1.0, high: 4.0, original: 8192 };
    check_rotary(5e5, Some(scaling), golden!("rotary_llama3"));
    let scaling = Scaling { factor: 3.5, low: 2.0, high: 2.5, original: 100 };
    check_rotary(1e4, Some(scaling), golden!("rotary_steep"));
}

fn check_attention(heads: usize, kv_heads: usize, of: impl Fn(&str) -> (Vec<f32>, usize)) {
    let ((qkv, row), (d_y, width)) = (of("qkv"), of("d_y"));
    let length = qkv.len() / row;
    let attention = Attention { heads, kv_heads, width, mask: None, sequence: 0 };
    let found = on_every_set(|simd| {
        let mut scratch = vec![f32::NAN; attention::scratch(length, width)];
        let (mut y, mut stats) = (vec![9.0; d_y.len()], vec![9.0; 2 * heads * length]);
        attention::forward(simd, &mut y, &mut stats, &qkv, attention, &mut scratch).unwrap();
        let mut d_qkv = vec![9.0; qkv.len()];
        attention::backward(simd, &mut d_qkv, &d_y, &qkv, &y, &stats, attention, &mut scratch).unwrap();
        [y, d_qkv]
    });
    check(&["y", "d_qkv"], &found, of);
}

#[test]
fn grouped_attention_has_pytorchs_numbers() {
    check_attention(6, 2, golden!("attention_grouped"));
    check_attention(3, 1, golden!("attention_shared"));
    check_attention(4, 2, golden!("attention_pairs"));
}
