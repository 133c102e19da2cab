//! Writing a checkpoint, a piece at a time. The header is formatted by one function: to be measured, to be summed up,
//! and to be kept.

use core::fmt::{self, Write};

use super::{Contents, LONGEST_HEADER, MOST_COMPARISONS, Progress, has_part, metadata, prefixes};
use crate::decimal::{Hex, Number};
use crate::error::{CheckpointError, Error, exact_length};
use crate::layout::Plan;

/// The header up to the checksum.
const OPENING: &str = "{\"__metadata__\":{\"format\":\"pt\",\"jostle.checksum\":\"";
/// Bytes of a piece of the data.
const PIECE: usize = 256;
/// What stands in the checksum's place while the checksum is computed: 0, as it is formatted.
pub(super) const NO_CHECKSUM: &str = "00000000";

/// Where a checkpoint's bytes go, a piece at a time.
pub(super) type Put<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Error>;

/// Passes on what is formatted, and keeps the error that stops it.
struct Pieces<'a, 'b> {
    put: &'a mut Put<'b>,
    stopped: Result<(), Error>,
}

impl Write for Pieces<'_, '_> {
    #[inline(never)]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.stopped = (self.put)(text.as_bytes());
        self.stopped.map_err(|_| fmt::Error)
    }
}

/// Text as it stands in a JSON string.
fn escape(out: &mut dyn Write, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        '"' | '\\' => out.write_char('\\').and_then(|()| out.write_char(c)),
        '\0'..='\x1f' => write!(out, "\\u{}", Hex(u32::from(c), 4)),
        _ => out.write_char(c),
    })
}

