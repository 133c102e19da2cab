//! One pass of a model: logits, loss, gradients.

use jostle::{Compute, DropoutKey, Gradients, Loss, Pass, Plan, Shape, model};

use crate::border::{Buffers, Output, input, open};
use crate::compute::{Workers, jostle_compute};
use crate::config::flag;
use crate::plan::jostle_plan;
use crate::status::{Call, OrRefuse, Refused, call, jostle_error, jostle_status};

/// The loss of a pass, or of several.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_loss {
    /// The sum over targets that count, in nats.
    pub sum: f64,
    /// How many targets count (are not -1).
    pub counted: u64,
}

impl jostle_loss {
    pub(crate) fn from_core(loss: Loss) -> jostle_loss {
        jostle_loss { sum: loss.sum, counted: loss.counted as u64 }
    }

    pub(crate) fn core(self) -> Loss {
        Loss { sum: self.sum, counted: usize::try_from(self.counted).unwrap_or(usize::MAX) }
    }
}

/// Which dropout masks a training pass uses; all are functions of these numbers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_training {
    /// The run's seed.
    pub seed: u64,
    /// The step, from 0.
    pub step: u64,
    /// The number of the pass's first sequence among all of the step: micro-batches together then have the masks
    /// of one large batch.
    pub first_sequence: u64,
}

/// Tokens and targets of a pass: `sequences` rows of `length` tokens.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_batch {
    /// [sequences, length], each in 0..vocab.
    pub tokens: *const i32,
    /// Bytes that `tokens` has.
    pub tokens_size: usize,
    /// [sequences, length], each in 0..vocab, or -1: ignored. Not looked at where only logits are wanted.
    pub targets: *const i32,
    /// Bytes that `targets` has.
    pub targets_size: usize,
    /// How many sequences; at most the plan's batch.
    pub sequences: usize,
    /// Tokens in each; at most the context.
    pub length: usize,
}

impl jostle_batch {
    pub(crate) fn shape(&self) -> Shape {
        Shape { sequences: self.sequences, length: self.length }
    }

    /// # Safety
    /// The tokens are readable.
    pub(crate) unsafe fn tokens<'a>(&self, buffers: &mut Buffers<'_>) -> Result<&'a [i32], Refused> {
        // SAFETY: the caller's promise.
        unsafe { buffers.read("tokens", self.tokens, self.tokens_size, self.shape().rows()) }
    }

    /// # Safety
    /// The targets are readable.
    pub(crate) unsafe fn targets<'a>(&self, buffers: &mut Buffers<'_>) -> Result<&'a [i32], Refused> {
        // SAFETY: the caller's promise.
        unsafe { buffers.read("targets", self.targets, self.targets_size, self.shape().rows()) }
    }
}

/// What each function of this module is given.
struct Given<'a> {
    plan: &'a Plan,
    workers: Workers,
    parameters: &'a [f32],
    frozen: &'a [f32],
    workspace: &'a mut [f32],
    batch: jostle_batch,
    tokens: &'a [i32],
    buffers: Buffers<'a>,
}

impl<'a> Given<'a> {
    /// # Safety
    /// The pointers are what the functions of this module say.
    unsafe fn new(
        call: &'a Call,
        plan: *const jostle_plan,
        compute: *const jostle_compute,
        (parameters, parameters_size): (*const f32, usize),
        (frozen, frozen_size): (*const f32, usize),
        (workspace, workspace_size): (*mut f32, usize),
        batch: *const jostle_batch,
    ) -> Result<Given<'a>, Refused> {
        let mut buffers = Buffers::new(call);
        // SAFETY: the caller's promise.
        unsafe {
            let plan = open(call, plan)?;
            let workers = Workers::new(call, compute)?;
            let batch = *input(call, "batch", batch)?;
            let parameters = buffers.read("parameters", parameters, parameters_size, plan.parameters)?;
            let frozen = buffers.read("frozen", frozen, frozen_size, plan.frozen)?;
            let workspace = buffers.write("workspace", workspace, workspace_size, plan.workspace())?;
            let tokens = batch.tokens(&mut buffers)?;
            Ok(Given { plan, workers, parameters, frozen, workspace, batch, tokens, buffers })
        }
    }
}

fn pass<'a>(
    compute: Compute<'a>,
    plan: &'a Plan,
    parameters: &'a [f32],
    frozen: &'a [f32],
    tokens: &'a [i32],
    shape: Shape,
    dropout: Option<DropoutKey>,
) -> Pass<'a> {
    Pass { compute, plan, parameters, frozen, tokens, shape, dropout }
}

