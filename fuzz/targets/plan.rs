//! Configurations, options, budgets and names of tensors: arbitrary numbers, in bounded time.

#![no_main]

use std::ffi::{CString, c_char};
use std::mem::zeroed;
use std::ptr;

use fuzz::Input;
use jostle_ffi::config::{jostle_config, jostle_options};
use jostle_ffi::plan::*;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    // SAFETY of all calls: each pointer is NULL or has the memory behind it that the call is told.
    unsafe { plan(&mut input) }
});

fn count(input: &mut Input) -> u32 {
    input.size() as u32
}

/// The rank of an adapter, which most matrices lack.
fn rank(input: &mut Input) -> u32 {
    if input.seldom(4) { count(input) } else { 0 }
}

/// A tensor's name, as a rule one of GPT-2's or Llama's.
fn name(input: &mut Input) -> CString {
    const SITES: [&str; 12] = [
        "wte.weight",
        "wpe.weight",
        "ln_f.bias",
        "lm_head.weight",
        "h.{}.attn.c_attn.weight",
        "h.{}.mlp.c_proj.bias",
        "h.{}.ln_1.weight",
        "h.{}",
        "model.layers.{}.self_attn.q_proj.weight",
        "model.embed_tokens.weight",
        "model.layers.{}.self_attn.q_proj.lora_A.weight",
        "h.{}.mlp.c_fc.lora_B.weight",
    ];
    if input.seldom(8) {
        let bytes: Vec<u8> = input.take(40).iter().copied().filter(|byte| *byte != 0).collect();
        return CString::new(bytes).unwrap();
    }
    let (site, layer) = (SITES[input.below(SITES.len())], count(input));
    CString::new(site.replace("{}", &layer.to_string())).unwrap()
}

unsafe fn plan(input: &mut Input) {
    let config = jostle_config {
        struct_size: input.struct_size::<jostle_config>(),
        vocab: count(input),
        context: count(input),
        layers: count(input),
        heads: count(input),
        width: count(input),
        hidden: count(input),
        activation: input.choice(3),
        bias: input.choice(2),
        tied: input.choice(2),
        norm_epsilon: input.rate(),
        embedding_dropout: input.rate(),
        attention_dropout: input.rate(),
        attention_projection_dropout: input.rate(),
        mlp_projection_dropout: input.rate(),
        kv_heads: if input.seldom(2) { count(input) } else { 0 },
        head_width: if input.seldom(2) { count(input) } else { 0 },
        norm: input.choice(2),
        positions: input.choice(2),
        rope_theta: 1.0 / input.rate(),
        rope_factor: 1.0 / input.rate(),
        rope_low_freq_factor: input.rate(),
        rope_high_freq_factor: 1.0 / input.rate(),
        rope_original_context: count(input),
        qkv_bias: input.choice(2),
        qk_norm: input.choice(2),
        initial_std: input.rate(),
        lora_qkv_rank: rank(input),
        lora_q_rank: rank(input),
        lora_k_rank: rank(input),
        lora_v_rank: rank(input),
        lora_o_rank: rank(input),
        lora_gate_rank: rank(input),
        lora_up_rank: rank(input),
        lora_down_rank: rank(input),
        lora_qkv_alpha: 1.0 / input.rate(),
        lora_q_alpha: 1.0 / input.rate(),
        lora_k_alpha: 1.0 / input.rate(),
        lora_v_alpha: 1.0 / input.rate(),
        lora_o_alpha: 1.0 / input.rate(),
        lora_gate_alpha: 1.0 / input.rate(),
        lora_up_alpha: 1.0 / input.rate(),
        lora_down_alpha: 1.0 / input.rate(),
        lora_rslora: input.choice(2),
        lora_dropout: input.rate(),
    };
    let names: Vec<CString> = (0..input.below(4)).map(|_| name(input)).collect();
    let frozen: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let options = jostle_options {
        struct_size: input.struct_size::<jostle_options>(),
        batch: count(input),
        threads: count(input),
        optimizer: input.choice(3),
        recompute: input.choice(2),
        fused: input.choice(2),
        frozen: if frozen.is_empty() { ptr::null() } else { frozen.as_ptr() },
        frozen_count: frozen.len(),
        head_rows: if input.seldom(2) { input.size() } else { 0 },
        freeze_base: input.choice(2),
        reserved: 0,
    };
    unsafe {
        let mut plan = zeroed();
        let fits = input.seldom(2);
        let budget = input.u64() as usize >> (input.byte() % 64);
        let made = input.call(|error| {
            if fits {
                jostle_plan_fit(&mut plan, &config, &options, budget, error)
            } else {
                jostle_plan_init(&mut plan, &config, &options, error)
            }
        });
        let mut tensor = zeroed();
        if !made {
            assert!(!input.call(|error| jostle_plan_tensor(
                &plan,
                0,
                ptr::null_mut(),
                0,
                &mut tensor,
                error
            )));
            return;
        }
        if fits {
            assert!(plan.training_size <= budget);
        }
        assert_eq!(plan.workspace_size, plan.activations_size + plan.scratch_size);
        assert_eq!(plan.parameters_size, 4 * plan.parameter_count);
        // Each tensor is found by its name again, and ends within the parameters.
        let index = input.u64() as usize % plan.tensor_count;
        assert!(input.call(|error| jostle_plan_tensor(&plan, index, ptr::null_mut(), 0, &mut tensor, error)));
        let whole = if tensor.frozen == 1 { plan.frozen_size } else { plan.parameters_size };
        assert!(tensor.offset + tensor.count <= whole / 4);
        let mut same: jostle_tensor = zeroed();
        let name_of_tensor = tensor.name.as_ptr();
        assert!(input.call(|error| {
            jostle_plan_tensor_named(&plan, name_of_tensor, ptr::null_mut(), 0, &mut same, error)
        }));
        assert_eq!((same.offset, same.count), (tensor.offset, tensor.count));
        let name = name(input);
        input.call(|error| {
            jostle_plan_tensor_named(&plan, name.as_ptr(), ptr::null_mut(), 0, &mut tensor, error)
        });
        if plan.parameters_size <= 1 << 16 {
            let parameters = input.floats(plan.parameter_count);
            let seed = input.u64();
            input.call(|error| jostle_initialize(&plan, parameters.0, parameters.1, seed, error));
        }
    }
}
