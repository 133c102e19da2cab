//! One small vocabulary of vector operations ([`Vector`]), what is done with it to whole slices (`slices.rs`), one file per
//! instruction set, and, here, the one place that chooses between them. Knows nothing of what is computed.
//!
//! A vector is sixteen f32 lanes, whatever the registers' width, or one lane where there are no vectors. Sums always
//! go through sixteen partial sums ([`Sum`]), so that they have the same order on every processor. Add, multiply,
//! divide and square root are IEEE and never contracted; only [`Vector::mul_add`] is fused.

use crate::error::Error;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod columns;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod slices;
#[cfg(test)]
mod tests;
mod vector;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use columns::add_columns;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::{AdamW, Loop, Portable, Reduction, Row, processor, tile};
pub(crate) use slices::{
    Sum, add, add_rows, clear, dot, map, maximum, multiply, sum, sum_of_two, total, tree, update, update_all,
};
pub(crate) use vector::{LANES, Lanes, Vector, WideVector};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// A set of vector instructions that this processor has. All give the same bits; they differ in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionSet(Kind);

impl InstructionSet {
    /// No vector instructions: there on every processor, and the reference for the others.
    pub const PORTABLE: InstructionSet = InstructionSet(Kind::Portable);

    /// Every name that [`InstructionSet::named`] knows on some processor.
    pub const NAMES: [&'static str; 4] = ["portable", "neon", "avx2", "avx512"];

    /// The fastest that this processor has.
    pub fn detect() -> InstructionSet {
        #[cfg(target_arch = "x86_64")]
        return InstructionSet(x86_64_detect());
        #[cfg(target_arch = "aarch64")]
        return InstructionSet(Kind::Neon);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return Self::PORTABLE;
    }

    /// The set of that name, for tests and measurements; [`Error::InstructionSet`] where it is absent.
    pub fn named(name: &str) -> Result<InstructionSet, Error> {
        match name {
            "portable" => Ok(Self::PORTABLE),
            #[cfg(target_arch = "x86_64")]
            "avx2" if avx2::is_available() => Ok(InstructionSet(Kind::Avx2)),
            #[cfg(target_arch = "x86_64")]
            "avx512" if avx512::is_available() => Ok(InstructionSet(Kind::Avx512)),
            #[cfg(target_arch = "aarch64")]
            "neon" => Ok(InstructionSet(Kind::Neon)),
            _ => Err(Error::InstructionSet),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    /// Whether it has vectors: [`Vector`]s of sixteen lanes.
    pub(crate) fn has_vectors(self) -> bool {
        self.0 != Kind::Portable
    }

    pub(crate) const fn kind(self) -> Kind {
        self.0
    }
}

/// Asks the processor once: under a hypervisor, asking takes many microseconds.
#[cfg(target_arch = "x86_64")]
fn x86_64_detect() -> Kind {
    use core::sync::atomic::{AtomicU8, Ordering};

    /// One more than the number of sets found, each of which includes the one before; 0 before asking.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    if KNOWN.load(Ordering::Relaxed) == 0 {
        let found = u8::from(avx2::is_available()) + u8::from(avx512::is_available());
        KNOWN.store(1 + found, Ordering::Relaxed);
    }
    match KNOWN.load(Ordering::Relaxed) {
        3 => Kind::Avx512,
        2 => Kind::Avx2,
        _ => Kind::Portable,
    }
}

/// Writes a function once, for every instruction set: the body is compiled for each with its vectors as
/// `V`, and the function takes the [`InstructionSet`] to use as its first argument. With `unsafe fn`, the
/// caller's promises hold for the body as well.
///
/// A second body, `portable { ... }`, is for processors without vectors; the first may then use [`WideVector`].
///
/// The body stands in functions that have the instructions enabled, so that closures in it have them too.
/// What it calls is `#[inline(always)]` and keeps vector operations out of closures of its own: those are
/// compiled without the instructions, and each operation in them can become a call.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis unsafe fn $($rest:tt)*) => {
        $crate::simd::vectorized! { @ [$(#[$meta])* $vis] [unsafe] $($rest)* }
    };
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $crate::simd::vectorized! { @ [$(#[$meta])* $vis] [] $($rest)* }
    };
    (
        @ [$($front:tt)*] [$($unsafe:tt)?]
        $name:ident<$V:ident>($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $crate::simd::vectorized! {
            @ [$($front)*] [$($unsafe)?] $name<$V>($($arg: $type),*) $(-> $ret)? $body
            portable {
                #[allow(dead_code)]
                type $V = $crate::simd::Portable;
                $body
            }
        }
    };
    (
        @ [$($front:tt)*] [$($unsafe:tt)?]
        $name:ident<$V:ident>($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block portable $portable:block
    ) => {
        #[allow(clippy::too_many_arguments)]
        $($front)* $($unsafe)? fn $name(simd: $crate::simd::InstructionSet, $($arg: $type),*) $(-> $ret)? {
            #[allow(unused_imports)]
            use $crate::simd::{Kind, Vector, WideVector};

            #[allow(unused_variables, reason = "a second body may need less")]
            #[inline(always)]
            $($unsafe)? fn portable($($arg: $type),*) $(-> $ret)? $portable

            #[cfg(target_arch = "aarch64")]
            #[inline(always)]
            $($unsafe)? fn neon($($arg: $type),*) $(-> $ret)? {
                #[allow(dead_code)]
                type $V = $crate::simd::Neon;
                $body
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            $($unsafe)? fn avx2($($arg: $type),*) $(-> $ret)? {
                #[allow(dead_code)]
                type $V = $crate::simd::Avx2;
                $body
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
            $($unsafe)? fn avx512($($arg: $type),*) $(-> $ret)? {
                #[allow(dead_code)]
                type $V = $crate::simd::Avx512;
                $body
            }

            #[allow(unsafe_code, unused_unsafe)]
            // SAFETY: an `InstructionSet` is only made where the processor has it; what an unsafe function
            // asks for, its caller has promised.
            unsafe {
                match simd.kind() {
                    Kind::Portable => portable($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Kind::Neon => neon($($arg),*),
                }
            }
        }
    };
}
pub(crate) use vectorized;
