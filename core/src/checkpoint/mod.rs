//! Checkpoints: save and resume, bit for bit, in the [safetensors] format, from and to the caller's bytes.
//! Knows nothing of files on a disk, nor of what the numbers mean. [`slots`] keeps them in flash memory.
//!
//! A file holds the parameters under Hugging Face GPT-2's names, the optimiser's state under the same names
//! with a prefix (`optimizer.first_moment.`, `optimizer.second_moment.` or `optimizer.momentum.`), and, as text
//! in `__metadata__`, the configuration, the step, the seed and whatever the caller adds. Step and seed are all
//! that resuming needs besides: every random number and the place in the data are functions of the two.
//!
//! A checksum covers each byte of the file, so a checkpoint that was altered is refused, also one that another
//! program read and saved again with its metadata. Files without metadata that begin with `jostle.` are foreign:
//! they have no checksum, and their parameters can be read too ([`Checkpoint::read_parameters`]).
//!
//! ```
//! use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
//! use jostle::{Config, Options, Plan};
//! # fn main() -> Result<(), jostle::Error> {
//! let plan = Plan::new(&Config::new(27, 16, 1, 4, 16), &Options::new(1))?;
//! let (parameters, state) = (vec![0.5; plan.parameters], vec![0.25; plan.optimizer]);
//! let mut bytes = vec![0; checkpoint::size(&plan, true, &[])?];
//! let progress = Progress { step: 1000, seed: 42 };
//! let contents = Contents {
//!     parameters: &parameters, frozen: &[], optimizer: Some(&state), progress, metadata: &[],
//! };
//! checkpoint::write(&mut bytes, &plan, &contents)?;
//!
//! let file = Checkpoint::new(&bytes)?;
//! let plan = Plan::new(&file.config()?, &Options::new(1))?;
//! let (mut parameters, mut state) = (vec![0.0; plan.parameters], vec![0.0; plan.optimizer]);
//! assert_eq!(file.read(&plan, &mut parameters, Some(&mut state))?, progress);
//! # Ok(())
//! # }
//! ```
//!
//! [safetensors]: https://github.com/huggingface/safetensors

mod crc;
mod header;
mod json;
mod metadata;
mod read;
pub mod slots;
mod write;

pub use header::Pairs;
pub use json::{Chars, Text};
pub use write::{size, write};

use crate::config::Config;
use crate::error::{CheckpointError, Error};
use crate::layout::{OptimizerState, Plan, Tensor};
use crc::Crc;
use read::Header;

/// Bytes: safetensors' own limit.
const LONGEST_HEADER: usize = 100_000_000;

/// The largest product of a header's names and bytes. Without a heap, names are compared each with each, and
/// a hostile header must not cost hours. Some 350 layers with AdamW's state stay below.
const MOST_COMPARISONS: u64 = 1 << 34;

/// How far training has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of steps done.
    pub step: u64,
    /// What all random streams grow from.
    pub seed: u64,
}

/// What [`write()`] writes.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Exactly [`Plan::parameters`] numbers.
    pub parameters: &'a [f32],
    /// Exactly [`Plan::frozen`] numbers: a file holds them as if they were trained, but no state of theirs.
    pub frozen: &'a [f32],
    /// Exactly [`Plan::optimizer`] numbers; `None` for a file that cannot be resumed, only used.
    pub optimizer: Option<&'a [f32]>,
    /// How far training has come.
    pub progress: Progress,
    /// Keys and values of the caller's own, e.g. a tokenizer's table. Any text; keys differ from each other,
    /// are not `format` and do not begin with `jostle.`.
    pub metadata: &'a [(&'a str, &'a str)],
}

/// What precedes a tensor's name: nothing, for the parameters, then one prefix for each part of the state.
#[inline(never)]
fn prefixes(plan: &Plan, optimizer: bool) -> &'static [&'static str] {
    match plan.options.optimizer {
        OptimizerState::Momentum if optimizer => &["", "optimizer.momentum."],
        OptimizerState::AdamW if optimizer => &["", "optimizer.first_moment.", "optimizer.second_moment."],
        _ => &[""],
    }
}

/// Whether a file has this tensor for the prefix of this number.
fn has_part(part: usize, tensor: &Tensor) -> bool {
    part == 0 || !tensor.frozen
}

/// A safetensors file whose structure, and checksum if it is a checkpoint, have been found right.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint<'a> {
    header: Header<'a>,
    data: &'a [u8],
}

