//! A checkpoint's description of its model in `__metadata__`: the keys, and the text form of values. Numbers are
//! written as Rust displays them, floats as the shortest decimal that reads back to the same bits.

use super::read::Header;
use crate::compact::format::{self, Float, Number, Sink, Written};
use crate::config::{Activation, Config};
use crate::error::{CheckpointError, Error};

/// Keys with this prefix are the engine's own.
pub(super) const OWN: &str = "jostle.";
/// The framework that `format` names for readers of safetensors: arrays are in PyTorch's order.
pub(super) const FORMAT: &str = "format";
pub(super) const CHECKSUM: &str = "jostle.checksum";
pub(super) const STEP: &str = "jostle.step";
pub(super) const SEED: &str = "jostle.seed";

/// A key, and the field of a configuration that it holds.
pub(super) type Field = (&'static str, fn(&mut Config) -> Value<'_>);

/// All keys of a configuration.
pub(super) static FIELDS: [Field; 14] = [
    ("jostle.vocab", |config| Value::Whole(&mut config.vocab)),
    ("jostle.context", |config| Value::Whole(&mut config.context)),
    ("jostle.layers", |config| Value::Whole(&mut config.layers)),
    ("jostle.heads", |config| Value::Whole(&mut config.heads)),
    ("jostle.width", |config| Value::Whole(&mut config.width)),
    ("jostle.hidden", |config| Value::Whole(&mut config.hidden)),
    ("jostle.activation", |config| Value::Activation(&mut config.activation)),
    ("jostle.bias", |config| Value::Truth(&mut config.bias)),
    ("jostle.tied", |config| Value::Truth(&mut config.tied)),
    ("jostle.norm_epsilon", |config| Value::Real(&mut config.norm_epsilon)),
    ("jostle.dropout.embedding", |config| Value::Real(&mut config.dropout.embedding)),
    ("jostle.dropout.attention", |config| Value::Real(&mut config.dropout.attention)),
    ("jostle.dropout.attention_projection", |config| Value::Real(&mut config.dropout.attention_projection)),
    ("jostle.dropout.mlp_projection", |config| Value::Real(&mut config.dropout.mlp_projection)),
];

/// The first keys must be equal for parameters to have the same meaning; this is their number. The others matter in
/// training only.
pub(super) const OF_MODEL: usize = 10;

/// A field's value, and the field.
pub(super) enum Value<'a> {
    Whole(&'a mut usize),
    Real(&'a mut f32),
    Truth(&'a mut bool),
    Activation(&'a mut Activation),
}

const TRUTHS: [(bool, &str); 2] = [(false, "false"), (true, "true")];
const ACTIVATIONS: [(Activation, &str); 2] =
    [(Activation::Gelu, "gelu"), (Activation::GeluTanh, "gelu_tanh")];

/// The word for one of two values.
fn word<T: PartialEq>(known: &[(T, &'static str); 2], value: &T) -> &'static str {
    let [(first, of_first), (_, of_second)] = known;
    if value == first { of_first } else { of_second }
}

/// The value of a word.
fn meaning<T: Copy>(known: &[(T, &str); 2], text: &[u8]) -> Option<T> {
    known.iter().find(|(_, word)| word.as_bytes() == text).map(|(value, _)| *value)
}

impl Written for Value<'_> {
    fn write(&self, out: &mut dyn Sink) {
        match self {
            Value::Whole(number) => Number(**number as u64).write(out),
            Value::Real(number) => Float(**number).write(out),
            Value::Truth(truth) => out.put(word(&TRUTHS, truth).as_bytes()),
            Value::Activation(activation) => out.put(word(&ACTIVATIONS, activation).as_bytes()),
        }
    }
}

impl Value<'_> {
    fn read(&mut self, text: &[u8]) -> Option<()> {
        match self {
            Value::Whole(number) => **number = usize::try_from(format::whole(text)?).ok()?,
            Value::Real(number) => **number = format::parse(text)?,
            Value::Truth(truth) => **truth = meaning(&TRUTHS, text)?,
            Value::Activation(activation) => **activation = meaning(&ACTIVATIONS, text)?,
        }
        Some(())
    }
}

/// The value of a key that must exist.
#[inline(never)]
fn get<'a>(header: &Header<'a>, key: &'static str) -> Result<&'a [u8], Error> {
    let text = header.metadata(key).and_then(|text| text.plain());
    text.ok_or(CheckpointError::Metadata { key }.into())
}

pub(super) fn number(header: &Header, key: &'static str) -> Result<u64, Error> {
    format::whole(get(header, key)?).ok_or(CheckpointError::Metadata { key }.into())
}

/// The configuration that a header states, validated.
pub(super) fn config(header: &Header) -> Result<Config, Error> {
    let mut config = Config::new(1, 1, 1, 1, 1);
    for (key, field) in &FIELDS {
        field(&mut config).read(get(header, key)?).ok_or(CheckpointError::Metadata { key })?;
    }
    config.validate()?;
    Ok(config)
}
