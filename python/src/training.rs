//! Steps and evaluation on a text: each call makes the core's trainer from the memory and the progress that are kept here.

use std::sync::{Mutex, PoisonError};

use jostle::{
    Buffers, Compute, Decay, Error, Loss, Options, Pass, Plan, Recipe, Report, Schedule, Shape, SpikeGuard,
    Tokens, Trainer,
};
use numpy::{
    PyArrayDescrMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArray, PyUntypedArrayMethods, dtype,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::{State, zeros};
use crate::engine::{Engine, Locked, Position, optimizer};
use crate::error::exception;

/// A text of tokens, borrowed from a NumPy array.
enum Text<'py> {
    U8(PyReadonlyArray1<'py, u8>),
    U16(PyReadonlyArray1<'py, u16>),
    I32(PyReadonlyArray1<'py, i32>),
}

impl<'py> Text<'py> {
    /// Compares types instead of trying to extract each: a failed extraction would build an error text in Python, and Ctrl-C
    /// would be lost meanwhile.
    fn new(array: &Bound<'py, PyUntypedArray>) -> PyResult<Text<'py>> {
        let (py, kind) = (array.py(), array.dtype());
        if kind.is_equiv_to(&dtype::<u8>(py)) {
            return Ok(Text::U8(array.extract()?));
        }
        if kind.is_equiv_to(&dtype::<u16>(py)) {
            return Ok(Text::U16(array.extract()?));
        }
        Ok(Text::I32(array.extract()?))
    }

    fn tokens(&self) -> PyResult<Tokens<'_>> {
        Ok(match self {
            Text::U8(tokens) => Tokens::U8(tokens.as_slice()?),
            Text::U16(tokens) => Tokens::U16(tokens.as_slice()?),
            Text::I32(tokens) => Tokens::I32(tokens.as_slice()?),
        })
    }
}

/// A model in training.
#[pyclass(frozen, module = "jostle._native")]
pub struct Training {
    engine: Py<Engine>,
    state: Py<State>,
    plan: Plan,
    recipe: Recipe,
    /// Tokens and targets of a micro-batch.
    batch: Mutex<Vec<i32>>,
    guard: Mutex<Option<SpikeGuard>>,
}

impl Training {
    /// Runs `body` on a trainer with the number of steps of the state, and keeps its number of steps afterwards.
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&mut Trainer<'_>) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        self.run_at(py, 0, |trainer, _| body(trainer))
    }

    /// As `run`, within a step whose gradients have so many sequences. `body` gets the number of the call of the model.
    fn run_at<T: Send>(
        &self,
        py: Python<'_>,
        sequences: usize,
        body: impl FnOnce(&mut Trainer<'_>, u64) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let state = self.state.get();
        self.engine.get().locked(py, &self.plan, |locked| {
            let Locked { call, compute, parameters, frozen, gradients, workspace, position } = locked;
            let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the engine's lock is held, and the state belongs to the engine.
            let (optimizer, before) = (unsafe { state.slice() }, state.steps());
            // With a fused optimizer step, the plan has room for some gradients only.
            let gradients = gradients.get_mut(..self.plan.gradients()).unwrap_or_default();
            let buffers = Buffers { parameters, frozen, gradients, optimizer, workspace, batch: &mut batch };
            let compute: Compute<'_> = compute;
            let mut trainer = Trainer::new(&self.plan, &self.recipe, buffers, compute)?;
            trainer.resume_at(before, sequences as u64);
            let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
            trainer.set_guard(*guard)?;
            let result = body(&mut trainer, call)?;
            *guard = trainer.guard();
            let step = trainer.steps();
            if step != before {
                state.set_steps(step);
                *position = Position { step, sequences: 0 };
            }
            Ok(result)
        })
    }

    /// A step whose micro-batches are calls of their own, between which Ctrl-C is handled. `None` if another thread has
    /// used the model in between: its gradients may have changed.
    fn step_in_calls(
        &self,
        py: Python<'_>,
        source: &mut impl Source,
        counted: usize,
    ) -> PyResult<Option<Report>> {
        let (mut total, mut begun, mut sequences) = (Loss::default(), None, 0_usize);
        let batches = source.len();
        for number in 0..batches {
            let last = number + 1 == batches;
            let done = self.run_at(py, sequences, |trainer, call| {
                let (first_call, step) = *begun.get_or_insert((call, trainer.steps()));
                if call != first_call.wrapping_add(number as u64) {
                    return Ok(None);
                }
                let Batch { tokens, targets, shape } = source.batch(number, step)?;
                sequences = sequences.saturating_add(shape.sequences);
                total = total.plus(trainer.accumulate(tokens, targets, shape, counted)?);
                Ok(Some(if last { Some(trainer.update(total)?) } else { None }))
            })?;
            match done {
                None => return Ok(None),
                Some(Some(report)) => return Ok(Some(report)),
                Some(None) => py.check_signals()?,
            }
        }
        Ok(None)
    }

    /// A step on the batches of a source, in one call if several do not do.
    fn step_on_source(&self, py: Python<'_>, source: &mut impl Source, counted: usize) -> PyResult<Report> {
        if source.len() > 1
            && let Some(report) = self.step_in_calls(py, source, counted)?
        {
            return Ok(report);
        }
        self.run(py, |trainer| {
            let mut total = Loss::default();
            for number in 0..source.len() {
                let Batch { tokens, targets, shape } = source.batch(number, trainer.steps())?;
                total = total.plus(trainer.accumulate(tokens, targets, shape, counted)?);
            }
            trainer.update(total)
        })
    }
}

/// A micro-batch: tokens and targets, `[B, T]` each.
#[derive(Clone, Copy)]
struct Batch<'a> {
    tokens: &'a [i32],
    targets: &'a [i32],
    shape: Shape,
}

impl<'a> Batch<'a> {
    fn new(
        tokens: &'a PyReadonlyArray2<'_, i32>,
        targets: &'a PyReadonlyArray2<'_, i32>,
    ) -> PyResult<Batch<'a>> {
        let [sequences, length] = *tokens.shape() else { unreachable!("two dimensions") };
        Ok(Batch {
            tokens: tokens.as_slice()?,
            targets: targets.as_slice()?,
            shape: Shape { sequences, length },
        })
    }
}

/// The micro-batches of a step.
trait Source: Send {
    fn len(&self) -> usize;
    fn batch(&mut self, number: usize, step: u64) -> Result<Batch<'_>, Error>;
}

/// Random windows of a text.
struct Windows<'a> {
    text: Tokens<'a>,
    recipe: &'a Recipe,
    shape: Shape,
    tokens: Vec<i32>,
    targets: Vec<i32>,
}

