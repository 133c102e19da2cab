//! The set of frozen tensors.

use super::{Count, Tensors, family};
use crate::config::{Config, LORA};
use crate::error::Error;

/// With adapters, blocks have up to three times as many tensors, and most of them are frozen.
const WORDS: usize = if LORA { 15 } else { 10 };

/// A set of tensors that are not trained. Their values are in a buffer of their own, which is only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frozen([u64; WORDS]);

impl Frozen {
    /// The empty set: all tensors are trained.
    pub const NONE: Frozen = Frozen([0; WORDS]);

    /// Only tensors with a number below this can be frozen: 28 layers and more with all adapters, 76 without.
    pub const MOST: usize = 64 * WORDS;

    /// The tensors with these names, e.g. `wte.weight` and `h.0.attn.c_attn.weight`.
    ///
    /// # Errors
    /// [`Error::Name`] for a name that the model does not have; [`Error::TooLarge`] for a tensor beyond
    /// [`Frozen::MOST`].
    pub fn named<'n>(config: &Config, names: impl IntoIterator<Item = &'n str>) -> Result<Frozen, Error> {
        let mut frozen = Frozen::NONE;
        for (index, name) in names.into_iter().enumerate() {
            frozen.add(Frozen::number(config, name).ok_or(Error::Name { index })?)?;
        }
        Ok(frozen)
    }

    /// All tensors except the matrices of adapters and the tensors with these names.
    ///
    /// # Errors
    /// As for [`Frozen::named`].
    #[cfg(feature = "lora")]
    pub fn base<'n>(config: &Config, trained: impl IntoIterator<Item = &'n str>) -> Result<Frozen, Error> {
        let trained = Frozen::named(config, trained)?;
        let mut frozen = Frozen::NONE;
        for (number, tensor) in Tensors::new(config, &Frozen::NONE).enumerate() {
            if !tensor.is_adapter() && !trained.has(number) {
                frozen.add(number)?;
            }
        }
        Ok(frozen)
    }

    /// The number of the tensor with this name, in the order of [`crate::Plan::tensors`].
    pub fn number(config: &Config, name: &str) -> Option<usize> {
        Tensors::named(config, &Frozen::NONE, name.as_bytes()).map(|(number, _)| number)
    }

    /// The set with another tensor, by its number in the order of [`crate::Plan::tensors`].
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a number that is not below [`Frozen::MOST`].
    pub const fn with(mut self, number: usize) -> Result<Frozen, Error> {
        match self.add(number) {
            Ok(()) => Ok(self),
            Err(error) => Err(error),
        }
    }

    /// Adds the tensor with this number.
    ///
    /// # Errors
    /// As for [`Frozen::with`].
    pub const fn add(&mut self, number: usize) -> Result<(), Error> {
        if number >= Frozen::MOST {
            return Err(Error::TooLarge { what: "number of a frozen tensor" });
        }
        self.0[number / 64] |= 1 << (number % 64);
        Ok(())
    }

    /// Whether the set has the tensor with this number.
    pub const fn has(&self, number: usize) -> bool {
        number < Frozen::MOST && self.0[number / 64] >> (number % 64) & 1 == 1
    }

    /// The number of tensors in the set with a number below `end`.
    pub(crate) fn count_below(&self, end: usize) -> usize {
        let below = |first: usize| {
            u64::MAX.unbounded_shr(64_u32.saturating_sub(end.saturating_sub(first).min(64) as u32))
        };
        let bits = self.0.iter().enumerate().map(|(i, word)| (word & below(64 * i)).count_ones());
        bits.sum::<u32>() as usize
    }

    pub(super) const fn is_none(&self) -> bool {
        let mut i = 0;
        while i < WORDS {
            if self.0[i] != 0 {
                return false;
            }
            i += 1;
        }
        true
    }

    /// The number of elements of the set, and the layer of the first trained tensor: 0 for the embeddings, the number
    /// of layers for the tensors after the blocks.
    pub(super) const fn elements_and_first_trained(&self, config: &Config) -> (Count, usize) {
        let (mut sum, mut first) = (Count::ZERO, None);
        let (mut number, mut place) = (0, 0);
        // Only the first MOST tensors can be frozen.
        while number < Frozen::MOST
            && !self.is_none()
            && let Some((at, row, layer)) = family::next(place, config)
            && let Some(slot) = family::slot(row)
        {
            if self.has(number) {
                sum = sum.add(slot.elements(config));
            } else if first.is_none() {
                first = Some(layer);
            }
            place = at + 1;
            number += 1;
        }
        match first {
            Some(layer) => (sum, layer),
            None => (sum, 0),
        }
    }

    /// The number of blocks that backward reaches.
    pub(super) const fn backward_layers(&self, config: &Config) -> usize {
        let (_, first_trained) = self.elements_and_first_trained(config);
        config.layers.saturating_sub(first_trained)
    }
}
