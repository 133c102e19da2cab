//! The processor's floating-point mode, which programs can change from outside.

use core::hint::black_box;

use crate::error::Error;

/// Refuses a mode in which training would end in other bits. Scalars and vectors share the mode on all processors whose
/// vectors are used.
#[inline(never)]
pub(super) fn check() -> Result<(), Error> {
    let [smallest_normal, one] = [f32::MIN_POSITIVE, 1.0].map(black_box);
    let denormal = black_box(f32::from_bits(1 << 22));
    let is = |x: f32, wanted: f32| x.to_bits() == wanted.to_bits();
    if !is(smallest_normal * 0.5, denormal) || !is(denormal + denormal, smallest_normal) {
        return Err(Error::FloatingPoint {
            what: "denormal numbers are flushed",
            wanted: "denormal numbers",
        });
    }
    // A quarter and three quarters of the way to the next number.
    let next = 1.0 + f32::EPSILON;
    if !is(one + 0.25 * f32::EPSILON, 1.0) || !is(one + 0.75 * f32::EPSILON, next) {
        return Err(Error::FloatingPoint { what: "rounding is directed", wanted: "rounding to nearest" });
    }
    Ok(())
}
