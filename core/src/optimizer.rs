//! Turns gradients into new parameters: AdamW, SGD with momentum, and the global norm for clipping. Knows only the
//! rank of a tensor.

use core::ops::Range;

use crate::compact::soft_f64::{self, SoftF64};
use crate::error::{Error, exact_length};
use crate::fault::Watch;
use crate::layout::{OptimizerState, Plan, Tensor};
use crate::parallel::{Compute, ELEMENTWISE, Units, share};
use crate::simd::{self, AdamW, InstructionSet, Loop, Reduction, vectorized};

/// The rule by which gradients change parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019), as PyTorch's `AdamW`; decays matrices only.
    AdamW {
        /// The decay of the first moment, in `[0, 1)`.
        beta1: f32,
        /// The decay of the second moment, in `[0, 1)`.
        beta2: f32,
        /// Added to the root of the second moment.
        epsilon: f32,
        /// Each step shrinks matrices by this share, times the learning rate.
        weight_decay: f32,
    },
    /// Stochastic gradient descent, as PyTorch's `SGD`.
    Sgd {
        /// The decay of the velocity, in `[0, 1)`; 0 for no momentum.
        momentum: f32,
    },
}

impl Optimizer {
    /// nanoGPT's choice for small models: betas 0.9 and 0.99, epsilon 1e-8, weight decay 0.1.
    pub const ADAMW: Optimizer =
        Optimizer::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1 };

    /// The state that it keeps between steps, which [`crate::Options::optimizer`] must be.
    pub fn state(&self) -> OptimizerState {
        match self {
            Optimizer::AdamW { .. } => OptimizerState::AdamW,
            Optimizer::Sgd { momentum } if *momentum == 0.0 => OptimizerState::None,
            Optimizer::Sgd { .. } => OptimizerState::Momentum,
        }
    }

    /// Refuses numbers out of range, naming them.
    pub fn validate(&self) -> Result<(), Error> {
        let below_one = |what, given: f32| {
            if (0.0..1.0).contains(&given) {
                Ok(())
            } else {
                Err(Error::Range { what, given, wanted: "at least 0 and less than 1" })
            }
        };
        match *self {
            Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => {
                below_one("beta1", beta1)?;
                below_one("beta2", beta2)?;
                if !(epsilon > 0.0 && epsilon <= f32::MAX) {
                    return Err(Error::Range { what: "epsilon", given: epsilon, wanted: "more than 0" });
                }
                if !(0.0..=f32::MAX).contains(&weight_decay) {
                    let (what, wanted) = ("weight_decay", "at least 0");
                    return Err(Error::Range { what, given: weight_decay, wanted });
                }
                Ok(())
            }
            Optimizer::Sgd { momentum } => below_one("momentum", momentum),
        }
    }

    /// Changes `parameters` along the gradients times `factor` (the factor of clipping, or 1), at `step` counted from
    /// 0.
    ///
    /// `state`: exactly [`Plan::optimizer`] elements, zero before the first step.
    #[allow(clippy::too_many_arguments)]
    pub fn update(
        &self,
        compute: Compute<'_>,
        plan: &Plan,
        parameters: &mut [f32],
        gradients: &[f32],
        state: &mut [f32],
        step: u64,
        learning_rate: f32,
        factor: f32,
    ) -> Result<(), Error> {
        self.validate()?;
        if self.state() != plan.options.optimizer {
            return Err(Error::Plan { what: "this optimizer's state" });
        }
        exact_length("parameters", parameters.len(), plan.parameters)?;
        exact_length("gradients", gradients.len(), plan.gradients)?;
        exact_length("optimizer state", state.len(), plan.optimizer)?;
        let rules = self.rules(step, learning_rate, factor);
        let watch = Watch::begin();
        rules.update(compute, plan, None, parameters, gradients, state, 0..plan.parameters);
        watch.end()
    }

    /// The rules for all parameters at one step.
    #[inline(never)]
    pub(crate) fn rules(&self, step: u64, learning_rate: f32, factor: f32) -> Rules {
        let flush = step.is_multiple_of(FLUSH_EVERY);
        let (plain, decaying) = match *self {
            Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => {
                let rule = adamw_numbers(beta1, beta2, epsilon, step, learning_rate, factor);
                let keep = SoftF64::ONE - SoftF64::from(learning_rate) * SoftF64::from(weight_decay);
                let keep = keep.single();
                (Rule::AdamW(rule), Rule::AdamW(AdamW { keep, ..rule }))
            }
            Optimizer::Sgd { momentum } => {
                let rule = match momentum {
                    0.0 => Rule::Sgd { rate: learning_rate * factor },
                    _ => Rule::Momentum { momentum, rate: learning_rate, factor },
                };
                (rule, rule)
            }
        };
        Rules { plain, decaying, flush }
    }

    /// [`Optimizer::update`] of one tensor of any model. `decays`: whether weight decay applies, as it does to
    /// matrices.
    ///
    /// `state`: [`OptimizerState::per_parameter`] times as long as `x`, first moments before second ones.
    #[allow(clippy::too_many_arguments)]
    pub fn update_tensor(
        &self,
        compute: Compute<'_>,
        x: &mut [f32],
        gradient: &[f32],
        state: &mut [f32],
        decays: bool,
        step: u64,
        learning_rate: f32,
        factor: f32,
    ) -> Result<(), Error> {
        self.validate()?;
        exact_length("gradient", gradient.len(), x.len())?;
        let wanted = x.len().saturating_mul(self.state().per_parameter());
        exact_length("optimizer state", state.len(), wanted)?;
        let (first, second) = state.split_at_mut_checked(x.len()).unwrap_or_default();
        let rules = self.rules(step, learning_rate, factor);
        split(compute, [x, first, second], |range, mut buffers| {
            rules.flush(&mut buffers);
            rules.apply(compute.simd, decays, buffers, gradient.get(range).unwrap_or_default());
        });
        Ok(())
    }
}

