//! A model: its parameters, gradients and threads, with one lock for all computing.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use jostle::ops::attention::{self, Attention};
use jostle::{
    Buffers, Compute, Config, DropoutKey, Error, Frozen, Gradients, InstructionSet, Loss, Optimizer,
    OptimizerState, Options, Pass, Plan, Positions, Recipe, Schedule, Shape, Trainer, initialize,
};
use jostle_pool::Pool;
use numpy::{
    PyArray1, PyArray3, PyArray4, PyArray5, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::buffer::{Buffer, State, zeros};
use crate::config::{PyConfig, frozen_tensors, instruction_set};
use crate::error::{exception, exception_in};

/// A model's memory and threads.
#[pyclass(frozen, module = "jostle._native")]
pub struct Engine {
    pub config: Config,
    pub threads: usize,
    pub simd: InstructionSet,
    frozen: Frozen,
    pool: Pool,
    /// The parameters that are trained, then the frozen parameters.
    pub parameters: Py<Buffer>,
    /// The gradients of the parameters that are trained.
    pub gradients: Py<Buffer>,
    /// The process that took the lock last.
    holder: AtomicU32,
    /// This lock is the engine's: its holder may use the parameters, the gradients and the states of their optimisers.
    kept: Mutex<Kept>,
}

struct Kept {
    /// The number of calls so far, to notice those in between.
    calls: u64,
    /// Activations and scratch, as long as the largest pass so far has needed.
    workspace: Vec<f32>,
    position: Position,
}

/// The progress of training, which selects the dropout masks of `backward` together with the seed.
#[derive(Clone, Copy, Default)]
pub struct Position {
    pub step: u64,
    /// The number of sequences of this step that are in the gradients.
    pub sequences: u64,
}

/// Why a call could not be made.
enum Failure {
    Core(Error),
    Forked,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Core(error)
    }
}

/// The memory that a call may use while it holds the lock.
pub struct Locked<'a> {
    /// The number of this call.
    pub call: u64,
    pub compute: Compute<'a>,
    pub parameters: &'a mut [f32],
    pub frozen: &'a mut [f32],
    pub gradients: &'a mut [f32],
    pub workspace: &'a mut [f32],
    pub position: &'a mut Position,
}

impl Locked<'_> {
    /// Has `write` write all parameters in the order of the plan that it receives, which freezes none.
    pub fn write_in_order(
        &mut self,
        plan: &Plan,
        write: impl FnOnce(&Plan, &mut [f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.frozen.is_empty() {
            return write(plan, self.parameters);
        }
        let whole = plan.unfrozen()?;
        let mut all = zeros("parameters", whole.parameters())?;
        write(&whole, &mut all)?;
        plan.scatter(&all, self.parameters, self.frozen)
    }
}

/// All parameters in the order of a plan that freezes none.
fn in_order<'a>(plan: &Plan, parameters: &'a [f32], frozen: &[f32]) -> Result<Cow<'a, [f32]>, Error> {
    if frozen.is_empty() {
        return Ok(Cow::Borrowed(parameters));
    }
    let mut all = zeros("parameters", parameters.len().saturating_add(frozen.len()))?;
    plan.gather(parameters, frozen, &mut all)?;
    Ok(Cow::Owned(all))
}

