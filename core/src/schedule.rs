//! Learning-rate schedules: the rate is a function of the step alone. Knows nothing of optimisers.
//!
//! Computed in f64, with a cosine of the crate's own, and rounded once to f32, so that the rate has the same bits on
//! every processor.

use crate::compact::soft_f64::{SoftF64, cos_of_half_turn, quotient};
use crate::error::Error;

/// The decay of the learning rate after the warm-up. `last` is the rate from [`Schedule::steps`] on: at least 0 and
/// at most the peak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// No decay: the peak for ever.
    Constant,
    /// A straight line from the end of the warm-up to the last step.
    Linear {
        /// The final rate.
        last: f32,
    },
    /// Half a cosine from the end of the warm-up to the last step (Loshchilov & Hutter 2017, without restarts;
    /// nanoGPT's `get_lr`).
    Cosine {
        /// The final rate.
        last: f32,
    },
    /// The peak, then a straight line (Hu et al. 2024, MiniCPM, with a linear end).
    WarmupStableDecay {
        /// The number of steps of the decay, up to the last step; at most `steps - warmup`.
        decay_steps: u64,
        /// The final rate.
        last: f32,
    },
}

/// A learning-rate schedule: a linear warm-up to the peak, then a decay.
///
/// ```
/// use jostle::{Decay, Schedule};
/// let schedule = Schedule { peak: 1e-3, warmup: 100, steps: 5000, decay: Decay::Cosine { last: 1e-4 } };
/// assert!(schedule.validate().is_ok());
/// assert_eq!(schedule.rate(100), 1e-3);
/// assert_eq!(schedule.rate(5000), 1e-4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The greatest rate, reached at step `warmup`; finite, at least 0.
    pub peak: f32,
    /// The number of steps before the peak; at most `steps`, except with [`Decay::Constant`].
    pub warmup: u64,
    /// The step, counted from 0, at which the decay has reached its final rate (nanoGPT's `lr_decay_iters`). It is at
    /// least 1. [`Decay::Constant`] ignores it.
    pub steps: u64,
    /// The course after the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// The same rate at every step.
    pub const fn constant(rate: f32) -> Schedule {
        Schedule { peak: rate, warmup: 0, steps: 0, decay: Decay::Constant }
    }

    /// Refuses rates and lengths outside their documented ranges, naming the value:
    /// [`Error::Range`] for a rate, [`Error::Zero`] and [`Error::Steps`] for a length.
    pub const fn validate(&self) -> Result<(), Error> {
        if !(self.peak >= 0.0 && self.peak <= f32::MAX) {
            return Err(Error::Range { what: "peak", given: self.peak, wanted: "finite and at least 0" });
        }
        let (last, decay_steps) = match self.decay {
            Decay::Constant => return Ok(()),
            Decay::Linear { last } | Decay::Cosine { last } => (last, 0),
            Decay::WarmupStableDecay { decay_steps, last } => (last, decay_steps),
        };
        if !(last >= 0.0 && last <= self.peak) {
            return Err(Error::Range {
                what: "last",
                given: last,
                wanted: "at least 0 and at most the peak",
            });
        }
        if self.steps == 0 {
            return Err(Error::Zero { what: "steps" });
        }
        if self.warmup > self.steps {
            return Err(Error::Steps { what: "warmup", given: self.warmup, most: self.steps });
        }
        let most = self.steps.saturating_sub(self.warmup);
        if decay_steps > most {
            return Err(Error::Steps { what: "decay_steps", given: decay_steps, most });
        }
        Ok(())
    }

    /// The rate for the update of `step`, counted from 0.
    ///
    /// As in nanoGPT: `peak * (step + 1) / (warmup + 1)` during warm-up, so that the first update does not have a
    /// rate of 0. After it, with `ratio` running from 0 at step `warmup` to 1 at step `steps`, the cosine is `last +
    /// (1 + cos(pi * ratio)) / 2 * (peak - last)`; from `steps` on the rate is `last`.
    pub fn rate(&self, step: u64) -> f32 {
        let peak = SoftF64::from(self.peak);
        if step < self.warmup {
            let number = |step: u64| SoftF64::from(step.saturating_add(1));
            return quotient(peak * number(step), number(self.warmup)).single();
        }
        let (last, begin) = match self.decay {
            Decay::Constant => return self.peak,
            Decay::Linear { last } | Decay::Cosine { last } => (last, self.warmup),
            Decay::WarmupStableDecay { decay_steps, last } => (last, self.steps.saturating_sub(decay_steps)),
        };
        if step >= self.steps {
            return last;
        }
        if step < begin {
            return self.peak;
        }
        // Here begin <= step < steps: the divisor is at least 1.
        let ratio = quotient((step - begin).into(), (self.steps - begin).into());
        let share = match self.decay {
            Decay::Cosine { .. } => {
                let cosine = cos_of_half_turn(SoftF64::new(core::f64::consts::PI) * ratio);
                SoftF64::new(0.5) * (SoftF64::ONE + cosine)
            }
            _ => SoftF64::ONE - ratio,
        };
        let last = SoftF64::from(last);
        (last + share * (peak - last)).single()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WSD: Decay = Decay::WarmupStableDecay { decay_steps: 20, last: 0.0 };

    fn schedule(decay: Decay) -> Schedule {
        Schedule { peak: 1.0, warmup: 9, steps: 109, decay }
    }

    /// nanoGPT's `get_lr`, line by line.
    fn get_lr(it: f64, learning_rate: f64, min_lr: f64, warmup_iters: f64, lr_decay_iters: f64) -> f64 {
        if it < warmup_iters {
            return learning_rate * (it + 1.0) / (warmup_iters + 1.0);
        }
        if it > lr_decay_iters {
            return min_lr;
        }
        let decay_ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters);
        let coeff = 0.5 * (1.0 + (std::f64::consts::PI * decay_ratio).cos());
        min_lr + coeff * (learning_rate - min_lr)
    }

    #[test]
    fn cosine_is_nanogpts() {
        let (peak, last) = (6e-4_f32, 6e-5_f32);
        let schedule = Schedule { peak, warmup: 2000, steps: 600_000, decay: Decay::Cosine { last } };
        for step in (0..2100).chain((2100..599_900).step_by(997)).chain(599_900..600_100) {
            let expected = get_lr(step as f64, f64::from(peak), f64::from(last), 2000.0, 600_000.0);
            // The host's cosine may differ by an ulp of f64 or two: at most one rounding of f32.
            let error = (f64::from(schedule.rate(step)) - expected).abs() / expected;
            assert!(error < 1.2e-7, "step {step}: {} against {expected}", schedule.rate(step));
        }
    }

    #[test]
    fn rates_computed_by_hand() {
        for decay in [Decay::Constant, Decay::Linear { last: 0.2 }, Decay::Cosine { last: 0.2 }, WSD] {
            assert_eq!(schedule(decay).rate(0), 0.1, "{decay:?}");
            assert_eq!(schedule(decay).rate(4), 0.5, "{decay:?}");
            assert_eq!(schedule(decay).rate(8), 0.9, "{decay:?}");
            assert_eq!(schedule(decay).rate(9), 1.0, "{decay:?}");
        }
        // (decay, step, rate); the cosine of 60 degrees is a half.
        for (decay, step, rate) in [
            (Decay::Constant, 1_000_000, 1.0),
            (Decay::Linear { last: 0.2 }, 34, 0.8),
            (Decay::Linear { last: 0.2 }, 59, 0.6),
            (Decay::Linear { last: 0.2 }, 108, 0.208),
            (Decay::Linear { last: 0.2 }, 109, 0.2),
            (Decay::Cosine { last: 0.2 }, 34, 0.882_842_7),
            (Decay::Cosine { last: 0.2 }, 59, 0.6),
            (Decay::Cosine { last: 0.2 }, 109, 0.2),
            (Decay::Cosine { last: 0.2 }, u64::MAX, 0.2),
            (WSD, 88, 1.0),
            (WSD, 89, 1.0),
            (WSD, 90, 0.95),
            (WSD, 99, 0.5),
            (WSD, 108, 0.05),
            (WSD, 109, 0.0),
        ] {
            assert_eq!(schedule(decay).rate(step), rate, "{decay:?} at {step}");
        }
        assert_eq!(Schedule::constant(0.3).rate(0), 0.3);
        assert_eq!(Schedule::constant(0.3).rate(u64::MAX), 0.3);
    }

    #[test]
    fn rises_to_the_peak_and_never_again() {
        for decay in [Decay::Constant, Decay::Linear { last: 0.1 }, Decay::Cosine { last: 0.1 }, WSD] {
            let schedule = schedule(decay);
            assert_eq!(schedule.validate(), Ok(()));
            for step in 0..9 {
                assert!(schedule.rate(step) < schedule.rate(step + 1), "{decay:?} at {step}");
            }
            for step in 9..200 {
                assert!(schedule.rate(step) >= schedule.rate(step + 1), "{decay:?} at {step}");
            }
        }
    }

    #[test]
    fn warmup_may_fill_the_whole_schedule() {
        for decay in [Decay::Linear { last: 0.5 }, Decay::Cosine { last: 0.5 }] {
            let schedule = Schedule { peak: 1.0, warmup: 3, steps: 3, decay };
            assert_eq!(schedule.validate(), Ok(()));
            assert_eq!([0, 1, 2, 3, 4].map(|step| schedule.rate(step)), [0.25, 0.5, 0.75, 0.5, 0.5]);
        }
    }

    #[test]
    fn a_stable_phase_may_end_without_decay() {
        let schedule = schedule(Decay::WarmupStableDecay { decay_steps: 0, last: 0.5 });
        assert_eq!(schedule.validate(), Ok(()));
        assert_eq!([108, 109].map(|step| schedule.rate(step)), [1.0, 0.5]);
    }

    #[test]
    fn every_wrong_value_is_named() {
        const VALID: Result<(), Error> = Schedule::constant(0.1).validate();
        assert_eq!(VALID, Ok(()));
        for given in [-1.0, f32::INFINITY, f32::NAN] {
            let error = Schedule { peak: given, ..schedule(Decay::Constant) }.validate();
            assert!(matches!(error, Err(Error::Range { what: "peak", .. })), "{given}: {error:?}");
        }
        for last in [-0.1, 1.1, f32::NAN] {
            let decays = [
                Decay::Linear { last },
                Decay::Cosine { last },
                Decay::WarmupStableDecay { decay_steps: 1, last },
            ];
            for decay in decays {
                let error = schedule(decay).validate();
                assert!(matches!(error, Err(Error::Range { what: "last", .. })), "{last}: {error:?}");
            }
        }
        assert_eq!(Schedule { steps: 0, ..schedule(WSD) }.validate(), Err(Error::Zero { what: "steps" }));
        assert_eq!(
            Schedule { steps: 8, ..schedule(Decay::Linear { last: 0.0 }) }.validate(),
            Err(Error::Steps { what: "warmup", given: 9, most: 8 })
        );
        assert_eq!(
            schedule(Decay::WarmupStableDecay { decay_steps: 101, last: 0.0 }).validate(),
            Err(Error::Steps { what: "decay_steps", given: 101, most: 100 })
        );
    }
}
