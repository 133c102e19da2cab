//! The configuration in a checkpoint's `__metadata__`: reserved keys, and values as text. Whole numbers are decimal, floats
//! are the shortest decimal that reads back to the same bits.

use super::read::Header;
use crate::compact::format::{self, Float, Number, Sink, Written};
use crate::config::{Activation, Config, Field, Value};
use crate::error::{CheckpointError, Error};

/// Keys with this prefix are the engine's own.
pub(super) const OWN: &str = "jostle.";
/// The framework that `format` names for readers of safetensors: arrays are in PyTorch's order.
pub(super) const FORMAT: &str = "format";
pub(super) const CHECKSUM: &str = "jostle.checksum";
pub(super) const STEP: &str = "jostle.step";
pub(super) const SEED: &str = "jostle.seed";

const TRUTHS: [(bool, &str); 2] = [(false, "false"), (true, "true")];

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
            Value::Size(number) => Number(**number as u64).write(out),
            Value::Rate(number) | Value::Fraction(number) => Float(**number).write(out),
            Value::Flag(truth) => out.put(word(&TRUTHS, truth).as_bytes()),
            Value::Activation(activation) => out.put(word(&Activation::NAMES, activation).as_bytes()),
        }
    }
}

fn read(value: Value<'_>, text: &[u8]) -> Option<()> {
    match value {
        Value::Size(number) => *number = usize::try_from(format::whole(text)?).ok()?,
        Value::Rate(number) | Value::Fraction(number) => *number = format::parse(text)?,
        Value::Flag(truth) => *truth = meaning(&TRUTHS, text)?,
        Value::Activation(activation) => *activation = meaning(&Activation::NAMES, text)?,
    }
    Some(())
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
    for field in Field::ALL {
        let key = field.key();
        read(config.value(*field), get(header, key)?).ok_or(CheckpointError::Metadata { key })?;
    }
    config.validate()?;
    Ok(config)
}
