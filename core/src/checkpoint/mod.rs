//! Checkpoints: save and resume, bit for bit, in the [safetensors] format, from and to the caller's bytes. Knows
//! nothing of files on a disk, or of the meaning of the numbers. [`slots`] keeps checkpoints in flash memory.
//!
//! A file holds the parameters under Hugging Face GPT-2's names. The optimiser's state has the same names with a
//! prefix: `optimizer.first_moment.`, `optimizer.second_moment.` or `optimizer.momentum.`. `__metadata__` has the
//! configuration, the step, the seed and the caller's own entries as text. Step and seed are enough to resume: every
//! random number, and every window of the data, is a function of the two.
//!
//! A checksum covers each byte of the file, so an altered checkpoint is refused, even one that another program read
//! and saved again with its metadata. Files without `jostle.` metadata are foreign: they have no checksum, and
//! [`Checkpoint::read_parameters`] can read them.
//!
//! ```
//! use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
//! use jostle::{Config, Options, Plan};
//! # fn main() -> Result<(), jostle::Error> {
//! let plan = Plan::new(&Config::new(27, 16, 1, 4, 16), &Options::new(1))?;
//! let (parameters, state) = (vec![0.5; plan.parameters()], vec![0.25; plan.optimizer()]);
//! let mut bytes = vec![0; checkpoint::size(&plan, true, &[])?];
//! let progress = Progress { step: 1000, seed: 42 };
//! let contents = Contents {
//!     parameters: &parameters, frozen: &[], optimizer: Some(&state), progress, metadata: &[],
//! };
//! checkpoint::write(&mut bytes, &plan, &contents)?;
//!
//! let file = Checkpoint::new(&bytes)?;
//! let plan = Plan::new(&file.config()?, &Options::new(1))?;
//! let (mut parameters, mut state) = (vec![0.0; plan.parameters()], vec![0.0; plan.optimizer()]);
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
mod numbers;
mod read;
pub mod slots;
mod write;

pub use header::Pairs;
pub use json::{Chars, Text};
pub use write::{size, write, write_to};

use crate::config::Config;
use crate::error::{CheckpointError, Error};
use crate::layout::{OptimizerState, Plan, Tensor};
use crc::Crc;
use numbers::Numbers;
use read::Header;

/// The most bytes of a header: safetensors' own limit.
const LONGEST_HEADER: usize = 100_000_000;

/// The largest product of a header's names and bytes. Without a heap, the header is read again for every few names, and
/// a hostile header must not cost hours. Some 1400 layers with AdamW's state stay below.
const MOST_COMPARISONS: u64 = 1 << 38;

/// The progress of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of steps done.
    pub step: u64,
    /// The seed of all random streams.
    pub seed: u64,
}

/// The contents of a checkpoint, for [`write()`].
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Exactly [`Plan::parameters`] numbers.
    pub parameters: &'a [f32],
    /// Exactly [`Plan::frozen`] numbers. A file holds them as if they were trained, but without optimiser state.
    pub frozen: &'a [f32],
    /// Exactly [`Plan::optimizer`] numbers; `None` for a file that can be used but not resumed.
    pub optimizer: Option<&'a [f32]>,
    /// The progress of training.
    pub progress: Progress,
    /// The caller's own keys and values, e.g. a tokenizer's table. Values can be any text. Keys must differ from each
    /// other, must not be `format`, and must not begin with `jostle.`.
    pub metadata: &'a [(&'a str, &'a str)],
}

/// The prefixes of tensors' names: an empty one for the parameters, then one for each part of the state.
#[inline(never)]
fn prefixes(plan: &Plan, optimizer: bool) -> &'static [&'static str] {
    match plan.options.optimizer {
        OptimizerState::Momentum if optimizer => &["", "optimizer.momentum."],
        OptimizerState::AdamW if optimizer => &["", "optimizer.first_moment.", "optimizer.second_moment."],
        _ => &[""],
    }
}

/// Whether a file has this tensor under the prefix with this number.
fn has_part(part: usize, tensor: &Tensor) -> bool {
    part == 0 || !tensor.frozen
}

