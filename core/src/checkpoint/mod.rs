//! Checkpoints: save and resume, bit for bit, in the [safetensors] format, from and to the caller's bytes.
//! Knows nothing of files on a disk, nor of what the numbers mean.
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
mod write;

pub use header::Pairs;
pub use json::{Chars, Text};
pub use write::{size, write};

use crate::config::Config;
use crate::error::{CheckpointError, Error, exact_length};
use crate::layout::{OptimizerState, Plan, Tensor};
use crc::Crc;
use header::{Item, Items};

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
    items: Items<'a>,
    pairs: Option<Pairs<'a>>,
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
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > LONGEST_HEADER {
            return Err(CheckpointError::Header { at: 0 }.into());
        }
        let data_at = length + 8;
        let (text, data) = rest.split_at_checked(length).ok_or(truncated(data_at))?;
        let text = core::str::from_utf8(text)
            .map_err(|error| CheckpointError::Header { at: error.valid_up_to().saturating_add(8) })?;
        let items = Items::new(text, data_at)?;

        let (mut pairs, mut tensors, mut sum, mut end) = (None, 0_u64, 0_usize, 0);
        let mut all = items;
        while let Some(item) = all.next()? {
            match item {
                Item::Metadata(found) => {
                    if pairs.replace(found).is_some() {
                        return Err(CheckpointError::Duplicate { at: found.at() }.into());
                    }
                }
                Item::Tensor(entry) => {
                    tensors += 1;
                    sum = sum.saturating_add(entry.end.saturating_sub(entry.begin));
                    end = entry.end.max(end);
                }
            }
        }
        let keys = pairs.map_or(0, |pairs| pairs.count() as u64);
        if tensors.max(keys).saturating_mul(length as u64) > MOST_COMPARISONS {
            return Err(Error::TooLarge { what: "checkpoint header" });
        }
        if end > data.len() {
            return Err(truncated(data_at.saturating_add(end)).into());
        }
        for given in [sum, items.covered()?] {
            if given != data.len() {
                return Err(CheckpointError::Offsets { given, wanted: data.len() }.into());
            }
        }
        if let Some(pairs) = pairs {
            check(bytes, pairs)?;
            pairs.no_duplicates()?;
        }
        items.no_duplicates()?;
        Ok(Checkpoint { items, pairs, data })
    }

    /// The value of a metadata key, the caller's or the engine's own.
    pub fn metadata(&self, key: &str) -> Option<Text<'a>> {
        self.pairs().find(|(name, _)| name.is(key)).map(|(_, value)| value)
    }

    /// All metadata, in the file's order.
    pub fn pairs(&self) -> Pairs<'a> {
        self.pairs.unwrap_or_default()
    }

    /// The configuration of the model in a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Metadata`] where the file states none, or not in full; the errors of
    /// [`Config::validate`].
    pub fn config(&self) -> Result<Config, Error> {
        metadata::config(self)
    }

    /// How far training had come.
    ///
    /// # Errors
    /// [`CheckpointError::Metadata`] where the file does not say.
    pub fn progress(&self) -> Result<Progress, Error> {
        Ok(Progress {
            step: metadata::get(self, metadata::STEP)?,
            seed: metadata::get(self, metadata::SEED)?,
        })
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
        exact_length("parameters", parameters.len(), plan.parameters)?;
        if let Some(state) = &optimizer {
            exact_length("optimizer state", state.len(), plan.optimizer)?;
        }
        if is_checkpoint(self.pairs()) {
            metadata::model(&plan.config, |key, wanted| match self.metadata(key) {
                Some(given) if given.chars().is(wanted) => Ok(()),
                Some(_) => Err(CheckpointError::Configuration { key }),
                None => Err(CheckpointError::Metadata { key }),
            })?;
        }
        let prefixes = prefixes(plan, optimizer.is_some());
        let state = optimizer.unwrap_or_default();
        // Twice: the first time, only to find that nothing is missing.
        self.visit(plan, prefixes, |_, _, _| ())?;
        self.visit(plan, prefixes, |part, tensor, bytes| {
            if tensor.frozen {
                return;
            }
            let (buffer, offset) = match part.checked_sub(1) {
                None => (&mut *parameters, tensor.offset),
                Some(part) => {
                    (&mut *state, part.saturating_mul(plan.parameters).saturating_add(tensor.offset))
                }
            };
            let target = buffer.get_mut(offset..).unwrap_or_default();
            for (place, number) in target.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *place = f32::from_le_bytes(*number);
            }
        })
    }

    /// Finds each tensor of the plan once for each prefix, and passes the prefix's number, the tensor and its
    /// bytes, which are as many as its shape says.
    fn visit(
        &self,
        plan: &Plan,
        prefixes: &[&str],
        mut found: impl FnMut(usize, &Tensor, &'a [u8]),
    ) -> Result<(), Error> {
        let count = plan.tensors().count();
        let wanted = |part| plan.tensors().filter(move |tensor| has_part(part, tensor)).count();
        let (mut left, mut items) = ((0..prefixes.len()).map(wanted).sum::<usize>(), self.items);
        // Most files list tensors in the model's order: look from where the last was found.
        let mut tensors = plan.tensors().enumerate();
        while let Some(entry) = items.tensor()? {
            // Backwards, since the empty prefix fits all.
            let parts = prefixes.iter().enumerate().rev();
            let named = parts.filter_map(|(part, prefix)| Some((part, entry.name().after(prefix)?))).next();
            let Some((part, name)) = named else { continue };
            let same = |(_, tensor): &(usize, Tensor)| name.clone().is(&tensor.name);
            let place = tensors.find(same).or_else(|| {
                tensors = plan.tensors().enumerate();
                tensors.find(same)
            });
            let Some((index, tensor)) = place.filter(|(_, tensor)| has_part(part, tensor)) else { continue };
            let wrong = CheckpointError::Shape { tensor: part.saturating_mul(count).saturating_add(index) };
            if !entry.is_f32 || entry.rank != tensor.rank || entry.shape != tensor.shape {
                return Err(wrong.into());
            }
            let bytes = self.data.get(entry.begin..entry.end).unwrap_or_default();
            if bytes.len() != tensor.len().saturating_mul(4) {
                return Err(wrong.into());
            }
            found(part, &tensor, bytes);
            left = left.saturating_sub(1);
        }
        // No name occurs twice, so as many as wanted are all that are wanted.
        if left == 0 { Ok(()) } else { Err(self.missing(plan, prefixes)) }
    }

    /// Which tensor of the plan is missing.
    fn missing(&self, plan: &Plan, prefixes: &[&str]) -> Error {
        let all = prefixes.iter().enumerate();
        let wanted = all.flat_map(|part| plan.tensors().map(move |tensor| (part, tensor))).enumerate();
        for (tensor, ((_, prefix), wanted)) in
            wanted.filter(|(_, ((part, _), tensor))| has_part(*part, tensor))
        {
            let (mut items, mut found) = (self.items, false);
            while let Ok(Some(entry)) = items.tensor() {
                found |= entry.name().after(prefix).is_some_and(|name| name.is(&wanted.name));
            }
            if !found {
                return CheckpointError::Missing { tensor }.into();
            }
        }
        Error::Plan { what: "all tensors" }
    }
}

