//! Random initial values of the parameters, by GPT-2's scheme. Knows the tensors' names, nothing of training.

use crate::error::{Error, exact_length};
use crate::layout::{Initial, Plan};
use crate::rng::{self, Stream};
use crate::simd::math::log;
use crate::simd::{self, InstructionSet, processor, vectorized};

/// Fills `parameters` (exactly [`Plan::parameters`] elements): matrices with normal(0, `initial_std`), those that end a
/// residual branch scaled by 1 / sqrt(2 L) (Radford et al. 2019), biases with 0, norms with 1. An adapter's A is uniform
/// between plus and minus 1 / sqrt(in), and its B is 0.
///
/// Each tensor has its own random stream, so that leaving out frozen tensors does not change the others.
pub fn initialize(simd: InstructionSet, plan: &Plan, parameters: &mut [f32], seed: u64) -> Result<(), Error> {
    exact_length("parameters", parameters.len(), plan.parameters)?;
    let usual = plan.config.initial_std;
    let scaled = usual / processor::sqrt(2.0 * plan.config.layers as f32);
    let mut rest = parameters;
    for (number, tensor) in plan.tensors().enumerate().filter(|(_, tensor)| !tensor.frozen) {
        let Some(values) = rest.split_off_mut(..tensor.len()) else { break };
        let deviation = match tensor.initial() {
            Initial::Normal => usual,
            Initial::ScaledNormal => scaled,
            #[cfg(feature = "lora")]
            Initial::Uniform => {
                let bound = 1.0 / processor::sqrt(tensor.shape[1] as f32);
                let mut rng = rng::generator(seed, Stream::Initialization, 0, number as u64);
                values.iter_mut().for_each(|x| *x = (2.0 * rng::uniform(&mut rng) - 1.0) * bound);
                continue;
            }
            Initial::Zeros | Initial::Ones => {
                values.fill(if tensor.initial() == Initial::Ones { 1.0 } else { 0.0 });
                continue;
            }
        };
        normal(simd, values, deviation, rng::generator(seed, Stream::Initialization, 0, number as u64));
    }
    Ok(())
}

vectorized! {
    /// Normal numbers of mean 0, by Marsaglia's polar method on sixteen pairs at a time.
    fn normal<V>(values: &mut [f32], deviation: f32, rng: rng::Random) {
        const PAIRS: usize = simd::LANES;
        let mut rng = rng;
        for values in values.chunks_mut(2 * PAIRS) {
            let (mut normals, mut squares) = ([0.0; 2 * PAIRS], [0.0; PAIRS]);
            let (x, y) = normals.split_at_mut(PAIRS);
            for ((x, y), square) in x.iter_mut().zip(&mut *y).zip(&mut squares) {
                // A point of the unit disc without its centre.
                while !(*square > 0.0 && *square < 1.0) {
                    for coordinate in [&mut *x, &mut *y] {
                        V::stay_rolled();
                        *coordinate = 2.0 * rng::uniform(&mut rng) - 1.0;
                    }
                    *square = *x * *x + *y * *y;
                }
            }
            simd::update_all([x, y], [&squares], |_, [x, y]: [V; 2], [square]| {
                let radius = log(square).mul(V::splat(-2.0)).div(square).sqrt().mul(V::splat(deviation));
                [x.mul(radius), y.mul(radius)]
            });
            for (value, normal) in values.iter_mut().zip(&normals) {
                *value = *normal;
            }
        }
    }
}
