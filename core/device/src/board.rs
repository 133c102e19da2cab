//! An emulated board: start-up, printing, stopping, and counting instructions (`-icount shift=0`).

use core::arch::{asm, global_asm};
use core::fmt;

#[cfg(target_arch = "arm")]
global_asm!(
    ".section .vectors,\"a\",%progbits",
    ".word stack",
    ".word start",
    ".text",
    ".thumb_func",
    ".type start,%function",
    "start:",
    // A floating-point unit is off after reset. Without one, this changes nothing.
    "ldr r0, =0xe000ed88",
    "ldr r1, =0xf00000",
    "str r1, [r0]",
    "dsb sy",
    "isb sy",
    "bl main",
    "b .",
);

#[cfg(target_arch = "riscv32")]
global_asm!(
    ".section .vectors,\"ax\",@progbits",
    "lui sp, 0x80400",
    "lui t0, 0x2",
    "csrs mstatus, t0",
    "call main",
    "1: j 1b",
    ".text",
);

/// Asks the emulator for something (semihosting).
fn ask(operation: usize, argument: *const usize) {
    // SAFETY: the argument points to memory as the operation requires.
    #[cfg(target_arch = "arm")]
    unsafe {
        asm!("bkpt 0xab", inout("r0") operation => _, in("r1") argument);
    }
    // SAFETY: as above; the three instructions together are the request.
    #[cfg(target_arch = "riscv32")]
    unsafe {
        asm!(
            ".option push", ".option norvc", ".p2align 4",
            "slli x0, x0, 0x1f", "ebreak", "srai x0, x0, 7",
            ".option pop",
            inout("a0") operation => _, in("a1") argument
        );
    }
}

pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            ask(3, (&raw const byte).cast());
        }
        Ok(())
    }
}

pub fn stop(code: usize) -> ! {
    ask(0x20, [0x20026, code].as_ptr());
    loop {}
}

/// Instructions since an arbitrary moment. On Arm the emulator counts time, one nanosecond for each instruction, in ticks
/// of some tens of nanoseconds.
#[cfg(target_arch = "arm")]
pub fn instructions() -> u32 {
    unsafe extern "C" {
        /// Its address is the number of nanoseconds in a tick.
        static tick: u8;
    }
    const SYSTICK: *mut u32 = 0xe000_e010 as *mut u32;
    // SAFETY: the timer's registers: control, reload, and value, which counts down from 2^24 - 1.
    unsafe {
        if SYSTICK.read_volatile() & 1 == 0 {
            SYSTICK.add(1).write_volatile(0xff_ffff);
            SYSTICK.add(2).write_volatile(0);
            SYSTICK.write_volatile(5);
            // The first period begins a tick later.
            while SYSTICK.add(2).read_volatile() == 0 {}
        }
        (&raw const tick as u32).wrapping_mul(0xff_ffff - SYSTICK.add(2).read_volatile())
    }
}

/// Instructions since an arbitrary moment.
#[cfg(target_arch = "riscv32")]
pub fn instructions() -> u32 {
    let count;
    // SAFETY: reads a counter.
    unsafe { asm!("csrr {}, minstret", out(reg) count) };
    count
}
