//! Cross-entropy of a softmax, with ignored targets; the mean over those that count (PyTorch's
//! `cross_entropy(ignore_index=-1)`).

use super::softmax::exp_of_scaled;
use super::{count_rows, rows, rows_mut};
use crate::error::{Error, exact_length};
use crate::simd::math::{exp, log_of};
use crate::simd::{self, InstructionSet, vectorized};

/// The target that does not count.
pub const IGNORED: i32 = -1;

/// Refuses targets outside `0..vocab` other than [`IGNORED`]; returns how many count.
pub fn count_targets(targets: &[i32], vocab: usize) -> Result<usize, Error> {
    let mut counted = 0;
    for (index, target) in targets.iter().enumerate() {
        if *target != IGNORED {
            if !usize::try_from(*target).is_ok_and(|target| target < vocab) {
                return Err(Error::Token { index, token: i64::from(*target), vocab });
            }
            counted += 1;
        }
    }
    Ok(counted)
}

/// Writes `losses [R]`, minus the logarithm of each target's probability, from `logits [R, V]` and
/// `targets [R]`; 0 where the target is ignored.
pub fn forward(
    simd: InstructionSet,
    losses: &mut [f32],
    logits: &[f32],
    targets: &[i32],
    vocab: usize,
) -> Result<(), Error> {
    check(losses, logits, targets, vocab)?;
    losses_of_rows(simd, losses, logits, targets, vocab);
    Ok(())
}

/// Writes `losses [R]` as [`forward`] and replaces `logits [R, V]` by their gradient: of the sum of losses
/// divided by `counted`.
pub fn backward(
    simd: InstructionSet,
    losses: &mut [f32],
    logits: &mut [f32],
    targets: &[i32],
    vocab: usize,
    counted: usize,
) -> Result<(), Error> {
    check(losses, logits, targets, vocab)?;
    gradients_of_rows(simd, losses, logits, targets, vocab, counted);
    Ok(())
}

fn check(losses: &[f32], logits: &[f32], targets: &[i32], vocab: usize) -> Result<(), Error> {
    let count = count_rows("logits", logits, vocab)?;
    exact_length("losses", losses.len(), count)?;
    exact_length("targets", targets.len(), count)?;
    count_targets(targets, vocab).map(|_| ())
}

/// The target's logit, unless it is ignored.
#[inline(always)]
fn target_logit(logits: &[f32], target: i32) -> Option<f32> {
    usize::try_from(target).ok().and_then(|target| logits.get(target).copied())
}

/// log(sum) + maximum - logit.
#[inline(always)]
fn loss(sum: f32, maximum: f32, logit: f32) -> f32 {
    log_of(sum) + maximum - logit
}

vectorized! {
    pub(crate) fn losses_of_rows<V>(losses: &mut [f32], logits: &[f32], targets: &[i32], vocab: usize) {
        for ((out, logits), target) in losses.iter_mut().zip(rows(logits, vocab)).zip(targets) {
            *out = target_logit(logits, *target).map_or(0.0, |logit| {
                let maximum = simd::maximum::<V>(logits);
                let sum = simd::sum([logits], |[x]: [V; 1]| exp(x.sub(V::splat(maximum))));
                loss(sum, maximum, logit)
            });
        }
    }
}

vectorized! {
    pub(crate) fn gradients_of_rows<V>(
        losses: &mut [f32], logits: &mut [f32], targets: &[i32], vocab: usize, counted: usize,
    ) {
        let share = 1.0 / counted.max(1) as f32;
        for ((out, logits), target) in losses.iter_mut().zip(rows_mut(logits, vocab)).zip(targets) {
            let Some(logit) = target_logit(logits, *target) else {
                *out = 0.0;
                logits.fill(0.0);
                continue;
            };
            let maximum = simd::maximum::<V>(logits);
            exp_of_scaled::<V>(logits, 1.0, maximum);
            let sum = simd::total::<V>(logits);
            *out = loss(sum, maximum, logit);
            let factor = V::splat(1.0 / sum).mul(V::splat(share));
            simd::update(logits, [], |_, e: V, []| e.mul(factor));
            if let Some(gradient) = usize::try_from(*target).ok().and_then(|target| logits.get_mut(target)) {
                *gradient -= share;
            }
        }
    }
}
