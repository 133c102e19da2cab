//! The two kinds of processors that the crate is built for.

/// What a build computes with, which decides the length of scratch and never a bit of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// x86-64 and AArch64: vector instructions, and caches that make packing operands pay.
    Vectors,
    /// All others, microcontrollers above all: one element at a time, little memory, f64 in software.
    Portable,
}

impl Target {
    /// The target of this build.
    pub const HERE: Target = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        Target::Vectors
    } else {
        Target::Portable
    };
}
