//! Writes a checkpoint piece by piece. One function formats the header, for its length, for the checksum, and for the
//! file.

use super::{Contents, LONGEST_HEADER, MOST_COMPARISONS, Progress, has_part, metadata, prefixes};
use crate::compact::format::{Hex, Number, Sink, Written};
use crate::config::Field;
use crate::error::{CheckpointError, Error, exact_length};
use crate::layout::Plan;

/// The header up to the checksum.
const OPENING: &str = "{\"__metadata__\":{\"format\":\"pt\",\"jostle.checksum\":\"";
/// The bytes of a piece of the data.
const PIECE: usize = 256;
/// The placeholder for the checksum while it is computed: a formatted 0.
pub(super) const NO_CHECKSUM: &str = "00000000";

/// The destination of a checkpoint's bytes. It is a trait of its own for the same reason as [`crate::parallel`]'s
/// tasks.
pub(super) trait Put {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error>;
}

impl<F: FnMut(&[u8]) -> Result<(), Error>> Put for F {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self(bytes)
    }
}

/// Passes on and counts bytes until an error occurs.
struct Blocks<'a> {
    put: &'a mut dyn Put,
    count: usize,
    stopped: Result<(), Error>,
}

impl<'a> Blocks<'a> {
    fn new(put: &'a mut dyn Put) -> Blocks<'a> {
        Blocks { put, count: 0, stopped: Ok(()) }
    }
}

impl Sink for Blocks<'_> {
    #[inline(never)]
    fn put(&mut self, bytes: &[u8]) {
        self.count = self.count.saturating_add(bytes.len());
        if self.stopped.is_ok() {
            self.stopped = self.put.put(bytes);
        }
    }
}

/// Text escaped for a JSON string.
struct Escaped<'a>(&'a str);

impl Written for Escaped<'_> {
    fn write(&self, out: &mut dyn Sink) {
        for byte in self.0.bytes() {
            match byte {
                b'"' | b'\\' => out.put(&[b'\\', byte]),
                b'\0'..=b'\x1f' => {
                    out.put(b"\\u");
                    Hex(u32::from(byte), 4).write(out);
                }
                _ => out.put(&[byte]),
            }
        }
    }
}

/// A member of the metadata, with its separator.
#[inline(never)]
fn pair(out: &mut dyn Sink, key: &str, value: &dyn Written) {
    out.put(b",\"");
    Escaped(key).write(out);
    out.put(b"\":\"");
    value.write(out);
    out.put(b"\"");
}

/// Whole numbers, each with its separator.
fn numbers(out: &mut dyn Sink, mut before: &str, numbers: &[usize]) {
    for number in numbers {
        out.put(before.as_bytes());
        Number(*number as u64).write(out);
        before = ",";
    }
}

/// Returns the number of tensors.
fn header(
    out: &mut dyn Sink,
    checksum: u32,
    plan: &Plan,
    optimizer: bool,
    progress: Progress,
    pairs: &[(&str, &str)],
) -> usize {
    out.put(OPENING.as_bytes());
    Hex(checksum, 8).write(out);
    out.put(b"\"");
    pair(out, metadata::STEP, &Number(progress.step));
    pair(out, metadata::SEED, &Number(progress.seed));
    let mut config = plan.config.derived();
    for field in Field::ALL.iter().filter(|field| !(field.is_optional() && field.is_usual(&plan.config))) {
        pair(out, field.key(), &config.value(*field));
    }
    for (key, value) in pairs {
        pair(out, key, &Escaped(value));
    }
    out.put(b"}");
    let (mut begin, mut count) = (0_usize, 0);
    for (part, prefix) in prefixes(plan, optimizer).iter().enumerate() {
        for tensor in plan.tensors().filter(|tensor| has_part(part, tensor)) {
            let end = begin.saturating_add(tensor.len().saturating_mul(4));
            out.put(b",\"");
            out.put(prefix.as_bytes());
            tensor.name.write(out);
            let shape = tensor.shape.get(..tensor.rank).unwrap_or_default();
            numbers(out, "\":{\"dtype\":\"F32\",\"shape\":[", shape);
            numbers(out, "],\"data_offsets\":[", &[begin, end]);
            out.put(b"]}");
            (begin, count) = (end, count + 1);
        }
    }
    out.put(b"}");
    count
}