fn header(
    out: &mut dyn Write,
    checksum: u32,
    plan: &Plan,
    optimizer: bool,
    progress: Progress,
    pairs: &[(&str, &str)],
) -> fmt::Result {
    out.write_str(OPENING)?;
    write!(out, "{}\"", Hex(checksum, 8))?;
    let mut pair = |key: &str, value: &dyn fmt::Display| {
        for text in [",\"", key, "\":\""] {
            out.write_str(text)?;
        }
        write!(out, "{value}\"")
    };
    pair(metadata::STEP, &Number(progress.step))?;
    pair(metadata::SEED, &Number(progress.seed))?;
    metadata::model(&plan.config, &mut pair)?;
    metadata::training(&plan.config, &mut pair)?;
    for (key, value) in pairs {
        out.write_str(",\"")?;
        escape(out, key)?;
        out.write_str("\":\"")?;
        escape(out, value)?;
        out.write_char('"')?;
    }
    out.write_char('}')?;
    let mut begin = 0_usize;
    for (part, prefix) in prefixes(plan, optimizer).iter().enumerate() {
        for tensor in plan.tensors().filter(|tensor| has_part(part, tensor)) {
            let end = begin.saturating_add(tensor.len().saturating_mul(4));
            let [rows, columns, from, to] =
                [tensor.shape[0], tensor.shape[1], begin, end].map(|number| Number(number as u64));
            out.write_str(",\"")?;
            out.write_str(prefix)?;
            write!(out, "{}\":{{\"dtype\":\"F32\",\"shape\":[{rows}", tensor.name)?;
            if tensor.rank > 1 {
                write!(out, ",{columns}")?;
            }
            write!(out, "],\"data_offsets\":[{from},{to}]}}")?;
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
    let too_large = Error::TooLarge { what: "checkpoint header" };
    let mut header_len = 0_usize;
    let mut count: Put = &mut |piece| {
        header_len = header_len.checked_add(piece.len()).ok_or(too_large)?;
        Ok(())
    };
    let mut pieces = Pieces { put: &mut count, stopped: Ok(()) };
    // The longest there are, so that one buffer serves the whole of a training run.
    let progress = Progress { step: u64::MAX, seed: u64::MAX };
    header(&mut pieces, 0, plan, optimizer, progress, pairs).map_err(|_| too_large)?;
    let header = header_len.checked_next_multiple_of(8).ok_or(too_large)?;
    let names = prefixes(plan, optimizer).len().saturating_mul(plan.tensors().count());
    let comparisons = names.max(pairs.len()) as u64;
    if header > LONGEST_HEADER || comparisons.saturating_mul(header as u64) > MOST_COMPARISONS {
        return Err(too_large);
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

/// A checkpoint to be written, measured and found right.
pub(super) struct Writing<'a> {
    plan: &'a Plan,
    contents: &'a Contents<'a>,
    sizes: Sizes,
}

impl<'a> Writing<'a> {
    /// # Errors
    /// As [`write()`], but for the length of a buffer.
    pub fn new(plan: &'a Plan, contents: &'a Contents<'a>) -> Result<Writing<'a>, Error> {
        exact_length("parameters", contents.parameters.len(), plan.parameters)?;
        exact_length("frozen parameters", contents.frozen.len(), plan.frozen)?;
        if let Some(state) = contents.optimizer {
            exact_length("optimizer state", state.len(), plan.optimizer)?;
        }
        let sizes = sizes(plan, contents.optimizer.is_some(), contents.metadata)?;
        Ok(Writing { plan, contents, sizes })
    }

    /// The bytes of the whole.
    pub fn size(&self) -> usize {
        self.sizes.total
    }

    /// Puts all bytes in their order, in pieces of a few hundred bytes at most. Two passes: the checksum stands before
    /// what it covers.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn put(&self, put: Put) -> Result<(), Error> {
        let mut crc = super::Crc::START;
        self.pass(0, &mut |piece| {
            crc = crc.update(piece);
            Ok(())
        })?;
        self.pass(crc.finish(), put)
    }

    fn pass(&self, checksum: u32, put: Put) -> Result<(), Error> {
        let Writing { plan, contents, sizes } = self;
        put(&(sizes.header as u64).to_le_bytes())?;
        let mut left = sizes.header;
        let mut counted: Put = &mut |piece| {
            left = left.saturating_sub(piece.len());
            put(piece)
        };
        let mut pieces = Pieces { put: &mut counted, stopped: Ok(()) };
        let (optimizer, progress) = (contents.optimizer.is_some(), contents.progress);
        let formatted = header(&mut pieces, checksum, plan, optimizer, progress, contents.metadata);
        pieces.stopped?;
        formatted.map_err(|_| Error::TooLarge { what: "checkpoint header" })?;
        for _ in 0..left {
            put(b" ")?;
        }
        let values = plan.tensors().map(|tensor| {
            let all = if tensor.frozen { contents.frozen } else { contents.parameters };
            all.get(tensor.offset..).and_then(|rest| rest.get(..tensor.len())).unwrap_or_default()
        });
        for numbers in values.chain([contents.optimizer.unwrap_or_default()]) {
            for numbers in numbers.chunks(PIECE / 4) {
                let mut bytes = [0; PIECE];
                for (place, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
                    *place = number.to_le_bytes();
                }
                put(bytes.get(..numbers.len() * 4).unwrap_or_default())?;
            }
        }
        Ok(())
    }
}

/// Writes a checkpoint into the first [`size`] bytes of `bytes`, and returns how many those are.
///
/// # Errors
/// [`Error::Length`] where parameters or optimiser state are not as long as the plan says,
/// [`CheckpointError::Buffer`] where `bytes` is too short, [`CheckpointError::Key`] where a metadata key is
/// `format`, begins with `jostle.` or occurs twice. Nothing has been written then.
pub fn write(bytes: &mut [u8], plan: &Plan, contents: &Contents) -> Result<usize, Error> {
    let writing = Writing::new(plan, contents)?;
    let total = writing.size();
    let short = CheckpointError::Buffer { given: bytes.len(), wanted: total };
    let mut rest = bytes.get_mut(..total).ok_or(short)?;
    writing.put(&mut |piece| {
        let target = rest.split_off_mut(..piece.len()).ok_or(short)?;
        target.iter_mut().zip(piece).for_each(|(place, byte)| *place = *byte);
        Ok(())
    })?;
    Ok(total)
}
