//! Writing a checkpoint. The header is formatted by one function, once to be measured and once to be kept.

use core::fmt::{self, Write};

use super::{Contents, LONGEST_HEADER, MOST_COMPARISONS, Progress, has_part, metadata, prefixes};
use crate::error::{CheckpointError, Error, exact_length};
use crate::layout::Plan;

/// The header up to the checksum, which thereby always stands at [`CHECKSUM_AT`].
const OPENING: &str = "{\"__metadata__\":{\"format\":\"pt\",\"jostle.checksum\":\"";
const CHECKSUM_AT: usize = 8 + OPENING.len();
/// What stands in the checksum's place while the checksum is computed.
pub(super) const NO_CHECKSUM: &str = "00000000";

/// Formats into a slice that was measured before.
pub(super) struct Sink<'a>(pub &'a mut [u8]);

impl Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let target = self.0.split_off_mut(..text.len()).ok_or(fmt::Error)?;
        target.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
        Ok(())
    }
}

/// Counts the bytes of what is formatted.
struct Count(usize);

impl Write for Count {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_add(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// What it displays, escaped for a JSON string.
struct Escaped<T>(T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);

        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for run in text.split_inclusive(|c| matches!(c, '"' | '\\' | '\0'..='\x1f')) {
                    let plain = run.trim_end_matches(|c| matches!(c, '"' | '\\' | '\0'..='\x1f'));
                    self.0.write_str(plain)?;
                    match run.chars().next_back() {
                        Some(c @ ('"' | '\\')) => write!(self.0, "\\{c}")?,
                        Some(c @ '\0'..='\x1f') => write!(self.0, "\\u{:04x}", u32::from(c))?,
                        _ => {}
                    }
                }
                Ok(())
            }
        }

        write!(Escape(f), "{}", self.0)
    }
}

fn header(
    out: &mut impl Write,
    plan: &Plan,
    optimizer: bool,
    progress: Progress,
    pairs: &[(&str, &str)],
) -> fmt::Result {
    write!(out, "{OPENING}{NO_CHECKSUM}\"")?;
    write!(
        out,
        ",\"{}\":\"{}\",\"{}\":\"{}\"",
        metadata::STEP,
        progress.step,
        metadata::SEED,
        progress.seed
    )?;
    metadata::model(&plan.config, |key, value| write!(out, ",\"{key}\":\"{value}\""))?;
    metadata::training(&plan.config, |key, value| write!(out, ",\"{key}\":\"{value}\""))?;
    for (key, value) in pairs {
        write!(out, ",\"{}\":\"{}\"", Escaped(key), Escaped(value))?;
    }
    out.write_char('}')?;
    let mut begin = 0_usize;
    for (part, prefix) in prefixes(plan, optimizer).iter().enumerate() {
        for tensor in plan.tensors().filter(|tensor| has_part(part, tensor)) {
            let end = begin.saturating_add(tensor.len().saturating_mul(4));
            let [rows, columns] = tensor.shape;
            write!(out, ",\"{prefix}{}\":{{\"dtype\":\"F32\",\"shape\":[{rows}", tensor.name)?;
            if tensor.rank > 1 {
                write!(out, ",{columns}")?;
            }
            write!(out, "],\"data_offsets\":[{begin},{end}]}}")?;
            begin = end;
        }
    }
    out.write_char('}')
}

/// The bytes of a checkpoint's parts.
struct Sizes {
    header: usize,
    total: usize,
}

