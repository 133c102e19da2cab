//! Training steps and evaluation, on a handle that holds the caller's pointers and the progress.

use core::ffi::c_void;
use core::mem::offset_of;
use core::task::Poll;

use jostle::{self as core_, Loss, Pieces, Plan, Recipe, Report, SpikeGuard, Tokens, Trainer};

use crate::border::{self, Buffers, Handle, Kind, Output, input, open, open_mut};
use crate::buffers::jostle_buffers;
use crate::compute::{Means, Workers, jostle_compute};
use crate::config::jostle_recipe;
use crate::model::{jostle_batch, jostle_loss};
use crate::plan::jostle_plan;
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_error, jostle_status};

/// The integer type of tokens in a text.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_token_type {
    /// uint8_t: up to 256 different tokens.
    JOSTLE_U8 = 1,
    /// uint16_t: up to 65536 different tokens.
    JOSTLE_U16 = 2,
    /// int32_t.
    JOSTLE_I32 = 4,
}

/// Trains a model. It holds pointers to the caller's buffers and owns nothing, so there is nothing to free.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_trainer {
    /// Made by jostle_trainer_init.
    pub opaque: [u64; 12],
    /// Likewise.
    pub more: [usize; 126],
}

/// The value in a [`jostle_trainer`].
#[derive(Clone, Copy)]
pub struct State {
    plan: Plan,
    recipe: Recipe,
    buffers: jostle_buffers,
    means: Means,
    position: Position,
}

impl Handle for jostle_trainer {
    type Value = State;
    const KIND: &'static Kind = &Kind {
        name: "trainer",
        mark: u64::from_le_bytes(*b"jost.trn"),
        opaque: offset_of!(jostle_trainer, opaque),
    };
}

/// The results of one step.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_report {
    /// The step's number, from 0.
    pub step: u64,
    /// The mean loss before the update, dropout included, in nats.
    pub loss: f32,
    /// The learning rate that was used.
    pub learning_rate: f32,
    /// The global norm of the gradient, before clipping.
    pub gradient_norm: f32,
    /// 0.
    pub reserved: u32,
}

impl jostle_report {
    fn from_core(report: Report) -> jostle_report {
        let Report { step, loss, learning_rate, gradient_norm } = report;
        jostle_report { step, loss, learning_rate, gradient_norm, reserved: 0 }
    }
}

/// The progress of a trainer.
#[derive(Clone, Copy, Default)]
struct Position {
    step: u64,
    accumulated: u64,
    pieces: Pieces,
    guard: Option<SpikeGuard>,
}

impl State {
    /// The trainer that this state describes, and its progress, which the caller of this function keeps up to date.
    ///
    /// # Safety
    /// The buffers are as at jostle_trainer_init, and nobody else uses them while the trainer is used.
    unsafe fn working<'a>(
        &'a mut self,
        buffers: &mut Buffers<'_>,
        workers: &'a Workers<'_>,
    ) -> Result<(Trainer<'a>, &'a mut Position), Refused> {
        let State { plan, recipe, position, buffers: given, .. } = self;
        // SAFETY: the caller's promise is the same.
        let memory = unsafe {
            let jostle_buffers { parameters, frozen, gradients, optimizer, workspace, batch, .. } = *given;
            core_::Buffers {
                parameters: buffers.write(
                    "parameters",
                    parameters,
                    given.parameters_size,
                    plan.parameters(),
                )?,
                frozen: buffers.read("frozen", frozen, given.frozen_size, plan.frozen())?,
                gradients: buffers.write("gradients", gradients, given.gradients_size, plan.gradients())?,
                optimizer: buffers.write("optimizer", optimizer, given.optimizer_size, plan.optimizer())?,
                workspace: buffers.write("workspace", workspace, given.workspace_size, plan.workspace())?,
                batch: buffers.write("batch", batch, given.batch_size, plan.batch())?,
            }
        };
        let mut trainer = Trainer::new(plan, recipe, memory, workers.compute()).or_refuse(buffers.call)?;
        trainer.resume_at(position.step, position.accumulated);
        trainer.resume_pieces(position.pieces);
        trainer.set_guard(position.guard).or_refuse(buffers.call)?;
        Ok((trainer, position))
    }
}

