//! Text generation: each call makes the core's generator from the memory and the progress that are kept here.

use std::sync::{Mutex, PoisonError};

use jostle::rng::{self, Stream};
use jostle::{Error, Generator as CoreGenerator, InstructionSet, OptimizerState, Plan, Sampling};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::buffer::zeros;
use crate::engine::{Engine, Locked};
use crate::error::exception;

/// A text that grows token by token.
#[pyclass(frozen, module = "jostle._native")]
pub struct Generator {
    engine: Py<Engine>,
    plan: Plan,
    kept: Mutex<Kept>,
}

struct Kept {
    memory: Vec<f32>,
    window: Vec<i32>,
    order: Vec<u32>,
    filled: usize,
}

impl Kept {
    fn new(plan: &Plan) -> Result<Kept, Error> {
        Ok(Kept {
            memory: zeros("generation memory", plan.generation())?,
            window: vec![0; plan.config().context],
            order: vec![0; plan.config().vocab],
            filled: 0,
        })
    }

    /// Runs `body` on the generator whose memory this is.
    fn with<T>(
        &mut self,
        plan: &Plan,
        simd: InstructionSet,
        parameters: &[f32],
        frozen: &[f32],
        body: impl FnOnce(&mut CoreGenerator<'_>, &mut [u32]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Kept { memory, window, order, filled } = self;
        let mut generator = CoreGenerator::new(plan, simd, parameters, frozen, memory, window)?;
        generator.resume(*filled);
        let result = body(&mut generator, order);
        *filled = generator.filled();
        result
    }
}

impl Generator {
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&mut CoreGenerator<'_>, &mut [u32]) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let engine = self.engine.get();
        engine.locked_with(py, &self.plan, 0, |locked| {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let Locked { compute, parameters, frozen, .. } = locked;
            kept.with(&self.plan, compute.simd, parameters, frozen, body)
        })
    }
}

#[pymethods]
impl Generator {
    #[new]
    fn new(engine: Bound<'_, Engine>) -> PyResult<Generator> {
        let plan = engine.get().plan(1, OptimizerState::None)?;
        let kept = Mutex::new(Kept::new(&plan).map_err(exception)?);
        Ok(Generator { engine: engine.unbind(), plan, kept })
    }

    /// Appends tokens; returns the logits `[V]` of the next token.
    fn feed<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray1<'py, i32>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let tokens = tokens.as_slice()?;
        let logits = self.run(py, |generator, _| generator.feed(tokens).map(|logits| logits.to_vec()))?;
        Ok(PyArray1::from_vec(py, logits))
    }

    /// Draws a token from logits `[V]` of the caller's, as `draw` does from the text's. Does not feed it.
    #[expect(clippy::too_many_arguments)]
    fn sample<'py>(
        &self,
        logits: PyReadonlyArray1<'py, f32>,
        temperature: f32,
        top_k: Option<usize>,
        top_p: Option<f32>,
        min_p: Option<f32>,
        seed: u64,
        number: u64,
    ) -> PyResult<usize> {
        let sampling = Sampling { temperature, top_k, top_p, min_p };
        let mut logits = logits.as_slice()?.to_vec();
        let mut order = vec![0; logits.len()];
        let mut generator = rng::generator(seed, Stream::Sampling, number, 0);
        jostle::sample(self.engine.get().simd, &sampling, &mut logits, &mut order, &mut generator)
            .map_err(exception)
    }

    /// Draws and feeds `count` tokens. `number` is the number of tokens that were drawn before with this seed. Ctrl-C is
    /// handled after each token.
    #[expect(clippy::too_many_arguments)]
    fn draw(
        &self,
        py: Python<'_>,
        count: u64,
        temperature: f32,
        top_k: Option<usize>,
        top_p: Option<f32>,
        min_p: Option<f32>,
        seed: u64,
        number: u64,
    ) -> PyResult<Vec<i32>> {
        let sampling = Sampling { temperature, top_k, top_p, min_p };
        sampling.validate().map_err(exception)?;
        let mut drawn = Vec::new();
        for number in number..number.saturating_add(count) {
            drawn.push(self.run(py, |generator, order| {
                let token = generator.draw(&sampling, order, seed, number)?;
                generator.feed(&[token])?;
                Ok(token)
            })?);
            py.check_signals()?;
        }
        Ok(drawn)
    }
}

