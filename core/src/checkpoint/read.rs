//! From a file's header to the numbers of a model, wherever the data are stored.

use core::iter;

use super::header::{Entry, Items, Names, Pairs};
use super::json::{Chars, Text};
use super::numbers::Numbers;
use super::{LONGEST_HEADER, MOST_COMPARISONS, Progress, has_part, metadata, prefixes};
use crate::config::{Config, Field};
use crate::error::{CheckpointError, Error, exact_length};
use crate::layout::{Plan, Tensor, greatest};

/// The length of the header, from a file's first eight bytes.
pub(super) fn header_length(length: [u8; 8]) -> Result<usize, Error> {
    let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST_HEADER { Err(CheckpointError::Header { at: 0 }.into()) } else { Ok(length) }
}

/// Fills numbers with the data from a byte on. It is a trait of its own for the same reason as [`crate::parallel`]'s
/// tasks.
pub(super) trait Fill {
    fn fill(&mut self, kind: Numbers, begin: usize, numbers: &mut [f32]) -> Result<(), Error>;
}

impl<F: FnMut(Numbers, usize, &mut [f32]) -> Result<(), Error>> Fill for F {
    fn fill(&mut self, kind: Numbers, begin: usize, numbers: &mut [f32]) -> Result<(), Error> {
        self(kind, begin, numbers)
    }
}

/// What [`Header::visit`] passes each tensor to.
type Found<'a> = dyn FnMut(usize, &Tensor, Numbers, usize) -> Result<(), Error> + 'a;

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
        if sum != data_length || !items.cover(data_length) {
            return Err(CheckpointError::Offsets { given: sum, wanted: data_length }.into());
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
    /// can occur after something was written. `data` is the file's data, or empty.
    pub fn copy(
        &self,
        plan: &Plan,
        parameters: &mut [f32],
        optimizer: Option<&mut [f32]>,
        data: &[u8],
        fill: &mut dyn Fill,
    ) -> Result<(), Error> {
        exact_length("parameters", parameters.len(), plan.parameters)?;
        if let Some(state) = &optimizer {
            exact_length("optimizer state", state.len(), plan.optimizer)?;
        }
        self.check(plan, optimizer.is_some(), data)?;
        let prefixes = prefixes(plan, optimizer.is_some());
        let state = optimizer.unwrap_or_default();
        self.visit(plan, prefixes, &mut |part, tensor, kind, begin| {
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
            fill.fill(kind, begin, target.get_mut(..tensor.len()).unwrap_or_default())
        })
    }

    /// Refuses a header that does not have exactly the tensors of the plan. `data` is the file's data, or empty.
    pub fn check(&self, plan: &Plan, optimizer: bool, data: &[u8]) -> Result<(), Error> {
        if self.is_checkpoint() {
            let mut config = plan.config.derived();
            for field in Field::ALL.iter().filter(|field| field.shapes_model()) {
                let key = field.key();
                let is_same = match self.metadata(key) {
                    Some(given) => given.chars().is(&config.value(*field)),
                    None if field.is_optional() => field.is_usual(&config),
                    None => return Err(CheckpointError::Metadata { key }.into()),
                };
                if !is_same {
                    return Err(CheckpointError::Configuration { key }.into());
                }
            }
        }
        self.visit(plan, prefixes(plan, optimizer), &mut |_, _, _, _| Ok(()))?;
        match self.unused(plan, data).next() {
            Some(entry) => Err(CheckpointError::Unused { at: entry.at }.into()),
            None => Ok(()),
        }
    }

    /// The tensors that the model of the plan does not have, and cannot do without: see
    /// [`super::Checkpoint::unused`]. `data` is the file's data, or empty.
    pub fn unused(&self, plan: &Plan, data: &[u8]) -> impl Iterator<Item = Entry<'a>> {
        let is_checkpoint = self.is_checkpoint();
        self.entries().filter(move |entry| {
            let name = Name::of(entry.name());
            let is_state = is_checkpoint && name.bytes().starts_with(b"optimizer.");
            let is_copy =
                || plan.config.tied && name.bytes() == b"lm_head.weight" && self.is_embedding(entry, data);
            !(is_state || is_mask(name.bytes()) || plan.numbered(name.bytes()).is_some() || is_copy())
        })
    }

    /// Whether a tensor equals the token embedding.
    fn is_embedding(&self, tensor: &Entry<'_>, data: &[u8]) -> bool {
        let Some(embedding) = self.entries().find(|entry| entry.name().is(&"wte.weight")) else {
            return false;
        };
        let [given, wanted] = [tensor, &embedding].map(|entry| data.get(entry.begin..entry.end));
        given.is_some()
            && given == wanted
            && tensor.dtype == embedding.dtype
            && tensor.shape == embedding.shape
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut items = self.items;
        iter::from_fn(move || items.tensor())
    }

    /// Finds each tensor of the plan once for each prefix, in the file's order. Passes on the prefix's number, the
    /// tensor, the type of its numbers, and its first byte in the data. Its shape is the plan's.
    fn visit(&self, plan: &Plan, prefixes: &[&str], found: &mut Found) -> Result<(), Error> {
        let mut count = 0;
        for entry in self.entries() {
            let Some((part, index, tensor)) = self.planned(plan, prefixes, &entry) else { continue };
            count += 1;
            let kind = Numbers::named(entry.dtype);
            let kind = kind.ok_or(CheckpointError::Type { tensor: index, given: entry.dtype })?;
            let bytes = entry.end.saturating_sub(entry.begin);
            if entry.rank != tensor.rank
                || entry.shape != tensor.shape
                || bytes != tensor.len().saturating_mul(kind.size())
            {
                let (given, wanted) = (entry.shape, tensor.shape);
                return Err(CheckpointError::Shape { tensor: index, given, wanted }.into());
            }
            found(part, &tensor, kind, entry.begin)?;
        }
        // Names differ, so an equal count means that none is missing.
        let all = prefixes.len().saturating_mul(plan.tensors().len());
        if count == wanted_below(plan, all) {
            return Ok(());
        }
        // The first missing tensor is the end of the longest complete beginning.
        let is_complete = |end: usize| {
            let has = |entry: &Entry<'_>| {
                self.planned(plan, prefixes, entry).is_some_and(|(_, index, _)| index < end)
            };
            self.entries().filter(has).count() == wanted_below(plan, end)
        };
        let tensor = greatest(0, all.saturating_sub(1), is_complete);
        Err(CheckpointError::Missing { tensor }.into())
    }

    /// The tensor of the plan that a file's tensor is: the number of its prefix, its index among the tensors of all
    /// prefixes, and the tensor.
    #[inline(never)]
    fn planned(&self, plan: &Plan, prefixes: &[&str], entry: &Entry<'a>) -> Option<(usize, usize, Tensor)> {
        // The prefix of the parameters is the first, and empty: every name has it.
        let after = |(part, prefix): (usize, &&str)| entry.name().after(prefix).map(|name| (part, name));
        let (part, name) = prefixes.iter().enumerate().rev().find_map(after)?;
        let (number, tensor) = plan.numbered(Name::of(name).bytes())?;
        let index = part.saturating_mul(plan.tensors().len()).saturating_add(number);
        has_part(part, &tensor).then_some((part, index, tensor))
    }
}