fn sizes(plan: &Plan, optimizer: bool, pairs: &[(&str, &str)]) -> Result<Sizes, Error> {
    for (index, (key, _)) in pairs.iter().enumerate() {
        let repeated = pairs.iter().take(index).any(|(earlier, _)| earlier == key);
        if repeated || key.starts_with(metadata::OWN) || *key == metadata::FORMAT {
            return Err(CheckpointError::Key { index }.into());
        }
    }
    let mut count = Count(0);
    // The longest there are, so that one buffer serves the whole of a training run.
    let progress = Progress { step: u64::MAX, seed: u64::MAX };
    let header = match header(&mut count, plan, optimizer, progress, pairs) {
        Ok(()) => count.0.next_multiple_of(8),
        Err(fmt::Error) => usize::MAX,
    };
    let names = prefixes(plan, optimizer).len().saturating_mul(plan.tensors().count());
    let comparisons = names.max(pairs.len()) as u64;
    if header > LONGEST_HEADER || comparisons.saturating_mul(header as u64) > MOST_COMPARISONS {
        return Err(Error::TooLarge { what: "checkpoint header" });
    }
    let all = plan.parameters.saturating_add(plan.frozen);
    let numbers = all.checked_add(if optimizer { plan.optimizer } else { 0 });
    let data = numbers.and_then(|numbers| numbers.checked_mul(4));
    match data.and_then(|data| data.checked_add(8)?.checked_add(header)) {
        Some(total) => Ok(Sizes { header, total }),
        None => Err(Error::TooLarge { what: "checkpoint" }),
    }
}

/// The exact bytes of a checkpoint of this plan, with or without the optimiser's state, with these metadata.
/// Step and seed do not change it.
///
/// # Errors
/// As [`write()`], for the metadata; [`Error::TooLarge`] where no such file can be.
pub fn size(plan: &Plan, optimizer: bool, metadata: &[(&str, &str)]) -> Result<usize, Error> {
    sizes(plan, optimizer, metadata).map(|sizes| sizes.total)
}

/// Writes a checkpoint into the first [`size`] bytes of `bytes`, and returns how many those are.
///
/// # Errors
/// [`Error::Length`] where parameters or optimiser state are not as long as the plan says,
/// [`CheckpointError::Buffer`] where `bytes` is too short, [`CheckpointError::Key`] where a metadata key is
/// `format`, begins with `jostle.` or occurs twice. Nothing has been written then.
pub fn write(bytes: &mut [u8], plan: &Plan, contents: &Contents) -> Result<usize, Error> {
    exact_length("parameters", contents.parameters.len(), plan.parameters)?;
    exact_length("frozen parameters", contents.frozen.len(), plan.frozen)?;
    if let Some(state) = contents.optimizer {
        exact_length("optimizer state", state.len(), plan.optimizer)?;
    }
    let optimizer = contents.optimizer.is_some();
    let Sizes { header: header_len, total } = sizes(plan, optimizer, contents.metadata)?;
    let short = CheckpointError::Buffer { given: bytes.len(), wanted: total };
    let file = bytes.get_mut(..total).ok_or(short)?;

    let (length, rest) = file.split_first_chunk_mut::<8>().ok_or(short)?;
    let (text, data) = rest.split_at_mut_checked(header_len).ok_or(short)?;
    *length = (header_len as u64).to_le_bytes();
    let mut sink = Sink(text);
    header(&mut sink, plan, optimizer, contents.progress, contents.metadata).map_err(|_| short)?;
    sink.0.fill(b' ');

    let mut rest = data;
    for tensor in plan.tensors() {
        let all = if tensor.frozen { contents.frozen } else { contents.parameters };
        let values = all.get(tensor.offset..).and_then(|rest| rest.get(..tensor.len())).ok_or(short)?;
        copy(rest.split_off_mut(..values.len() * 4).ok_or(short)?, values);
    }
    copy(rest, contents.optimizer.unwrap_or_default());

    let checksum = super::Crc::START.update(file).finish();
    let place = file.get_mut(CHECKSUM_AT..).unwrap_or_default();
    write!(Sink(place), "{checksum:08x}").map_err(|_| short.into()).map(|()| total)
}

fn copy(bytes: &mut [u8], numbers: &[f32]) {
    for (place, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *place = number.to_le_bytes();
    }
}
