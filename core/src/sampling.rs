//! Draws a token from logits: temperature, top-k, top-p, min-p. Knows nothing of the model behind the logits.
//!
//! The filters apply in the order of Hugging Face's generation, each to the tokens that the one before it kept:
//!
//! 1. the temperature divides the logits;
//! 2. top-k keeps the k greatest logits;
//! 3. top-p keeps the fewest tokens whose probabilities, by the softmax over the tokens of top-k, sum to at least p
//!    (Holtzman et al. 2020);
//! 4. min-p keeps the tokens at least min-p times as probable as the most probable (Nguyen et al. 2024).
//!
//! One token is then drawn in proportion to the probabilities that remain. Among equal logits the lower token comes
//! first, so that the filters' results are unique. The softmax is the crate's own, and all sums are f64 in a fixed
//! order: the same logits and generator give the same token on every processor.

use rand_core::Rng;

use crate::compact::soft_f64::SoftF64;
use crate::config::LARGEST;
use crate::error::{Error, exact_length};
use crate::ops::softmax;
use crate::simd::{InstructionSet, processor};

#[cfg(test)]
mod tests;

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; finite, at least 0. At 0 the result is the token of the greatest logit (the lowest such
    /// token), and no random number is drawn.
    pub temperature: f32,
    /// Keep this many of the greatest logits; at least 1. More than V keeps all.
    pub top_k: Option<usize>,
    /// Keep the fewest tokens with this much probability; more than 0 and at most 1, which keeps all.
    pub top_p: Option<f32>,
    /// Keep the tokens with at least this share of the greatest probability; from 0, which keeps all, to 1.
    pub min_p: Option<f32>,
}

impl Sampling {
    /// The token of the greatest logit.
    pub const GREEDY: Sampling = Sampling::new(0.0);

    /// The softmax at a temperature, with no filter.
    pub const fn new(temperature: f32) -> Sampling {
        Sampling { temperature, top_k: None, top_p: None, min_p: None }
    }

    /// Refuses values outside their documented ranges, naming the value: [`Error::Range`], or [`Error::Zero`]
    /// for `top_k`.
    pub const fn validate(&self) -> Result<(), Error> {
        let given = self.temperature;
        if !(given >= 0.0 && given <= f32::MAX) {
            return Err(Error::Range { what: "temperature", given, wanted: "finite and at least 0" });
        }
        if let Some(0) = self.top_k {
            return Err(Error::Zero { what: "top_k" });
        }
        if let Some(given) = self.top_p
            && !(given > 0.0 && given <= 1.0)
        {
            return Err(Error::Range { what: "top_p", given, wanted: "more than 0 and at most 1" });
        }
        if let Some(given) = self.min_p
            && !(given >= 0.0 && given <= 1.0)
        {
            return Err(Error::Range { what: "min_p", given, wanted: "at least 0 and at most 1" });
        }
        Ok(())
    }
}

/// Draws a token from `logits [V]`. A token whose logit is minus infinity is never drawn.
///
/// `order` is scratch of exactly V elements, and `logits` is overwritten too; at temperature 0 neither is.
/// Above temperature 0 one u64 is taken from the generator. With [`crate::rng::generator`] for
/// [`Sampling`](crate::rng::Stream::Sampling), a step and a position, a token does not depend on how many
/// were drawn before it.
///
/// Besides [`Sampling::validate`]'s errors: [`Error::Zero`] without logits, [`Error::TooLarge`] for more than
/// [`crate::Config::LARGEST`] of them, and [`Error::Length`] for `order`. It is [`Error::NotFinite`] if a logit is NaN or plus
/// infinity or all are minus infinity. Nothing is then drawn or written.
pub fn sample(
    simd: InstructionSet,
    sampling: &Sampling,
    logits: &mut [f32],
    order: &mut [u32],
    rng: &mut impl Rng,
) -> Result<usize, Error> {
    sampling.validate()?;
    exact_length("order", order.len(), logits.len())?;
    let (token, greatest) = greatest(logits)?;
    if sampling.temperature == 0.0 {
        return Ok(token);
    }
    weigh(simd, sampling, logits, order, greatest)?;
    Ok(draw(logits, rng))
}

/// The first greatest logit, which is finite, and its token.
fn greatest(logits: &[f32]) -> Result<(usize, f32), Error> {
    if logits.is_empty() {
        return Err(Error::Zero { what: "logits" });
    }
    if logits.len() > LARGEST {
        return Err(Error::TooLarge { what: "logits" });
    }
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &value) in logits.iter().enumerate() {
        if value.is_nan() || value == f32::INFINITY {
            return Err(Error::NotFinite { what: "logit", value });
        }
        if value > best.1 {
            best = (token, value);
        }
    }
    if best.1 == f32::NEG_INFINITY {
        return Err(Error::NotFinite { what: "greatest logit", value: best.1 });
    }
    Ok(best)
}