/// The rules of an optimiser at one step.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// For vectors.
    plain: Rule,
    /// For matrices.
    decaying: Rule,
    /// Whether denormal numbers become zeros.
    flush: bool,
}

/// One step in so many makes zeros of denormal numbers. Moments without gradients decay into them, and would stay
/// there; many processors take a hundred times as long to compute with them.
const FLUSH_EVERY: u64 = 64;

impl Rules {
    /// [`Optimizer::update`] of the parameters `part`, given their gradients, with the lengths checked. If `tensor`
    /// is given, the part belongs to it, so that many small parts need not search for their tensor.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn update(
        &self,
        compute: Compute<'_>,
        plan: &Plan,
        tensor: Option<&Tensor>,
        parameters: &mut [f32],
        gradients: &[f32],
        state: &mut [f32],
        part: Range<usize>,
    ) {
        let half = if let Rule::AdamW(_) = self.plain { plan.parameters } else { state.len() };
        let (first, second) = state.split_at_mut_checked(half).unwrap_or_default();
        let buffers = [parameters, first, second].map(|x| x.get_mut(part.clone()).unwrap_or_default());
        split(compute, buffers, |range, mut buffers| {
            self.flush(&mut buffers);
            let [mut x, mut first, mut second] = buffers;
            let mut gradients = gradients.get(range.clone()).unwrap_or_default();
            let (start, end) = (part.start + range.start, part.start + range.end);
            let (mut given, mut tensors) = (tensor.copied(), plan.tensors().filter(|tensor| !tensor.frozen));
            while !x.is_empty()
                && let Some(tensor) = given.take().or_else(|| tensors.next())
            {
                let here = tensor.offset.max(start)..tensor.offset.saturating_add(tensor.len()).min(end);
                let (Some(x), Some(g)) = (x.split_off_mut(..here.len()), gradients.split_off(..here.len()))
                else {
                    return;
                };
                let first = first.split_off_mut(..here.len()).unwrap_or_default();
                let second = second.split_off_mut(..here.len()).unwrap_or_default();
                self.apply(compute.simd, tensor.rank == 2, [x, first, second], g);
            }
        });
    }

    /// Makes zeros of denormal numbers, at some steps. One element at a time, because it is seldom called.
    #[inline(never)]
    fn flush(&self, buffers: &mut [&mut [f32]; 3]) {
        if self.flush {
            for buffer in buffers {
                for x in buffer.iter_mut().filter(|x| x.is_subnormal()) {
                    *x = 0.0;
                }
            }
        }
    }

    /// Updates a tensor's parameters and state. `decays`: whether weight decay applies.
    fn apply(&self, simd: InstructionSet, decays: bool, changed: [&mut [f32]; 3], gradient: &[f32]) {
        let [x, first, second] = changed;
        match if decays { self.decaying } else { self.plain } {
            Rule::AdamW(rule) => adamw(simd, x, first, second, gradient, rule),
            Rule::Sgd { rate } => sgd(simd, x, gradient, rate),
            Rule::Momentum { momentum, rate, factor } => {
                sgd_momentum(simd, x, first, gradient, momentum, rate, factor);
            }
        }
    }
}

/// Shares the parameters and their optimiser state (of the same length, or empty) among the workers.
fn split(
    compute: Compute<'_>,
    [x, first, second]: [&mut [f32]; 3],
    task: impl Fn(Range<usize>, [&mut [f32]; 3]) + Sync,
) {
    let n = x.len();
    let kept = |state: &[f32]| usize::from(!state.is_empty());
    let (first_per, second_per) = (kept(first), kept(second));
    let buffers = [Units::new(x, n, 1), Units::new(first, n, first_per), Units::new(second, n, second_per)];
    let work = n.saturating_mul(ELEMENTWISE);
    compute.split(work, &buffers, (&mut [], 0), |share, buffers, _| task(share.of(n), buffers));
}

/// The rule for each element of a tensor at one step.
#[derive(Clone, Copy)]
enum Rule {
    AdamW(AdamW),
    Sgd { rate: f32 },
    Momentum { momentum: f32, rate: f32, factor: f32 },
}

