//! Operations refuse wrong lengths of slices, impossible sizes, and bad tokens and rates. A refused call writes nothing.

use jostle::matmul::{self, Size};
use jostle::ops::attention::{self, Attention};
use jostle::ops::dropout::{self, Mask};
use jostle::ops::rotary::{self, Scaling};
use jostle::ops::{cross_entropy, embedding, gelu, layer_norm, linear, rms_norm, softmax, swiglu};
use jostle::rng::Stream;
use jostle::{Activation, Error, InstructionSet};

use crate::common::instruction_sets;

const GUARD: f32 = -7.25e30;

/// Named slices. Outputs and gradients hold guards, the others ones.
struct Slices(Vec<(&'static str, Vec<f32>)>);

impl Slices {
    /// Calls an operation with slices of the given lengths, which it must accept. Then makes each slice one element
    /// too short or too long: the operation must refuse that length and write nothing.
    fn check<const N: usize>(
        lengths: [(&'static str, usize); N],
        call: impl Fn(InstructionSet, &mut [&mut [f32]; N]) -> Result<(), Error>,
    ) {
        for simd in instruction_sets() {
            let run = |short: Option<usize>, by: isize| {
                let slices = lengths.iter().enumerate().map(|(i, (name, length))| {
                    let length = length.checked_add_signed(if short == Some(i) { by } else { 0 }).unwrap();
                    let value = if Slices::is_output(name) { GUARD } else { 1.0 };
                    (*name, vec![value; length])
                });
                let mut slices = Slices(slices.collect());
                let mut parts = slices.0.iter_mut().map(|(_, slice)| &mut slice[..]);
                let mut parts: [&mut [f32]; N] = std::array::from_fn(|_| parts.next().unwrap());
                let result = call(simd, &mut parts);
                (result, slices)
            };
            let (result, _) = run(None, 0);
            assert_eq!(result, Ok(()));
            for (i, (name, length)) in lengths.iter().enumerate() {
                for by in [-1, 1] {
                    // Excess scratch is allowed.
                    if by == 1 && *name == "scratch" {
                        continue;
                    }
                    let (result, slices) = run(Some(i), by);
                    let given = length.checked_add_signed(by).unwrap();
                    match result {
                        Err(Error::Length { what, given: stated, wanted }) => {
                            assert!(stated != wanted, "{name} {by}: {stated} of {what}");
                            if what == *name {
                                assert_eq!(stated, given, "{name} {by}");
                            }
                            if *name == "scratch" {
                                assert_eq!((what, wanted), ("scratch", *length));
                            }
                        }
                        other => panic!("{name} {by}: {other:?}"),
                    }
                    for (name, slice) in slices.0 {
                        let value = if Slices::is_output(name) { GUARD } else { 1.0 };
                        assert!(slice.iter().all(|x| *x == value), "{name} was written");
                    }
                }
            }
        }
    }

    fn is_output(name: &str) -> bool {
        name.starts_with("d_")
            || ["y", "out", "mean", "rstd", "losses", "x_out", "weights_out"].contains(&name)
    }
}

const R: usize = 5;
const C: usize = 7;

#[test]
fn layer_norm_refuses_wrong_lengths_and_writes_nothing() {
    let lengths = [("y", R * C), ("mean", R), ("rstd", R), ("x", R * C), ("weight", C), ("bias", C)];
    Slices::check(lengths, |simd, [y, mean, rstd, x, weight, bias]| {
        layer_norm::forward(simd, y, mean, rstd, x, weight, bias, 1e-5)
    });
    let lengths = [("d_x", R * C), ("d_y", R * C), ("x", R * C), ("mean", R), ("rstd", R), ("weight", C)];
    Slices::check(lengths, |simd, [d_x, d_y, x, mean, rstd, weight]| {
        layer_norm::backward(simd, d_x, d_y, x, mean, rstd, weight)
    });
    let lengths = [("d_weight", C), ("d_bias", C), ("d_y", R * C), ("x", R * C), ("mean", R), ("rstd", R)];
    Slices::check(lengths, |simd, [d_weight, d_bias, d_y, x, mean, rstd]| {
        layer_norm::backward_parameters(simd, d_weight, d_bias, d_y, x, mean, rstd)
    });
    let empty = &mut [][..];
    let simd = InstructionSet::PORTABLE;
    let result = layer_norm::forward(simd, empty, &mut [], &mut [], &[], &[], &[], 1e-5);
    assert_eq!(result, Err(Error::Zero { what: "width" }));
}

#[test]
fn rms_norm_refuses_wrong_lengths_and_writes_nothing() {
    let lengths = [("y", R * C), ("rstd", R), ("x", R * C), ("weight", C)];
    Slices::check(lengths, |simd, [y, rstd, x, weight]| rms_norm::forward(simd, y, rstd, x, weight, 1e-5));
    let lengths = [("d_x", R * C), ("d_y", R * C), ("x", R * C), ("rstd", R), ("weight", C)];
    Slices::check(lengths, |simd, [d_x, d_y, x, rstd, weight]| {
        rms_norm::backward(simd, d_x, d_y, x, rstd, weight)
    });
    let lengths = [("d_weight", C), ("d_y", R * C), ("x", R * C), ("rstd", R)];
    Slices::check(lengths, |simd, [d_weight, d_y, x, rstd]| {
        rms_norm::backward_parameters(simd, d_weight, d_y, x, rstd)
    });
    let result = rms_norm::forward(InstructionSet::PORTABLE, &mut [], &mut [], &[], &[], 1e-5);
    assert_eq!(result, Err(Error::Zero { what: "width" }));
}

#[test]
fn rotary_refuses_wrong_lengths_and_sizes_and_writes_nothing() {
    const H: usize = 3;
    const D: usize = 6;
    Slices::check([("d_cos", R * D / 2), ("d_sin", R * D / 2)], |_, [cos, sin]| {
        rotary::table(cos, sin, D, 1e4, None)
    });
    let lengths = [("d_x", R * H * D), ("cos", R * D / 2), ("sin", R * D / 2)];
    Slices::check(lengths, |simd, [x, cos, sin]| rotary::forward(simd, x, cos, sin, H, D));
    Slices::check(lengths, |simd, [x, cos, sin]| rotary::backward(simd, x, cos, sin, H, D));
    let odd = |given| Error::Range { what: "head_width", given, wanted: "an even number" };
    for (heads, head_width, wanted) in [
        (0, D, Error::Zero { what: "heads" }),
        (H, 0, Error::Zero { what: "head_width" }),
        (H, 5, odd(5.0)),
        (H, 1, odd(1.0)),
        (usize::MAX / 2, 4, Error::TooLarge { what: "heads and head_width" }),
    ] {
        let simd = InstructionSet::PORTABLE;
        let mut x = [GUARD; R * H * D];
        let (cos, sin) = ([1.0; R * D / 2], [1.0; R * D / 2]);
        assert_eq!(rotary::forward(simd, &mut x, &cos, &sin, heads, head_width), Err(wanted));
        assert_eq!(rotary::backward(simd, &mut x, &cos, &sin, heads, head_width), Err(wanted));
        assert_eq!(x, [GUARD; R * H * D]);
    }
}

#[test]
fn a_rotary_table_refuses_bases_and_scalings_that_make_no_sense() {
    fn refused(head_width: usize, theta: f32, scaling: Option<Scaling>) -> String {
        let (mut cos, mut sin) = ([GUARD; 6], [GUARD; 6]);
        let error = rotary::table(&mut cos, &mut sin, head_width, theta, scaling).unwrap_err();
        assert_eq!((cos, sin), ([GUARD; 6], [GUARD; 6]));
        error.to_string()
    }
    for (theta, given) in
        [(0.0, "0"), (-1e4, "-10000"), (0.5, "0.5"), (f32::INFINITY, "inf"), (f32::NAN, "NaN")]
    {
        assert_eq!(refused(4, theta, None), format!("theta is {given}; expected finite and at least 1"));
    }
    assert_eq!(refused(0, 1e4, None), "head_width is 0; expected at least 1");
    assert_eq!(refused(3, 1e4, None), "head_width is 3; expected an even number");
    let good = Scaling { factor: 8.0, low: 1.0, high: 4.0, original: 8192 };
    for (scaling, wanted) in [
        (Scaling { factor: 0.5, ..good }, "factor is 0.5; expected finite and at least 1"),
        (Scaling { factor: f32::NAN, ..good }, "factor is NaN; expected finite and at least 1"),
        (Scaling { factor: f32::INFINITY, ..good }, "factor is inf; expected finite and at least 1"),
        (Scaling { low: 0.0, ..good }, "low is 0; expected finite and more than 0"),
        (Scaling { low: f32::NAN, ..good }, "low is NaN; expected finite and more than 0"),
        (Scaling { high: 1.0, ..good }, "high is 1; expected finite and more than low"),
        (Scaling { high: f32::INFINITY, ..good }, "high is inf; expected finite and more than low"),
        (Scaling { original: 0, ..good }, "original is 0; expected at least 1"),
    ] {
        assert_eq!(refused(4, 1e4, Some(scaling)), wanted);
    }
    let length = (1 << 20) + 1;
    let result = rotary::table(&mut vec![0.0; length], &mut vec![0.0; length], 2, 1e4, None);
    assert_eq!(result, Err(Error::Context { length, context: 1 << 20 }));
}

#[test]
fn linear_refuses_wrong_lengths_and_writes_nothing() {
    const OUT: usize = 20;
    let space = matmul::scratch(Size { m: R, n: OUT, k: C });
    let lengths = [("y", R * OUT), ("x", R * C), ("weight", C * OUT), ("bias", OUT), ("scratch", space)];
    Slices::check(lengths, |simd, [y, x, weight, bias, scratch]| {
        linear::forward(simd, y, x, weight, bias, C, scratch)
    });
    let space = matmul::scratch(Size { m: R, n: C, k: OUT });
    let lengths = [("d_x", R * C), ("d_y", R * OUT), ("weight", C * OUT), ("scratch", space)];
    Slices::check(lengths, |simd, [d_x, d_y, weight, scratch]| {
        linear::backward(simd, d_x, d_y, weight, C, scratch)
    });
    let space = matmul::scratch(Size { m: C, n: OUT, k: R });
    let lengths =
        [("d_weight", C * OUT), ("d_bias", OUT), ("x", R * C), ("d_y", R * OUT), ("scratch", space)];
    Slices::check(lengths, |simd, [d_weight, d_bias, x, d_y, scratch]| {
        linear::backward_parameters(simd, d_weight, d_bias, x, d_y, C, scratch)
    });
    let simd = InstructionSet::PORTABLE;
    let result = linear::forward(simd, &mut [], &[], &[], &[], 0, &mut []);
    assert_eq!(result, Err(Error::Zero { what: "width" }));
}

#[test]
fn linear_names_the_slice_that_the_caller_knows() {
    let simd = InstructionSet::PORTABLE;
    let mut scratch = vec![0.0; 10_000];
    let result = linear::backward(simd, &mut [0.0; 9], &[0.0; 8], &[0.0; 15], 3, &mut scratch);
    assert_eq!(result, Err(Error::Length { what: "d_y", given: 8, wanted: 15 }));
    let result = linear::backward(simd, &mut [0.0; 8], &[0.0; 15], &[0.0; 15], 3, &mut scratch);
    assert_eq!(result, Err(Error::Length { what: "d_x", given: 8, wanted: 6 }));
    let result =
        linear::backward_parameters(simd, &mut [0.0; 14], &mut [], &[0.0; 9], &[0.0; 15], 3, &mut scratch);
    assert_eq!(result, Err(Error::Length { what: "d_weight", given: 14, wanted: 12 }));
}

#[test]
fn element_wise_operations_refuse_wrong_lengths_and_write_nothing() {
    for activation in [Activation::Gelu, Activation::GeluTanh] {
        Slices::check([("y", 20), ("x", 20)], |simd, [y, x]| gelu::forward(simd, y, x, activation));
        Slices::check([("d_x", 20), ("d_y", 20), ("x", 20)], |simd, [d_x, d_y, x]| {
            gelu::backward(simd, d_x, d_y, x, activation)
        });
    }
    Slices::check([("y", 20), ("gate", 20), ("up", 20)], |simd, [y, gate, up]| {
        swiglu::forward(simd, y, gate, up)
    });
    let lengths = [("d_gate", 20), ("d_up", 20), ("d_y", 20), ("gate", 20), ("up", 20)];
    Slices::check(lengths, |simd, [d_gate, d_up, d_y, gate, up]| {
        swiglu::backward(simd, d_gate, d_up, d_y, gate, up)
    });
    for rate in [0.0, 0.5] {
        let mask = Mask::new(rate, 1, Stream::EmbeddingDropout, 0, 0).unwrap();
        Slices::check([("y", R * C), ("x", R * C)], |simd, [y, x]| dropout::forward(simd, y, x, C, mask, 0));
        Slices::check([("d_x", R * C), ("d_y", R * C)], |simd, [d_x, d_y]| {
            dropout::backward(simd, d_x, d_y, C, mask, 0)
        });
        let result = dropout::forward(InstructionSet::PORTABLE, &mut [], &[], 0, mask, 0);
        assert_eq!(result, Err(Error::Zero { what: "width" }));
    }
}

#[test]
fn softmax_refuses_wrong_lengths_and_writes_nothing() {
    Slices::check([("x", R * C)], |simd, [x]| softmax::forward(simd, x, C));
    Slices::check([("scores", R * C)], |_, [scores]| softmax::causal_mask(scores, C, 0));
    Slices::check([("d_x", R * C), ("d_y", R * C), ("y", R * C)], |simd, [d_x, d_y, y]| {
        softmax::backward(simd, d_x, d_y, y, C)
    });
    let result = softmax::forward(InstructionSet::PORTABLE, &mut [1.0], 0);
    assert_eq!(result, Err(Error::Zero { what: "width" }));
    assert_eq!(softmax::causal_mask(&mut [1.0], 0, 0), Err(Error::Zero { what: "width" }));
}

#[test]
fn cross_entropy_refuses_wrong_lengths_and_targets_and_writes_nothing() {
    let targets = [0, 6, -1, 3, 2];
    Slices::check([("losses", R), ("logits", R * C)], |simd, [losses, logits]| {
        cross_entropy::forward(simd, losses, logits, &targets, C)
    });
    Slices::check([("losses", R), ("logits", R * C)], |simd, [losses, logits]| {
        cross_entropy::backward(simd, losses, logits, &targets, C, 4)
    });
    for simd in instruction_sets() {
        for (bad, given) in
            [(7, 7), (-2, -2), (i32::MIN, i64::from(i32::MIN)), (i32::MAX, i64::from(i32::MAX))]
        {
            let wanted = Error::Token { index: 3, token: given, vocab: C };
            let targets = [0, 6, -1, bad, 2];
            let (mut losses, mut logits) = ([GUARD; R], [1.0; R * C]);
            let result = cross_entropy::forward(simd, &mut losses, &logits, &targets, C);
            assert_eq!(result, Err(wanted));
            let result = cross_entropy::backward(simd, &mut losses, &mut logits, &targets, C, 4);
            assert_eq!(result, Err(wanted));
            assert_eq!(cross_entropy::count_targets(&targets, C), Err(wanted));
            assert_eq!((losses, logits), ([GUARD; R], [1.0; R * C]));
        }
        let mut losses = [GUARD; R];
        let result = cross_entropy::forward(simd, &mut losses, &[1.0; R * C], &[0; R - 1], C);
        assert_eq!(result, Err(Error::Length { what: "targets", given: R - 1, wanted: R }));
        assert_eq!(losses, [GUARD; R]);
    }
}

#[test]
fn embedding_refuses_wrong_lengths_and_tokens_and_writes_nothing() {
    const V: usize = 4;
    const T: usize = 3;
    let tokens = [0, 3, 2, 1, 1];
    let lengths = [("x_out", R * C), ("wte", V * C), ("wpe", T * C)];
    Slices::check(lengths, |simd, [x, wte, wpe]| embedding::forward(simd, x, &tokens, wte, wpe, C, T));
    let lengths = [("d_wte", V * C), ("d_wpe", T * C), ("d_x", R * C)];
    Slices::check(lengths, |simd, [d_wte, d_wpe, d_x]| {
        embedding::backward(simd, d_wte, d_wpe, d_x, &tokens, C, T)
    });
    let simd = InstructionSet::PORTABLE;
    let both = |tokens: &[i32], width: usize, length: usize| {
        let (mut x, mut d_wte, mut d_wpe) = ([GUARD; R * C], [GUARD; V * C], [GUARD; T * C]);
        let forward = embedding::forward(simd, &mut x, tokens, &[1.0; V * C], &[1.0; T * C], width, length);
        let backward =
            embedding::backward(simd, &mut d_wte, &mut d_wpe, &[1.0; R * C], tokens, width, length);
        assert_eq!(forward, backward);
        assert_eq!((x, d_wte, d_wpe), ([GUARD; R * C], [GUARD; V * C], [GUARD; T * C]));
        forward.unwrap_err()
    };
    for bad in [4, -1, i32::MIN, i32::MAX] {
        let wanted = Error::Token { index: 4, token: i64::from(bad), vocab: V };
        assert_eq!(both(&[0, 3, 2, 1, bad], C, T), wanted);
        assert_eq!(embedding::check_tokens(&[0, 3, 2, 1, bad], V), Err(wanted));
    }
    assert_eq!(both(&tokens, C, T + 1), Error::Context { length: T + 1, context: T });
    assert_eq!(both(&tokens, C, 0), Error::Zero { what: "length" });
    assert_eq!(both(&tokens, 0, T), Error::Zero { what: "width" });
}

#[test]
fn attention_refuses_wrong_lengths_and_heads_and_writes_nothing() {
    const H: usize = 3;
    const W: usize = 6;
    let attention = Attention { heads: H, kv_heads: H, width: W, mask: None, sequence: 0 };
    let space = attention::scratch(R, W);
    let lengths = [("out", R * W), ("d_stats", R * H * 2), ("qkv", R * 3 * W), ("scratch", space)];
    Slices::check(lengths, |simd, [out, stats, qkv, scratch]| {
        attention::forward(simd, out, stats, qkv, attention, scratch)
    });
    let lengths = [
        ("d_qkv", R * 3 * W),
        ("d_out", R * W),
        ("qkv", R * 3 * W),
        ("attended", R * W),
        ("stats", R * H * 2),
        ("scratch", space),
    ];
    Slices::check(lengths, |simd, [d_qkv, d_out, qkv, out, stats, scratch]| {
        attention::backward(simd, d_qkv, d_out, qkv, out, stats, attention, scratch)
    });
    let lengths = [("weights_out", H * R * R), ("qkv", R * 3 * W), ("scratch", space)];
    Slices::check(lengths, |simd, [weights, qkv, scratch]| {
        attention::weights(simd, weights, qkv, attention, scratch)
    });
    let grouped = Attention { heads: 6, kv_heads: 2, width: 12, mask: None, sequence: 0 };
    let lengths =
        [("out", R * 12), ("d_stats", R * 12), ("qkv", R * 20), ("scratch", attention::scratch(R, 12))];
    Slices::check(lengths, |simd, [out, stats, qkv, scratch]| {
        attention::forward(simd, out, stats, qkv, grouped, scratch)
    });
    for (heads, kv_heads, width, wanted) in [
        (0, 1, W, Error::Zero { what: "heads" }),
        (4, 4, W, Error::Heads { width: W, heads: 4 }),
        (W + 1, 1, W, Error::Heads { width: W, heads: W + 1 }),
        (1, 1, 0, Error::Zero { what: "width" }),
        (3, 0, W, Error::Zero { what: "kv_heads" }),
        (3, 2, W, Error::KvHeads { heads: 3, kv_heads: 2 }),
        (3, 6, W, Error::KvHeads { heads: 3, kv_heads: 6 }),
        (1, usize::MAX, W, Error::KvHeads { heads: 1, kv_heads: usize::MAX }),
    ] {
        let simd = InstructionSet::PORTABLE;
        let attention = Attention { heads, kv_heads, width, mask: None, sequence: 0 };
        let (mut out, mut stats) = (vec![GUARD; R * width], vec![GUARD; R * heads * 2]);
        let (qkv, mut space) = (vec![1.0; R * 3 * width], vec![GUARD; space]);
        let result = attention::forward(simd, &mut out, &mut stats, &qkv, attention, &mut space);
        assert_eq!(result, Err(wanted));
        let mut d_qkv = vec![GUARD; R * 3 * width];
        let result = attention::backward(
            simd,
            &mut d_qkv,
            &qkv[..R * width],
            &qkv,
            &out,
            &stats,
            attention,
            &mut space,
        );
        assert_eq!(result, Err(wanted));
        let mut weights = vec![GUARD; heads * R * R];
        assert_eq!(attention::weights(simd, &mut weights, &qkv, attention, &mut space), Err(wanted));
        for slice in [out, stats, d_qkv, weights, space] {
            assert!(slice.iter().all(|x| *x == GUARD));
        }
    }
}

#[test]
fn scratch_of_an_impossible_length_saturates() {
    assert_eq!(attention::scratch(usize::MAX, 1), usize::MAX);
    assert_eq!(attention::scratch(usize::MAX / 64 + 1, 1), usize::MAX);
}

#[test]
fn dropout_refuses_rates_that_are_no_probability_below_one() {
    let new = |rate| Mask::new(rate, 1, Stream::EmbeddingDropout, 0, 0);
    for given in [1.0, 1.5, -0.1, -f32::MIN_POSITIVE, f32::INFINITY, f32::NEG_INFINITY] {
        let wanted = "at least 0 and less than 1";
        assert_eq!(new(given), Err(Error::Range { what: "dropout rate", given, wanted }));
    }
    for nan in [f32::NAN, -f32::NAN] {
        let error = new(nan).unwrap_err();
        assert!(
            matches!(error, Error::Range { what: "dropout rate", given, .. } if given.is_nan()),
            "{error:?}"
        );
    }
    for none in [0.0, -0.0] {
        assert_eq!(new(none), Ok(None));
    }
    let largest = 1.0 - f32::EPSILON / 2.0;
    assert_eq!(new(largest).unwrap().unwrap().scale(), 16_777_216.0);
}