impl Engine {
    /// Waits for the lock without blocking other Python threads, and runs `body` with the plan's memory.
    pub fn locked<T: Send>(
        &self,
        py: Python<'_>,
        plan: &Plan,
        body: impl FnOnce(Locked<'_>) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        self.locked_with(py, plan, plan.workspace(), body)
    }

    /// As `locked`, with so many numbers of workspace.
    pub fn locked_with<T: Send>(
        &self,
        py: Python<'_>,
        plan: &Plan,
        wanted: usize,
        body: impl FnOnce(Locked<'_>) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let (parameters, gradients) = (self.parameters.get(), self.gradients.get());
        py.detach(|| {
            let mut kept = self.lock().ok_or(Failure::Forked)?;
            let Kept { calls, workspace, position } = &mut *kept;
            *calls = calls.wrapping_add(1);
            let call = *calls;
            if workspace.len() < wanted {
                // Freed before the new one is allocated; its contents are not needed.
                *workspace = Vec::new();
                *workspace = zeros("workspace", wanted)?;
            }
            let workspace = workspace.get_mut(..wanted).unwrap_or_default();
            // SAFETY: the lock is held as long as the slices are used.
            let (parameters, gradients) = unsafe { (parameters.slice(), gradients.slice()) };
            let (parameters, frozen) = parameters.split_at_mut(gradients.len());
            let compute = Compute { simd: self.simd, parallel: &self.pool };
            Ok(body(Locked { call, compute, parameters, frozen, gradients, workspace, position })?)
        })
        .map_err(|failure| match failure {
            Failure::Core(error) => exception_in(plan, error),
            Failure::Forked => PyRuntimeError::new_err(
                "the model was computing in another thread when this process was forked; make a new model here, \
                 or start processes with multiprocessing's \"spawn\"",
            ),
        })
    }

    /// Waits for the lock. `None` if a thread of the parent process held it at a fork: this process has no such thread.
    fn lock(&self) -> Option<MutexGuard<'_, Kept>> {
        let here = std::process::id();
        let mut waits = 0;
        let kept = loop {
            match self.kept.try_lock() {
                Ok(kept) => break kept,
                Err(TryLockError::Poisoned(error)) => break error.into_inner(),
                Err(TryLockError::WouldBlock) if self.holder.load(Ordering::Relaxed) == here => {
                    break self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                }
                // Another thread of this process may have taken the lock, and not said so yet.
                Err(TryLockError::WouldBlock) if waits < 100 => {
                    waits += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return None,
            }
        };
        self.holder.store(here, Ordering::Relaxed);
        Some(kept)
    }

    /// The plan for passes of `batch` sequences, at least one.
    pub fn plan(&self, batch: usize, optimizer: OptimizerState) -> PyResult<Plan> {
        self.plan_with(&self.config, Options { optimizer, ..Options::new(batch.max(1)) })
    }

    /// The plan for passes of this shape.
    fn plan_for(&self, shape: Shape, optimizer: OptimizerState) -> PyResult<Plan> {
        let options = Options { optimizer, ..Options::new(shape.sequences.max(1)) };
        self.plan_with(&self.shortened(shape.length), options)
    }

    /// The plan for the little that needs no pass.
    fn least_plan(&self, optimizer: OptimizerState) -> PyResult<Plan> {
        self.plan_for(Shape { sequences: 1, length: 1 }, optimizer)
    }

    /// The configuration with a shorter context, if that changes no parameter: passes of this length then need less memory.
    pub fn shortened(&self, length: usize) -> Config {
        let context = match self.config.positions {
            Positions::Learned => self.config.context,
            Positions::Rotary => length.clamp(1, self.config.context),
        };
        Config { context, ..self.config }
    }

    /// The plan for these options, with the engine's threads and frozen tensors.
    pub fn plan_with(&self, config: &Config, options: Options) -> PyResult<Plan> {
        let options = Options { threads: self.threads, frozen: self.frozen, ..options };
        Plan::new(config, &options).map_err(exception)
    }

    /// Has `body` look at the activations of every block after a forward pass without dropout. The pass runs as if nothing
    /// were frozen, because a plan does not keep activations of blocks that backward does not reach.
    fn look<T: Send>(
        &self,
        py: Python<'_>,
        tokens: &[i32],
        shape: Shape,
        body: impl FnOnce(&Plan, &mut [f32]) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let own = self.plan_for(shape, OptimizerState::None)?;
        let plan = own.unfrozen().map_err(exception)?;
        self.locked(py, &plan, |locked| {
            let Locked { compute, parameters, frozen, workspace, .. } = locked;
            let parameters = &in_order(&own, parameters, frozen)?;
            Pass { compute, plan: &plan, parameters, frozen: &[], tokens, shape, dropout: None }
                .forward(workspace)?;
            body(&plan, workspace)
        })
    }
}

/// Tokens `[B, T]` and their shape.
fn batch<'a>(tokens: &'a PyReadonlyArray2<'_, i32>) -> PyResult<(&'a [i32], Shape)> {
    let [sequences, length] = *tokens.shape() else { unreachable!("two dimensions") };
    Ok((tokens.as_slice()?, Shape { sequences, length }))
}

/// Targets of the same shape.
fn targets<'a>(targets: &'a PyReadonlyArray2<'_, i32>, shape: Shape) -> PyResult<&'a [i32]> {
    let (targets, given) = batch(targets)?;
    if given != shape {
        return Err(PyValueError::new_err(format!(
            "targets have the shape ({}, {}); expected the shape of the tokens, ({}, {})",
            given.sequences, given.length, shape.sequences, shape.length
        )));
    }
    Ok(targets)
}

/// An optimiser, by its name and its numbers.
pub fn optimizer(name: &str, numbers: Vec<f32>) -> PyResult<Optimizer> {
    let optimizer = match (name, &numbers[..]) {
        ("adamw", &[beta1, beta2, epsilon, weight_decay]) => {
            Optimizer::AdamW { beta1, beta2, epsilon, weight_decay }
        }
        ("sgd", &[momentum]) => Optimizer::Sgd { momentum },
        _ => {
            return Err(PyValueError::new_err(format!(
                "no optimizer {name:?} with {} numbers",
                numbers.len()
            )));
        }
    };
    optimizer.validate().map_err(exception)?;
    Ok(optimizer)
}

/// Raises `ValueError` if the optimiser's numbers are out of range.
#[pyfunction]
pub fn check_optimizer(name: &str, numbers: Vec<f32>) -> PyResult<()> {
    optimizer(name, numbers).map(|_| ())
}

/// The number of threads that the process may use: processors, within its affinity and its group's quota.
#[pyfunction]
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The most tokens of a call: some seconds of a large model.
const ROWS: usize = 1 << 14;

type Tensor = (String, Vec<usize>, usize, bool);

/// The columns of queries, keys and values.
fn qkv_columns(config: &Config) -> usize {
    (config.heads + 2 * config.kv_heads()) * config.head_width()
}

#[pymethods]
impl Engine {
    /// A model whose parameters are all zero.
    #[new]
    fn new(
        py: Python<'_>,
        config: PyConfig,
        threads: usize,
        instruction_set: Option<&str>,
        frozen: Vec<String>,
    ) -> PyResult<Engine> {
        let config = config.core();
        let simd = self::instruction_set(instruction_set)?;
        let frozen = frozen_tensors(&config, &frozen)?;
        let options = Options { threads, frozen, ..Options::new(1) };
        let plan = Plan::new(&config, &options).map_err(exception)?;
        let pool = Pool::new(threads).map_err(|error| {
            PyOSError::new_err(format!("{threads} threads could not be started: {error}"))
        })?;
        Ok(Engine {
            config,
            threads,
            simd,
            frozen,
            pool,
            parameters: Py::new(py, Buffer::new(plan.parameters().saturating_add(plan.frozen()))?)?,
            gradients: Py::new(py, Buffer::new(plan.gradients())?)?,
            holder: AtomicU32::new(std::process::id()),
            kept: Mutex::new(Kept { calls: 0, workspace: Vec::new(), position: Position::default() }),
        })
    }