/// Opens a trainer, and the call's other buffers by `given`. A function of its own, because checks need stack that training
/// should not carry.
///
/// # Safety
/// The pointers are as the functions of this module say.
#[inline(never)]
unsafe fn opened<'a, 'c, I>(
    call: &'c Call,
    trainer: *mut jostle_trainer,
    given: impl FnOnce(&mut Buffers<'_>) -> Result<I, Refused>,
    workers: &'a mut Option<Workers<'c>>,
) -> Result<(Trainer<'a>, &'a mut Position, I), Refused> {
    let mut buffers = Buffers::new(call);
    // SAFETY: the caller's promise is the same.
    unsafe {
        let state: &mut State = open_mut(trainer, &mut buffers)?;
        let given = given(&mut buffers)?;
        let workers = workers.insert(state.means.workers(call));
        let (trainer, position) = state.working(&mut buffers, workers)?;
        Ok((trainer, position, given))
    }
}

/// Runs `body` on a trainer and the call's other buffers, which `given` opens, and keeps the trainer's progress.
///
/// # Safety
/// The pointers are as the functions of this module say.
unsafe fn with_trainer<I, T>(
    call: &Call,
    trainer: *mut jostle_trainer,
    given: impl FnOnce(&mut Buffers<'_>) -> Result<I, Refused>,
    body: impl FnOnce(&mut Trainer<'_>, &I) -> Result<T, core_::Error>,
) -> Result<T, Refused> {
    let mut workers = None;
    // SAFETY: the caller's promise is the same.
    let mut opened = unsafe { opened(call, trainer, given, &mut workers) };
    let (trainer, position, given) = opened.as_mut().map_err(|refused| *refused)?;
    let result = body(trainer, given);
    let (step, accumulated, pieces) = (trainer.steps(), trainer.accumulated(), trainer.pieces());
    **position = Position { step, accumulated, pieces, guard: trainer.guard() };
    result.map_err(|error| call.refuse_about(trainer.plan(), &error))
}

/// What reads a text of tokens: the same for all calls that take one, so that these share what opens their trainer.
///
/// # Safety
/// `text` is readable for `text_size` bytes.
unsafe fn reading<'a>(
    text: *const c_void,
    text_size: usize,
    token_type: u32,
) -> impl FnOnce(&mut Buffers<'_>) -> Result<Tokens<'a>, Refused> {
    // SAFETY: the caller's promise is the same.
    move |buffers| unsafe { tokens(buffers, text, text_size, token_type) }
}

/// Reads a text of tokens.
///
/// # Safety
/// `text` is readable for `text_size` bytes.
unsafe fn tokens<'a>(
    buffers: &mut Buffers<'_>,
    text: *const c_void,
    text_size: usize,
    token_type: u32,
) -> Result<Tokens<'a>, Refused> {
    use jostle_token_type::*;
    // SAFETY: the caller's promise is the same.
    unsafe {
        match token_type {
            given if given == JOSTLE_U8 as u32 => {
                Ok(Tokens::U8(buffers.read_all("text", text.cast(), text_size)?))
            }
            given if given == JOSTLE_U16 as u32 => {
                Ok(Tokens::U16(buffers.read_all("text", text.cast(), text_size)?))
            }
            given if given == JOSTLE_I32 as u32 => {
                Ok(Tokens::I32(buffers.read_all("text", text.cast(), text_size)?))
            }
            given => Err(buffers.call.refuse(Refusal::Choice { what: "token_type", given })),
        }
    }
}

/// Makes a trainer at step 0, with the parameters in the buffer. It uses all of `buffers`. The plan's optimiser state must
/// be the one that the recipe's optimiser has; `compute` may be NULL.
///
/// # Safety
/// `trainer` is writable; `plan`, `recipe` and `buffers` are readable; `compute` is NULL or readable; `error` is
/// NULL or writable. The callback in `compute` stays valid as long as the trainer is used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_trainer_init(
    trainer: *mut jostle_trainer,
    plan: *const jostle_plan,
    recipe: *const jostle_recipe,
    buffers: *const jostle_buffers,
    compute: *const jostle_compute,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let trainer = Output::beside(call, "trainer", trainer, plan)?;
            let plan = *open(call, plan)?;
            let recipe = border::structure(call, "recipe", recipe)?.core(call)?;
            let buffers = border::structure(call, "buffers", buffers)?;
            let means = Means::new(call, compute)?;
            let mut state = State { plan, recipe, buffers, means, position: Position::default() };
            state.working(&mut Buffers::new(call), &means.workers(call))?;
            trainer.seal(&state);
            Ok(())
        })
    }
}