impl Source for Windows<'_> {
    fn len(&self) -> usize {
        self.recipe.accumulate
    }

    fn batch(&mut self, number: usize, step: u64) -> Result<Batch<'_>, Error> {
        let Windows { text, recipe, shape, tokens, targets } = self;
        let first = number.saturating_mul(shape.sequences) as u64;
        let windows = tokens.chunks_exact_mut(shape.length).zip(targets.chunks_exact_mut(shape.length));
        for (sequence, (tokens, targets)) in (first..).zip(windows) {
            let first = text.random_window(shape.length, recipe.seed, step, sequence)?;
            text.window(first, tokens, targets)?;
        }
        Ok(Batch { tokens, targets, shape: *shape })
    }
}

/// Batches of the caller's.
struct Given<'a>(Vec<Batch<'a>>);

impl Source for Given<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn batch(&mut self, number: usize, _: u64) -> Result<Batch<'_>, Error> {
        self.0.get(number).copied().ok_or(Error::Zero { what: "batches" })
    }
}

/// The decay of the learning rate after warm-up, by the schedule's name.
fn decay(name: &str, decay_steps: u64, last: f32) -> PyResult<Decay> {
    match name {
        "constant" => Ok(Decay::Constant),
        "linear" => Ok(Decay::Linear { last }),
        "cosine" => Ok(Decay::Cosine { last }),
        "warmup_stable_decay" => Ok(Decay::WarmupStableDecay { decay_steps, last }),
        _ => Err(PyValueError::new_err(format!("unknown schedule {name:?}"))),
    }
}

/// A report as a tuple: step from 1, loss, learning rate, gradient norm.
fn numbers(report: Report) -> (u64, f32, f32, f32) {
    (report.step.saturating_add(1), report.loss, report.learning_rate, report.gradient_norm)
}

