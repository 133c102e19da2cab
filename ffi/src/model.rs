//! One pass of a model: logits, loss, gradients.

use jostle::{DropoutKey, Gradients, Loss, Pass, Plan, Shape};

use crate::border::{self, Buffers, Output, input, open};
use crate::buffers::jostle_buffers;
use crate::compute::{Workers, jostle_compute};
use crate::config::flag;
use crate::plan::jostle_plan;
use crate::status::{Call, OrRefuse, Refused, call, jostle_error, jostle_status};

/// The loss of a pass, or of several.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_loss {
    /// The sum over the targets that count, in nats.
    pub sum: f64,
    /// The number of targets that count, which are those other than -1.
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

/// Selects the dropout masks of a pass: these numbers determine them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_dropout_key {
    /// The run's seed.
    pub seed: u64,
    /// The step, from 0.
    pub step: u64,
    /// The number of the pass's first sequence, counted from 0 over the whole step: micro-batches together then have
    /// the masks of one large batch.
    pub first_sequence: u64,
}

/// Tokens and targets of a pass: `sequences` rows of `length` tokens.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_batch {
    /// [sequences, length], each in 0..vocab.
    pub tokens: *const i32,
    /// The size of `tokens` in bytes.
    pub tokens_size: usize,
    /// [sequences, length], each in 0..vocab, or -1, which is ignored. jostle_model_logits does not read them.
    pub targets: *const i32,
    /// The size of `targets` in bytes.
    pub targets_size: usize,
    /// The number of sequences; at most the plan's batch.
    pub sequences: usize,
    /// The number of tokens in each sequence; at most the context.
    pub length: usize,
}

impl jostle_batch {
    pub(crate) fn shape(&self) -> Shape {
        Shape { sequences: self.sequences, length: self.length }
    }

    /// # Safety
    /// The tokens are readable.
    pub(crate) unsafe fn tokens<'a>(&self, buffers: &mut Buffers<'_>) -> Result<&'a [i32], Refused> {
        // SAFETY: the caller's promise is the same.
        unsafe { buffers.read("tokens", self.tokens, self.tokens_size, self.shape().rows()) }
    }

    /// # Safety
    /// The targets are readable.
    pub(crate) unsafe fn targets<'a>(&self, buffers: &mut Buffers<'_>) -> Result<&'a [i32], Refused> {
        // SAFETY: the caller's promise is the same.
        unsafe { buffers.read("targets", self.targets, self.targets_size, self.shape().rows()) }
    }
}

/// The arguments that all functions of this module take.
struct PassArguments<'a> {
    plan: &'a Plan,
    workers: Workers<'a>,
    parameters: &'a [f32],
    frozen: &'a [f32],
    workspace: &'a mut [f32],
    batch: jostle_batch,
    tokens: &'a [i32],
    /// The buffers that are in use so far.
    used: Buffers<'a>,
    given: jostle_buffers,
}

impl<'a> PassArguments<'a> {
    /// # Safety
    /// The pointers are as the functions of this module say.
    unsafe fn new(
        call: &'a Call,
        plan: *const jostle_plan,
        compute: *const jostle_compute,
        buffers: *const jostle_buffers,
        batch: *const jostle_batch,
    ) -> Result<PassArguments<'a>, Refused> {
        let mut used = Buffers::new(call);
        // SAFETY: the caller's promise is the same.
        unsafe {
            let plan = open(call, plan)?;
            let workers = Workers::new(call, compute)?;
            let given = border::structure(call, "buffers", buffers)?;
            let batch = *input(call, "batch", batch)?;
            let (parameters, frozen) = given.read(plan, &mut used)?;
            let (workspace, size) = (given.workspace, given.workspace_size);
            let workspace = used.write("workspace", workspace, size, plan.workspace())?;
            let tokens = batch.tokens(&mut used)?;
            Ok(PassArguments { plan, workers, parameters, frozen, workspace, batch, tokens, used, given })
        }
    }

    /// The pass, and the workspace that it needs.
    fn pass(&mut self, dropout: Option<DropoutKey>) -> (Pass<'_>, &mut [f32]) {
        let PassArguments { plan, workers, parameters, frozen, workspace, batch, tokens, .. } = self;
        let (compute, shape) = (workers.compute(), batch.shape());
        (Pass { compute, plan, parameters, frozen, tokens, shape, dropout }, workspace)
    }
}

