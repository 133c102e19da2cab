//! The gated linear unit of Llama's MLP (Shazeer 2020): `y = silu(gate) up`, with `silu(x) = x / (1 + e^-x)`.

use crate::error::{Error, exact_length};
use crate::simd::math::{below_zero, exp_bounded};
use crate::simd::{self, InstructionSet, vectorized};

/// Writes `y = silu(gate) up`, element by element. All have the same length.
pub fn forward(simd: InstructionSet, y: &mut [f32], gate: &[f32], up: &[f32]) -> Result<(), Error> {
    exact_length("up", up.len(), gate.len())?;
    exact_length("y", y.len(), gate.len())?;
    activate(simd, y, gate, up);
    Ok(())
}

/// Writes `d_gate = d_y up silu'(gate)` and `d_up = d_y silu(gate)`, element by element. All have the same length.
pub fn backward(
    simd: InstructionSet,
    d_gate: &mut [f32],
    d_up: &mut [f32],
    d_y: &[f32],
    gate: &[f32],
    up: &[f32],
) -> Result<(), Error> {
    exact_length("up", up.len(), gate.len())?;
    exact_length("d_y", d_y.len(), gate.len())?;
    exact_length("d_gate", d_gate.len(), gate.len())?;
    exact_length("d_up", d_up.len(), gate.len())?;
    gradients(simd, d_gate, d_up, d_y, gate, up);
    Ok(())
}

/// silu and its derivative.
#[inline(always)]
fn silu<V: simd::Vector>(x: V) -> (V, V) {
    let one = V::splat(1.0);
    let negative = x.lt(V::zero());
    // -|x|, but not below the point where the exponential is zero.
    let below = below_zero(x, -88.0);
    let e = exp_bounded(below);
    // The sigmoid of |x|, and of -|x|.
    let upper = one.div(e.add(one));
    let lower = e.mul(upper);
    let slope = lower.mul(below.mul_add(upper, one));
    let y = V::select(negative, below.mul(lower), x.mul(upper));
    (y, V::select(negative, slope, one.sub(slope)))
}

vectorized! {
    pub(crate) fn activate<V>(y: &mut [f32], gate: &[f32], up: &[f32]) {
        simd::map(y, [gate, up], |_, [gate, up]: [V; 2]| silu(gate).0.mul(up));
    }
}

vectorized! {
    pub(crate) fn gradients<V>(d_gate: &mut [f32], d_up: &mut [f32], d_y: &[f32], gate: &[f32], up: &[f32]) {
        simd::update_all([d_gate, d_up], [d_y, gate, up], |_, _: [V; 2], [d_y, gate, up]| {
            let (y, slope) = silu(gate);
            [d_y.mul(up.mul(slope)), d_y.mul(y)]
        });
    }
}

vectorized! {
    /// Both at once, in exchanged buffers: `gate` and `up` become their gradients, and `d_y` becomes the output.
    pub(crate) fn exchange<V>(gate: &mut [f32], up: &mut [f32], d_y: &mut [f32]) {
        simd::update_all([gate, up, d_y], [], |_, [gate, up, d_y]: [V; 3], []| {
            let (y, slope) = silu(gate);
            [d_y.mul(up.mul(slope)), d_y.mul(y), y.mul(up)]
        });
    }
}
