//! The sum of token embedding and learned position embedding.

use core::ops::Range;

use super::{count_rows, rows, rows_mut};
use crate::error::{Error, exact_length};
use crate::simd::{self, InstructionSet, vectorized};

/// Refuses tokens outside `0..vocab`.
pub fn check_tokens(tokens: &[i32], vocab: usize) -> Result<(), Error> {
    let outside = |token: &i32| !usize::try_from(*token).is_ok_and(|token| token < vocab);
    match tokens.iter().enumerate().find(|(_, token)| outside(token)) {
        Some((index, token)) => Err(Error::Token { index, token: i64::from(*token), vocab }),
        None => Ok(()),
    }
}

/// Writes `x [R, C]`: for each of `tokens [R]` its row of `wte [V, C]`, plus the row of `wpe [context, C]` for its
/// position. Positions start at 0 again every `length` tokens; the last sequence may be shorter.
pub fn forward(
    simd: InstructionSet,
    x: &mut [f32],
    tokens: &[i32],
    wte: &[f32],
    wpe: &[f32],
    width: usize,
    length: usize,
) -> Result<(), Error> {
    let vocab = count_rows("wte", wte, width)?;
    let context = count_rows("wpe", wpe, width)?;
    check_length(length, context)?;
    exact_length("x", x.len(), tokens.len().saturating_mul(width))?;
    check_tokens(tokens, vocab)?;
    let mut rest = tokens;
    for x in x.chunks_mut(length.saturating_mul(width).max(1)) {
        let tokens = rest.split_off(..length.min(rest.len())).unwrap_or_default();
        add_embeddings(simd, x, tokens, wte, wpe, width);
    }
    Ok(())
}

/// Adds the gradients of the embeddings to `d_wte [V, C]` and `d_wpe [context, C]`, row after row, from
/// `d_x [R, C]`.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    simd: InstructionSet,
    d_wte: &mut [f32],
    d_wpe: &mut [f32],
    d_x: &[f32],
    tokens: &[i32],
    width: usize,
    length: usize,
) -> Result<(), Error> {
    let vocab = count_rows("d_wte", d_wte, width)?;
    let context = count_rows("d_wpe", d_wpe, width)?;
    check_length(length, context)?;
    exact_length("d_x", d_x.len(), tokens.len().saturating_mul(width))?;
    check_tokens(tokens, vocab)?;
    token_gradients(simd, d_wte, 0..vocab, d_x, tokens, width);
    position_gradients(simd, d_wpe, 0, d_x, width, length);
    Ok(())
}

/// Refuses sequences without tokens, or with more tokens than positions.
fn check_length(length: usize, context: usize) -> Result<(), Error> {
    match length {
        0 => Err(Error::Zero { what: "length" }),
        _ if length > context => Err(Error::Context { length, context }),
        _ => Ok(()),
    }
}

/// A row of a matrix, if it exists.
#[inline(always)]
fn row(x: &[f32], index: usize, width: usize) -> Option<&[f32]> {
    let first = index.checked_mul(width)?;
    x.get(first..first.checked_add(width)?)
}

/// Writes each token's row of `wte`.
pub(crate) fn copy_embeddings(x: &mut [f32], tokens: &[i32], wte: &[f32], width: usize) {
    for (x, token) in rows_mut(x, width).zip(tokens) {
        for (x, value) in x.iter_mut().zip(row(wte, *token as usize, width).unwrap_or_default()) {
            *x = *value;
        }
    }
}

vectorized! {
    /// One sequence, or the rest of one. `wpe` begins with the position of the first token.
    pub(crate) fn add_embeddings<V>(x: &mut [f32], tokens: &[i32], wte: &[f32], wpe: &[f32], width: usize) {
        for ((x, token), position) in rows_mut(x, width).zip(tokens).zip(rows(wpe, width)) {
            let token = usize::try_from(*token).ok().and_then(|token| row(wte, token, width));
            let Some(token) = token else { return };
            simd::sum_of_two::<V>(x, token, position);
        }
    }
}

vectorized! {
    /// Adds the rows of `d_x` whose tokens are in `vocabulary` to `d_wte`, which begins with the first token of
    /// `vocabulary`.
    pub(crate) fn token_gradients<V>(
        d_wte: &mut [f32], vocabulary: Range<usize>, d_x: &[f32], tokens: &[i32], width: usize,
    ) {
        for (d_x, token) in rows(d_x, width).zip(tokens) {
            let index = usize::try_from(*token).ok().and_then(|token| token.checked_sub(vocabulary.start));
            let Some(first) = index.and_then(|index| index.checked_mul(width)) else { continue };
            if let Some(d_wte) = d_wte.get_mut(first..first.wrapping_add(width)) {
                simd::add::<V>(d_wte, d_x);
            }
        }
    }
}

vectorized! {
    /// Adds to the rows of `d_wpe`, whose first row is position `first`, sequence after sequence.
    pub(crate) fn position_gradients<V>(d_wpe: &mut [f32], first: usize, d_x: &[f32], width: usize, length: usize) {
        for d_x in d_x.chunks(length.saturating_mul(width).max(1)) {
            for (d_wpe, d_x) in rows_mut(d_wpe, width).zip(rows(d_x, width).skip(first)) {
                simd::add::<V>(d_wpe, d_x);
            }
        }
    }
}
