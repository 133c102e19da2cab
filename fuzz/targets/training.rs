//! Trainers, passes and generators on small models: arbitrary numbers, tokens and texts, in buffers of exactly the plan's
//! sizes. Portable code and vectors have the same results.

#![no_main]

use std::ffi::c_void;
use std::mem::{size_of, zeroed};
use std::ptr;

use fuzz::Input;
use jostle_ffi::buffers::jostle_buffers;
use jostle_ffi::config::*;
use jostle_ffi::generator::*;
use jostle_ffi::model::*;
use jostle_ffi::plan::*;
use jostle_ffi::trainer::*;
use libfuzzer_sys::fuzz_target;

/// The instruction sets to compare: JOSTLE_PORTABLE and JOSTLE_FASTEST.
const SETS: [u32; 2] = [1, 0];

fuzz_target!(|bytes: &[u8]| {
    // SAFETY of all calls: each pointer has the memory behind it that the call is told.
    let [portable, fastest] = SETS.map(|set| unsafe { train(&mut Input::new(bytes), set) });
    assert_eq!(portable.0, fastest.0, "statuses differ");
    for (index, (a, b)) in portable.1.iter().zip(&fastest.1).enumerate() {
        // The bits of a NaN are the processor's affair.
        assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{index}: {a} and {b}");
    }
});

/// The statuses and numbers that came out.
type Results = (Vec<bool>, Vec<f32>);

