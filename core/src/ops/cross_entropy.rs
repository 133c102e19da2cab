//! The cross-entropy of a softmax with ignored targets, as PyTorch's `cross_entropy(ignore_index=-1)`: the mean over
//! the targets that count.

use super::softmax::exp_of_scaled;
use super::{count_rows, rows, rows_mut};
use crate::error::{Error, exact_length};
use crate::simd::math::{exp_of_negative, log, log_of};
use crate::simd::{self, InstructionSet, vectorized};

/// The target that is ignored.
pub const IGNORED: i32 = -1;

/// Refuses targets outside `0..vocab` other than [`IGNORED`]. Returns the number of targets that count.
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

/// Writes `losses [R]`, minus the logarithm of each target's probability, from `logits [R, V]` and `targets [R]`; 0
/// for an ignored target.
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

/// Writes `losses [R]` as [`forward`] and replaces `logits [R, V]` by the gradient of the sum of losses divided by
/// `counted`.
pub fn backward(
    simd: InstructionSet,
    losses: &mut [f32],
    logits: &mut [f32],
    targets: &[i32],
    vocab: usize,
    counted: usize,
) -> Result<(), Error> {
    check(losses, logits, targets, vocab)?;
    gradients_of_rows(simd, losses, logits, &mut [], targets, vocab, counted);
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

/// The loss, from the logarithm of the sum of exponentials after subtracting their maximum.
#[inline(always)]
fn loss(log: f32, maximum: f32, logit: f32) -> f32 {
    log + maximum - logit
}

vectorized! {
    pub(crate) fn losses_of_rows<V>(losses: &mut [f32], logits: &[f32], targets: &[i32], vocab: usize) {
        for ((out, logits), target) in losses.iter_mut().zip(rows(logits, vocab)).zip(targets) {
            *out = target_logit(logits, *target).map_or(0.0, |logit| {
                let maximum = simd::maximum::<V>(logits);
                let sum = simd::sum([logits], |[x]: [V; 1]| exp_of_negative(x.sub(V::splat(maximum))));
                loss(log_of(sum), maximum, logit)
            });
        }
    }
}

/// The numbers of a row that [`gradients_again`] needs. They are the maximum of its logits, the factor of their
/// exponentials, one target's share in the loss, and the target's bits.
pub(crate) const SOFTMAX: usize = 4;

vectorized! {
    /// As [`backward`]. Writes `softmax [R, SOFTMAX]` too, unless it is empty.
    pub(crate) fn gradients_of_rows<V>(
        losses: &mut [f32], logits: &mut [f32], softmax: &mut [f32], targets: &[i32], vocab: usize, counted: usize,
    ) {
        let share = 1.0 / counted.max(1) as f32;
        let (mut losses, mut logits, mut targets) = (losses, logits, targets);
        let mut softmax = softmax.chunks_exact_mut(SOFTMAX);
        // Each step processes as many rows as a vector has lanes, because the chain of steps of one row is long.
        while !losses.is_empty() {
            let count = V::LANES.min(losses.len());
            let losses = losses.split_off_mut(..count).unwrap_or_default();
            let logits = logits.split_off_mut(..count * vocab).unwrap_or_default();
            let targets = targets.split_off(..count).unwrap_or_default();
            let (mut sums, mut maxima, mut of_targets) = ([1.0; V::LANES], [0.0; V::LANES], [None; V::LANES]);
            let numbers = sums.iter_mut().zip(&mut maxima).zip(&mut of_targets);
            for ((logits, target), ((sum, maximum), logit)) in rows_mut(logits, vocab).zip(targets).zip(numbers) {
                *maximum = simd::maximum::<V>(logits);
                *logit = target_logit(logits, *target);
                *sum = exp_of_scaled::<V>(logits, 1.0, *maximum);
            }
            let (mut logs, mut factors) = ([0.0; V::LANES], [0.0; V::LANES]);
            log(V::load(&sums)).store(&mut logs);
            V::splat(1.0).div(V::load(&sums)).mul(V::splat(share)).store(&mut factors);
            let numbers = logs.iter().zip(maxima).zip(of_targets).zip(factors);
            let rows = losses.iter_mut().zip(rows_mut(logits, vocab)).zip(targets);
            for (((out, logits), target), (((log, maximum), logit), factor)) in rows.zip(numbers) {
                if cfg!(feature = "head-rows")
                    && let Some(softmax) = softmax.next()
                {
                    // The exponentials of an ignored row become zero.
                    let maximum = if logit.is_some() { maximum } else { f32::INFINITY };
                    let numbers = [maximum, factor, share, f32::from_bits(*target as u32)];
                    for (place, number) in softmax.iter_mut().zip(numbers) {
                        *place = number;
                    }
                }
                let Some(logit) = logit else {
                    *out = 0.0;
                    logits.fill(0.0);
                    continue;
                };
                *out = loss(*log, maximum, logit);
                simd::update(logits, [], |_, e: V, []| e.mul(V::splat(factor)));
                if let Some(gradient) = logits.get_mut(*target as usize) {
                    *gradient -= share;
                }
            }
        }
    }
}

vectorized! {
    /// Replaces some columns of the logits, from `first` on, by the gradient that [`gradients_of_rows`] has made of them.
    pub(crate) fn gradients_again<V>(logits: &mut [f32], columns: usize, first: usize, softmax: &[f32]) {
        for (logits, row) in rows_mut(logits, columns).zip(softmax.chunks_exact(SOFTMAX)) {
            let &[maximum, factor, share, target] = row else { continue };
            exp_of_scaled::<V>(logits, 1.0, maximum);
            simd::update(logits, [], |_, e: V, []| e.mul(V::splat(factor)));
            let column = usize::try_from(target.to_bits() as i32).ok().and_then(|target| target.checked_sub(first));
            if let Some(gradient) = column.and_then(|column| logits.get_mut(column)) {
                *gradient -= share;
            }
        }
    }
}