/// Computes the logits [sequences, length, vocab] of a batch, without dropout. On success `logits` points to them
/// in the workspace, where they stay until it is used again.
///
/// Of `buffers`, it uses `parameters`, `frozen` and `workspace`.
///
/// # Safety
/// `plan`, `buffers` and `batch` are readable, `compute` is NULL or readable. The parameters, the frozen parameters and
/// the batch's tokens are readable, the workspace is writable. `logits` is writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_model_logits(
    plan: *const jostle_plan,
    compute: *const jostle_compute,
    buffers: *const jostle_buffers,
    batch: *const jostle_batch,
    logits: *mut *const f32,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let output = Output::beside(call, "logits", logits, plan)?;
            let mut arguments = PassArguments::new(call, plan, compute, buffers, batch)?;
            let (pass, workspace) = arguments.pass(None);
            pass.forward(workspace).or_refuse(call)?;
            output.write(pass.plan.logits(workspace, pass.shape).or_refuse(call)?.as_ptr());
            Ok(())
        })
    }
}

/// Writes the loss on a batch's targets, without dropout. Of `buffers`, it uses `parameters`, `frozen` and `workspace`.
///
/// # Safety
/// As for jostle_model_logits. The batch's targets are readable; `loss` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_model_loss(
    plan: *const jostle_plan,
    compute: *const jostle_compute,
    buffers: *const jostle_buffers,
    batch: *const jostle_batch,
    loss: *mut jostle_loss,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let output = Output::beside(call, "loss", loss, plan)?;
            let mut arguments = PassArguments::new(call, plan, compute, buffers, batch)?;
            let targets = arguments.batch.targets(&mut arguments.used)?;
            let (pass, workspace) = arguments.pass(None);
            output.write(jostle_loss::from_core(pass.loss(workspace, targets).or_refuse(call)?));
            Ok(())
        })
    }
}

/// Forward, loss and backward: the gradient of the sum of the batch's losses divided by `counted`, the number of
/// targets other than -1 in all batches of the step. Adds to the gradients if `add` is 1, overwrites them if it is 0.
/// Of `buffers`, it uses `parameters`, `frozen`, `gradients` and `workspace`.
///
/// `dropout`: selects the dropout masks, or NULL for no dropout. JOSTLE_NOT_FINITE leaves the gradients as they were.
///
/// # Safety
/// As for jostle_model_loss. The gradients are writable, `dropout` is NULL or readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_model_backward(
    plan: *const jostle_plan,
    compute: *const jostle_compute,
    buffers: *const jostle_buffers,
    add: u32,
    batch: *const jostle_batch,
    counted: usize,
    dropout: *const jostle_dropout_key,
    loss: *mut jostle_loss,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let output = Output::beside(call, "loss", loss, plan)?;
            let mut arguments = PassArguments::new(call, plan, compute, buffers, batch)?;
            let mode = if flag(call, "add", add)? { Gradients::Add } else { Gradients::Overwrite };
            let dropout = if dropout.is_null() {
                None
            } else {
                let &jostle_dropout_key { seed, step, first_sequence } = input(call, "dropout", dropout)?;
                Some(DropoutKey { seed, step, first_sequence })
            };
            let targets = arguments.batch.targets(&mut arguments.used)?;
            let (given, wanted) = (arguments.given, arguments.plan.gradients());
            let gradients =
                arguments.used.write("gradients", given.gradients, given.gradients_size, wanted)?;
            let (pass, workspace) = arguments.pass(dropout);
            let loss = pass.backward(gradients, mode, workspace, targets, counted).or_refuse(call)?;
            output.write(jostle_loss::from_core(loss));
            Ok(())
        })
    }
}
