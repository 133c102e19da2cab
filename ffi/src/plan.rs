//! The size of every buffer, the place of each tensor in the buffers, and initial values.

use core::ffi::c_char;
use core::mem::offset_of;

use jostle::Tensor;
use jostle::{InstructionSet, Plan, initialize};

use crate::border::{self, Buffers, Handle, Kind, Output, open};
use crate::config::{jostle_config, jostle_options};
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_error, jostle_status};

/// The least size of each buffer in bytes, for one configuration and one set of options. All buffers are aligned to
/// JOSTLE_ALIGNMENT. A plan may be copied, and several threads may use it at once.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_plan {
    /// float: the parameters that are trained, tensor after tensor; jostle_plan_tensor tells the place of each.
    pub parameters_size: usize,
    /// float: the frozen parameters, tensor after tensor. They are only read, so they may lie in flash.
    pub frozen_size: usize,
    /// float: a gradient for each parameter, in the same order; with a fused optimizer step, for some rows of one tensor.
    pub gradients_size: usize,
    /// float: the optimiser's state (AdamW: all first moments, then all second moments); may be 0.
    pub optimizer_size: usize,
    /// The part of the workspace for activations, which a forward pass leaves for the backward pass.
    pub activations_size: usize,
    /// The part of the workspace for intermediate results of one layer and for each thread's packed panels.
    pub scratch_size: usize,
    /// float: activations and scratch, one buffer.
    pub workspace_size: usize,
    /// int32_t: tokens and targets of one micro-batch.
    pub batch_size: usize,
    /// The sum of parameters, gradients, optimizer, workspace and batch: all memory of training, except frozen_size.
    pub training_size: usize,
    /// float: a generator's memory.
    pub generation_size: usize,
    /// int32_t: a generator's window of tokens.
    pub window_size: usize,
    /// uint32_t: scratch for drawing a token.
    pub order_size: usize,
    /// The most sequences in one pass.
    pub batch: usize,
    /// The most threads that work at once.
    pub threads: usize,
    /// 1 if the backward pass recomputes activations, else 0.
    pub recompute: usize,
    /// The multiply-adds that recomputation adds to a pass over a full batch.
    pub recomputed: usize,
    /// 1 if the optimizer step is fused into the backward pass, else 0.
    pub fused: usize,
    /// The number of parameters that are trained.
    pub parameter_count: usize,
    /// The number of tensors, trained and frozen.
    pub tensor_count: usize,
    /// The configuration and the options.
    pub opaque: [u64; 12],
    /// Likewise.
    pub more: [usize; 70],
}

/// The alignment in bytes of every buffer of numbers. On x86-64, 64 bytes (a cache line) are better: training steps are 3 %
/// and generation is up to a fifth faster.
pub const JOSTLE_ALIGNMENT: usize = 4;

const _: () = assert!(JOSTLE_ALIGNMENT == align_of::<f32>() && JOSTLE_ALIGNMENT == align_of::<i32>());

impl Handle for jostle_plan {
    type Value = Plan;
    const KIND: &'static Kind = &Kind {
        name: "plan",
        mark: u64::from_le_bytes(*b"jost.pln"),
        opaque: offset_of!(jostle_plan, opaque),
    };
}

impl Output<jostle_plan> {
    #[inline(never)]
    fn plan(self, plan: &Plan) {
        let (recomputed, tensor_count) = (plan.recomputed(), plan.tensors().len());
        // The core has checked that every buffer has at most isize::MAX bytes.
        let bytes = |elements: usize| elements.wrapping_mul(4);
        self.write(jostle_plan {
            parameters_size: bytes(plan.parameters()),
            frozen_size: bytes(plan.frozen()),
            gradients_size: bytes(plan.gradients()),
            optimizer_size: bytes(plan.optimizer()),
            activations_size: bytes(plan.activations()),
            scratch_size: bytes(plan.scratch()),
            workspace_size: plan.workspace().saturating_mul(4),
            batch_size: bytes(plan.batch()),
            training_size: plan.bytes(),
            generation_size: bytes(plan.generation()),
            // Neither is larger than a buffer above: a batch, a generator's logits.
            window_size: bytes(plan.config().context),
            order_size: bytes(plan.config().vocab),
            batch: plan.options().batch,
            threads: plan.options().threads,
            recompute: plan.options().recompute.into(),
            recomputed,
            fused: plan.options().fused.into(),
            parameter_count: plan.parameters(),
            tensor_count,
            opaque: [0; _],
            more: [0; _],
        });
        self.seal(plan);
    }
}

/// Computes the size of every buffer, or refuses the configuration or the options.
///
/// # Safety
/// `plan` is writable; `config`, `options` and the names in it are readable; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_plan_init(
    plan: *mut jostle_plan,
    config: *const jostle_config,
    options: *const jostle_options,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let (plan, config, options) = (
                Output::new(call, "plan", plan)?,
                border::structure(call, "config", config)?,
                border::structure(call, "options", options)?,
            );
            let config = config.core(call)?;
            let options = options.core(call, &config)?;
            plan.plan(&Plan::new(&config, &options).or_refuse(call)?);
            Ok(())
        })
    }
}