/// Replaces logits by weights for the draw: the tokens' probabilities, 0 for tokens that a filter removes. The
/// weights after top-p and min-p are not scaled up to a sum of 1.
fn weigh(
    simd: InstructionSet,
    sampling: &Sampling,
    logits: &mut [f32],
    order: &mut [u32],
    greatest: f32,
) -> Result<(), Error> {
    // Before dividing: a positive temperature does not change the order, but its rounding makes new ties.
    if let Some(mut left) = sampling.top_k
        && left < logits.len()
    {
        keep_greatest(logits, order, f32::NEG_INFINITY, &mut |_| {
            let more = left > 0;
            left = left.saturating_sub(1);
            more
        });
    }
    // Subtract before dividing, so that even a tiny temperature does not turn the greatest logit into infinity or
    // NaN.
    for logit in logits.iter_mut() {
        *logit = (*logit - greatest) / sampling.temperature;
    }
    let width = logits.len();
    softmax::forward(simd, logits, width)?;
    if let Some(p) = sampling.top_p
        && p < 1.0
    {
        let mut sum = SoftF64::ZERO;
        keep_greatest(logits, order, 0.0, &mut |probability| {
            let more = SoftF64::from(p).exceeds(sum);
            sum = sum + probability.into();
            more
        });
    }
    if let Some(share) = sampling.min_p {
        let least = share * logits.iter().copied().fold(0.0, f32::max);
        for probability in logits.iter_mut().filter(|probability| **probability < least) {
            *probability = 0.0;
        }
    }
    Ok(())
}

/// Replaces all values from the first one, in descending order, that `more` refuses. Among equals the lower token
/// comes first.
///
/// Uses a binary heap with the greatest value in front, so that the rest of a large vocabulary is never sorted. A
/// compiler cannot prove that the language's own selection does not panic.
#[inline(never)]
fn keep_greatest(values: &mut [f32], order: &mut [u32], replacement: f32, more: &mut dyn FnMut(f32) -> bool) {
    for (place, token) in order.iter_mut().zip(0..) {
        *place = token;
    }
    for parent in (0..order.len() / 2).rev() {
        sift_down(order, parent, values);
    }
    let mut heap = order;
    while let Some(&greatest) = heap.first()
        && more(value(values, greatest))
    {
        let Some(last) = heap.split_off_last_mut() else { break };
        if let Some(first) = heap.first_mut() {
            *first = *last;
        }
        sift_down(heap, 0, values);
    }
    for token in heap {
        if let Some(value) = values.get_mut(*token as usize) {
            *value = replacement;
        }
    }
}

/// Sifts the token at `place` down the heap.
#[inline(never)]
fn sift_down(heap: &mut [u32], mut place: usize, values: &[f32]) {
    let Some(&token) = heap.get(place) else { return };
    loop {
        let (mut first, mut from) = (token, place);
        for place in [2 * place + 1, 2 * place + 2] {
            processor::stay_rolled();
            if let Some(&child) = heap.get(place)
                && comes_before(values, child, first)
            {
                (first, from) = (child, place);
            }
        }
        if let Some(at) = heap.get_mut(place) {
            *at = first;
        }
        if from == place {
            return;
        }
        place = from;
    }
}

/// Orders by value, the greater first; among equals the lower token is first.
fn comes_before(values: &[f32], a: u32, b: u32) -> bool {
    let (x, y) = (value(values, a), value(values, b));
    x > y || x == y && a < b
}

fn value(values: &[f32], token: u32) -> f32 {
    values.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY)
}

/// Draws in proportion to the weights, which are not negative and not all 0.
///
/// 53 random bits: the 24 of an f32 would never draw the rare tokens of a large vocabulary.
fn draw(weights: &[f32], rng: &mut impl Rng) -> usize {
    let total = SoftF64::sum_of(weights.iter().copied());
    let uniform = SoftF64::from(rng.next_u64() >> 11) * SoftF64::new(1.0 / 9_007_199_254_740_992.0);
    // It is less than the total, even after rounding, so the loop returns before its end.
    let target = uniform * total;
    let (mut sum, mut token) = (SoftF64::ZERO, 0);
    for (i, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        token = i;
        sum = sum + weight.into();
        if sum.exceeds(target) {
            break;
        }
    }
    token
}
