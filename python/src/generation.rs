//! Text generation: each call makes the core's generator from the memory and the progress that are kept here.

use std::sync::{Mutex, PoisonError};

use jostle::rng::{self, Stream};
use jostle::{Error, Generator as CoreGenerator, OptimizerState, Plan, Sampling};
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

impl Generator {
    fn run<T: Send>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&mut CoreGenerator<'_>, &mut [u32]) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let engine = self.engine.get();
        engine.locked_with(py, &self.plan, 0, |locked| {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let Kept { memory, window, order, filled } = &mut *kept;
            let Locked { compute, parameters, frozen, .. } = locked;
            let mut generator =
                CoreGenerator::new(&self.plan, compute.simd, parameters, frozen, memory, window)?;
            generator.resume(*filled);
            let result = body(&mut generator, order);
            *filled = generator.filled();
            result
        })
    }
}

#[pymethods]
impl Generator {
    #[new]
    fn new(engine: Bound<'_, Engine>) -> PyResult<Generator> {
        let plan = engine.get().plan(1, OptimizerState::None)?;
        let kept = Kept {
            memory: zeros("generation memory", plan.generation()).map_err(exception)?,
            window: vec![0; plan.config().context],
            order: vec![0; plan.config().vocab],
            filled: 0,
        };
        Ok(Generator { engine: engine.unbind(), plan, kept: Mutex::new(kept) })
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
