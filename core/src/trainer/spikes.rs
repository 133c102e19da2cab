//! A guard against loss spikes. It judges each step's loss by those before it.

use crate::error::Error;
use crate::simd::processor;

/// The steps over which mean and variance are taken, and before which nothing is a spike.
const WINDOW: u64 = 100;

/// Compares the loss of each step with the exponential moving mean of the losses before it, in units of their standard
/// deviation (a z-score). The window is 100 steps.
///
/// [`crate::Trainer::set_guard`] installs one. To continue a run with the same bits, save it with the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpikeGuard {
    /// The largest z-score that is not a spike, e.g. 6.
    pub limit: f32,
    /// The mean of the losses so far.
    pub mean: f32,
    /// Their variance.
    pub variance: f32,
    /// The number of losses so far.
    pub steps: u64,
}

impl SpikeGuard {
    /// A guard that has seen no loss.
    pub const fn new(limit: f32) -> SpikeGuard {
        SpikeGuard { limit, mean: 0.0, variance: 0.0, steps: 0 }
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        if self.limit > 0.0 {
            return Ok(());
        }
        Err(Error::Range { what: "limit", given: self.limit, wanted: "more than 0" })
    }

    /// Refuses a loss that is a spike.
    #[inline(never)]
    pub(super) fn check(&self, step: u64, loss: f32) -> Result<(), Error> {
        let z = (loss - self.mean) / processor::sqrt(self.variance);
        if self.steps < WINDOW || !(z > self.limit) {
            return Ok(());
        }
        Err(Error::Spike { step, loss, z })
    }

    /// Takes the loss of a step into mean and variance (West 1979).
    #[inline(never)]
    pub(super) fn add(&mut self, loss: f32) {
        self.steps = self.steps.saturating_add(1);
        let share = 1.0 / self.steps.min(WINDOW) as f32;
        let difference = loss - self.mean;
        self.mean += share * difference;
        self.variance = (1.0 - share) * (self.variance + share * difference * difference);
    }
}
