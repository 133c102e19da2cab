//! The library that C programs link, apart from the functions (`jostle-ffi`), so that firmware in Rust can use
//! those with a panic handler of its own.
#![cfg_attr(not(feature = "hosted"), no_std)]

pub use jostle_ffi::*;

/// Never called: nothing in the library panics.
#[cfg(not(feature = "hosted"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