fn is_checkpoint(mut pairs: Pairs) -> bool {
    pairs.any(|(key, _)| key.chars().after(metadata::OWN).is_some())
}

/// Compares a checkpoint's checksum, which covers the file as it is with zeros in the checksum's own place.
fn check(bytes: &[u8], mut pairs: Pairs) -> Result<(), Error> {
    if !is_checkpoint(pairs) {
        return Ok(());
    }
    let malformed = CheckpointError::Metadata { key: metadata::CHECKSUM };
    while let Some(pair) = pairs.step()? {
        if !pair.key.is(metadata::CHECKSUM) {
            continue;
        }
        let digits = pair.value.plain().filter(|digits| digits.len() == write::NO_CHECKSUM.len());
        let digits = digits.ok_or(malformed)?;
        let stated = u32::from_str_radix(digits, 16).map_err(|_| malformed)?;
        let (before, rest) = bytes.split_at_checked(pair.at).ok_or(malformed)?;
        let after = rest.get(digits.len()..).ok_or(malformed)?;
        let computed = Crc::START.update(before).update(write::NO_CHECKSUM.as_bytes()).update(after).finish();
        if stated != computed || digits.bytes().any(|digit| digit.is_ascii_uppercase() || digit == b'+') {
            return Err(CheckpointError::Checksum { stated, computed }.into());
        }
        return Ok(());
    }
    Err(malformed.into())
}