/// AdamW's numbers at one step, for tensors that do not decay.
fn adamw_numbers(beta1: f32, beta2: f32, epsilon: f32, step: u64, learning_rate: f32, factor: f32) -> AdamW {
    let correction = |beta: f32| SoftF64::ONE - soft_f64::power(beta.into(), step.saturating_add(1));
    AdamW {
        keep: 1.0,
        factor,
        beta1,
        fresh1: 1.0 - beta1,
        beta2,
        fresh2: 1.0 - beta2,
        step_size: soft_f64::quotient(learning_rate.into(), correction(beta1)).single(),
        second_scale: soft_f64::quotient(SoftF64::ONE, soft_f64::sqrt(correction(beta2))).single(),
        epsilon,
    }
}

vectorized! {
    fn adamw<V>(x: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], rule: AdamW) {
        let changed = [&mut *x, &mut *first, &mut *second];
        if V::run(Loop::AdamW { changed, gradient, numbers: &rule }) {
            return;
        }
        let (keep, factor) = (V::splat(rule.keep), V::splat(rule.factor));
        let (beta1, fresh1) = (V::splat(rule.beta1), V::splat(rule.fresh1));
        let (beta2, fresh2) = (V::splat(rule.beta2), V::splat(rule.fresh2));
        let (step_size, epsilon) = (V::splat(rule.step_size), V::splat(rule.epsilon));
        let scale = V::splat(rule.second_scale);
        simd::update_all([x, first, second], [gradient], |_, [x, m, v]: [V; 3], [g]| {
            let g = g.mul(factor);
            let m = m.mul(beta1).add(g.mul(fresh1));
            let v = v.mul(beta2).add(g.mul(g).mul(fresh2));
            let change = m.div(v.sqrt().mul(scale).add(epsilon)).mul(step_size);
            [x.mul(keep).sub(change), m, v]
        });
    }
}

vectorized! {
    fn sgd<V>(x: &mut [f32], gradient: &[f32], rate: f32) {
        if !V::run(Loop::SubtractScaled { x: &mut *x, y: gradient, factor: rate }) {
            simd::update(x, [gradient], |_, x, [g]: [V; 1]| x.sub(g.mul(V::splat(rate))));
        }
    }
}

vectorized! {
    fn sgd_momentum<V>(
        x: &mut [f32], velocity: &mut [f32], gradient: &[f32], momentum: f32, rate: f32, factor: f32,
    ) {
        simd::update(velocity, [gradient], |_, velocity, [g]: [V; 1]| {
            velocity.mul(V::splat(momentum)).add(g.mul(V::splat(factor)))
        });
        simd::update(x, [velocity], |_, x, [velocity]: [V; 1]| x.sub(velocity.mul(V::splat(rate))));
    }
}

/// The factor that scales a gradient of this norm down to at most `clip` (PyTorch's `clip_grad_norm_`).
pub fn clip_factor(norm: f32, clip: f32) -> f32 {
    let factor = clip / (norm + 1e-6);
    if factor < 1.0 { factor } else { 1.0 }
}

/// The global norm of the gradients.
///
/// Squares are summed in at most 64 fixed parts, and in chunks of 4096 within a part. This order does not depend on
/// the number of threads, and is accurate for any number of parameters.
pub fn gradient_norm(compute: Compute<'_>, gradients: &[f32]) -> f32 {
    let mut sums = [0.0; PARTS];
    let parts = parts(gradients.len());
    let work = gradients.len().saturating_mul(ELEMENTWISE);
    compute.split(work, &[Units::new(&mut sums, parts, 1)], (&mut [], 0), |share, [sums], _| {
        for (part, sum) in share.of(parts).zip(sums) {
            *sum = squares_of_part(compute, gradients, part);
        }
    });
    soft_f64::sqrt(SoftF64::sum_of(sums.iter().take(parts).copied())).single()
}

const PARTS: usize = 64;
const CHUNK: usize = 4096;

/// The number of parts for this many gradients or parameters.
pub(crate) fn parts(len: usize) -> usize {
    len.div_ceil(CHUNK).min(PARTS)
}

/// One of the [`parts`]: whole chunks, except for the last part.
pub(crate) fn part_of(len: usize, part: usize) -> Range<usize> {
    let chunks = share(len.div_ceil(CHUNK), parts(len), part);
    chunks.start * CHUNK..(chunks.end * CHUNK).min(len)
}

/// The sum of squares of one part.
pub(crate) fn squares_of_part(compute: Compute<'_>, gradients: &[f32], part: usize) -> f32 {
    let part = gradients.get(part_of(gradients.len(), part)).unwrap_or_default();
    squares_of_rows(compute.simd, part, CHUNK).single()
}

/// The sum of squares of rows of `width` elements, row by row.
pub(crate) fn squares_of_rows(simd: InstructionSet, x: &[f32], width: usize) -> SoftF64 {
    SoftF64::sum_of(x.chunks(width.max(1)).map(|row| sum_of_squares(simd, row)))
}

vectorized! {
    fn sum_of_squares<V>(x: &[f32]) -> f32 {
        V::reduce(Reduction::Squares { x }).unwrap_or_else(|| simd::dot::<V>(x, x))
    }
}