    /// The instruction set's name.
    #[getter]
    fn instruction_set(&self) -> &'static str {
        self.simd.name()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.threads
    }

    #[getter]
    fn parameters(&self, py: Python<'_>) -> Py<Buffer> {
        self.parameters.clone_ref(py)
    }

    #[getter]
    fn gradients(&self, py: Python<'_>) -> Py<Buffer> {
        self.gradients.clone_ref(py)
    }

    /// Name, shape and offset of each tensor, and whether it is frozen.
    fn tensors(&self) -> PyResult<Vec<Tensor>> {
        let plan = self.plan(1, OptimizerState::None)?;
        let describe = |tensor: jostle::Tensor| {
            let shape = tensor.shape.into_iter().take(tensor.rank).collect();
            let offset =
                if tensor.frozen { plan.parameters().saturating_add(tensor.offset) } else { tensor.offset };
            (tensor.name.to_string(), shape, offset, tensor.frozen)
        };
        Ok(plan.tensors().map(describe).collect())
    }

    /// The step and the sequence that select the dropout masks of the next `backward`.
    #[getter]
    fn position(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        let plan = self.least_plan(OptimizerState::None)?;
        let position = self.locked(py, &plan, |locked| Ok(*locked.position))?;
        Ok((position.step, position.sequences))
    }