/// The number of tensors that a file must have among those with an index below `end`: all parameters, and the state of
/// those that are trained.
#[inline(never)]
fn wanted_below(plan: &Plan, end: usize) -> usize {
    let (count, frozen) = (plan.tensors().len(), &plan.options.frozen);
    let state = end.saturating_sub(count);
    let (whole, rest) = (state.checked_div(count).unwrap_or(0), state.checked_rem(count).unwrap_or(0));
    end.saturating_sub(whole * frozen.count_below(count) + frozen.count_below(rest))
}

/// A tensor's name in a file, cut off behind the longest that a model can have, which is 63 bytes with 10^17 layers.
struct Name {
    bytes: [u8; 64],
    length: usize,
}

impl Name {
    #[inline(never)]
    fn of(chars: Chars<'_>) -> Name {
        let mut name = Name { bytes: [0; 64], length: 0 };
        for (place, c) in name.bytes.iter_mut().zip(chars) {
            // No model's tensor has a name with such a byte.
            *place = u8::try_from(c).unwrap_or(0xFF);
            name.length += 1;
        }
        name
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Whether a tensor is a causal mask or its value, which Hugging Face's GPT-2 keeps beside a block's parameters.
fn is_mask(name: &[u8]) -> bool {
    let of_block = name.strip_prefix(b"h.");
    let [mask, value] =
        [b".attn.bias".as_slice(), b".attn.masked_bias"].map(|end| of_block?.strip_suffix(end));
    mask.or(value).is_some_and(|layer| layer.iter().all(u8::is_ascii_digit))
}
