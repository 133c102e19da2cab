//! Converts the Python package's configurations to the core's, and computes the sizes that follow from them.

use jostle::{
    Activation, Config, Dropout, Error, Frozen, InstructionSet, OptimizerState, Options, Plan, Target,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::exception;

/// The attributes of a `jostle.Config`.
#[derive(FromPyObject)]
pub struct PyConfig {
    vocab: usize,
    context: usize,
    layers: usize,
    heads: usize,
    width: usize,
    hidden: usize,
    embedding_dropout: f32,
    attention_dropout: f32,
    attention_projection_dropout: f32,
    mlp_projection_dropout: f32,
    activation: String,
    bias: bool,
    tied: bool,
    norm_epsilon: f32,
}

impl PyConfig {
    pub fn to_core(&self) -> PyResult<Config> {
        let config = Config {
            vocab: self.vocab,
            context: self.context,
            layers: self.layers,
            heads: self.heads,
            width: self.width,
            hidden: self.hidden,
            dropout: Dropout {
                embedding: self.embedding_dropout,
                attention: self.attention_dropout,
                attention_projection: self.attention_projection_dropout,
                mlp_projection: self.mlp_projection_dropout,
            },
            activation: activation(&self.activation)?,
            bias: self.bias,
            tied: self.tied,
            norm_epsilon: self.norm_epsilon,
        };
        config.validate().map_err(exception)?;
        Ok(config)
    }
}

/// The names of activations, here and in checkpoints.
pub fn activation(name: &str) -> PyResult<Activation> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_tanh" => Ok(Activation::GeluTanh),
        _ => Err(wrong_choice("activation", name, "'gelu' or 'gelu_tanh'")),
    }
}

fn wrong_choice(what: &str, given: &str, wanted: &str) -> PyErr {
    pyo3::exceptions::PyValueError::new_err(format!("{what} is {given:?}; wanted: {wanted}"))
}

/// The kind of optimiser state, by name.
pub fn optimizer_state(name: &str) -> PyResult<OptimizerState> {
    match name {
        "none" => Ok(OptimizerState::None),
        "momentum" => Ok(OptimizerState::Momentum),
        "adamw" => Ok(OptimizerState::AdamW),
        _ => Err(wrong_choice("optimizer", name, "'none', 'momentum' or 'adamw'")),
    }
}

/// The frozen tensors, by name.
pub fn frozen_tensors(config: &Config, names: &[String]) -> PyResult<Frozen> {
    Frozen::named(config, names.iter().map(String::as_str)).map_err(exception)
}

/// A configuration's fields as the keyword arguments of `jostle.Config`.
pub fn to_python<'py>(py: Python<'py>, config: &Config) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("vocab", config.vocab)?;
    fields.set_item("context", config.context)?;
    fields.set_item("layers", config.layers)?;
    fields.set_item("heads", config.heads)?;
    fields.set_item("width", config.width)?;
    fields.set_item("hidden", config.hidden)?;
    fields.set_item("embedding_dropout", config.dropout.embedding)?;
    fields.set_item("attention_dropout", config.dropout.attention)?;
    fields.set_item("attention_projection_dropout", config.dropout.attention_projection)?;
    fields.set_item("mlp_projection_dropout", config.dropout.mlp_projection)?;
    let activation = match config.activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
    };
    fields.set_item("activation", activation)?;
    fields.set_item("bias", config.bias)?;
    fields.set_item("tied", config.tied)?;
    fields.set_item("norm_epsilon", config.norm_epsilon)?;
    Ok(fields)
}

/// Raises `ValueError` if the configuration does not describe a model.
#[pyfunction]
pub fn validate(config: PyConfig) -> PyResult<()> {
    config.to_core().map(|_| ())
}

/// The names of all tensors of a model, in their order.
#[pyfunction]
pub fn tensor_names(config: PyConfig) -> PyResult<Vec<String>> {
    let plan = Plan::new(&config.to_core()?, &Options::new(1)).map_err(exception)?;
    Ok(plan.tensors().map(|tensor| tensor.name.to_string()).collect())
}

/// A plan's choices and the bytes of each region, in the order in which a plan prints them. With a budget, it is the
/// plan that fits the budget.
///
/// The choices are: batch, threads, whether it recomputes, how many multiply-adds that adds to a pass, and whether the
/// update is fused.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn plan<'py>(
    py: Python<'py>,
    config: PyConfig,
    batch: usize,
    threads: usize,
    optimizer: &str,
    recompute: bool,
    fused: bool,
    frozen: Vec<String>,
    budget: Option<usize>,
) -> PyResult<(usize, usize, bool, usize, bool, Bound<'py, PyDict>)> {
    let config = config.to_core()?;
    let frozen = frozen_tensors(&config, &frozen)?;
    let options =
        Options { batch, threads, optimizer: optimizer_state(optimizer)?, recompute, fused, frozen };
    let plan = match budget {
        None => Plan::new(&config, &options),
        Some(budget) => Plan::fit(&config, &options, budget),
    }
    .map_err(exception)?;
    let bytes = PyDict::new(py);
    for (region, elements) in [
        ("parameters", plan.parameters),
        ("gradients", plan.gradients),
        ("optimizer", plan.optimizer),
        ("activations", plan.activations),
        ("scratch", plan.scratch),
        ("batch", plan.batch),
        ("generation", plan.generation),
        ("frozen", plan.frozen),
    ] {
        if region != "frozen" || elements > 0 {
            bytes.set_item(region, elements.saturating_mul(4))?;
        }
    }
    let Options { batch, threads, recompute, fused, .. } = plan.options;
    Ok((batch, threads, recompute, plan.recomputed(), fused, bytes))
}

/// The C header of `#define`s for a model on this machine or, if `device` is true, on a microcontroller. The header
/// names `command` as its origin.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn defines(
    config: PyConfig,
    batch: usize,
    threads: usize,
    optimizer: &str,
    recompute: bool,
    fused: bool,
    frozen: Vec<String>,
    device: bool,
    prefix: &str,
    command: &str,
) -> PyResult<String> {
    let config = config.to_core()?;
    let frozen = frozen_tensors(&config, &frozen)?;
    let options =
        Options { batch, threads, optimizer: optimizer_state(optimizer)?, recompute, fused, frozen };
    let target = if device { Target::Portable } else { Target::HERE };
    let plan = Plan::on(target, &config, &options).map_err(exception)?;
    jostle_plan::header(command, prefix, device, &plan).map_err(exception)
}

/// The names of the instruction sets that this processor has, the fastest first.
#[pyfunction]
pub fn instruction_sets() -> Vec<&'static str> {
    let has = |name: &&str| InstructionSet::named(name).is_ok();
    InstructionSet::NAMES.into_iter().rev().filter(has).collect()
}

/// The instruction set with this name, or the fastest.
pub fn instruction_set(name: Option<&str>) -> PyResult<InstructionSet> {
    let Some(name) = name else { return Ok(InstructionSet::detect()) };
    InstructionSet::named(name).map_err(|error: Error| {
        debug_assert_eq!(error, Error::InstructionSet);
        let wanted = format!("one of {:?}", instruction_sets());
        wrong_choice("instruction_set", name, &wanted)
    })
}