    #[setter]
    fn set_position(&self, py: Python<'_>, position: (u64, u64)) -> PyResult<()> {
        let (step, sequences) = position;
        let plan = self.least_plan(OptimizerState::None)?;
        self.locked(py, &plan, |locked| {
            *locked.position = Position { step, sequences };
            Ok(())
        })
    }

    /// Sets all gradients to zero, which begins a step.
    fn zero_gradients(&self, py: Python<'_>) -> PyResult<()> {
        let plan = self.least_plan(OptimizerState::None)?;
        self.locked(py, &plan, |locked| {
            locked.gradients.fill(0.0);
            locked.position.sequences = 0;
            Ok(())
        })
    }

    /// Writes random initial parameters, which are a function of the seed.
    fn initialize(&self, py: Python<'_>, seed: u64) -> PyResult<()> {
        let plan = self.least_plan(OptimizerState::None)?;
        self.locked(py, &plan, |mut locked| {
            let simd = locked.compute.simd;
            locked.write_in_order(&plan, |plan, all| initialize(simd, plan, all, seed))
        })
    }

    /// The same for the parameters that are trained, without those that are frozen.
    fn initialize_trained(&self, py: Python<'_>, seed: u64) -> PyResult<()> {
        let plan = self.least_plan(OptimizerState::None)?;
        self.locked(py, &plan, |locked| initialize(locked.compute.simd, &plan, locked.parameters, seed))
    }

