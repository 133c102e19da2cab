//! `jostle._native`: the core on buffers that NumPy arrays view. It converts between Python's objects and the core's values
//! and does no arithmetic. The public interface is in `jostle/*.py`.
//!
//! * `buffer`: memory that arrays view.
//! * `config`: configurations, plans, instruction sets.
//! * `engine`: a model: its parameters and gradients, its threads, and one lock.
//! * `training`: steps and evaluation on a text.
//! * `generation`: text generation.
//! * `llama2c`: the files of llama2.c.
//! * `checkpoint`: checkpoints that are read and written.
//! * `operations`: single operations on arrays.
//! * `error`: errors as exceptions.

mod buffer;
mod checkpoint;
mod config;
mod engine;
mod error;
mod generation;
mod llama2c;
mod operations;
mod training;

/// The compiled, private part of the package `jostle`.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::buffer::{Buffer, State};
    #[pymodule_export]
    use crate::checkpoint::{Checkpoint, write_checkpoint};
    #[pymodule_export]
    use crate::config::{defines, instruction_sets, is_gpt2, plan, tensors, validate};
    #[pymodule_export]
    use crate::engine::{Engine, available_threads, check_optimizer};
    #[pymodule_export]
    use crate::generation::{Generator, generate_together};
    #[pymodule_export]
    use crate::llama2c::{Llama2cTokenizer, llama2c_config, read_llama2c, write_llama2c};
    #[pymodule_export]
    use crate::operations::{
        attention, attention_backward, attention_dropout, cross_entropy, cross_entropy_backward, dropout,
        gelu, gelu_backward, layer_norm, layer_norm_backward, matmul, rms_norm, rms_norm_backward, rotary,
        rotary_table, softmax, softmax_backward, swiglu, swiglu_backward,
    };
    #[pymodule_export]
    use crate::training::Training;
}
