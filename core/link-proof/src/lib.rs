//! The core on static buffers, for a processor without an operating system. Three programs use parts of it as firmware does
//! (`bin/training.rs`, `bin/generation.rs` and `bin/engine.rs`, in ascending order); `bin/link-proof.rs` uses the whole core.
//!
//! Linking them proves two things. No code reaches a panic, because the panic handler calls a function that does not
//! exist. No code allocates, because an allocator is missing.
#![no_std]

pub mod checkpoint;
pub mod llama2c;
pub mod operations;
pub mod training;

use core::hint::black_box;
use core::panic::PanicInfo;

use jostle::{Config, Dropout, Options, Plan};

unsafe extern "C" {
    fn panic_path_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: never linked.
    unsafe { panic_path_is_reachable() }
}

const CONFIG: Config = Config { dropout: Dropout::all(0.1), ..Config::new(27, 16, 2, 4, 16) };
const OPTIONS: Options = Options { recompute: true, ..Options::new(2) };
const PLAN: Plan = match Plan::new(&CONFIG, &OPTIONS) {
    Ok(plan) => plan,
    Err(_) => panic!("not a model"),
};

/// Room for the header and for all numbers.
const CHECKPOINT: usize = 16_384 + 4 * (PLAN.parameters() + PLAN.optimizer());

/// The core's buffers.
pub struct Memory {
    pub parameters: &'static mut [f32],
    pub gradients: &'static mut [f32],
    pub optimizer: &'static mut [f32],
    pub workspace: &'static mut [f32],
    pub batch: &'static mut [i32],
    pub generation: &'static mut [f32],
    pub window: &'static mut [i32],
    pub order: &'static mut [u32],
    pub text: &'static mut [u8],
    /// For sixteen matrices.
    pub operations: &'static mut [f32],
    pub checkpoint: &'static mut [u8],
}

/// A static buffer.
macro_rules! buffer {
    ($type:ty; $length:expr) => {{
        static mut BUFFER: [$type; $length] = [0 as $type; $length];
        // SAFETY: named nowhere else.
        unsafe { &mut *&raw mut BUFFER }
    }};
}

static mut MEMORY: Memory = Memory {
    parameters: buffer![f32; PLAN.parameters()],
    gradients: buffer![f32; PLAN.gradients()],
    optimizer: buffer![f32; PLAN.optimizer()],
    workspace: buffer![f32; PLAN.workspace()],
    batch: buffer![i32; PLAN.batch()],
    generation: buffer![f32; PLAN.generation()],
    window: buffer![i32; CONFIG.context],
    order: buffer![u32; CONFIG.vocab],
    text: buffer![u8; 256],
    operations: buffer![f32; 16 * 1024],
    checkpoint: buffer![u8; CHECKPOINT],
};

/// The buffers, for a `main` that is called once. The compiler does not know their lengths, and so cannot remove checks that
/// firmware would keep.
pub fn memory() -> &'static mut Memory {
    // SAFETY: the only thread, and called once.
    black_box(unsafe { &mut *&raw mut MEMORY })
}
