//! Steps and evaluation on a text: the core's trainer, made anew for each call from what is kept here.

use std::sync::{Mutex, PoisonError};

use jostle::{Buffers, Compute, Decay, Error, Loss, Plan, Recipe, Schedule, Tokens, Trainer};
use numpy::PyReadonlyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::Buffer;
use crate::engine::{Engine, Locked, optimizer};
use crate::error::exception;

/// A text of tokens: an array that is looked at where it lies.
#[derive(FromPyObject)]
enum Text<'py> {
    #[pyo3(transparent)]
    U8(PyReadonlyArray1<'py, u8>),
    #[pyo3(transparent)]
    U16(PyReadonlyArray1<'py, u16>),
    #[pyo3(transparent)]
    I32(PyReadonlyArray1<'py, i32>),
}

impl Text<'_> {
    fn tokens(&self) -> PyResult<Tokens<'_>> {
        Ok(match self {
            Text::U8(tokens) => Tokens::U8(tokens.as_slice()?),
            Text::U16(tokens) => Tokens::U16(tokens.as_slice()?),
            Text::I32(tokens) => Tokens::I32(tokens.as_slice()?),
        })
    }
}

/// The part of a text from `first` on, at most so many tokens.
fn part<'a>(tokens: Tokens<'a>, first: usize, count: usize) -> Tokens<'a> {
    fn cut<T>(tokens: &[T], first: usize, count: usize) -> &[T] {
        let rest = tokens.get(first..).unwrap_or_default();
        rest.get(..count).unwrap_or(rest)
    }
    match tokens {
        Tokens::U8(tokens) => Tokens::U8(cut(tokens, first, count)),
        Tokens::U16(tokens) => Tokens::U16(cut(tokens, first, count)),
        Tokens::I32(tokens) => Tokens::I32(cut(tokens, first, count)),
    }
}

/// The steps that a `jostle.Optimizer` has done.
pub fn steps_done(optimizer: &Bound<'_, PyAny>) -> PyResult<u64> {
    optimizer.getattr("_steps")?.extract()
}

/// Notes one more step than `done`. Here rather than in Python: Ctrl-C raises as soon as a call returns, and would
/// leave parameters that have changed with a count that has not.
pub fn count_step(optimizer: &Bound<'_, PyAny>, done: u64) -> PyResult<()> {
    let steps = done.saturating_add(1);
    optimizer.setattr("_steps", steps)?;
    let model = optimizer.getattr("model")?;
    model.setattr("_step", steps)?;
    model.setattr("_sequences", 0)
}

/// A model in training.
#[pyclass(frozen, module = "jostle._native")]
pub struct Training {
    engine: Py<Engine>,
    state: Py<Buffer>,
    plan: Plan,
    recipe: Recipe,
    /// Tokens and targets of a micro-batch.
    batch: Mutex<Vec<i32>>,
}

impl Training {
    /// Runs `body` on a trainer that has done `step` steps.
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        step: u64,
        body: impl FnOnce(&mut Trainer<'_>) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let state = self.state.get();
        self.engine.get().locked(py, &self.plan, |locked| {
            let Locked { compute, parameters, gradients, workspace } = locked;
            let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the engine's lock is held, and the state belongs to the engine.
            let optimizer = unsafe { state.slice() };
            let buffers = Buffers { parameters, gradients, optimizer, workspace, batch: &mut batch };
            let compute: Compute<'_> = compute;
            let mut trainer = Trainer::new(&self.plan, &self.recipe, buffers, compute)?;
            trainer.resume_at(step, 0);
            body(&mut trainer)
        })
    }
}

/// A schedule by its name: how the rate falls after warm-up.
fn decay(name: &str, decay_steps: u64, last: f32) -> PyResult<Decay> {
    match name {
        "constant" => Ok(Decay::Constant),
        "linear" => Ok(Decay::Linear { last }),
        "cosine" => Ok(Decay::Cosine { last }),
        "warmup_stable_decay" => Ok(Decay::WarmupStableDecay { decay_steps, last }),
        _ => Err(PyValueError::new_err(format!("no schedule {name:?}"))),
    }
}

#[pymethods]
impl Training {
    /// `schedule`: name, peak, warmup, steps, decay_steps, last.
    #[new]
    #[expect(clippy::too_many_arguments)]
    fn new(
        engine: Bound<'_, Engine>,
        state: Bound<'_, Buffer>,
        optimizer: &str,
        numbers: Vec<f32>,
        batch: usize,
        schedule: (String, f32, u64, u64, u64, f32),
        clip: Option<f32>,
        accumulate: usize,
        seed: u64,
    ) -> PyResult<Training> {
        let optimizer = self::optimizer(optimizer, numbers)?;
        let (name, peak, warmup, steps, decay_steps, last) = schedule;
        let schedule = Schedule { peak, warmup, steps, decay: decay(&name, decay_steps, last)? };
        let recipe = Recipe { optimizer, schedule, clip, accumulate, seed };
        recipe.validate().map_err(exception)?;
        if batch == 0 {
            return Err(exception(Error::Zero { what: "batch" }));
        }
        let plan = engine.get().plan(batch, optimizer.state())?;
        let mut tokens = Vec::new();
        tokens.try_reserve_exact(plan.batch).map_err(|_| exception(Error::TooLarge { what: "batch" }))?;
        tokens.resize(plan.batch, 0);
        Ok(Training {
            engine: engine.unbind(),
            state: state.unbind(),
            plan,
            recipe,
            batch: Mutex::new(tokens),
        })
    }

    /// The step after those that the optimizer has done, counted there; returns loss, learning rate and gradient
    /// norm.
    fn step(
        &self,
        py: Python<'_>,
        text: Text<'_>,
        optimizer: &Bound<'_, PyAny>,
    ) -> PyResult<(f32, f32, f32)> {
        let (text, step) = (text.tokens()?, steps_done(optimizer)?);
        let report = self.run(py, step, |trainer| trainer.step(text))?;
        count_step(optimizer, step)?;
        Ok((report.loss, report.learning_rate, report.gradient_norm))
    }

    /// The mean loss on a whole text, without dropout. Ctrl-C is seen after each pass.
    fn evaluate(&self, py: Python<'_>, text: Text<'_>) -> PyResult<f32> {
        let text = text.tokens()?;
        let pass = self.plan.options.batch.saturating_mul(self.plan.config.context);
        if text.len() < 2 {
            return Err(exception(Error::Data { given: text.len(), wanted: 2 }));
        }
        let (mut total, mut first) = (Loss::default(), 0_usize);
        while first.saturating_add(1) < text.len() {
            let part = part(text, first, pass.saturating_add(1));
            let loss = self.run(py, 0, |trainer| trainer.evaluate(part))?;
            total = Loss { sum: total.sum + loss.sum, counted: total.counted + loss.counted };
            first = first.saturating_add(pass);
            py.check_signals()?;
        }
        Ok(total.mean())
    }
}
