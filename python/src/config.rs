//! Turns the Python package's configurations into the core's, and computes plans.

use jostle::fields::{Choice, Field, Value};
use jostle::{
    Activation, Config, Error, Frozen, InstructionSet, OptimizerState, Options, Plan, Target, Tensor,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::exception;

/// The configuration of a `jostle.Config`, which has an attribute for each field of the core.
pub struct PyConfig(Config);

impl<'py> FromPyObject<'_, 'py> for PyConfig {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<PyConfig> {
        let mut config = Config::new(1, 1, 1, 1, 1);
        for field in Field::ALL {
            let given = object.getattr(field.name())?;
            match config.value(*field) {
                Value::Size(place) => *place = given.extract()?,
                Value::DerivedSize(place) => *place = given.extract::<Option<usize>>()?.unwrap_or(0),
                Value::Rate(place) | Value::Fraction(place) | Value::Positive(place) => {
                    *place = given.extract()?;
                }
                Value::Flag(place) => *place = given.extract()?,
                Value::Choice(choice) => choose(field.name(), given.extract()?, choice)?,
            }
        }
        config.validate().map_err(exception)?;
        Ok(PyConfig(config))
    }
}

impl PyConfig {
    pub fn core(&self) -> Config {
        self.0
    }
}

/// Takes the value of a name.
fn choose(what: &str, name: &str, choice: &mut dyn Choice) -> PyResult<()> {
    let names = choice.names();
    let number = names.iter().position(|known| *known == name);
    number.and_then(|number| choice.choose(number)).ok_or_else(|| {
        let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        let (last, others) = quoted.split_last().expect("a choice has values");
        wrong_choice(what, name, &format!("{} or {last}", others.join(", ")))
    })
}

/// The activation of a name.
pub fn activation(name: &str) -> PyResult<Activation> {
    let mut activation = Activation::Gelu;
    choose("activation", name, &mut activation)?;
    Ok(activation)
}

fn wrong_choice(what: &str, given: &str, wanted: &str) -> PyErr {
    pyo3::exceptions::PyValueError::new_err(format!("{what} is {given:?}; expected {wanted}"))
}

/// An optimiser's state, by name.
pub fn optimizer_state(name: &str) -> PyResult<OptimizerState> {
    match name {
        "none" => Ok(OptimizerState::None),
        "momentum" => Ok(OptimizerState::Momentum),
        "adamw" => Ok(OptimizerState::AdamW),
        _ => Err(wrong_choice("optimizer", name, "'none', 'momentum' or 'adamw'")),
    }
}

/// The set of tensors that are not trained, by name.
pub fn frozen_tensors(config: &Config, names: &[String]) -> PyResult<Frozen> {
    Frozen::named(config, names.iter().map(String::as_str)).map_err(exception)
}

/// A configuration's fields as the keyword arguments of `jostle.Config`.
pub fn to_python<'py>(py: Python<'py>, mut config: Config) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    for field in Field::ALL {
        let name = field.name();
        match config.value(*field) {
            Value::Size(size) => fields.set_item(name, *size)?,
            Value::DerivedSize(size) if name.starts_with("lora_") => fields.set_item(name, *size)?,
            Value::DerivedSize(size) => fields.set_item(name, (*size != 0).then_some(*size))?,
            Value::Rate(number) | Value::Fraction(number) | Value::Positive(number) => {
                fields.set_item(name, *number)?;
            }
            Value::Flag(flag) => fields.set_item(name, *flag)?,
            Value::Choice(choice) => fields.set_item(name, choice.names()[choice.number()])?,
        }
    }
    Ok(fields)
}

/// Whether tensors have the names of Hugging Face's GPT-2.
#[pyfunction]
pub fn is_gpt2(config: PyConfig) -> bool {
    config.core().is_gpt2()
}

/// Raises `ValueError` if the configuration is invalid.
#[pyfunction]
pub fn validate(config: PyConfig) {
    // Extraction has validated it.
    let _ = config;
}

/// The names and shapes of all tensors of a model, in their order.
#[pyfunction]
pub fn tensors(config: PyConfig) -> PyResult<Vec<(String, Vec<usize>)>> {
    let plan = Plan::new(&config.core(), &Options::new(1)).map_err(exception)?;
    let describe =
        |tensor: Tensor| (tensor.name.to_string(), tensor.shape.into_iter().take(tensor.rank).collect());
    Ok(plan.tensors().map(describe).collect())
}

/// The choices of a plan, and the bytes of each region in the order in which a plan prints them. The choices are batch,
/// threads, recomputation, the multiply-adds that it adds to a pass, and the fused optimizer step. With a budget, it is the
/// plan that fits the budget.
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
    head_rows: usize,
    frozen: Vec<String>,
    budget: Option<usize>,
) -> PyResult<(usize, usize, bool, usize, bool, Bound<'py, PyDict>)> {
    let config = config.core();
    let frozen = frozen_tensors(&config, &frozen)?;
    let optimizer = optimizer_state(optimizer)?;
    let options = Options { batch, threads, optimizer, recompute, fused, head_rows, frozen };
    let plan = match budget {
        None => Plan::new(&config, &options),
        Some(budget) => Plan::fit(&config, &options, budget),
    }
    .map_err(exception)?;
    let bytes = PyDict::new(py);
    for (region, elements) in [
        ("parameters", plan.parameters()),
        ("gradients", plan.gradients()),
        ("optimizer", plan.optimizer()),
        ("activations", plan.activations()),
        ("scratch", plan.scratch()),
        ("batch", plan.batch()),
        ("generation", plan.generation()),
        ("frozen", plan.frozen()),
    ] {
        if region != "frozen" || elements > 0 {
            bytes.set_item(region, elements.saturating_mul(4))?;
        }
    }
    let Options { batch, threads, recompute, fused, .. } = *plan.options();
    Ok((batch, threads, recompute, plan.recomputed(), fused, bytes))
}

/// The C header of `#define`s for a model on this machine or, if `device` is true, on a microcontroller. The header names
/// `command` as the command that made it.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn defines(
    config: PyConfig,
    batch: usize,
    threads: usize,
    optimizer: &str,
    recompute: bool,
    fused: bool,
    head_rows: usize,
    frozen: Vec<String>,
    device: bool,
    prefix: &str,
    command: &str,
) -> PyResult<String> {
    let config = config.core();
    let frozen = frozen_tensors(&config, &frozen)?;
    let optimizer = optimizer_state(optimizer)?;
    let options = Options { batch, threads, optimizer, recompute, fused, head_rows, frozen };
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
