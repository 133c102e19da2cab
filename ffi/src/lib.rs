//! The C ABI of jostle: every function and type of `include/jostle.h`, which cbindgen generates from this crate.
//! Checks pointers and numbers and calls the core; holds no arithmetic.
//!
//! * `border`: from pointers to slices: checks of pointers.
//! * [`status`]: statuses and errors.
//! * [`config`]: model, options, recipe, sampling.
//! * [`plan`]: sizes, tensors, initial values.
//! * [`buffers`]: the caller's memory for a model.
//! * [`trainer`]: training steps and evaluation.
//! * [`generator`]: text generation.
//! * [`llama2c`]: the files of llama2.c.
//! * [`model`]: logits, loss and gradients of a pass.
//! * [`checkpoint`]: checkpoints as bytes.
//! * [`slots`]: checkpoints in flash memory.
//! * [`compute`]: instruction sets and threads.
//! * `pool`: the library's own threads; only with the feature `hosted`.
//! * [`ops`]: single operations.
//!
//! The header's introduction, `header.h`, states the conventions.
#![no_std]
#![allow(non_camel_case_types)]
#![allow(rustdoc::broken_intra_doc_links, reason = "[rows, width] is a shape")]

mod border;

// The header has their contents in this order, which is the order of use; blank lines keep rustfmt from sorting them.
pub mod status;

pub mod config;

pub mod plan;

pub mod buffers;

pub mod trainer;

pub mod generator;

pub mod llama2c;

pub mod model;

pub mod checkpoint;

pub mod slots;

pub mod compute;

#[cfg(feature = "hosted")]
pub mod pool;

pub mod ops;

/// The version of the header, to compare with jostle_version().
pub const JOSTLE_VERSION_MAJOR: u32 = 0;
/// The version's second number.
pub const JOSTLE_VERSION_MINOR: u32 = 1;
/// The version's third number.
pub const JOSTLE_VERSION_PATCH: u32 = 0;

const _: () = {
    const fn number(digits: &str) -> u32 {
        match u32::from_str_radix(digits, 10) {
            Ok(number) => number,
            Err(_) => panic!("not a number"),
        }
    }
    assert!(JOSTLE_VERSION_MAJOR == number(env!("CARGO_PKG_VERSION_MAJOR")));
    assert!(JOSTLE_VERSION_MINOR == number(env!("CARGO_PKG_VERSION_MINOR")));
    assert!(JOSTLE_VERSION_PATCH == number(env!("CARGO_PKG_VERSION_PATCH")));
};

/// The version of the library: major * 65536 + minor * 256 + patch.
#[unsafe(no_mangle)]
pub extern "C" fn jostle_version() -> u32 {
    JOSTLE_VERSION_MAJOR << 16 | JOSTLE_VERSION_MINOR << 8 | JOSTLE_VERSION_PATCH
}