#[pymethods]
impl Training {
    /// `batch`: sequences, their greatest length, activation recomputation, fused optimizer step. `schedule`: name, peak, warmup, steps,
    /// decay_steps, last.
    #[new]
    #[expect(clippy::too_many_arguments)]
    fn new(
        engine: Bound<'_, Engine>,
        state: Bound<'_, State>,
        optimizer: &str,
        numbers: Vec<f32>,
        batch: (usize, usize, bool, bool, usize),
        schedule: (String, f32, u64, u64, u64, f32),
        clip: Option<f32>,
        accumulate: usize,
        seed: u64,
    ) -> PyResult<Training> {
        let optimizer = self::optimizer(optimizer, numbers)?;
        let (name, peak, warmup, steps, decay_steps, last) = schedule;
        let schedule = Schedule { peak, warmup, steps, decay: decay(&name, decay_steps, last)? };
        let recipe = Recipe { optimizer, schedule, clip, accumulate, seed };
        let (batch, length, recompute, fused, head_rows) = batch;
        let optimizer_state = optimizer.state();
        let options =
            Options { optimizer: optimizer_state, recompute, fused, head_rows, ..Options::new(batch) };
        let engine_here = engine.get();
        let plan = engine_here.plan_with(&engine_here.shortened(length), options)?;
        recipe.validate_for(&plan).map_err(exception)?;
        let batch = Mutex::new(zeros("batch", plan.batch()).map_err(exception)?);
        let guard = Mutex::new(None);
        Ok(Training { engine: engine.unbind(), state: state.unbind(), plan, recipe, batch, guard })
    }

    /// The guard against loss spikes: limit, mean, variance, steps.
    #[getter]
    fn guard(&self) -> Option<(f32, f32, f32, u64)> {
        let guard = *self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        guard.map(|SpikeGuard { limit, mean, variance, steps }| (limit, mean, variance, steps))
    }

    #[setter]
    fn set_guard(&self, guard: Option<(f32, f32, f32, u64)>) {
        let guard = guard.map(|(limit, mean, variance, steps)| SpikeGuard { limit, mean, variance, steps });
        *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = guard;
    }

    /// Leaves out the next step.
    fn skip(&self, py: Python<'_>) -> PyResult<()> {
        self.run(py, |trainer| {
            trainer.skip();
            Ok(())
        })
    }

    /// Runs the next step, with Ctrl-C between micro-batches; returns its number, counted from 1, loss, learning rate and gradient norm.
    fn step<'py>(
        &self,
        py: Python<'py>,
        text: &Bound<'py, PyUntypedArray>,
    ) -> PyResult<(u64, f32, f32, f32)> {
        let text = Text::new(text)?;
        let text = text.tokens()?;
        let shape = Shape { sequences: self.plan.options().batch, length: self.plan.config().context };
        let rows = || zeros("batch", shape.rows()).map_err(exception);
        let mut windows = Windows { text, recipe: &self.recipe, shape, tokens: rows()?, targets: rows()? };
        let counted = shape.rows().saturating_mul(self.recipe.accumulate);
        self.step_on_source(py, &mut windows, counted).map(numbers)
    }

    /// As `step`, on batches of tokens and targets. The loss is the mean over all targets that count, at least one.
    fn step_on<'py>(
        &self,
        py: Python<'py>,
        batches: Vec<(PyReadonlyArray2<'py, i32>, PyReadonlyArray2<'py, i32>)>,
    ) -> PyResult<(u64, f32, f32, f32)> {
        let given = batches.iter().map(|(tokens, targets)| Batch::new(tokens, targets));
        let given: Vec<Batch<'_>> = given.collect::<PyResult<_>>()?;
        let targets = given.iter().flat_map(|batch| batch.targets);
        let counted = targets.filter(|target| **target != -1).count();
        self.step_on_source(py, &mut Given(given), counted).map(numbers)
    }

    /// The sum of losses on a batch, without dropout, and how many targets count.
    fn loss<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray2<'py, i32>,
        targets: PyReadonlyArray2<'py, i32>,
    ) -> PyResult<(f64, usize)> {
        let Batch { tokens, targets, shape } = Batch::new(&tokens, &targets)?;
        let loss = self.engine.get().locked(py, &self.plan, |locked| {
            let Locked { compute, parameters, frozen, workspace, .. } = locked;
            Pass { compute, plan: &self.plan, parameters, frozen, tokens, shape, dropout: None }
                .loss(workspace, targets)
        })?;
        Ok((loss.sum, loss.counted))
    }

    /// The mean loss on a whole text, without dropout. Ctrl-C is handled after each pass.
    fn evaluate<'py>(&self, py: Python<'py>, text: &Bound<'py, PyUntypedArray>) -> PyResult<f32> {
        let text = Text::new(text)?;
        let text = text.tokens()?;
        let pass = self.plan.options().batch.saturating_mul(self.plan.config().context);
        if text.len() < 2 {
            return Err(exception(Error::Data { given: text.len(), wanted: 2 }));
        }
        let mut total = Loss::default();
        for piece in text.pieces(pass) {
            total = total.plus(self.run(py, |trainer| trainer.evaluate(piece))?);
            py.check_signals()?;
        }
        Ok(total.mean())
    }
}