/// The tokens of each text between two checks for Ctrl-C.
const ROUND: u64 = 16;

/// One of several texts that grow at once.
struct Text {
    kept: Kept,
    /// What is still to be fed.
    prompt: Vec<i32>,
    seed: u64,
    drawn: Vec<i32>,
    ended: bool,
    result: Result<(), Error>,
}

/// What the texts share.
struct Together<'a> {
    plan: &'a Plan,
    simd: InstructionSet,
    parameters: &'a [f32],
    frozen: &'a [f32],
    sampling: &'a Sampling,
    stop: &'a [i32],
}

impl Together<'_> {
    /// Draws and feeds tokens until the text has so many, or one of `stop` is drawn.
    fn grow(&self, text: &mut Text, until: u64) -> Result<(), Error> {
        let Text { kept, prompt, seed, drawn, ended, .. } = text;
        kept.with(self.plan, self.simd, self.parameters, self.frozen, |generator, order| {
            if !prompt.is_empty() {
                generator.feed(prompt)?;
                prompt.clear();
            }
            while !*ended && (drawn.len() as u64) < until {
                let token = generator.draw(self.sampling, order, *seed, drawn.len() as u64)?;
                drawn.push(token);
                *ended = self.stop.contains(&token);
                if !*ended {
                    generator.feed(&[token])?;
                }
            }
            Ok(())
        })
    }
}

/// Continues several prompts at once, a text a thread, with the seeds from `seed` on. A text ends with a token of `stop`, or
/// when it has `count` tokens.
#[pyfunction]
pub fn generate_together<'py>(
    py: Python<'py>,
    engine: Bound<'py, Engine>,
    prompts: Vec<PyReadonlyArray1<'py, i32>>,
    count: u64,
    sampling: (f32, Option<usize>, Option<f32>, Option<f32>),
    seed: u64,
    stop: Vec<i32>,
) -> PyResult<Vec<Vec<i32>>> {
    let engine = engine.get();
    let plan = engine.plan(1, OptimizerState::None)?;
    let (temperature, top_k, top_p, min_p) = sampling;
    let sampling = &Sampling { temperature, top_k, top_p, min_p };
    sampling.validate().map_err(exception)?;
    let mut texts = Vec::with_capacity(prompts.len());
    for (number, prompt) in (0_u64..).zip(&prompts) {
        let (kept, prompt) = (Kept::new(&plan).map_err(exception)?, prompt.as_slice()?.to_vec());
        let seed = seed.wrapping_add(number);
        texts.push(Mutex::new(Text { kept, prompt, seed, drawn: Vec::new(), ended: false, result: Ok(()) }));
    }
    for until in (0..count).step_by(ROUND as usize).map(|done| count.min(done.saturating_add(ROUND))) {
        engine.locked_with(py, &plan, 0, |locked| {
            let Locked { compute, parameters, frozen, .. } = locked;
            let together =
                Together { plan: &plan, simd: compute.simd, parameters, frozen, sampling, stop: &stop };
            compute.parallel.run(texts.len(), &|number| {
                if let Some(text) = texts.get(number) {
                    let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                    text.result = together.grow(&mut text, until);
                }
            });
            let results = texts.iter().map(|text| text.lock().unwrap_or_else(PoisonError::into_inner).result);
            results.collect::<Result<(), Error>>()
        })?;
        py.check_signals()?;
    }
    let texts = texts.into_iter().map(|text| text.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(texts.map(|text| text.drawn).collect())
}
