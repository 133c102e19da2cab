//! Shared by the programs of this crate: the board, and the panic handler.
#![no_std]

pub mod board;

use core::fmt::Write;
use core::panic::PanicInfo;

use board::{Console, stop};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "{info}");
    stop(1)
}
