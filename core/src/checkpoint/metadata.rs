//! The configuration in a checkpoint's `__metadata__`: reserved keys, and values as text. Whole numbers are decimal, floats
//! are the shortest decimal that reads back to the same bits.

use super::read::Header;
use crate::compact::format::{self, Float, Number, Sink, Written};
use crate::config::{Config, Field, Value};
use crate::error::{CheckpointError, Error};

/// Keys with this prefix are the engine's own.
pub(super) const OWN: &str = "jostle.";
/// The framework that `format` names for readers of safetensors: arrays are in PyTorch's order.
pub(super) const FORMAT: &str = "format";
pub(super) const CHECKSUM: &str = "jostle.checksum";
pub(super) const STEP: &str = "jostle.step";
pub(super) const SEED: &str = "jostle.seed";

/// The words for the values of a flag.
const TRUTHS: [&str; 2] = ["false", "true"];

/// The place of a word in a list.
fn place(words: &[&str], text: &[u8]) -> Option<usize> {
    words.iter().position(|word| word.as_bytes() == text)
}

impl Written for Value<'_> {
    fn write(&self, out: &mut dyn Sink) {
        match self {
            Value::Size(number) | Value::DerivedSize(number) => Number(**number as u64).write(out),
            Value::Rate(x) | Value::Fraction(x) | Value::Positive(x) => Float(**x).write(out),
            Value::Flag(truth) => out.put(TRUTHS.get(usize::from(**truth)).unwrap_or(&"").as_bytes()),
            Value::Choice(choice) => {
                out.put(choice.names().get(choice.number()).unwrap_or(&"").as_bytes());
            }
        }
    }
}

fn read(value: Value<'_>, text: &[u8]) -> Option<()> {
    match value {
        Value::Size(number) | Value::DerivedSize(number) => {
            *number = usize::try_from(format::whole(text)?).ok()?;
        }
        Value::Rate(x) | Value::Fraction(x) | Value::Positive(x) => *x = format::parse(text)?,
        Value::Flag(truth) => *truth = place(&TRUTHS, text)? == 1,
        Value::Choice(choice) => choice.choose(place(choice.names(), text)?)?,
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
        if field.is_optional() && header.metadata(key).is_none() {
            continue;
        }
        read(config.value(*field), get(header, key)?).ok_or(CheckpointError::Metadata { key })?;
    }
    config.validate()?;
    Ok(config)
}
