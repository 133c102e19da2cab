//! The C functions of single operations, with arbitrary sizes, choices and numbers, over buffers of exactly the size told.

#![no_main]

use std::ptr;

use fuzz::Input;
use jostle_ffi::config::{jostle_recipe, jostle_recipe_init};
use jostle_ffi::ops::attention::*;
use jostle_ffi::ops::cross_entropy::*;
use jostle_ffi::ops::dropout::*;
use jostle_ffi::ops::embedding::*;
use jostle_ffi::ops::gelu::*;
use jostle_ffi::ops::layer_norm::*;
use jostle_ffi::ops::linear::*;
use jostle_ffi::ops::matmul::*;
use jostle_ffi::ops::optimizer::*;
use jostle_ffi::ops::softmax::*;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    // SAFETY of all calls: each pointer is NULL or has the memory behind it that the call is told.
    unsafe { operation(&mut input) }
});

fn area(rows: usize, columns: usize) -> usize {
    rows.saturating_mul(columns)
}

fn mask(input: &mut Input) -> jostle_mask {
    jostle_mask {
        struct_size: input.struct_size::<jostle_mask>(),
        rate: input.rate(),
        stream: input.choice(4).wrapping_add(4),
        reserved: u32::from(input.seldom(64)),
        seed: input.u64(),
        step: input.u64(),
        layer: input.u64(),
        sequence: input.u64(),
    }
}

/// A matrix with the strides of rows or of columns, seldom with others, and the memory for it.
fn matrix(input: &mut Input, rows: usize, columns: usize) -> jostle_matrix {
    let (row_stride, column_stride) = match input.byte() % 8 {
        0..=2 => (columns, 1),
        3..=5 => (1, rows),
        _ => (input.size(), input.size()),
    };
    let last = area(rows.saturating_sub(1), row_stride)
        .saturating_add(area(columns.saturating_sub(1), column_stride));
    let (data, size) = input.floats(last.saturating_add(1));
    jostle_matrix { data, size, row_stride, column_stride }
}

