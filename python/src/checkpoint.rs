//! Checkpoints as bytes objects.

use jostle::CheckpointError;
use jostle::Tensor;
use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{Error, OptimizerState, Plan};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::buffer::{State, zeros};
use crate::config::{optimizer_state, to_python};
use crate::engine::{Engine, Locked, Position};
use crate::error::exception;

/// A checkpoint of the engine's parameters and, unless it is None, an optimiser's state and its kind. The number of steps is
/// the state's or, without one, the engine's.
#[pyfunction]
pub fn write_checkpoint<'py>(
    py: Python<'py>,
    engine: &Bound<'py, Engine>,
    state: Option<(String, Bound<'py, State>)>,
    seed: u64,
    metadata: Vec<(String, String)>,
) -> PyResult<Bound<'py, PyBytes>> {
    let kind = match &state {
        Some((name, _)) => optimizer_state(name)?,
        None => OptimizerState::None,
    };
    let plan = engine.get().plan(1, kind)?;
    let state = state.as_ref().map(|(_, buffer)| buffer.get());
    let metadata: Vec<(&str, &str)> = metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
    let bytes = engine.get().locked(py, &plan, |Locked { parameters, frozen, position, .. }| {
        let step = state.map_or(position.step, State::steps);
        // SAFETY: the engine's lock is held, and the state belongs to the engine.
        let optimizer = state.map(|state| unsafe { &*state.slice() });
        let progress = Progress { step, seed };
        let contents = Contents { parameters, frozen, optimizer, progress, metadata: &metadata };
        let mut bytes = zeros("checkpoint", checkpoint::size(&plan, optimizer.is_some(), &metadata)?)?;
        checkpoint::write(&mut bytes, &plan, &contents)?;
        Ok(bytes)
    })?;
    Ok(PyBytes::new(py, &bytes))
}

/// Reads parameters, steps and, unless it is None, an optimiser's state into the engine's memory. Returns the seed, or None
/// if the file has parameters but is not a checkpoint of jostle.
#[pyfunction]
pub fn read_checkpoint<'py>(
    py: Python<'py>,
    bytes: &[u8],
    engine: &Bound<'py, Engine>,
    state: Option<(String, Bound<'py, State>)>,
) -> PyResult<Option<u64>> {
    let kind = match &state {
        Some((name, _)) => optimizer_state(name)?,
        None => OptimizerState::None,
    };
    let plan = engine.get().plan(1, kind)?;
    let state = state.as_ref().map(|(_, buffer)| buffer.get());
    let read = |mut locked: Locked<'_>| {
        let file = Checkpoint::new(bytes)?;
        // The state first: if it is missing, nothing has changed.
        if let Some(state) = state {
            // SAFETY: the engine's lock is held, and the state belongs to the engine.
            file.read(&plan, locked.parameters, Some(unsafe { state.slice() }))?;
        }
        locked.write_in_order(&plan, |plan, all| file.read_parameters(plan, all))?;
        if state.is_none() && file.progress().is_err() {
            return Ok(None);
        }
        let Progress { step, seed } = file.progress()?;
        *locked.position = Position { step, sequences: 0 };
        if let Some(state) = state {
            state.set_steps(step);
        }
        Ok(Some(seed))
    };
    engine.get().locked(py, &plan, |locked| Ok(read(locked)))?.map_err(|error| by_name(&plan, error))
}

/// The exception for an error, with the tensor's name instead of its number. The parameters are numbered first, then the
/// tensors in each part of the state.
fn by_name(plan: &Plan, error: Error) -> PyErr {
    let (number, what) = match error {
        Error::Checkpoint(CheckpointError::Missing { tensor }) => (tensor, "is missing".to_string()),
        Error::Checkpoint(CheckpointError::Shape { tensor, given, .. }) => {
            (tensor, format!("has shape {given:?}"))
        }
        Error::Checkpoint(CheckpointError::Type { tensor, given }) => (tensor, format!("is {given}")),
        error => return exception(error),
    };
    let tensors = plan.tensors().count();
    let whose = if number < tensors { "" } else { "the optimizer's state of " };
    match plan.tensors().nth(number % tensors) {
        Some(Tensor { name, shape, rank, .. }) => PyValueError::new_err(format!(
            "checkpoint: {whose}{name} {what}; expected float32 {:?}",
            &shape[..rank]
        )),
        None => exception(error),
    }
}

/// The configuration in a checkpoint, as keyword arguments of `jostle.Config`.
#[pyfunction]
pub fn checkpoint_config<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let config = Checkpoint::new(bytes).and_then(|file| file.config()).map_err(exception)?;
    to_python(py, config)
}

/// All metadata of a file.
#[pyfunction]
pub fn checkpoint_metadata(bytes: &[u8]) -> PyResult<Vec<(String, String)>> {
    let file = Checkpoint::new(bytes).map_err(exception)?;
    Ok(file.pairs().map(|(key, value)| (key.to_string(), value.to_string())).collect())
}
