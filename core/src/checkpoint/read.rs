//! From a file's header to the numbers of a model, wherever the data are stored.

use super::header::{Entry, Items, Pairs};
use super::json::{Chars, Text};
use super::{LONGEST_HEADER, MOST_COMPARISONS, Progress, has_part, metadata, prefixes};
use crate::config::{Config, Field};
use crate::error::{CheckpointError, Error, exact_length};
use crate::layout::{Plan, Tensor};

/// The length of the header, from a file's first eight bytes.
pub(super) fn header_length(length: [u8; 8]) -> Result<usize, Error> {
    let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST_HEADER { Err(CheckpointError::Header { at: 0 }.into()) } else { Ok(length) }
}

/// Fills numbers with the data from a byte on. It is a trait of its own for the same reason as [`crate::parallel`]'s
/// tasks.
pub(super) trait Fill {
    fn fill(&mut self, begin: usize, numbers: &mut [f32]) -> Result<(), Error>;
}

impl<F: FnMut(usize, &mut [f32]) -> Result<(), Error>> Fill for F {
    fn fill(&mut self, begin: usize, numbers: &mut [f32]) -> Result<(), Error> {
        self(begin, numbers)
    }
}

/// The header of a safetensors file with a valid structure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    items: Items<'a>,
    pairs: Pairs<'a>,
}

impl<'a> Header<'a> {
    /// Examines the header of a file with `data_length` bytes after it. Does not check for duplicate names.
    pub fn new(text: &'a [u8], data_length: usize) -> Result<Header<'a>, Error> {
        let data_at = text.len().saturating_add(8);
        let items = Items::new(text, data_at)?;

        let (mut tensors, mut sum, mut end) = (0_u64, 0_usize, 0);
        let mut all = items;
        while let Some(entry) = all.next().map_err(|_| all.error())? {
            tensors += 1;
            sum = sum.saturating_add(entry.end.saturating_sub(entry.begin));
            end = entry.end.max(end);
        }
        let pairs = all.metadata;
        if all.metadata_objects > 1 {
            return Err(CheckpointError::Duplicate { at: pairs.at() }.into());
        }
        let names = tensors.max(pairs.count() as u64);
        if names.saturating_mul(text.len() as u64) > MOST_COMPARISONS {
            return Err(Error::TooLarge { what: "checkpoint header" });
        }
        if end > data_length {
            let [given, wanted] = [data_length, end].map(|bytes| data_at.saturating_add(bytes));
            return Err(CheckpointError::Truncated { given, wanted }.into());
        }
        for given in [sum, items.covered()] {
            if given != data_length {
                return Err(CheckpointError::Offsets { given, wanted: data_length }.into());
            }
        }
        Ok(Header { items, pairs })
    }

    /// Refuses a header in which a name occurs twice.
    pub fn no_duplicates(&self) -> Result<(), Error> {
        self.pairs.no_duplicates()?;
        self.items.no_duplicates()
    }

    #[inline(never)]
    pub fn metadata(&self, key: &str) -> Option<Text<'a>> {
        self.pairs().find(|(name, _)| name.is(key)).map(|(_, value)| value)
    }

