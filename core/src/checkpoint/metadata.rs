//! What a checkpoint says of its model in `__metadata__`: the keys, and how values are written as text.
//! Numbers stand as Rust displays them, floats as the shortest decimal that reads back to the same bits.

use core::fmt::{self, Display};

use super::read::Header;
use crate::config::{Activation, Config, Dropout};
use crate::decimal::{self, Float, Number};
use crate::error::{CheckpointError, Error};

/// Keys that begin so are the engine's own.
pub(super) const OWN: &str = "jostle.";
/// The library that a reader of safetensors is told to expect; here, that matrices are PyTorch's.
pub(super) const FORMAT: &str = "format";
pub(super) const CHECKSUM: &str = "jostle.checksum";
pub(super) const STEP: &str = "jostle.step";
pub(super) const SEED: &str = "jostle.seed";

const VOCAB: &str = "jostle.vocab";
const CONTEXT: &str = "jostle.context";
const LAYERS: &str = "jostle.layers";
const HEADS: &str = "jostle.heads";
const WIDTH: &str = "jostle.width";
const HIDDEN: &str = "jostle.hidden";
const ACTIVATION: &str = "jostle.activation";
const BIAS: &str = "jostle.bias";
const TIED: &str = "jostle.tied";
const NORM_EPSILON: &str = "jostle.norm_epsilon";
const EMBEDDING_DROPOUT: &str = "jostle.dropout.embedding";
const ATTENTION_DROPOUT: &str = "jostle.dropout.attention";
const ATTENTION_PROJECTION_DROPOUT: &str = "jostle.dropout.attention_projection";
const MLP_PROJECTION_DROPOUT: &str = "jostle.dropout.mlp_projection";

const fn label(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
    }
}

/// Text that is displayed as it is, without the code for padding that the language's takes along.
struct Plain(&'static str);

impl Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Visits what must be equal for parameters to mean the same.
pub(super) fn model<E>(
    config: &Config,
    each: &mut dyn FnMut(&'static str, &dyn Display) -> Result<(), E>,
) -> Result<(), E> {
    each(VOCAB, &Number(config.vocab as u64))?;
    each(CONTEXT, &Number(config.context as u64))?;
    each(LAYERS, &Number(config.layers as u64))?;
    each(HEADS, &Number(config.heads as u64))?;
    each(WIDTH, &Number(config.width as u64))?;
    each(HIDDEN, &Number(config.hidden as u64))?;
    each(ACTIVATION, &Plain(label(config.activation)))?;
    each(BIAS, &Plain(if config.bias { "true" } else { "false" }))?;
    each(TIED, &Plain(if config.tied { "true" } else { "false" }))?;
    each(NORM_EPSILON, &Float(config.norm_epsilon))
}

/// Visits what matters only while training.
pub(super) fn training<E>(
    config: &Config,
    each: &mut dyn FnMut(&'static str, &dyn Display) -> Result<(), E>,
) -> Result<(), E> {
    each(EMBEDDING_DROPOUT, &Float(config.dropout.embedding))?;
    each(ATTENTION_DROPOUT, &Float(config.dropout.attention))?;
    each(ATTENTION_PROJECTION_DROPOUT, &Float(config.dropout.attention_projection))?;
    each(MLP_PROJECTION_DROPOUT, &Float(config.dropout.mlp_projection))
}

/// The value of a key that must be there.
fn get<T>(header: &Header, key: &'static str, read: fn(&str) -> Option<T>) -> Result<T, Error> {
    let text = header.metadata(key).and_then(|text| text.plain());
    text.and_then(read).ok_or(CheckpointError::Metadata { key }.into())
}

pub(super) fn number(header: &Header, key: &'static str) -> Result<u64, Error> {
    get(header, key, |text| text.parse().ok())
}

/// The configuration that a header states, validated.
pub(super) fn config(header: &Header) -> Result<Config, Error> {
    let activation = [Activation::Gelu, Activation::GeluTanh]
        .into_iter()
        .find(|known| header.metadata(ACTIVATION).is_some_and(|text| text.is(label(*known))));
    let size = |key| -> Result<usize, Error> {
        let number = number(header, key)?;
        usize::try_from(number).map_err(|_| CheckpointError::Metadata { key }.into())
    };
    let float = |key| get(header, key, decimal::parse);
    let truth = |key| get(header, key, |text| text.parse().ok());
    let config = Config {
        vocab: size(VOCAB)?,
        context: size(CONTEXT)?,
        layers: size(LAYERS)?,
        heads: size(HEADS)?,
        width: size(WIDTH)?,
        hidden: size(HIDDEN)?,
        dropout: Dropout {
            embedding: float(EMBEDDING_DROPOUT)?,
            attention: float(ATTENTION_DROPOUT)?,
            attention_projection: float(ATTENTION_PROJECTION_DROPOUT)?,
            mlp_projection: float(MLP_PROJECTION_DROPOUT)?,
        },
        activation: activation.ok_or(CheckpointError::Metadata { key: ACTIVATION })?,
        bias: truth(BIAS)?,
        tied: truth(TIED)?,
        norm_epsilon: float(NORM_EPSILON)?,
    };
    config.validate()?;
    Ok(config)
}