/// Runs one step on random windows of a text: as many micro-batches as the recipe says, then the update. The choice of windows
/// is a function of the recipe's seed and the step.
///
/// `text`: tokens of `token_type`, a jostle_token_type. JOSTLE_NOT_FINITE leaves parameters and step as they were.
///
/// # Safety
/// `trainer` is writable and its buffers are, `text` is readable for `text_size` bytes, `report` writable, `error`
/// NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_trainer_step(
    trainer: *mut jostle_trainer,
    text: *const c_void,
    text_size: usize,
    token_type: u32,
    report: *mut jostle_report,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let report = Output::beside(call, "report", report, trainer)?;
            let given = reading(text, text_size, token_type);
            let done = with_trainer(call, trainer, given, |trainer, text| trainer.step(*text))?;
            report.write(jostle_report::from_core(done));
            Ok(())
        })
    }
}

/// Runs one bounded piece of a step, for callers with a watchdog: many calls with the same text make one
/// jostle_trainer_step, with the same bits. Sets `done` to 1 and writes `report` after the last piece of the step; otherwise
/// sets `done` to 0.
///
/// A piece is one stage of one micro-batch (for example a block forward, or half a block backward), and is smallest for a
/// batch of 1. In the gradient's norm and in the update, a piece is a 64th of the parameters, but at least 4096.
///
/// Until the step is done, gradients, workspace and batch must stay as they are, and other calls that train or evaluate are
/// refused with JOSTLE_UNFINISHED. An error abandons the step and leaves the parameters as they were before it; an error in
/// the arguments changes nothing. jostle_trainer_resume abandons the step too. During the update (the last pieces, at most
/// 64), that leaves some parameters changed and others not.
///
/// # Safety
/// As for jostle_trainer_step; `done` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_trainer_poll(
    trainer: *mut jostle_trainer,
    text: *const c_void,
    text_size: usize,
    token_type: u32,
    done: *mut u32,
    report: *mut jostle_report,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let (done, report) = (
                Output::beside(call, "done", done, trainer)?,
                Output::beside(call, "report", report, trainer)?,
            );
            let given = reading(text, text_size, token_type);
            match with_trainer(call, trainer, given, |trainer, text| trainer.poll(*text))? {
                Poll::Pending => done.write(0),
                Poll::Ready(found) => {
                    done.write(1);
                    report.write(jostle_report::from_core(found));
                }
            }
            Ok(())
        })
    }
}

/// Runs forward and backward on a batch of the caller's, which is one micro-batch of the current step (gradient
/// accumulation). `counted` is the number of targets other than -1 in all micro-batches of the step. jostle_trainer_update
/// ends the step.
///
/// # Safety
/// As for jostle_trainer_step; `batch` is readable and its tokens and targets are; `loss` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_trainer_accumulate(
    trainer: *mut jostle_trainer,
    batch: *const jostle_batch,
    counted: usize,
    loss: *mut jostle_loss,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let loss = Output::beside(call, "loss", loss, trainer)?;
            let given = |buffers: &mut Buffers<'_>| {
                let batch = *input(call, "batch", batch)?;
                Ok((batch.tokens(buffers)?, batch.targets(buffers)?, batch.shape()))
            };
            let done = with_trainer(call, trainer, given, |trainer, &(tokens, targets, shape)| {
                trainer.accumulate(tokens, targets, shape, counted)
            })?;
            loss.write(jostle_loss::from_core(done));
            Ok(())
        })
    }
}