/// A safetensors file whose structure is valid. If it is a checkpoint, its checksum is right too.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint<'a> {
    header: Header<'a>,
    data: &'a [u8],
}

impl<'a> Checkpoint<'a> {
    /// Examines the bytes of a whole file, without copying.
    ///
    /// # Errors
    /// [`CheckpointError::Truncated`], [`Header`](CheckpointError::Header), [`Duplicate`](CheckpointError::Duplicate)
    /// or [`Offsets`](CheckpointError::Offsets) if it is not safetensors.
    ///
    /// [`Checksum`](CheckpointError::Checksum) or [`Metadata`](CheckpointError::Metadata) if it is an altered
    /// checkpoint. [`Error::TooLarge`] if it has too many tensors to examine in reasonable time.
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
    /// [`CheckpointError::Metadata`] if the configuration is missing or incomplete; the errors of
    /// [`Config::validate`].
    pub fn config(&self) -> Result<Config, Error> {
        self.header.config()
    }

    /// The progress of training.
    ///
    /// # Errors
    /// [`CheckpointError::Metadata`] if it is missing.
    pub fn progress(&self) -> Result<Progress, Error> {
        self.header.progress()
    }

    /// Reads a checkpoint into `parameters` ([`Plan::parameters`] numbers, without frozen tensors) and, unless it is
    /// `None`, the optimiser's state into `optimizer` ([`Plan::optimizer`] numbers). Returns the progress of
    /// training.
    ///
    /// The plan may have other dropout rates, batch and threads than the checkpoint was trained with; for equal bits,
    /// its rates must be the same as in [`Checkpoint::config`].
    ///
    /// # Errors
    /// [`Error::Length`] for the slices; [`CheckpointError::Metadata`] if the file is not a checkpoint;
    /// [`Configuration`](CheckpointError::Configuration), [`Missing`](CheckpointError::Missing) or
    /// [`Shape`](CheckpointError::Shape) if it belongs to another model. Nothing has been written then.
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

    /// Reads only the parameters ([`Plan::parameters`] numbers). The safetensors file may come from another program:
    /// it needs GPT-2's names, with or without the prefix `transformer.`, in any order, as F32, F16 or BF16. If the file
    /// has a configuration, it must be the plan's, except for dropout. Files of other programs do not say their activation: for
    /// Hugging Face's GPT-2 it is [`Activation::GeluTanh`](crate::Activation::GeluTanh), not the default.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`CheckpointError::Unused`] if the file has a tensor that the model does not have, see
    /// [`Checkpoint::unused`]. Nothing has been written then.
    pub fn read_parameters(&self, plan: &Plan, parameters: &mut [f32]) -> Result<(), Error> {
        self.copy(plan, parameters, None)
    }

    /// The names of the tensors that the model does not have, in the file's order, without what a model can do without:
    /// causal masks, the optimiser's state in a checkpoint, and a `lm_head.weight` that equals `wte.weight` if the plan's
    /// head is tied.
    pub fn unused(&self, plan: &Plan) -> impl Iterator<Item = Text<'a>> {
        self.header.unused(plan, self.data).map(|entry| entry.raw_name())
    }

    /// Compares names, types and shapes with the plan's, as [`Checkpoint::read`] with an `optimizer` or
    /// [`Checkpoint::read_parameters`] without one, before memory is allocated for them.
    ///
    /// # Errors
    /// As for those.
    pub fn check(&self, plan: &Plan, optimizer: bool) -> Result<(), Error> {
        self.header.check(plan, optimizer, self.data)
    }

    fn copy(&self, plan: &Plan, parameters: &mut [f32], optimizer: Option<&mut [f32]>) -> Result<(), Error> {
        let mut fill = |kind: Numbers, begin: usize, numbers: &mut [f32]| {
            kind.read(self.data.get(begin..).unwrap_or_default(), numbers);
            Ok(())
        };
        self.header.copy(plan, parameters, optimizer, self.data, &mut fill)
    }
}

/// Compares a checkpoint's checksum. It covers the file with zeros in place of the checksum itself.
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
