//! A small vocabulary of vector operations ([`Vector`]), loops over whole slices with it (`slices.rs`), and one file
//! per instruction set. This file chooses the instruction set. Knows nothing of the computations.
//!
//! A vector has sixteen f32 lanes, whatever the width of registers, or one lane on portable targets. Sums always use
//! sixteen partial sums ([`Sum`]), so that their order is the same on every processor. Add, multiply, divide and
//! square root are IEEE and never contracted; only [`Vector::mul_add`] is fused.

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
pub(crate) use portable::{AdamW, Loop, NormedRow, Portable, Reduction, processor, tile};
pub(crate) use slices::{
    Sum, add, add_rows, clear, dot, map, maximum, multiply, scale, sum, sum_of_two, total, tree, update,
    update_all,
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

/// A set of vector instructions that this processor has. All give the same bits and differ only in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionSet(Kind);

impl InstructionSet {
    /// No vector instructions. It is available on every processor, and the reference for the other sets.
    pub const PORTABLE: InstructionSet = InstructionSet(Kind::Portable);

    /// All names that [`InstructionSet::named`] knows on some processor.
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

    /// The set with this name, for tests and measurements; [`Error::InstructionSet`] if it is not available.
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

    /// Whether its [`Vector`]s have sixteen lanes.
    pub(crate) fn has_vectors(self) -> bool {
        self.0 != Kind::Portable
    }

    pub(crate) const fn kind(self) -> Kind {
        self.0
    }
}

/// Detects the processor once, because under a hypervisor that takes many microseconds.
#[cfg(target_arch = "x86_64")]
fn x86_64_detect() -> Kind {
    use core::sync::atomic::{AtomicU8, Ordering};

    /// One more than the number of available sets; 0 before detection. Each set includes the one before it.
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

/// Defines a function for every instruction set: the body is compiled for each set with its vectors as `V`. The
/// function's first argument is the [`InstructionSet`] to use. With `unsafe fn`, the caller's promises hold for the
/// body as well.
///
/// An optional second body, `portable { ... }`, is for processors without vectors. The first may then use
/// [`WideVector`].
///
/// The body is compiled in functions with the instructions enabled, so closures in it have them too. Functions that
/// the body calls must be `#[inline(always)]`, and must not use vector operations in closures of their own. Those
/// closures would be compiled without the instructions, and each operation in them could become a call.
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
            // SAFETY: an `InstructionSet` is only made if the processor has it. The caller of an unsafe function has
            // made its promises.
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