/// Makes the plan of the fastest training in at most `budget` bytes, with at most the batch and the threads of `options`.
///
/// It considers plans with and without activation recomputation, and takes the one with the fewest multiply-adds per
/// thread, then the one with the largest batch. This choice does not change the result of training: several micro-batches
/// make one step (jostle_recipe's accumulate). If no such plan fits, the plan has a fused optimizer step, with the whole
/// batch in one pass and without clipping. JOSTLE_BUDGET tells in `error` how many bytes the smallest plan needs.
///
/// # Safety
/// As for jostle_plan_init.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_plan_fit(
    plan: *mut jostle_plan,
    config: *const jostle_config,
    options: *const jostle_options,
    budget: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let (plan, config, options) = (
                Output::new(call, "plan", plan)?,
                border::structure(call, "config", config)?,
                border::structure(call, "options", options)?,
            );
            let config = config.core(call)?;
            let options = options.core(call, &config)?;
            plan.plan(&Plan::fit(&config, &options, budget).or_refuse(call)?);
            Ok(())
        })
    }
}

/// A tensor of the model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_tensor {
    /// Hugging Face GPT-2's name, e.g. h.0.attn.c_attn.weight; zero-terminated.
    pub name: [c_char; 64],
    /// 1 for biases and norms, 2 for matrices.
    pub rank: u32,
    /// 1 if it is not trained, else 0.
    pub frozen: u32,
    /// The shape [rows, columns] of a matrix, row-major; a vector's length and 1.
    pub shape: [usize; 2],
    /// The number of elements.
    pub count: usize,
    /// Its offset in the parameters or, if it is frozen, in the frozen parameters, in elements.
    pub offset: usize,
    /// Its elements in the buffer `values`; NULL if that is NULL or the tensor is frozen.
    pub data: *mut f32,
}

fn describe(tensor: &Tensor, values: &mut [f32]) -> jostle_tensor {
    let trained = if tensor.frozen { None } else { values.get_mut(tensor.offset..) };
    let data = trained.map_or(core::ptr::null_mut(), <[f32]>::as_mut_ptr);
    jostle_tensor {
        name: border::written(&tensor.name),
        rank: tensor.rank as u32,
        frozen: tensor.frozen.into(),
        shape: tensor.shape,
        count: tensor.len(),
        offset: tensor.offset,
        data,
    }
}

/// Describes a tensor by its number in the plan's tensor_count.
///
/// `values`: parameters, gradients, or one of AdamW's moments, at least `parameters_size` bytes; or NULL. They are neither
/// read nor written.
///
/// # Safety
/// `plan` is readable, `tensor` writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_plan_tensor(
    plan: *const jostle_plan,
    index: usize,
    values: *mut f32,
    values_size: usize,
    tensor: *mut jostle_tensor,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        find_tensor(plan, values, values_size, tensor, error, |call, plan| {
            plan.tensors().nth(index).ok_or(Refusal::NotFound { what: "tensor", index }).or_refuse(call)
        })
    }
}

/// Describes a tensor by its name, e.g. "wte.weight". `values` as for jostle_plan_tensor.
///
/// # Safety
/// `plan` is readable, `name` zero-terminated, `tensor` writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_plan_tensor_named(
    plan: *const jostle_plan,
    name: *const c_char,
    values: *mut f32,
    values_size: usize,
    tensor: *mut jostle_tensor,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        find_tensor(plan, values, values_size, tensor, error, |call, plan| {
            let name = border::string(call, "name", name)?;
            plan.tensor(name).ok_or_else(|| call.refuse_name(&name))
        })
    }
}

/// # Safety
/// As for [`jostle_plan_tensor`].
unsafe fn find_tensor(
    plan: *const jostle_plan,
    values: *mut f32,
    values_size: usize,
    tensor: *mut jostle_tensor,
    error: *mut jostle_error,
    find: impl FnOnce(&Call, &Plan) -> Result<Tensor, Refused>,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let (plan, tensor) = (open(call, plan)?, Output::beside(call, "tensor", tensor, plan)?);
            let values =
                Buffers::new(call).write_optional("values", values, values_size, plan.parameters())?;
            tensor.write(describe(&find(call, plan)?, values));
            Ok(())
        })
    }
}

/// Fills the parameters with random initial values, which are a function of the seed (Radford et al. 2019): matrices
/// normal(0, 0.02), biases 0, norms 1. Matrices that end a residual branch are scaled by 1 / sqrt(2 L). Frozen tensors are
/// left out; the values of the other tensors do not depend on that.
///
/// # Safety
/// `plan` is readable, `parameters` writable for `parameters_size` bytes, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_initialize(
    plan: *const jostle_plan,
    parameters: *mut f32,
    parameters_size: usize,
    seed: u64,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let plan = open(call, plan)?;
            let parameters =
                Buffers::new(call).write("parameters", parameters, parameters_size, plan.parameters())?;
            initialize(InstructionSet::detect(), plan, parameters, seed).or_refuse(call)?;
            Ok(())
        })
    }
}