    pub fn pairs(&self) -> Pairs<'a> {
        self.pairs
    }

    /// Whether the file claims to be a checkpoint of the engine.
    pub fn is_checkpoint(&self) -> bool {
        self.pairs().any(|(key, _)| key.chars().after(metadata::OWN).is_some())
    }

    pub fn config(&self) -> Result<Config, Error> {
        metadata::config(self)
    }

    pub fn progress(&self) -> Result<Progress, Error> {
        Ok(Progress {
            step: metadata::number(self, metadata::STEP)?,
            seed: metadata::number(self, metadata::SEED)?,
        })
    }

    /// Reads all tensors of the plan into `parameters` and, unless it is `None`, `optimizer`. Only errors of `fill`
    /// can occur after something was written.
    pub fn copy(
        &self,
        plan: &Plan,
        parameters: &mut [f32],
        optimizer: Option<&mut [f32]>,
        fill: &mut dyn Fill,
    ) -> Result<(), Error> {
        exact_length("parameters", parameters.len(), plan.parameters)?;
        if let Some(state) = &optimizer {
            exact_length("optimizer state", state.len(), plan.optimizer)?;
        }
        self.check(plan, optimizer.is_some())?;
        let prefixes = prefixes(plan, optimizer.is_some());
        let state = optimizer.unwrap_or_default();
        self.visit(plan, prefixes, &mut |part, tensor, begin| {
            if tensor.frozen {
                return Ok(());
            }
            let (buffer, offset) = match part.checked_sub(1) {
                None => (&mut *parameters, tensor.offset),
                Some(part) => {
                    (&mut *state, part.saturating_mul(plan.parameters).saturating_add(tensor.offset))
                }
            };
            let target = buffer.get_mut(offset..).unwrap_or_default();
            fill.fill(begin, target.get_mut(..tensor.len()).unwrap_or_default())
        })
    }

    /// Refuses a header that does not have all tensors of the plan.
    pub fn check(&self, plan: &Plan, optimizer: bool) -> Result<(), Error> {
        if self.is_checkpoint() {
            let mut config = plan.config;
            for field in Field::ALL.iter().filter(|field| field.shapes_model()) {
                let key = field.key();
                let given = self.metadata(key).ok_or(CheckpointError::Metadata { key })?;
                if !given.chars().is(&config.value(*field)) {
                    return Err(CheckpointError::Configuration { key }.into());
                }
            }
        }
        self.visit(plan, prefixes(plan, optimizer), &mut |_, _, _| Ok(()))
    }

    /// The tensors that the model of the plan does not have, and cannot do without: see
    /// [`super::Checkpoint::unused`]. `data` is the file's data.
    pub fn unused<'p>(
        &self,
        plan: &'p Plan,
        data: &'a [u8],
    ) -> impl Iterator<Item = Entry<'a>> + use<'a, 'p> {
        let (header, is_checkpoint) = (*self, self.is_checkpoint());
        header.entries().filter(move |entry| {
            let mut buffer = [0; LONGEST_NAME];
            let Some(name) = ascii(entry.name(), &mut buffer) else { return true };
            let is_state = is_checkpoint && name.starts_with("optimizer.");
            let is_copy = || {
                let mut embeddings = header.entries().filter(|other| other.name().is(&"wte.weight"));
                plan.config.tied
                    && name == "lm_head.weight"
                    && embeddings.any(|other| {
                        (other.rank, other.shape, other.is_f32) == (entry.rank, entry.shape, entry.is_f32)
                            && data.get(other.begin..other.end) == data.get(entry.begin..entry.end)
                    })
            };
            !(is_mask(name) || is_state || plan.tensor(name).is_some() || is_copy())
        })
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut items = self.items;
        core::iter::from_fn(move || items.tensor())
    }

    /// Finds each tensor of the plan once for each prefix. Passes on the prefix's number, the tensor, and its first
    /// byte in the data. Its size in bytes matches its shape.
    fn visit(
        &self,
        plan: &Plan,
        prefixes: &[&str],
        found: &mut dyn FnMut(usize, &Tensor, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut items, mut number) = (self.items, 0);
        for (part, prefix) in prefixes.iter().enumerate() {
            for tensor in plan.tensors() {
                let index = number;
                number += 1;
                if !has_part(part, &tensor) {
                    continue;
                }
                let mut entry = named(&mut items, prefix, &tensor);
                if entry.is_none() {
                    items = self.items;
                    entry = named(&mut items, prefix, &tensor);
                }
                let entry = entry.ok_or(CheckpointError::Missing { tensor: index })?;
                let bytes = entry.end.saturating_sub(entry.begin);
                if !entry.is_f32
                    || entry.rank != tensor.rank
                    || entry.shape != tensor.shape
                    || bytes != tensor.len().saturating_mul(4)
                {
                    return Err(CheckpointError::Shape { tensor: index }.into());
                }
                found(part, &tensor, entry.begin)?;
            }
        }
        Ok(())
    }
}

/// The next tensor with that name among the remaining ones. Most files list tensors in the model's order, so that it
/// is the first.
fn named<'a>(items: &mut Items<'a>, prefix: &str, tensor: &Tensor) -> Option<Entry<'a>> {
    loop {
        let entry = items.tensor()?;
        if entry.name().after(prefix).is_some_and(|name| name.is(&tensor.name)) {
            return Some(entry);
        }
    }
}

/// More bytes than the name of any model's tensor has.
const LONGEST_NAME: usize = 64;

/// The text of some characters, if they are ASCII and fit.
fn ascii<'b>(chars: Chars<'_>, buffer: &'b mut [u8; LONGEST_NAME]) -> Option<&'b str> {
    let mut length = 0;
    for c in chars {
        *buffer.get_mut(length)? = u8::try_from(c).ok().filter(u8::is_ascii)?;
        length += 1;
    }
    core::str::from_utf8(buffer.get(..length)?).ok()
}

/// Whether a tensor is a causal mask or its value, which Hugging Face's GPT-2 keeps beside a block's parameters.
fn is_mask(name: &str) -> bool {
    let Some((layer, name)) = name.strip_prefix("h.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    layer.bytes().all(|byte| byte.is_ascii_digit()) && matches!(name, "attn.bias" | "attn.masked_bias")
}