unsafe fn train(input: &mut Input, instruction_set: u32) -> Results {
    let mut results = (Vec::new(), Vec::new());
    unsafe {
        // Seldom large enough for several tiles and panels.
        let most = if input.seldom(16) { 40 } else { 9 };
        let [vocab, context, heads] = [1 + input.below(most), 1 + input.below(most), 1 + input.below(3)];
        let (layers, width) = (1 + input.below(2), heads * (1 + input.below(most)));
        let mut config: jostle_config = zeroed();
        let size = size_of::<jostle_config>();
        jostle_config_init(
            &mut config,
            size,
            vocab as u32,
            context as u32,
            layers as u32,
            heads as u32,
            width as u32,
        );
        config.hidden = 1 + input.below(2 * most) as u32;
        [config.bias, config.tied] = [(); 2].map(|()| input.byte() as u32 % 2);
        config.activation = input.below(3) as u32;
        if input.seldom(2) {
            [config.norm, config.positions, config.qkv_bias, config.qk_norm] =
                [(); 4].map(|()| input.byte() as u32 % 2);
            config.kv_heads = input.below(2) as u32;
            config.head_width = 2 * input.below(5) as u32;
        }
        config.embedding_dropout = input.rate();
        config.attention_dropout = input.rate();
        config.mlp_projection_dropout = input.rate();
        let mut options: jostle_options = zeroed();
        jostle_options_init(&mut options, size_of::<jostle_options>(), 1 + input.below(4) as u32);
        options.threads = 1 + input.below(3) as u32;
        options.optimizer = input.below(3) as u32;
        [options.recompute, options.fused] = [(); 2].map(|()| input.byte() as u32 % 2);
        options.head_rows = input.below(4);
        let frozen = [c"wte.weight".as_ptr(), c"ln_f.weight".as_ptr(), c"h.0.attn.c_attn.weight".as_ptr()];
        let count = input.below(8);
        if count <= frozen.len() {
            (options.frozen, options.frozen_count) = (frozen.as_ptr(), count);
        }
        let mut recipe: jostle_recipe = zeroed();
        jostle_recipe_init(&mut recipe, size_of::<jostle_recipe>());
        recipe.optimizer = u32::from(options.optimizer == 2);
        recipe.momentum = if options.optimizer == 1 { 0.5 } else { 0.0 };
        recipe.clip = if options.fused == 1 { 0.0 } else { input.rate() };
        recipe.accumulate = if options.fused == 1 { 1 } else { 1 + input.below(3) as u32 };
        recipe.learning_rate = input.float();
        recipe.weight_decay = input.rate();
        recipe.seed = input.u64();

        let mut plan: jostle_plan = zeroed();
        if !input.call(|error| jostle_plan_init(&mut plan, &config, &options, error)) {
            return results;
        }
        let mut compute = input.compute();
        compute.struct_size = size_of_val(&compute) as u32;
        compute.instruction_set = instruction_set;
        (compute.threads, compute.reserved) = (options.threads, 0);
        compute.run = Some(fuzz::backwards);

        let of = |bytes: usize, pattern: &[f32]| -> Box<[f32]> {
            (0..bytes / 4).map(|i| pattern[i % pattern.len()]).collect()
        };
        // As a rule the values that training starts with, and a few others among them.
        let mut parameters = of(plan.parameters_size, &[0.0]);
        let seed = input.u64();
        assert!(input.call(|error| jostle_initialize(
            &plan,
            parameters.as_mut_ptr(),
            plan.parameters_size,
            seed,
            error
        )));
        for _ in 0..input.below(12) {
            let (place, value) = (input.u32() as usize % parameters.len(), input.float());
            parameters[place] = value;
        }
        if input.seldom(4) {
            parameters = of(plan.parameters_size, &input.pattern());
        }
        let frozen = of(plan.frozen_size, &input.pattern());
        let mut gradients = of(plan.gradients_size, &[f32::NAN]);
        let mut optimizer = of(plan.optimizer_size, &[0.0]);
        if input.seldom(4) {
            optimizer = of(plan.optimizer_size, &input.pattern());
        }
        let mut workspace = of(plan.workspace_size, &[f32::NAN]);
        let mut batch = vec![-1; plan.batch_size / 4].into_boxed_slice();
        let buffers = jostle_buffers {
            struct_size: size_of::<jostle_buffers>() as u32,
            reserved: 0,
            parameters: parameters.as_mut_ptr(),
            parameters_size: plan.parameters_size,
            frozen: frozen.as_ptr(),
            frozen_size: plan.frozen_size,
            gradients: gradients.as_mut_ptr(),
            gradients_size: plan.gradients_size,
            optimizer: optimizer.as_mut_ptr(),
            optimizer_size: plan.optimizer_size,
            workspace: workspace.as_mut_ptr(),
            workspace_size: plan.workspace_size,
            batch: batch.as_mut_ptr(),
            batch_size: plan.batch_size,
        };
        let mut trainer = zeroed();
        let made =
            input.call(|error| jostle_trainer_init(&mut trainer, &plan, &recipe, &buffers, &compute, error));
        results.0.push(made);
        let mut generator = zeroed();
        let mut memory = of(plan.generation_size, &[f32::NAN]);
        let mut window = vec![-1; plan.window_size / 4].into_boxed_slice();
        assert!(input.call(|error| {
            jostle_generator_init(
                &mut generator,
                &plan,
                &compute,
                &buffers,
                memory.as_mut_ptr(),
                plan.generation_size,
                window.as_mut_ptr(),
                plan.window_size,
                error,
            )
        }));
        let mut order = vec![0; plan.order_size / 4].into_boxed_slice();

        let valid = !input.seldom(4);
        let text: Box<[u8]> = (0..input.size().min(200))
            .map(|_| if valid { input.byte() % vocab as u8 } else { input.byte() })
            .collect();
        let (text, text_size) = (text.as_ptr().cast::<c_void>(), text.len());
        let mut loss = jostle_loss { sum: 0.0, counted: 0 };
        let mut report: jostle_report = zeroed();
        for _ in 0..6 {
            let which = input.byte() % 9;
            let fine = match which {
                0 => input
                    .call(|error| jostle_trainer_step(&mut trainer, text, text_size, 1, &mut report, error)),
                1 => {
                    let mut done = 0;
                    (0..1 + input.byte() % 64).all(|_| {
                        done == 1
                            || input.call(|error| {
                                jostle_trainer_poll(
                                    &mut trainer,
                                    text,
                                    text_size,
                                    1,
                                    &mut done,
                                    &mut report,
                                    error,
                                )
                            })
                    })
                }
                2 => input.call(|error| {
                    jostle_trainer_evaluate(&mut trainer, text, text_size, 1, &mut loss, error)
                }),
                3..=5 => {
                    let (sequences, length) = (1 + input.below(plan.batch), 1 + input.below(context));
                    let tokens = input.tokens(sequences * length, vocab);
                    let targets = input.tokens(sequences * length, vocab);
                    let batch = jostle_batch {
                        tokens: tokens.0,
                        tokens_size: tokens.1,
                        targets: targets.0,
                        targets_size: targets.1,
                        sequences,
                        length,
                    };
                    let counted = input.size();
                    match which {
                        3 => input.call(|error| {
                            jostle_trainer_accumulate(&mut trainer, &batch, counted, &mut loss, error)
                        }),
                        4 => {
                            let mut logits = ptr::null();
                            let fine = input.call(|error| {
                                jostle_model_logits(&plan, &compute, &buffers, &batch, &mut logits, error)
                            });
                            if fine {
                                let count = sequences * length * vocab;
                                results.1.extend_from_slice(std::slice::from_raw_parts(logits, count));
                            }
                            fine
                        }
                        _ => input.call(|error| {
                            jostle_model_loss(&plan, &compute, &buffers, &batch, &mut loss, error)
                        }),
                    }
                }
                6 => input.call(|error| jostle_trainer_update(&mut trainer, &loss, &mut report, error)),
                7 => {
                    let step = input.u64();
                    input.call(|error| jostle_trainer_resume(&mut trainer, step, error))
                }
                _ => {
                    let count = input.size().min(60);
                    let tokens = input.tokens(count, vocab);
                    let mut logits = ptr::null_mut();
                    let mut sampling: jostle_sampling = zeroed();
                    jostle_sampling_init(&mut sampling, size_of::<jostle_sampling>());
                    sampling.temperature = input.float();
                    sampling.top_k = input.size() as u32;
                    (sampling.top_p, sampling.min_p) = (1.0 - input.rate(), input.rate());
                    let (seed, mut token) = (input.u64(), -1);
                    let fed = input.call(|error| {
                        jostle_generator_feed(&mut generator, tokens.0, tokens.1, &mut logits, error)
                    });
                    let drawn = input.call(|error| {
                        jostle_generator_draw(
                            &mut generator,
                            &sampling,
                            order.as_mut_ptr(),
                            plan.order_size,
                            seed,
                            0,
                            &mut token,
                            error,
                        )
                    });
                    if drawn {
                        assert!((0..vocab as i32).contains(&token));
                        results.1.push(token as f32);
                    }
                    fed && drawn
                }
            };
            results.0.push(fine);
            if fine {
                results.1.extend([loss.sum as f32, report.loss, report.gradient_norm]);
            }
        }
        results.1.extend_from_slice(&parameters);
        results.1.extend_from_slice(&optimizer);
        results
    }
}