/// Computes the logits [sequences, length, vocab] of a batch, without dropout. On success `logits` points to them
/// in the workspace, where they stay until it is used again.
///
/// # Safety
/// `plan` and `batch` are readable, `compute` is NULL or readable, `parameters` and `frozen` (NULL where
/// nothing is) readable and `workspace` writable
/// for so many bytes, `logits` writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_model_logits(
    plan: *const jostle_plan,
    compute: *const jostle_compute,
    parameters: *const f32,
    parameters_size: usize,
    frozen: *const f32,
    frozen_size: usize,
    workspace: *mut f32,
    workspace_size: usize,
    batch: *const jostle_batch,
    logits: *mut *const f32,
    error: *mut jostle_error,
) -> jostle_status {
    let body = |call: &Call| {
        // SAFETY: the caller's promise.
        let (output, given) = unsafe {
            let parameters = (parameters, parameters_size);
            let frozen = (frozen, frozen_size);
            let workspace = (workspace, workspace_size);
            (
                Output::new(call, "logits", logits)?,
                Given::new(call, plan, compute, parameters, frozen, workspace, batch)?,
            )
        };
        let Given { plan, workers, parameters, frozen, workspace, batch, tokens, .. } = given;
        pass(workers.compute(), plan, parameters, frozen, tokens, batch.shape(), None)
            .forward(workspace)
            .or_refuse(call)?;
        output.write(model::logits(plan, workspace, batch.shape()).or_refuse(call)?.as_ptr());
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// The loss on a batch's targets, without dropout.
///
/// # Safety
/// As for jostle_model_logits; `loss` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_model_loss(
    plan: *const jostle_plan,
    compute: *const jostle_compute,
    parameters: *const f32,
    parameters_size: usize,
    frozen: *const f32,
    frozen_size: usize,
    workspace: *mut f32,
    workspace_size: usize,
    batch: *const jostle_batch,
    loss: *mut jostle_loss,
    error: *mut jostle_error,
) -> jostle_status {
    let body = |call: &Call| {
        // SAFETY: the caller's promise.
        let (output, mut given) = unsafe {
            let parameters = (parameters, parameters_size);
            let frozen = (frozen, frozen_size);
            let workspace = (workspace, workspace_size);
            (
                Output::new(call, "loss", loss)?,
                Given::new(call, plan, compute, parameters, frozen, workspace, batch)?,
            )
        };
        // SAFETY: the caller's promise.
        let targets = unsafe { given.batch.targets(&mut given.buffers)? };
        let Given { plan, workers, parameters, frozen, workspace, batch, tokens, .. } = given;
        let pass = pass(workers.compute(), plan, parameters, frozen, tokens, batch.shape(), None);
        output.write(jostle_loss::from_core(pass.loss(workspace, targets).or_refuse(call)?));
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Forward, loss and backward: the gradient of the sum of the batch's losses divided by `counted`, the number of
/// targets other than -1 in all batches of the step. Adds to what the gradients hold where `add` is 1, overwrites
/// it where that is 0.
///
/// `training`: the masks of dropout, or NULL for none. JOSTLE_NOT_FINITE leaves the gradients as they were.
///
/// # Safety
/// As for jostle_model_logits; `gradients` is writable for so many bytes, `training` NULL or readable, `loss`
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_model_backward(
    plan: *const jostle_plan,
    compute: *const jostle_compute,
    parameters: *const f32,
    parameters_size: usize,
    frozen: *const f32,
    frozen_size: usize,
    gradients: *mut f32,
    gradients_size: usize,
    add: u32,
    workspace: *mut f32,
    workspace_size: usize,
    batch: *const jostle_batch,
    counted: usize,
    training: *const jostle_training,
    loss: *mut jostle_loss,
    error: *mut jostle_error,
) -> jostle_status {
    let body = |call: &Call| {
        // SAFETY: the caller's promise.
        let (output, mut given) = unsafe {
            let parameters = (parameters, parameters_size);
            let frozen = (frozen, frozen_size);
            let workspace = (workspace, workspace_size);
            (
                Output::new(call, "loss", loss)?,
                Given::new(call, plan, compute, parameters, frozen, workspace, batch)?,
            )
        };
        let mode = if flag(call, "add", add)? { Gradients::Add } else { Gradients::Overwrite };
        let dropout = if training.is_null() {
            None
        } else {
            // SAFETY: the caller's promise.
            let &jostle_training { seed, step, first_sequence } =
                unsafe { input(call, "training", training)? };
            Some(DropoutKey { seed, step, first_sequence })
        };
        // SAFETY: the caller's promise.
        let (targets, gradients) = unsafe {
            let targets = given.batch.targets(&mut given.buffers)?;
            let wanted = given.plan.gradients;
            (targets, given.buffers.write("gradients", gradients, gradients_size, wanted)?)
        };
        let Given { plan, workers, parameters, frozen, workspace, batch, tokens, .. } = given;
        let pass = pass(workers.compute(), plan, parameters, frozen, tokens, batch.shape(), dropout);
        let loss = pass.backward(gradients, mode, workspace, targets, counted).or_refuse(call)?;
        output.write(jostle_loss::from_core(loss));
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}
