//! The core on static buffers, for a processor without an operating system: as firmware uses it (`bin/training.rs`,
//! `bin/generation.rs` and `bin/engine.rs`, each with more of it), and all of it (`bin/link-proof.rs`).
//!
//! That these link proves two things: nothing reaches a panic, because the panic handler calls a function
//! that does not exist; and nothing allocates, because there is no allocator.
#![no_std]

pub mod checkpoint;
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

/// Enough for the header, and for all numbers.
const CHECKPOINT: usize = 16_384 + 4 * (PLAN.parameters + PLAN.optimizer);

/// All that the core needs, at lengths known when compiling.
pub struct Memory {
    parameters: [f32; PLAN.parameters],
    gradients: [f32; PLAN.gradients],
    optimizer: [f32; PLAN.optimizer],
    workspace: [f32; PLAN.workspace()],
    pub batch: [i32; PLAN.batch],
    generation: [f32; PLAN.generation],
    window: [i32; CONFIG.context],
    order: [u32; CONFIG.vocab],
    text: [u8; 256],
    pub operations: [[f32; 1024]; 16],
    checkpoint: [u8; CHECKPOINT],
}

static mut MEMORY: Memory = Memory {
    parameters: [0.0; _],
    gradients: [0.0; _],
    optimizer: [0.0; _],
    workspace: [0.0; _],
    batch: [0; _],
    generation: [0.0; _],
    window: [0; _],
    order: [0; _],
    text: [0; _],
    operations: [[0.0; _]; _],
    checkpoint: [0; _],
};

/// A slice of a length that the compiler cannot know, so that no check is left out because it can.
fn unknown<T>(x: &mut [T]) -> &mut [T] {
    let length = black_box(x.len());
    x.get_mut(..length).unwrap_or_default()
}

/// The buffers, for a `main` that is called once.
pub fn memory() -> &'static mut Memory {
    // SAFETY: the only thread, and called once.
    unsafe { &mut *&raw mut MEMORY }
}
