//! The core's errors as Python's exceptions.

use jostle::{Error, Plan};
use pyo3::PyErr;
use pyo3::exceptions::{PyFloatingPointError, PyIndexError, PyRuntimeError, PyValueError};

/// `IndexError` for tokens, `FloatingPointError` for results that are not finite, `RuntimeError` for a bug of jostle, and
/// `ValueError` for the rest.
pub fn exception(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Token { .. } => PyIndexError::new_err(text),
        Error::NotFinite { .. }
        | Error::Diverged { .. }
        | Error::Spike { .. }
        | Error::PartlyUpdated { .. }
        | Error::FloatingPoint { .. } => PyFloatingPointError::new_err(text),
        Error::Internal { .. } => PyRuntimeError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}

/// The exception for an error of training: steps count from 1, and tensors have names.
pub fn exception_in(plan: &Plan, error: Error) -> PyErr {
    let name = |tensor: usize| plan.tensors().nth(tensor).map(|tensor| tensor.name);
    PyFloatingPointError::new_err(match error {
        Error::Diverged { step, what, value, tensor } => {
            let step = step.saturating_add(1);
            let values = if what == "loss" { "values" } else { "gradients" };
            let first = tensor.and_then(name);
            let first =
                first.map(|name| format!("; the first tensor with {values} that are not finite is {name}"));
            format!("step {step}: {what} is {value}; nothing was changed{}", first.unwrap_or_default())
        }
        Error::Spike { step, loss, z } => {
            let step = step.saturating_add(1);
            format!("step {step}: loss {loss} is a spike of {z:.1} standard deviations; nothing was changed")
        }
        Error::PartlyUpdated { tensor } => match name(tensor) {
            Some(name) => format!("the gradient of {name} is not finite; some parameters have changed"),
            None => return exception(error),
        },
        error => return exception(error),
    })
}