unsafe fn operation(input: &mut Input) {
    let which = input.byte();
    let (with_compute, with_mask) = (!input.seldom(8), !input.seldom(4));
    let (compute, mask) = (input.compute(), mask(input));
    let compute = if with_compute { &raw const compute } else { ptr::null() };
    let mask = if with_mask { &raw const mask } else { ptr::null() };
    let [rows, width] = [input.size(), input.size()];
    unsafe {
        match which % 23 {
            0..=2 => {
                let heads = input.size();
                let width = if input.seldom(4) { width } else { area(width, heads) };
                let qkv = input.floats(area(rows, area(3, width)));
                let out = input.floats(area(rows, width));
                let stats = input.floats(area(area(heads, rows), 2));
                let scratch = input.scratch(jostle_attention_scratch_size(rows, width));
                match which % 23 {
                    0 => input.call(|error| {
                        jostle_attention_forward(
                            compute, rows, width, heads, mask, out.0, out.1, stats.0, stats.1, qkv.0, qkv.1,
                            scratch.0, scratch.1, error,
                        )
                    }),
                    1 => {
                        let d_qkv = input.floats(area(rows, area(3, width)));
                        let d_out = input.floats(area(rows, width));
                        input.call(|error| {
                            jostle_attention_backward(
                                compute, rows, width, heads, mask, d_qkv.0, d_qkv.1, d_out.0, d_out.1, qkv.0,
                                qkv.1, out.0, out.1, stats.0, stats.1, scratch.0, scratch.1, error,
                            )
                        })
                    }
                    _ => {
                        let weights = input.floats(area(heads, area(rows, rows)));
                        input.call(|error| {
                            jostle_attention_weights(
                                compute, rows, width, heads, weights.0, weights.1, qkv.0, qkv.1, scratch.0,
                                scratch.1, error,
                            )
                        })
                    }
                }
            }
            3..=4 => {
                let losses = input.floats(rows);
                let logits = input.floats(area(rows, width));
                let targets = input.tokens(rows, width);
                let counted = input.size();
                input.call(|error| match which % 23 {
                    3 => jostle_cross_entropy_forward(
                        compute, rows, width, losses.0, losses.1, logits.0, logits.1, targets.0, targets.1,
                        error,
                    ),
                    _ => jostle_cross_entropy_backward(
                        compute, rows, width, counted, losses.0, losses.1, logits.0, logits.1, targets.0,
                        targets.1, error,
                    ),
                })
            }
            5 => {
                let (y, x) = (input.floats(area(rows, width)), input.floats(area(rows, width)));
                input.call(|error| jostle_dropout(compute, rows, width, mask, y.0, y.1, x.0, x.1, error))
            }
            6..=7 => {
                let [length, vocab, context] = [(); 3].map(|()| input.size());
                let x = input.floats(area(rows, width));
                let tokens = input.tokens(rows, vocab);
                let (wte, wpe) = (input.floats(area(vocab, width)), input.floats(area(context, width)));
                input.call(|error| match which % 23 {
                    6 => jostle_embedding_forward(
                        compute, rows, length, width, vocab, context, x.0, x.1, tokens.0, tokens.1, wte.0,
                        wte.1, wpe.0, wpe.1, error,
                    ),
                    _ => jostle_embedding_backward(
                        compute, rows, length, width, vocab, context, wte.0, wte.1, wpe.0, wpe.1, x.0, x.1,
                        tokens.0, tokens.1, error,
                    ),
                })
            }
            8..=9 => {
                let activation = input.choice(2);
                let (y, x) = (input.floats(rows), input.floats(rows));
                if which % 23 == 8 {
                    input.call(|error| {
                        jostle_gelu_forward(compute, rows, activation, y.0, y.1, x.0, x.1, error)
                    })
                } else {
                    let d_y = input.floats(rows);
                    input.call(|error| {
                        jostle_gelu_backward(
                            compute, rows, activation, y.0, y.1, d_y.0, d_y.1, x.0, x.1, error,
                        )
                    })
                }
            }
            10..=12 => {
                let epsilon = input.float();
                let (y, x) = (input.floats(area(rows, width)), input.floats(area(rows, width)));
                let d_y = input.floats(area(rows, width));
                let (mean, rstd) = (input.floats(rows), input.floats(rows));
                let (weight, bias) = (input.floats(width), input.floats(width));
                input.call(|error| match which % 23 {
                    10 => jostle_layer_norm_forward(
                        compute, rows, width, epsilon, y.0, y.1, mean.0, mean.1, rstd.0, rstd.1, x.0, x.1,
                        weight.0, weight.1, bias.0, bias.1, error,
                    ),
                    11 => jostle_layer_norm_backward(
                        compute, rows, width, y.0, y.1, d_y.0, d_y.1, x.0, x.1, mean.0, mean.1, rstd.0,
                        rstd.1, weight.0, weight.1, error,
                    ),
                    _ => jostle_layer_norm_backward_parameters(
                        compute, rows, width, weight.0, weight.1, bias.0, bias.1, d_y.0, d_y.1, x.0, x.1,
                        mean.0, mean.1, rstd.0, rstd.1, error,
                    ),
                })
            }
            13..=15 => {
                let outputs = input.size();
                let (x, y) = (input.floats(area(rows, width)), input.floats(area(rows, outputs)));
                let (weight, bias) = (input.floats(area(width, outputs)), input.floats(outputs));
                let [m, n, k] = match which % 23 {
                    13 => [rows, outputs, width],
                    14 => [rows, width, outputs],
                    _ => [width, outputs, rows],
                };
                let scratch = input.scratch(jostle_matmul_scratch_size(m, n, k));
                input.call(|error| match which % 23 {
                    13 => jostle_linear_forward(
                        compute, rows, width, outputs, y.0, y.1, x.0, x.1, weight.0, weight.1, bias.0,
                        bias.1, scratch.0, scratch.1, error,
                    ),
                    14 => jostle_linear_backward(
                        compute, rows, width, outputs, x.0, x.1, y.0, y.1, weight.0, weight.1, scratch.0,
                        scratch.1, error,
                    ),
                    _ => jostle_linear_backward_parameters(
                        compute, rows, width, outputs, weight.0, weight.1, bias.0, bias.1, x.0, x.1, y.0,
                        y.1, scratch.0, scratch.1, error,
                    ),
                })
            }
            16..=17 => {
                let inner = input.size();
                let c_stride = if input.seldom(4) { input.size() } else { width };
                let c = input.floats(area(rows.saturating_sub(1), c_stride).saturating_add(width));
                let start = input.choice(3);
                let bias = input.floats(width);
                let (a, b) = (matrix(input, rows, inner), matrix(input, inner, width));
                let threads = 1 + input.below(4);
                let scratch = input.scratch(area(threads, jostle_matmul_scratch_size(rows, width, inner)));
                input.call(|error| {
                    jostle_matmul(
                        compute, rows, width, inner, c.0, c.1, c_stride, start, bias.0, bias.1, &a, &b,
                        scratch.0, scratch.1, error,
                    )
                })
            }
            18 => {
                let gradients = input.floats(rows);
                let (mut norm, clip) = (0.0, input.float());
                let fine = input.call(|error| {
                    jostle_gradient_norm(compute, rows, gradients.0, gradients.1, &mut norm, error)
                });
                jostle_clip_factor(norm, clip);
                fine
            }
            19 => {
                let mut recipe = std::mem::zeroed::<jostle_recipe>();
                jostle_recipe_init(&mut recipe, size_of::<jostle_recipe>());
                recipe.struct_size = input.struct_size::<jostle_recipe>();
                recipe.optimizer = input.choice(2);
                for field in
                    [&mut recipe.momentum, &mut recipe.beta1, &mut recipe.beta2, &mut recipe.weight_decay]
                {
                    *field = input.rate();
                }
                let per = [0, 1, 2][input.below(3)];
                let (x, gradient) = (input.floats(rows), input.floats(rows));
                let state = input.floats(area(rows, per));
                let (decays, step) = (input.choice(2), input.u64() >> (input.byte() % 64));
                let (rate, factor) = (input.float(), input.float());
                input.call(|error| {
                    jostle_optimizer_update(
                        compute, &recipe, rows, x.0, x.1, gradient.0, gradient.1, state.0, state.1, decays,
                        step, rate, factor, error,
                    )
                })
            }
            20 => {
                let x = input.floats(area(rows, width));
                input.call(|error| jostle_softmax_forward(compute, rows, width, x.0, x.1, error))
            }
            21 => {
                let (d_x, d_y) = (input.floats(area(rows, width)), input.floats(area(rows, width)));
                let y = input.floats(area(rows, width));
                input.call(|error| {
                    jostle_softmax_backward(compute, rows, width, d_x.0, d_x.1, d_y.0, d_y.1, y.0, y.1, error)
                })
            }
            _ => {
                let offset = input.size();
                let scores = input.floats(area(rows, width));
                input.call(|error| jostle_causal_mask(rows, width, offset, scores.0, scores.1, error))
            }
        };
    }
}
