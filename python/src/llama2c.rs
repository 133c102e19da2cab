//! The files of llama2.c: tokenizers and models.

use jostle::OptimizerState;
use jostle::llama2c::{Model, Piece, Tokenizer, Version};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};

use crate::config::to_python;
use crate::engine::Engine;
use crate::error::exception;

/// A tokenizer.bin and its index.
#[pyclass(frozen, module = "jostle._native")]
pub struct Llama2cTokenizer {
    file: PyBackedBytes,
    index: Vec<u32>,
}

impl Llama2cTokenizer {
    fn core(&self) -> Tokenizer<'_> {
        Tokenizer::with_index(&self.file, &self.index)
    }
}

#[pymethods]
impl Llama2cTokenizer {
    #[new]
    fn new(file: PyBackedBytes) -> PyResult<Llama2cTokenizer> {
        let mut index = vec![0; Tokenizer::index_len(&file).map_err(exception)?];
        Tokenizer::new(&file, &mut index).map_err(exception)?;
        Ok(Llama2cTokenizer { file, index })
    }

    fn vocab(&self) -> usize {
        self.core().vocab()
    }

    fn piece<'py>(&self, py: Python<'py>, token: i32) -> Option<(Bound<'py, PyBytes>, f32)> {
        let Piece { text, score } = self.core().piece(token)?;
        Some((PyBytes::new(py, text), score))
    }

    /// The tokens as bytes of int32.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: PyBackedBytes,
        bos: bool,
        eos: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut tokens = vec![0; Tokenizer::room(text.len())];
        let count = py.detach(|| self.core().encode(&text, bos, eos, &mut tokens)).map_err(exception)?;
        tokens.truncate(count);
        PyBytes::new_with(py, size_of::<i32>() * count, |bytes| {
            let numbers = bytes.as_chunks_mut().0.iter_mut().zip(tokens);
            numbers.for_each(|(place, token)| *place = token.to_ne_bytes());
            Ok(())
        })
    }

    fn decode<'py>(
        &self,
        py: Python<'py>,
        previous: Option<i32>,
        tokens: Vec<i32>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let length = self.core().decoded_len(previous, &tokens).map_err(exception)?;
        PyBytes::new_with(py, length, |bytes| {
            self.core().decode(previous, &tokens, bytes).map(|_| ()).map_err(exception)
        })
    }

    /// The bytes of a file with these texts and scores.
    #[staticmethod]
    fn write<'py>(py: Python<'py>, pieces: Vec<(PyBackedBytes, f32)>) -> PyResult<Bound<'py, PyBytes>> {
        let pieces = pieces.iter().map(|(text, score)| Piece { text, score: *score });
        let length = Tokenizer::file_len(pieces.clone()).map_err(exception)?;
        PyBytes::new_with(py, length, |file| Tokenizer::write(pieces, file).map(|_| ()).map_err(exception))
    }
}

/// The configuration of the model in a file, as keyword arguments of `jostle.Config`.
#[pyfunction]
pub fn llama2c_config(py: Python<'_>, file: PyBackedBytes) -> PyResult<Bound<'_, PyDict>> {
    to_python(py, *Model::new(&file).map_err(exception)?.config())
}

/// Reads the parameters of a file into the engine's memory.
#[pyfunction]
pub fn read_llama2c(py: Python<'_>, file: PyBackedBytes, engine: &Bound<'_, Engine>) -> PyResult<()> {
    let plan = engine.get().plan(1, OptimizerState::None)?;
    engine.get().locked(py, &plan, |mut locked| {
        let model = Model::new(&file)?;
        locked.write_in_order(&plan, |plan, all| model.read(plan, all))
    })
}

/// The bytes of a file with the engine's parameters. `first`: of version 0, not 1.
#[pyfunction]
pub fn write_llama2c<'py>(
    py: Python<'py>,
    engine: &Bound<'py, Engine>,
    first: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let plan = engine.get().plan(1, OptimizerState::None)?;
    let version = if first { Version::V0 } else { Version::V1 };
    let length = Model::file_len(plan.config(), version).map_err(exception)?;
    PyBytes::new_with(py, length, |file| {
        engine.get().locked(py, &plan, |locked| {
            Model::write(&plan, locked.parameters, locked.frozen, version, file).map(|_| ())
        })
    })
}
