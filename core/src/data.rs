//! Token streams in memory, and the windows that training and evaluation take from them. Knows nothing of models.

use core::ops::Range;

use crate::error::Error;
use crate::rng::{self, Stream};
use crate::simd::processor;

/// A text as tokens, in the narrowest integers that hold its vocabulary.
#[derive(Clone, Copy, Debug)]
pub enum Tokens<'a> {
    /// Up to 256 different tokens: bytes, characters.
    U8(&'a [u8]),
    /// Up to 65,536 different tokens: GPT-2's.
    U16(&'a [u16]),
    /// The type that a [`crate::Pass`] takes.
    I32(&'a [i32]),
}

impl<'a> From<&'a [u8]> for Tokens<'a> {
    fn from(tokens: &'a [u8]) -> Self {
        Tokens::U8(tokens)
    }
}

impl<'a> From<&'a [u16]> for Tokens<'a> {
    fn from(tokens: &'a [u16]) -> Self {
        Tokens::U16(tokens)
    }
}

impl<'a> From<&'a [i32]> for Tokens<'a> {
    fn from(tokens: &'a [i32]) -> Self {
        Tokens::I32(tokens)
    }
}

impl<'a> Tokens<'a> {
    /// The number of tokens.
    pub const fn len(&self) -> usize {
        match self {
            Tokens::U8(tokens) => tokens.len(),
            Tokens::U16(tokens) => tokens.len(),
            Tokens::I32(tokens) => tokens.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token at an index.
    pub fn get(&self, index: usize) -> Option<i32> {
        match self {
            Tokens::U8(tokens) => tokens.get(index).map(|token| i32::from(*token)),
            Tokens::U16(tokens) => tokens.get(index).map(|token| i32::from(*token)),
            Tokens::I32(tokens) => tokens.get(index).copied(),
        }
    }

    /// The text in pieces that predict at most `predicted` tokens each, at least one. Each piece begins with the last
    /// token of the piece before it, so the losses of all pieces add up to the loss of the text.
    pub fn pieces(&self, predicted: usize) -> impl Iterator<Item = Tokens<'a>> {
        let (text, predicted) = (*self, predicted.max(1));
        let firsts = (0..self.len().saturating_sub(1)).step_by(predicted);
        firsts.map(move |first| {
            let end = first.saturating_add(predicted).saturating_add(1).min(text.len());
            text.part(first..end)
        })
    }

    /// The tokens of a range; none if it exceeds the text.
    fn part(&self, range: Range<usize>) -> Tokens<'a> {
        match *self {
            Tokens::U8(tokens) => Tokens::U8(tokens.get(range).unwrap_or_default()),
            Tokens::U16(tokens) => Tokens::U16(tokens.get(range).unwrap_or_default()),
            Tokens::I32(tokens) => Tokens::I32(tokens.get(range).unwrap_or_default()),
        }
    }

    /// Copies the tokens from `first` on into `inputs`, and the tokens one place later, which the model predicts,
    /// into `targets`.
    pub fn window(&self, first: usize, inputs: &mut [i32], targets: &mut [i32]) -> Result<(), Error> {
        let wanted = first.saturating_add(inputs.len().max(targets.len())).saturating_add(1);
        if wanted > self.len() {
            return Err(Error::Data { given: self.len(), wanted });
        }
        for (first, copies) in [(first, inputs), (first + 1, targets)] {
            for (place, copy) in (first..).zip(copies) {
                processor::stay_rolled();
                *copy = self.get(place).unwrap_or_default();
            }
        }
        Ok(())
    }

    /// The beginning of the window for one sequence of one step: uniform over all windows of `length` inputs and
    /// their targets. It is a function of (seed, step, sequence) alone.
    pub fn random_window(&self, length: usize, seed: u64, step: u64, sequence: u64) -> Result<usize, Error> {
        let windows = self.len().saturating_sub(length);
        if windows == 0 {
            return Err(Error::Data { given: self.len(), wanted: length.saturating_add(1) });
        }
        let mut rng = rng::generator(seed, Stream::Batches, step, sequence);
        Ok(rng::below_u64(&mut rng, windows as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::Tokens;

    #[test]
    fn pieces_share_one_token_and_predict_every_token_but_the_first_once() {
        let text: Vec<u16> = (0..11).collect();
        for predicted in 1..13 {
            let mut expected = 1;
            for piece in Tokens::from(&text[..]).pieces(predicted) {
                assert!(piece.len() >= 2 && piece.len() <= predicted + 1, "{piece:?}");
                assert_eq!(piece.get(0), Some(expected - 1));
                expected += piece.len() as i32 - 1;
            }
            assert_eq!(expected, 11, "{predicted}");
        }
        assert_eq!(Tokens::from(&text[..1]).pieces(4).count(), 0);
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn windows_reach_every_part_of_a_text_of_more_than_2_32_tokens() {
        // The allocator hands out zeroed pages, which take no memory until they are read.
        let text = std::vec![0_u8; 5 << 30];
        let windows =
            (0..2000).map(|sequence| Tokens::from(&text[..]).random_window(64, 1, 2, sequence).unwrap());
        let mut tenths = [0; 10];
        windows.for_each(|first| tenths[first * 10 / text.len()] += 1);
        assert!(tenths.iter().all(|windows| (150..250).contains(windows)), "{tenths:?}");
    }
}
