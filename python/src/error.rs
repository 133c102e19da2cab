//! The core's errors as Python's exceptions.

use jostle::Error;
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