/// The sizes of a checkpoint's parts, in bytes.
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
    let nowhere = &mut |_: &[u8]| Ok(());
    let mut blocks = Blocks::new(nowhere);
    // The longest values, so that one buffer is enough for a whole training run.
    let progress = Progress { step: u64::MAX, seed: u64::MAX };
    let tensors = header(&mut blocks, 0, plan, optimizer, progress, pairs);
    let header = blocks.count.checked_next_multiple_of(8).ok_or(too_large)?;
    let names = tensors.max(pairs.len()) as u64;
    if header > LONGEST_HEADER || names.saturating_mul(header as u64) > MOST_COMPARISONS {
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

/// The exact size in bytes of a checkpoint of this plan, with or without the optimiser's state, with this metadata.
/// It does not depend on step and seed.
///
/// # Errors
/// As [`write()`], for the metadata; [`Error::TooLarge`] if the file would be too large.
pub fn size(plan: &Plan, optimizer: bool, metadata: &[(&str, &str)]) -> Result<usize, Error> {
    sizes(plan, optimizer, metadata).map(|sizes| sizes.total)
}

/// A checkpoint to write, with checked contents and known sizes.
pub(super) struct Writing<'a> {
    plan: &'a Plan,
    contents: &'a Contents<'a>,
    sizes: Sizes,
}

impl<'a> Writing<'a> {
    /// # Errors
    /// As [`write()`], except for the length of a buffer.
    pub fn new(plan: &'a Plan, contents: &'a Contents<'a>) -> Result<Writing<'a>, Error> {
        exact_length("parameters", contents.parameters.len(), plan.parameters)?;
        exact_length("frozen parameters", contents.frozen.len(), plan.frozen)?;
        if let Some(state) = contents.optimizer {
            exact_length("optimizer state", state.len(), plan.optimizer)?;
        }
        let sizes = sizes(plan, contents.optimizer.is_some(), contents.metadata)?;
        Ok(Writing { plan, contents, sizes })
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> usize {
        self.sizes.total
    }

    /// Puts all bytes in order, in blocks of at most a few hundred bytes. It takes two passes, because the checksum
    /// comes before the bytes that it covers.
    ///
    /// # Errors
    /// The errors of `put`.
    pub fn put(&self, put: &mut dyn Put) -> Result<(), Error> {
        let mut crc = super::Crc::START;
        self.pass(0, &mut |piece: &[u8]| {
            crc = crc.update(piece);
            Ok(())
        })?;
        self.pass(crc.finish(), put)
    }

    fn pass(&self, checksum: u32, put: &mut dyn Put) -> Result<(), Error> {
        let Writing { plan, contents, sizes } = self;
        let mut out = Blocks::new(put);
        out.put(&(sizes.header as u64).to_le_bytes());
        let (optimizer, progress) = (contents.optimizer.is_some(), contents.progress);
        header(&mut out, checksum, plan, optimizer, progress, contents.metadata);
        while out.count < sizes.header + 8 {
            out.put(b" ");
        }
        for tensor in plan.tensors() {
            let all = if tensor.frozen { contents.frozen } else { contents.parameters };
            let rest = all.get(tensor.offset..).unwrap_or_default();
            put_numbers(&mut out, rest.get(..tensor.len()).unwrap_or_default());
        }
        put_numbers(&mut out, contents.optimizer.unwrap_or_default());
        out.stopped
    }
}

#[inline(never)]
fn put_numbers(out: &mut Blocks<'_>, numbers: &[f32]) {
    for numbers in numbers.chunks(PIECE / 4) {
        let mut bytes = [0; PIECE];
        for (place, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
            *place = number.to_le_bytes();
        }
        out.put(bytes.get(..numbers.len() * 4).unwrap_or_default());
    }
}

/// Writes a checkpoint into the first [`size`] bytes of `bytes`. Returns their number.
///
/// # Errors
/// [`Error::Length`] if parameters or optimiser state have another length. [`CheckpointError::Buffer`] if `bytes` is
/// too short. [`CheckpointError::Key`] if a metadata key is reserved or occurs twice. Nothing has been written then.
pub fn write(bytes: &mut [u8], plan: &Plan, contents: &Contents) -> Result<usize, Error> {
    let writing = Writing::new(plan, contents)?;
    let total = writing.size();
    let short = CheckpointError::Buffer { given: bytes.len(), wanted: total };
    let mut rest = bytes.get_mut(..total).ok_or(short)?;
    writing.put(&mut |piece: &[u8]| {
        let target = rest.split_off_mut(..piece.len()).ok_or(short)?;
        target.iter_mut().zip(piece).for_each(|(place, byte)| *place = *byte);
        Ok(())
    })?;
    Ok(total)
}

/// Passes all bytes of a checkpoint to `put` in order, in pieces of at most a few hundred bytes, so that no memory is
/// needed for the file. Returns their number.
///
/// # Errors
/// As [`write()`], and the errors of `put`, after which no more is passed on.
pub fn write_to<E: From<Error>>(
    plan: &Plan,
    contents: &Contents,
    mut put: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<usize, E> {
    let writing = Writing::new(plan, contents)?;
    let mut failed = None;
    let result = writing.put(&mut |piece: &[u8]| {
        put(piece).map_err(|error| {
            failed = Some(error);
            // The caller gets the error of `put` instead.
            CheckpointError::Buffer { given: 0, wanted: 0 }.into()
        })
    });
    match failed {
        Some(error) => Err(error),
        None => result.map(|()| writing.size()).map_err(E::from),
    }
}
