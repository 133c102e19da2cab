//! Sizes: how long every buffer must be, where each tensor lies in them, and initial values.

use core::ffi::c_char;
use core::mem::offset_of;

use jostle::compact::format::{Sink, Written};
use jostle::layout::Tensor;
use jostle::{InstructionSet, Plan, initialization};

use crate::border::{self, Buffers, Handle, Kind, Output, open};
use crate::config::{jostle_config, jostle_options};
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_error, jostle_status};

/// How many bytes each buffer must have at least, for one configuration and one set of options. All buffers are
/// aligned to JOSTLE_ALIGNMENT. A plan is a value: it may be copied, and used by several threads at once.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_plan {
    /// float: all parameters that are trained, tensor after tensor; jostle_plan_tensor tells where each lies.
    pub parameters_size: usize,
    /// float: all that are not, likewise; only read, and no part of training_size: they may lie in flash.
    pub frozen_size: usize,
    /// float: a gradient for each parameter, in the same order; for some rows of a tensor where the update is fused.
    pub gradients_size: usize,
    /// float: what the optimiser keeps (AdamW: all first moments, then all second moments); may be 0.
    pub optimizer_size: usize,
    /// Of the workspace: what a forward pass leaves for the backward pass.
    pub activations_size: usize,
    /// Of the workspace: intermediate results of one layer, and each thread's packing space.
    pub scratch_size: usize,
    /// float: activations and scratch, one buffer.
    pub workspace_size: usize,
    /// int32_t: tokens and targets of one micro-batch.
    pub batch_size: usize,
    /// All that training needs, the sum of the above but for frozen_size.
    pub training_size: usize,
    /// float: a generator's memory, besides the parameters.
    pub generation_size: usize,
    /// int32_t: a generator's window, the tokens that it looks at.
    pub window_size: usize,
    /// uint32_t: scratch for drawing a token.
    pub order_size: usize,
    /// The largest number of sequences that one pass takes.
    pub batch: usize,
    /// How many threads may work at once.
    pub threads: usize,
    /// 1 where the backward pass makes activations again, otherwise 0.
    pub recompute: usize,
    /// The multiply-adds that this adds to a pass over a full batch.
    pub recomputed: usize,
    /// 1 where the backward pass updates parameters, otherwise 0.
    pub fused: usize,
    /// The number of parameters that are trained.
    pub parameter_count: usize,
    /// The number of tensors that they are made of.
    pub tensor_count: usize,
    /// The configuration and the options.
    pub opaque: [u64; 12],
    /// And these.
    pub more: [usize; 24],
}

/// The alignment in bytes of every buffer of numbers. On x86-64, buffers that begin with a cache line (64 bytes) make
/// training steps 3 % and generation up to a fifth faster.
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
        let (recomputed, tensor_count) = (plan.recomputed(), plan.tensors().count());
        // The core has checked that each of these is at most isize::MAX bytes.
        let bytes = |elements: usize| elements.wrapping_mul(4);
        self.write(jostle_plan {
            parameters_size: bytes(plan.parameters),
            frozen_size: bytes(plan.frozen),
            gradients_size: bytes(plan.gradients),
            optimizer_size: bytes(plan.optimizer),
            activations_size: bytes(plan.activations),
            scratch_size: bytes(plan.scratch),
            workspace_size: plan.workspace().saturating_mul(4),
            batch_size: bytes(plan.batch),
            training_size: plan.bytes(),
            generation_size: bytes(plan.generation),
            // No longer than a batch, and no larger than a generator's logits.
            window_size: bytes(plan.config.context),
            order_size: bytes(plan.config.vocab),
            batch: plan.options.batch,
            threads: plan.options.threads,
            recompute: plan.options.recompute.into(),
            recomputed,
            fused: plan.options.fused.into(),
            parameter_count: plan.parameters,
            tensor_count,
            opaque: [0; _],
            more: [0; _],
        });
        self.seal(plan);
    }
}

/// Sizes every buffer, or tells what is wrong with the configuration or the options.
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

/// Sizes every buffer for the fastest training that takes at most `budget` bytes, with at most the batch and the threads
/// of `options`: of plans that keep all activations and plans that make them again, the one with the fewest
/// multiply-adds per thread, then the largest batch; the plan tells which these are. None of it shows in the result of
/// training: several micro-batches make one step (jostle_recipe's accumulate). Where none of them does, the update is
/// fused into the backward pass, with the whole batch in one pass and without clipping. JOSTLE_BUDGET tells in `error`
/// how many bytes the smallest plan wants.
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

/// One of the parameters' tensors.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_tensor {
    /// Hugging Face GPT-2's name, e.g. h.0.attn.c_attn.weight; zero-terminated.
    pub name: [c_char; 48],
    /// 1 for biases and norms, 2 for matrices.
    pub rank: u32,
    /// 1 where it is not trained, otherwise 0.
    pub frozen: u32,
    /// The shape [rows, columns] of a matrix, row-major; a vector's length and 1.
    pub shape: [usize; 2],
    /// The number of elements.
    pub count: usize,
    /// Where it begins among the parameters, or among the frozen ones, in elements.
    pub offset: usize,
    /// Its elements in the buffer that was handed over; NULL where none was, or the tensor is frozen.
    pub data: *mut f32,
}

/// Where a tensor's name goes.
struct Name {
    text: [c_char; 48],
    length: usize,
}

impl Sink for Name {
    fn put(&mut self, text: &[u8]) {
        // The longest name has 31 characters, and the last place stays zero.
        for (place, byte) in self.text.iter_mut().skip(self.length).zip(text) {
            *place = *byte as c_char;
        }
        self.length = self.length.saturating_add(text.len());
    }
}

fn describe(tensor: &Tensor, values: &mut [f32]) -> jostle_tensor {
    let mut name = Name { text: [0; 48], length: 0 };
    tensor.name.write(&mut name);
    let trained = if tensor.frozen { None } else { values.get_mut(tensor.offset..) };
    let data = trained.map_or(core::ptr::null_mut(), <[f32]>::as_mut_ptr);
    jostle_tensor {
        name: name.text,
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
/// `values`: the parameters, gradients, or one of AdamW's moments, at least `parameters_size` bytes, which are not
/// touched; or NULL.
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
    // SAFETY: the caller's promise.
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
    // SAFETY: the caller's promise.
    unsafe {
        find_tensor(plan, values, values_size, tensor, error, |call, plan| {
            let name = border::string(call, "name", name)?;
            plan.tensor(name).ok_or(Refusal::NotFound { what: "tensor", index: 0 }).or_refuse(call)
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
            let (plan, tensor) = (open(call, plan)?, Output::new(call, "tensor", tensor)?);
            // SAFETY: the caller's promise. Nobody but the caller touches the elements.
            let values = Buffers::new(call).write_optional("values", values, values_size, plan.parameters)?;
            tensor.write(describe(&find(call, plan)?, values));
            Ok(())
        })
    }
}

/// Fills the parameters with random initial values, a function of the seed: matrices normal(0, 0.02), those that
/// end a residual branch scaled by 1 / sqrt(2 L), biases 0, norms 1 (Radford et al. 2019). Which tensors are frozen, and
/// so left out, changes no other's values.
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
                Buffers::new(call).write("parameters", parameters, parameters_size, plan.parameters)?;
            initialization::initialize(InstructionSet::detect(), plan, parameters, seed).or_refuse(call)?;
            Ok(())
        })
    }
}