    /// Logits `[B, T, V]` of tokens `[B, T]`, without dropout. A large batch takes several calls; Ctrl-C is handled between
    /// them.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray2<'py, i32>,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let (tokens, shape) = batch(&tokens)?;
        let most = (ROWS / shape.length.max(1)).max(1);
        let part = Shape { sequences: shape.sequences.min(most), ..shape };
        let plan = self.plan_for(part, OptimizerState::None)?;
        let length = shape.rows().saturating_mul(self.config.vocab);
        let mut logits = zeros("logits", length).map_err(exception)?;
        let pieces = tokens.chunks(most.saturating_mul(shape.length).max(1));
        for (tokens, logits) in pieces.zip(logits.chunks_mut(most * shape.length.max(1) * self.config.vocab))
        {
            let shape = Shape { sequences: tokens.len() / shape.length, ..shape };
            self.locked(py, &plan, |locked| {
                let Locked { compute, parameters, frozen, workspace, .. } = locked;
                Pass { compute, plan: &plan, parameters, frozen, tokens, shape, dropout: None }
                    .forward(workspace)?;
                logits.copy_from_slice(plan.logits(workspace, shape)?);
                Ok(())
            })?;
            py.check_signals()?;
        }
        PyArray1::from_vec(py, logits).reshape([shape.sequences, shape.length, self.config.vocab])
    }

    /// The sum of losses on the targets, and how many count, without dropout.
    fn loss<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray2<'py, i32>,
        targets: PyReadonlyArray2<'py, i32>,
    ) -> PyResult<(f64, usize)> {
        let (tokens, shape) = batch(&tokens)?;
        let targets = self::targets(&targets, shape)?;
        let plan = self.plan_for(shape, OptimizerState::None)?;
        let loss = self.locked(py, &plan, |locked| {
            let Locked { compute, parameters, frozen, workspace, .. } = locked;
            Pass { compute, plan: &plan, parameters, frozen, tokens, shape, dropout: None }
                .loss(workspace, targets)
        })?;
        Ok((loss.sum, loss.counted))
    }

    /// Forward and backward with dropout: adds the gradient of the sum of losses divided by `counted` (by default
    /// the targets that count here). Returns the sum of losses, and how many targets count.
    fn backward<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray2<'py, i32>,
        targets: PyReadonlyArray2<'py, i32>,
        counted: Option<usize>,
        seed: u64,
    ) -> PyResult<(f64, usize)> {
        let (tokens, shape) = batch(&tokens)?;
        let targets = self::targets(&targets, shape)?;
        let counted = counted.unwrap_or_else(|| targets.iter().filter(|target| **target != -1).count());
        let plan = self.plan_for(shape, OptimizerState::None)?;
        let loss: Loss = self.locked(py, &plan, |locked| {
            let Locked { compute, parameters, frozen, gradients, workspace, position, .. } = locked;
            let Position { step, sequences } = *position;
            let dropout = Some(DropoutKey { seed, step, first_sequence: sequences });
            let pass = Pass { compute, plan: &plan, parameters, frozen, tokens, shape, dropout };
            let loss = pass.backward(gradients, Gradients::Add, workspace, targets, counted)?;
            position.sequences = sequences.saturating_add(shape.sequences as u64);
            Ok(loss)
        })?;
        Ok((loss.sum, loss.counted))
    }

    /// Queries, keys and values `[L, B, T, H D + 2 K D]` of tokens `[B, T]`.
    fn qkv<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray2<'py, i32>,
    ) -> PyResult<Bound<'py, PyArray4<f32>>> {
        let (tokens, shape) = batch(&tokens)?;
        let (layers, columns) = (self.config.layers, qkv_columns(&self.config));
        let qkv = self.look(py, tokens, shape, |plan, workspace| {
            let one = shape.rows().saturating_mul(columns);
            let mut all = zeros("qkv", one.saturating_mul(layers))?;
            for (layer, all) in all.chunks_exact_mut(one).enumerate() {
                all.copy_from_slice(plan.qkv(workspace, shape, layer)?);
            }
            Ok(all)
        })?;
        PyArray1::from_vec(py, qkv).reshape([layers, shape.sequences, shape.length, columns])
    }

    /// Attention weights `[L, B, H, T, T]` of tokens `[B, T]`, without dropout.
    fn attention<'py>(
        &self,
        py: Python<'py>,
        tokens: PyReadonlyArray2<'py, i32>,
    ) -> PyResult<Bound<'py, PyArray5<f32>>> {
        let (tokens, shape) = batch(&tokens)?;
        let Config { layers, heads, .. } = self.config;
        let (kv_heads, width) = (self.config.kv_heads(), heads * self.config.head_width());
        let columns = qkv_columns(&self.config);
        let Shape { sequences, length } = shape;
        let weights = self.look(py, tokens, shape, |plan, workspace| {
            let per_sequence = heads.saturating_mul(length).saturating_mul(length);
            let per_layer = per_sequence.saturating_mul(sequences);
            let mut all = zeros("attention weights", per_layer.saturating_mul(layers))?;
            let mut scratch = zeros("scratch", attention::scratch(length, width))?;
            for (layer, all) in all.chunks_exact_mut(per_layer).enumerate() {
                let qkv = plan.qkv(workspace, shape, layer)?;
                let pairs = all.chunks_exact_mut(per_sequence).zip(qkv.chunks_exact(length * columns));
                for (weights, qkv) in pairs {
                    let one = Attention { heads, kv_heads, width, mask: None, sequence: 0 };
                    attention::weights(self.simd, weights, qkv, one, &mut scratch)?;
                }
            }
            Ok(all)
        })?;
        PyArray1::from_vec(py, weights).reshape([layers, sequences, heads, length, length])
    }

    /// Updates the parameters; returns the gradients' norm before clipping.
    fn update(
        &self,
        py: Python<'_>,
        optimizer: &str,
        numbers: Vec<f32>,
        state: &Bound<'_, State>,
        learning_rate: f32,
        clip: Option<f32>,
    ) -> PyResult<f32> {
        let optimizer = self::optimizer(optimizer, numbers)?;
        let plan = self.least_plan(optimizer.state())?;
        let schedule = Schedule::constant(learning_rate);
        // The seed is for batches and dropout masks, which an update does not have.
        let recipe = Recipe { optimizer, schedule, clip, accumulate: 1, seed: 0 };
        let state = state.get();
        self.locked(py, &plan, |locked| {
            let Locked { compute, parameters, frozen, gradients, workspace, position, .. } = locked;
            // SAFETY: the engine's lock is held, and the state belongs to the engine.
            let optimizer = unsafe { state.slice() };
            let batch = &mut zeros("batch", plan.batch())?;
            let buffers = Buffers { parameters, frozen, gradients, optimizer, workspace, batch };
            let mut trainer = Trainer::new(&plan, &recipe, buffers, compute)?;
            trainer.resume_at(state.steps(), 0);
            let report = trainer.update(Loss::default())?;
            let step = trainer.steps();
            state.set_steps(step);
            *position = Position { step, sequences: 0 };
            Ok(report.gradient_norm)
        })
    }
}