/// Ends a step: clips the accumulated gradients and updates the parameters.
///
/// `loss`: the sum of the losses that jostle_trainer_accumulate wrote; only the report needs it.
///
/// # Safety
/// As for jostle_trainer_step; `loss` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_trainer_update(
    trainer: *mut jostle_trainer,
    loss: *const jostle_loss,
    report: *mut jostle_report,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let report = Output::beside(call, "report", report, trainer)?;
            let loss: Loss = input(call, "loss", loss)?.core();
            let done = with_trainer(call, trainer, |_| Ok(()), |trainer, &()| trainer.update(loss))?;
            report.write(jostle_report::from_core(done));
            Ok(())
        })
    }
}

/// Computes the loss on a whole text without dropout, in consecutive windows: each token except the first is predicted once.
/// Gradients, optimiser state and step stay as they are.
///
/// # Safety
/// As for jostle_trainer_step; `loss` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_trainer_evaluate(
    trainer: *mut jostle_trainer,
    text: *const c_void,
    text_size: usize,
    token_type: u32,
    loss: *mut jostle_loss,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let loss = Output::beside(call, "loss", loss, trainer)?;
            let given = reading(text, text_size, token_type);
            let done = with_trainer(call, trainer, given, |trainer, text| trainer.evaluate(*text))?;
            loss.write(jostle_loss::from_core(done));
            Ok(())
        })
    }
}

/// Writes the number of steps done.
///
/// # Safety
/// `trainer` is readable, `steps` writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_trainer_steps(
    trainer: *const jostle_trainer,
    steps: *mut u64,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            Output::beside(call, "steps", steps, trainer)?.write(open(call, trainer)?.position.step);
            Ok(())
        })
    }
}

/// Continues from a checkpoint, whose parameters and optimiser state the buffers hold. With the same recipe, training ends in
/// the same bits as if it had never stopped. A step that jostle_trainer_poll has begun is abandoned.
///
/// # Safety
/// `trainer` is writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_trainer_resume(
    trainer: *mut jostle_trainer,
    step: u64,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let state: &mut State = open_mut(trainer, &mut Buffers::new(call))?;
            state.position = Position { step, guard: state.position.guard, ..Position::default() };
            Ok(())
        })
    }
}

/// Leaves out the current step, for example after JOSTLE_NOT_FINITE or JOSTLE_SPIKE: the next step has other windows and other
/// dropout. Gradients that were accumulated for the step are discarded, and pieces of jostle_trainer_poll abandoned.
///
/// # Safety
/// As for jostle_trainer_step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_trainer_skip(
    trainer: *mut jostle_trainer,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            with_trainer(
                call,
                trainer,
                |_| Ok(()),
                |trainer, &()| {
                    trainer.skip();
                    Ok(())
                },
            )
        })
    }
}

/// From now on, refuses the update of a step whose loss is a spike (JOSTLE_SPIKE): more than `limit` standard deviations above
/// the mean of the last 100 steps or so. A usual limit is 6. The first 100 steps after this call are never spikes. A `limit`
/// of 0 removes the guard.
///
/// # Safety
/// As for jostle_trainer_step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_trainer_guard(
    trainer: *mut jostle_trainer,
    limit: f32,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let guard = (limit != 0.0).then_some(SpikeGuard::new(limit));
            with_trainer(call, trainer, |_| Ok(()), |trainer, &()| trainer.set_guard(guard))
        })
    }
}
