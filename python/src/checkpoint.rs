//! Checkpoints: bytes objects that are read, and files that are written.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use jostle::CheckpointError;
use jostle::Tensor;
use jostle::checkpoint::{self, Checkpoint as CoreCheckpoint, Contents, Progress};
use jostle::{Error, OptimizerState, Options, Plan};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyDict;
use self_cell::self_cell;

use crate::buffer::State;
use crate::config::{PyConfig, optimizer_state, to_python};
use crate::engine::{Engine, Locked, Position};
use crate::error::exception;

/// The size of the blocks that a file is written in.
const BLOCK: usize = 1 << 20;

/// The names of tensors that an error lists.
const MOST_NAMES: usize = 8;

enum Failure {
    Core(Error),
    Writing(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Core(error)
    }
}

/// Writes a checkpoint into an existing file, and syncs it to the disk. The checkpoint has the engine's parameters and,
/// unless it is None, an optimiser's state with its kind. The number of steps is the state's or, without one, the engine's.
#[pyfunction]
pub fn write_checkpoint(
    py: Python<'_>,
    path: PathBuf,
    engine: &Bound<'_, Engine>,
    state: Option<(String, Bound<'_, State>)>,
    seed: u64,
    metadata: Vec<(String, String)>,
) -> PyResult<()> {
    let kind = match &state {
        Some((name, _)) => optimizer_state(name)?,
        None => OptimizerState::None,
    };
    let plan = engine.get().plan(1, kind)?;
    let state = state.as_ref().map(|(_, buffer)| buffer.get());
    let metadata: Vec<(&str, &str)> = metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
    let result = engine.get().locked(py, &plan, |Locked { parameters, frozen, position, .. }| {
        let step = state.map_or(position.step, State::steps);
        // SAFETY: the engine's lock is held, and the state belongs to the engine.
        let optimizer = state.map(|state| unsafe { &*state.slice() });
        let progress = Progress { step, seed };
        let contents = Contents { parameters, frozen, optimizer, progress, metadata: &metadata };
        let write = || {
            let file = OpenOptions::new().write(true).truncate(true).open(&path).map_err(Failure::Writing)?;
            let mut blocks = BufWriter::with_capacity(BLOCK, file);
            checkpoint::write_to(&plan, &contents, |piece| {
                blocks.write_all(piece).map_err(Failure::Writing)
            })?;
            blocks.into_inner().map_err(|error| Failure::Writing(error.into_error()))
        };
        Ok(write())
    })?;
    // Without the lock: a disk may take long.
    let result = result.and_then(|file| py.detach(|| file.sync_all()).map_err(Failure::Writing));
    result.map_err(|failure| match failure {
        Failure::Core(error) => exception(error),
        Failure::Writing(error) => PyOSError::new_err((error.raw_os_error(), error.to_string())),
    })
}

self_cell!(
    struct Examined {
        owner: PyBackedBytes,
        #[covariant]
        dependent: CoreCheckpoint,
    }
);

/// A safetensors file, examined once.
#[pyclass(frozen, module = "jostle._native")]
pub struct Checkpoint(Examined);

impl Checkpoint {
    fn core(&self) -> &CoreCheckpoint<'_> {
        self.0.borrow_dependent()
    }

    /// The exception for an error, with tensors' names instead of numbers. The parameters are numbered first, then the
    /// tensors in each part of the state.
    fn by_name(&self, plan: &Plan, error: Error) -> PyErr {
        let number = match error {
            Error::Checkpoint(
                CheckpointError::Missing { tensor }
                | CheckpointError::Shape { tensor, .. }
                | CheckpointError::Type { tensor, .. },
            ) => tensor,
            Error::Checkpoint(CheckpointError::Unused { .. }) => return self.unused(plan),
            error => return exception(error),
        };
        let tensors = plan.tensors().count();
        let whose = if number < tensors { "" } else { "the optimizer's state of " };
        let Some(Tensor { name, shape, rank, .. }) = plan.tensors().nth(number % tensors) else {
            return exception(error);
        };
        let what = match error {
            // Missing sides are 1 there.
            Error::Checkpoint(CheckpointError::Shape { given: [length, 1], .. }) if rank == 1 => {
                format!("has shape [{length}]")
            }
            Error::Checkpoint(CheckpointError::Shape { given, .. }) => format!("has shape {given:?}"),
            Error::Checkpoint(CheckpointError::Type { given, .. }) => {
                let message = format!("checkpoint: {whose}{name} is {given}; expected F32, F16 or BF16");
                return PyValueError::new_err(message);
            }
            _ => "is missing".to_string(),
        };
        let shape = &shape[..rank];
        PyValueError::new_err(format!("checkpoint: {whose}{name} {what}; expected float32 {shape:?}"))
    }

    fn unused(&self, plan: &Plan) -> PyErr {
        let mut unused = self.core().unused(plan);
        let names: Vec<String> = unused.by_ref().take(MOST_NAMES).map(|name| name.to_string()).collect();
        let more = match unused.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        PyValueError::new_err(format!(
            "checkpoint: the file has tensors that the model lacks: {}{more}; expected a configuration that uses them",
            names.join(", ")
        ))
    }
}

#[pymethods]
impl Checkpoint {
    #[new]
    fn new(py: Python<'_>, bytes: PyBackedBytes) -> PyResult<Checkpoint> {
        py.detach(|| Examined::try_new(bytes, |bytes| CoreCheckpoint::new(bytes)))
            .map(Checkpoint)
            .map_err(exception)
    }

    /// The configuration, as keyword arguments of `jostle.Config`.
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        to_python(py, self.core().config().map_err(exception)?)
    }

    /// All metadata.
    fn metadata(&self) -> Vec<(String, String)> {
        self.core().pairs().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    /// Raises `ValueError` unless the file has exactly the tensors of a model with this configuration.
    fn check(&self, py: Python<'_>, config: PyConfig) -> PyResult<()> {
        let plan = Plan::new(&config.core(), &Options::new(1)).map_err(exception)?;
        py.detach(|| self.core().check(&plan, false)).map_err(|error| self.by_name(&plan, error))
    }

    /// Reads parameters, steps and, unless it is None, an optimiser's state into the engine's memory. Returns the seed, or
    /// None if the file has parameters but is not a checkpoint of jostle.
    fn read(
        &self,
        py: Python<'_>,
        engine: &Bound<'_, Engine>,
        state: Option<(String, Bound<'_, State>)>,
    ) -> PyResult<Option<u64>> {
        let kind = match &state {
            Some((name, _)) => optimizer_state(name)?,
            None => OptimizerState::None,
        };
        let plan = engine.get().plan(1, kind)?;
        let state = state.as_ref().map(|(_, buffer)| buffer.get());
        let file = self.core();
        let read = |mut locked: Locked<'_>| {
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
        engine.get().locked(py, &plan, |locked| Ok(read(locked)))?.map_err(|error| self.by_name(&plan, error))
    }
}
