//! The gradient's norm, and an optimiser's update of one tensor.

use jostle::{clip_factor, gradient_norm};

use super::area;
use crate::border::{self, Buffers, Output};
use crate::compute::{Workers, jostle_compute};
use crate::config::{self, jostle_recipe};
use crate::status::{OrRefuse, call, jostle_error, jostle_status};

/// Computes the global norm of `count` gradients. The order of summation does not depend on the number of threads.
///
/// # Safety
/// `compute` is NULL or readable, `gradients` readable for the given number of bytes, `norm` writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_gradient_norm(
    compute: *const jostle_compute,
    count: usize,
    gradients: *const f32,
    gradients_size: usize,
    norm: *mut f32,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let norm = Output::new(call, "norm", norm)?;
            let workers = Workers::new(call, compute)?;
            let gradients = Buffers::new(call).read("gradients", gradients, gradients_size, count)?;
            norm.write(gradient_norm(workers.compute(), gradients));
            Ok(())
        })
    }
}

/// The factor that scales a gradient of this norm to a norm of at most `clip` (PyTorch's clip_grad_norm_).
#[unsafe(no_mangle)]
pub extern "C" fn jostle_clip_factor(norm: f32, clip: f32) -> f32 {
    clip_factor(norm, clip)
}

/// Updates one tensor `x` of `count` elements by the recipe's optimiser, AdamW or SGD. The gradient is multiplied by `factor`,
/// which is the factor of clipping or 1. `step` counts from 0. The recipe's schedule is ignored.
///
/// `state`: the optimiser's state, zero before the first step. AdamW has first moments, then second moments; SGD with
/// momentum has velocities; SGD without momentum has none: NULL. `decays`: 1 if weight decay applies, as it does to matrices,
/// else 0.
///
/// # Safety
/// `compute` is NULL or readable, `recipe` readable; `x` and `state` are writable, `gradient` readable for the given
/// bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_optimizer_update(
    compute: *const jostle_compute,
    recipe: *const jostle_recipe,
    count: usize,
    x: *mut f32,
    x_size: usize,
    gradient: *const f32,
    gradient_size: usize,
    state: *mut f32,
    state_size: usize,
    decays: u32,
    step: u64,
    learning_rate: f32,
    factor: f32,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let workers = Workers::new(call, compute)?;
            let optimizer = border::structure(call, "recipe", recipe)?.optimizer(call)?;
            let decays = config::flag(call, "decays", decays)?;
            let x = buffers.write("x", x, x_size, count)?;
            let gradient = buffers.read("gradient", gradient, gradient_size, count)?;
            let wanted = area(call, count, optimizer.state().per_parameter())?;
            let state = buffers.write("state", state, state_size, wanted)?;
            let compute = workers.compute();
            optimizer
                .update_tensor(compute, x, gradient, state, decays, step, learning_rate, factor)
                .or_refuse(call)?;
            Ok(())
        })
    }
}
