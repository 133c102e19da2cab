//! What a checkpoint says of its model in `__metadata__`: the keys, and how values are written as text.
//! Numbers stand as Rust displays them, floats as the shortest decimal that reads back to the same bits.

use super::read::Header;
use crate::config::{Activation, Config};
use crate::decimal::{self, Float, Number, Sink, Written};
use crate::error::{CheckpointError, Error};

/// Keys that begin so are the engine's own.
pub(super) const OWN: &str = "jostle.";
/// The library that a reader of safetensors is told to expect; here, that matrices are PyTorch's.
pub(super) const FORMAT: &str = "format";
pub(super) const CHECKSUM: &str = "jostle.checksum";
pub(super) const STEP: &str = "jostle.step";
pub(super) const SEED: &str = "jostle.seed";

/// A field of a configuration.
#[derive(Clone, Copy)]
enum Field {
    Vocab,
    Context,
    Layers,
    Heads,
    Width,
    Hidden,
    Activation,
    Bias,
    Tied,
    NormEpsilon,
    EmbeddingDropout,
    AttentionDropout,
    AttentionProjectionDropout,
    MlpProjectionDropout,
}

/// What must be equal for parameters to mean the same.
const MODEL: [(Field, &str); 10] = [
    (Field::Vocab, "jostle.vocab"),
    (Field::Context, "jostle.context"),
    (Field::Layers, "jostle.layers"),
    (Field::Heads, "jostle.heads"),
    (Field::Width, "jostle.width"),
    (Field::Hidden, "jostle.hidden"),
    (Field::Activation, "jostle.activation"),
    (Field::Bias, "jostle.bias"),
    (Field::Tied, "jostle.tied"),
    (Field::NormEpsilon, "jostle.norm_epsilon"),
];

/// What matters only while training.
const TRAINING: [(Field, &str); 4] = [
    (Field::EmbeddingDropout, "jostle.dropout.embedding"),
    (Field::AttentionDropout, "jostle.dropout.attention"),
    (Field::AttentionProjectionDropout, "jostle.dropout.attention_projection"),
    (Field::MlpProjectionDropout, "jostle.dropout.mlp_projection"),
];

/// A field's value.
pub(super) enum Value {
    Whole(usize),
    Real(f32),
    Word(&'static str),
}

impl Written for Value {
    fn write(&self, out: &mut dyn Sink) -> Option<()> {
        match self {
            Value::Whole(number) => Number(*number as u64).write(out),
            Value::Real(number) => Float(*number).write(out),
            Value::Word(word) => out.put(word.as_bytes()),
        }
    }
}

const fn label(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
    }
}

const TRUTHS: [&str; 2] = ["false", "true"];

impl Field {
    fn of(self, config: &Config) -> Value {
        match self {
            Field::Vocab => Value::Whole(config.vocab),
            Field::Context => Value::Whole(config.context),
            Field::Layers => Value::Whole(config.layers),
            Field::Heads => Value::Whole(config.heads),
            Field::Width => Value::Whole(config.width),
            Field::Hidden => Value::Whole(config.hidden),
            Field::Activation => Value::Word(label(config.activation)),
            Field::Bias => Value::Word(TRUTHS[usize::from(config.bias)]),
            Field::Tied => Value::Word(TRUTHS[usize::from(config.tied)]),
            Field::NormEpsilon => Value::Real(config.norm_epsilon),
            Field::EmbeddingDropout => Value::Real(config.dropout.embedding),
            Field::AttentionDropout => Value::Real(config.dropout.attention),
            Field::AttentionProjectionDropout => Value::Real(config.dropout.attention_projection),
            Field::MlpProjectionDropout => Value::Real(config.dropout.mlp_projection),
        }
    }

    fn read(self, text: &str, config: &mut Config) -> Option<()> {
        let one_of = |words: [&str; 2]| words.iter().position(|word| *word == text);
        let place = match self {
            Field::Vocab => &mut config.vocab,
            Field::Context => &mut config.context,
            Field::Layers => &mut config.layers,
            Field::Heads => &mut config.heads,
            Field::Width => &mut config.width,
            Field::Hidden => &mut config.hidden,
            Field::Bias | Field::Tied => {
                let truth = one_of(TRUTHS)? == 1;
                *if let Field::Bias = self { &mut config.bias } else { &mut config.tied } = truth;
                return Some(());
            }
            Field::Activation => {
                let known = [Activation::Gelu, Activation::GeluTanh];
                config.activation = *known.get(one_of(known.map(label))?)?;
                return Some(());
            }
            Field::NormEpsilon
            | Field::EmbeddingDropout
            | Field::AttentionDropout
            | Field::AttentionProjectionDropout
            | Field::MlpProjectionDropout => {
                let place = match self {
                    Field::EmbeddingDropout => &mut config.dropout.embedding,
                    Field::AttentionDropout => &mut config.dropout.attention,
                    Field::AttentionProjectionDropout => &mut config.dropout.attention_projection,
                    Field::MlpProjectionDropout => &mut config.dropout.mlp_projection,
                    _ => &mut config.norm_epsilon,
                };
                *place = decimal::parse(text)?;
                return Some(());
            }
        };
        *place = usize::try_from(decimal::whole(text.as_bytes())?).ok()?;
        Some(())
    }
}

/// What must be equal for parameters to mean the same.
pub(super) fn model(config: &Config) -> impl Iterator<Item = (&'static str, Value)> {
    MODEL.iter().map(|(field, key)| (*key, field.of(config)))
}

/// All that a checkpoint says of a configuration.
pub(super) fn all(config: &Config) -> impl Iterator<Item = (&'static str, Value)> {
    MODEL.iter().chain(&TRAINING).map(|(field, key)| (*key, field.of(config)))
}

/// The value of a key that must be there.
fn get<T>(header: &Header, key: &'static str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, Error> {
    let text = header.metadata(key).and_then(|text| text.plain());
    text.and_then(read).ok_or(CheckpointError::Metadata { key }.into())
}

pub(super) fn number(header: &Header, key: &'static str) -> Result<u64, Error> {
    get(header, key, |text| decimal::whole(text.as_bytes()))
}

/// The configuration that a header states, validated.
pub(super) fn config(header: &Header) -> Result<Config, Error> {
    let mut config = Config::new(1, 1, 1, 1, 1);
    for (field, key) in MODEL.iter().chain(&TRAINING) {
        get(header, key, |text| field.read(text, &mut config))?;
    }
    config.validate()?;
    Ok(config)
}