impl<'a> Checkpoint<'a> {
    /// Examines the bytes of a whole file; copies none.
    ///
    /// # Errors
    /// [`CheckpointError::Truncated`], [`Header`](CheckpointError::Header),
    /// [`Duplicate`](CheckpointError::Duplicate) or [`Offsets`](CheckpointError::Offsets) where it is not
    /// safetensors; [`Checksum`](CheckpointError::Checksum) or [`Metadata`](CheckpointError::Metadata) where it
    /// is a checkpoint that was altered; [`Error::TooLarge`] where it has more tensors than can be examined in
    /// reasonable time.
    pub fn new(bytes: &'a [u8]) -> Result<Checkpoint<'a>, Error> {
        let truncated = |wanted| CheckpointError::Truncated { given: bytes.len(), wanted };
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or(truncated(8))?;
        let length = read::header_length(*length)?;
        let (text, data) = rest.split_at_checked(length).ok_or(truncated(length + 8))?;
        let header = Header::new(text, data.len())?;
        check(bytes, &header)?;
        header.no_duplicates()?;
        Ok(Checkpoint { header, data })
    }

    /// The value of a metadata key, the caller's or the engine's own.
    pub fn metadata(&self, key: &str) -> Option<Text<'a>> {
        self.header.metadata(key)
    }

    /// All metadata, in the file's order.
    pub fn pairs(&self) -> Pairs<'a> {
        self.header.pairs()
    }

    /// The configuration of the model in a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Metadata`] where the file states none, or not in full; the errors of
    /// [`Config::validate`].
    pub fn config(&self) -> Result<Config, Error> {
        self.header.config()
    }

    /// How far training had come.
    ///
    /// # Errors
    /// [`CheckpointError::Metadata`] where the file does not say.
    pub fn progress(&self) -> Result<Progress, Error> {
        self.header.progress()
    }

    /// Reads a checkpoint into `parameters` ([`Plan::parameters`] numbers; those of frozen tensors are passed over) and, unless it is `None`, the
    /// optimiser's state into `optimizer` ([`Plan::optimizer`] numbers). Returns how far training had come.
    ///
    /// The plan may have other dropout rates, batch and threads than the checkpoint was trained with; for equal
    /// bits, its rates must be those of [`Checkpoint::config`].
    ///
    /// # Errors
    /// [`Error::Length`] for the slices, [`CheckpointError::Metadata`] where the file is not a checkpoint,
    /// [`Configuration`](CheckpointError::Configuration), [`Missing`](CheckpointError::Missing) or
    /// [`Shape`](CheckpointError::Shape) where it is one of another model. Nothing has been written then.
    pub fn read(
        &self,
        plan: &Plan,
        parameters: &mut [f32],
        optimizer: Option<&mut [f32]>,
    ) -> Result<Progress, Error> {
        let progress = self.progress()?;
        self.copy(plan, parameters, optimizer)?;
        Ok(progress)
    }

    /// Reads only the parameters ([`Plan::parameters`] numbers), also from safetensors files that others
    /// wrote: GPT-2's names, with or without `transformer.` before them, in any order, as F32. Tensors that
    /// the model does not have are ignored (causal masks; also `lm_head.weight` where the plan's head is tied).
    /// Where the file states a configuration, it must be the plan's but for dropout.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]. Nothing has been written then.
    pub fn read_parameters(&self, plan: &Plan, parameters: &mut [f32]) -> Result<(), Error> {
        self.copy(plan, parameters, None)
    }

    fn copy(&self, plan: &Plan, parameters: &mut [f32], optimizer: Option<&mut [f32]>) -> Result<(), Error> {
        self.header.copy(plan, parameters, optimizer, &mut |begin: usize, numbers: &mut [f32]| {
            let bytes = self.data.get(begin..).unwrap_or_default();
            for (place, number) in numbers.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *place = f32::from_le_bytes(*number);
            }
            Ok(())
        })
    }
}

/// Compares a checkpoint's checksum, which covers the file as it is with zeros in the checksum's own place.
fn check(bytes: &[u8], header: &Header) -> Result<(), Error> {
    if !header.is_checkpoint() {
        return Ok(());
    }
    let mut pairs = header.pairs();
    let malformed = CheckpointError::Metadata { key: metadata::CHECKSUM };
    while let Some(pair) = pairs.pair() {
        if !pair.key.is(metadata::CHECKSUM) {
            continue;
        }
        let digits = pair.value.plain().filter(|digits| digits.len() == write::NO_CHECKSUM.len());
        let digits = digits.ok_or(malformed)?;
        let stated = hexadecimal(digits).ok_or(malformed)?;
        let (before, rest) = bytes.split_at_checked(pair.at).ok_or(malformed)?;
        let after = rest.get(digits.len()..).ok_or(malformed)?;
        let computed = Crc::START.update(before).update(write::NO_CHECKSUM.as_bytes()).update(after).finish();
        if stated != computed || digits.iter().any(u8::is_ascii_uppercase) {
            return Err(CheckpointError::Checksum { stated, computed }.into());
        }
        return Ok(());
    }
    Err(malformed.into())
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}
