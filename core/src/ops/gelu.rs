//! The Gaussian error linear unit (Hendrycks & Gimpel 2016), exact and in GPT-2's tanh form.

use crate::config::Activation;
use crate::error::{Error, exact_length};
use crate::simd::math::{below_zero, exp_bounded, normal_tail};
use crate::simd::{self, InstructionSet, Loop, vectorized};

/// Twice sqrt(2 / pi).
const TANH_SCALE: f32 = 2.0 * 0.797_884_6;
const TANH_CUBIC: f32 = 0.044_715 * TANH_SCALE;
/// At this argument the exponential's argument is -88, the least that [`exp_bounded`] accepts.
const TANH_LEAST: f32 = -10.030;

/// Writes `y = gelu(x)`, element by element. Both have the same length.
pub fn forward(simd: InstructionSet, y: &mut [f32], x: &[f32], activation: Activation) -> Result<(), Error> {
    exact_length("y", y.len(), x.len())?;
    check(activation)?;
    activate(simd, y, x, activation);
    Ok(())
}

/// Writes `d_x = d_y gelu'(x)`, element by element. All have the same length.
pub fn backward(
    simd: InstructionSet,
    d_x: &mut [f32],
    d_y: &[f32],
    x: &[f32],
    activation: Activation,
) -> Result<(), Error> {
    exact_length("d_y", d_y.len(), x.len())?;
    exact_length("d_x", d_x.len(), x.len())?;
    check(activation)?;
    slope(simd, d_x, d_y, x, activation);
    Ok(())
}

/// Refuses the gated activation, which has two inputs: see [`super::swiglu`].
fn check(activation: Activation) -> Result<(), Error> {
    match activation {
        Activation::SwiGlu => Err(Error::Unsupported { what: "swiglu as a form of GELU" }),
        _ => Ok(()),
    }
}

/// gelu and its derivative, from the factor of -|x|, and the derivative at -|x|.
#[inline(always)]
fn on_both_sides<V: simd::Vector>(x: V, below: V, tail: V, slope: V) -> (V, V) {
    let y = below.mul_add(tail, x.max(V::zero()));
    (y, V::select(x.lt(V::zero()), slope, V::splat(1.0).sub(slope)))
}

/// The exact form and its derivative.
#[inline(always)]
fn exact<V: simd::Vector>(x: V) -> (V, V) {
    let (below, tail, slope) = normal_tail(x);
    on_both_sides(x, below, tail, slope)
}

/// The tanh form and its derivative.
///
/// (1 + tanh u) / 2 = 1 / (1 + e^(-2u)), and its derivative by 2u is the product of it and its complement.
#[inline(always)]
fn tanh_form<V: simd::Vector>(x: V) -> (V, V) {
    let one = V::splat(1.0);
    // -|x|, but not below the point where the exponential is zero.
    let below = below_zero(x, TANH_LEAST);
    let square = below.mul(below);
    let e = exp_bounded(below.mul(square.mul_add(V::splat(TANH_CUBIC), V::splat(TANH_SCALE))));
    let upper = one.div(e.add(one));
    let lower = e.mul(upper);
    // below * d(2u) / d(below)
    let inner = below.mul(square.mul_add(V::splat(3.0 * TANH_CUBIC), V::splat(TANH_SCALE)));
    on_both_sides(x, below, lower, lower.mul(upper.mul_add(inner, one)))
}

vectorized! {
    pub(crate) fn activate<V>(y: &mut [f32], x: &[f32], activation: Activation) {
        match activation {
            Activation::Gelu if V::run(Loop::Gelu { y: &mut *y, x }) => {}
            Activation::Gelu => simd::map(y, [x], |_, [x]: [V; 1]| exact(x).0),
            _ => simd::map(y, [x], |_, [x]: [V; 1]| tanh_form(x).0),
        }
    }
}

vectorized! {
    fn slope<V>(d_x: &mut [f32], d_y: &[f32], x: &[f32], activation: Activation) {
        match activation {
            Activation::Gelu => simd::map(d_x, [d_y, x], |_, [d_y, x]: [V; 2]| d_y.mul(exact(x).1)),
            _ => simd::map(d_x, [d_y, x], |_, [d_y, x]: [V; 2]| d_y.mul(tanh_form(x).1)),
        }
    }
}

vectorized! {
    /// Both at once, in exchanged buffers: `x` becomes the gradient of the input, and `d_y` becomes the output
    /// `gelu(x)`, which the weight gradient of the next product needs.
    pub(crate) fn exchange<V>(x: &mut [f32], d_y: &mut [f32], activation: Activation) {
        match activation {
            Activation::Gelu if V::run(Loop::GeluExchange { x: &mut *x, d_y: &mut *d_y }) => {}
            Activation::Gelu => simd::update_all([x, d_y], [], |_, [x, d_y]: [V; 2], []| {
                let (y, slope) = exact(x);
                [d_y.mul(slope), y]
            }),
            _ => simd::update_all([x, d_y], [], |_, [x, d_y]: [V; 2], []| {
                let (y, slope) = tanh_form(x);
                [d_y.mul(slope), y]
            }),
        }
    }
}
