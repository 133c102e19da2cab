//! Text generation, token by token, on a handle that holds the caller's pointers.

use core::mem::offset_of;

use jostle::{Generator, InstructionSet, Plan};

use crate::border::{self, Buffers, Handle, Kind, Output, open, open_mut};
use crate::buffers::jostle_buffers;
use crate::compute::{Workers, jostle_compute};
use crate::config::jostle_sampling;
use crate::plan::jostle_plan;
use crate::status::{OrRefuse, Refused, call, jostle_error, jostle_status};

/// Generates text. It holds pointers to the caller's buffers and owns nothing, so there is nothing to free.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_generator {
    /// Made by jostle_generator_init.
    pub opaque: [u64; 12],
    /// Likewise.
    pub more: [usize; 80],
}

/// The value in a [`jostle_generator`].
#[derive(Clone, Copy)]
pub struct State {
    plan: Plan,
    simd: InstructionSet,
    parameters: (*const f32, usize),
    frozen: (*const f32, usize),
    memory: (*mut f32, usize),
    window: (*mut i32, usize),
    filled: usize,
}

impl Handle for jostle_generator {
    type Value = State;
    const KIND: &'static Kind = &Kind {
        name: "generator",
        mark: u64::from_le_bytes(*b"jost.gen"),
        opaque: offset_of!(jostle_generator, opaque),
    };
}

impl State {
    /// The generator that this state describes, and its number of tokens, which the caller of this function keeps up to date.
    ///
    /// # Safety
    /// The buffers are as at jostle_generator_init, and nobody else writes them while the generator is used.
    unsafe fn working(&mut self, buffers: &mut Buffers<'_>) -> Result<(Generator<'_>, &mut usize), Refused> {
        let State { plan, simd, parameters, frozen, memory, window, filled } = self;
        // SAFETY: the caller's promise is the same.
        let (parameters, frozen, memory, window) = unsafe {
            (
                buffers.read("parameters", parameters.0, parameters.1, plan.parameters())?,
                buffers.read("frozen", frozen.0, frozen.1, plan.frozen())?,
                buffers.write("memory", memory.0, memory.1, plan.generation())?,
                buffers.write("window", window.0, window.1, plan.config().context)?,
            )
        };
        let mut generator =
            Generator::new(plan, *simd, parameters, frozen, memory, window).or_refuse(buffers.call)?;
        generator.resume(*filled);
        Ok((generator, filled))
    }
}

/// Makes a generator with an empty text. `compute` may be NULL; only its instruction set is used. Of `buffers`, a generator
/// uses `parameters` and `frozen`.
///
/// `memory`, `window`: as many bytes as the plan's generation_size and window_size.
///
/// # Safety
/// `generator` is writable, `plan` and `buffers` are readable, `compute` is NULL or readable, `error` NULL or writable.
/// The parameters and the frozen parameters are readable, `memory` and `window` are writable for the given number of bytes. As long as
/// the generator is used, these four stay where they are, and nobody else writes `memory` or `window`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_generator_init(
    generator: *mut jostle_generator,
    plan: *const jostle_plan,
    compute: *const jostle_compute,
    buffers: *const jostle_buffers,
    memory: *mut f32,
    memory_size: usize,
    window: *mut i32,
    window_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let generator = Output::beside(call, "generator", generator, plan)?;
            let plan = *open(call, plan)?;
            let given = border::structure(call, "buffers", buffers)?;
            let mut state = State {
                plan,
                simd: Workers::new(call, compute)?.simd(),
                parameters: (given.parameters, given.parameters_size),
                frozen: (given.frozen, given.frozen_size),
                memory: (memory, memory_size),
                window: (window, window_size),
                filled: 0,
            };
            state.working(&mut Buffers::new(call))?;
            generator.seal(&state);
            Ok(())
        })
    }
}

/// Appends tokens, at least one, to the text. On success `logits` points to the logits [vocab] of the next token. They lie in
/// the generator's memory, where they may be changed, and stay until the generator is used again.
///
/// Once the text is longer than the context, each token is computed anew from the last `context` tokens.
///
/// # Safety
/// `generator` is writable and its buffers are as they were at its init; `tokens` is readable for `tokens_size`
/// bytes; `logits` is writable; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_generator_feed(
    generator: *mut jostle_generator,
    tokens: *const i32,
    tokens_size: usize,
    logits: *mut *mut f32,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let logits = Output::beside(call, "logits", logits, generator)?;
            let mut buffers = Buffers::new(call);
            let state = open_mut(generator, &mut buffers)?;
            let tokens = buffers.read_all("tokens", tokens, tokens_size)?;
            let (mut generator, filled) = state.working(&mut buffers)?;
            let found = generator.feed(tokens).map(<[f32]>::as_mut_ptr);
            *filled = generator.filled();
            logits.write(found.or_refuse(call)?);
            Ok(())
        })
    }
}

/// Draws the next token from the logits of the last jostle_generator_feed, which it overwrites. It does not feed the token.
/// The token is a function of the logits, the seed and `number`, which counts the tokens drawn.
///
/// # Safety
/// As for jostle_generator_feed; `sampling` is readable, `order` writable for `order_size` bytes (the plan's),
/// `token` writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_generator_draw(
    generator: *mut jostle_generator,
    sampling: *const jostle_sampling,
    order: *mut u32,
    order_size: usize,
    seed: u64,
    number: u64,
    token: *mut i32,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let token = Output::beside(call, "token", token, generator)?;
            let mut buffers = Buffers::new(call);
            let state = open_mut(generator, &mut buffers)?;
            let sampling = border::structure(call, "sampling", sampling)?.core();
            let order = buffers.write("order", order, order_size, state.plan.config().vocab)?;
            let (mut generator, _) = state.working(&mut buffers)?;
            token.write(generator.draw(&sampling, order, seed, number).or_refuse(call)?);
            Ok(())
        })
    }
}

/// Forgets the text.
///
/// # Safety
/// `generator` is writable and its buffers are as they were at its init; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_generator_clear(
    generator: *mut jostle_generator,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let state = open_mut(generator, &mut buffers)?;
            state.working(&mut buffers)?;
            state.filled = 0;
            Ok(())
        })
    }
}
