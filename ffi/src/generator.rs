//! The model in use, token by token, on a handle that holds the caller's pointers.

use jostle::{Error, Generator, InstructionSet, Plan};

use crate::border::{self, Buffers, Handle, Output, open, seal};
use crate::compute::{Workers, jostle_compute};
use crate::config::jostle_sampling;
use crate::plan::jostle_plan;
use crate::status::{Refusal, call, jostle_error, jostle_status};

/// A model in use. Holds pointers to the caller's buffers and owns nothing: there is nothing to free.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_generator {
    /// Made by jostle_generator_init.
    pub opaque: [u64; 56],
}

/// What [`jostle_generator`] holds.
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
    const NAME: &'static str = "generator";
    const MARK: u64 = u64::from_le_bytes(*b"jost.gen");

    fn opaque(&self) -> &[u64] {
        &self.opaque
    }
}

impl State {
    /// Runs `body` on the generator that this state describes, and keeps where it has come to.
    ///
    /// # Safety
    /// The buffers are the caller's, and nobody else writes them meanwhile.
    unsafe fn run<T>(
        &mut self,
        buffers: &mut Buffers,
        body: impl FnOnce(&mut Generator<'_>) -> Result<T, Error>,
    ) -> Result<T, Refusal> {
        let State { plan, simd, parameters, frozen, memory, window, filled } = self;
        // SAFETY: the caller's promise.
        let (parameters, frozen, memory, window) = unsafe {
            (
                buffers.read("parameters", parameters.0, parameters.1, plan.parameters)?,
                buffers.read("frozen", frozen.0, frozen.1, plan.frozen)?,
                buffers.write("memory", memory.0, memory.1, plan.generation)?,
                buffers.write("window", window.0, window.1, plan.config.context)?,
            )
        };
        let mut generator = Generator::new(plan, *simd, parameters, frozen, memory, window)?;
        generator.resume(*filled);
        let result = body(&mut generator);
        *filled = generator.filled();
        Ok(result?)
    }
}

/// Opens a generator, runs `body` on it, and writes its new state back.
///
/// # Safety
/// The pointers are what the functions of this module say.
unsafe fn with_generator<T>(
    generator: *mut jostle_generator,
    mut buffers: Buffers,
    body: impl FnOnce(&mut Generator<'_>) -> Result<T, Error>,
) -> Result<T, Refusal> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut state = open(generator)?;
        let result = state.run(&mut buffers, body);
        let opaque = seal::<jostle_generator, 56>(state);
        Output::new("generator", generator)?.write(jostle_generator { opaque });
        result
    }
}

/// Makes a generator with an empty text. `compute` may be NULL; only its instruction set is used.
///
/// # Safety
/// `generator` is writable, `plan` readable, `compute` NULL or readable, `parameters` and `frozen`
/// (NULL where nothing is) readable, `memory` and
/// `window` writable for so many bytes (the plan's generation_size and window_size), `error` NULL or writable. The
/// buffers stay where they are, and `memory` and `window` untouched, as long as the generator is used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_generator_init(
    generator: *mut jostle_generator,
    plan: *const jostle_plan,
    compute: *const jostle_compute,
    parameters: *const f32,
    parameters_size: usize,
    frozen: *const f32,
    frozen_size: usize,
    memory: *mut f32,
    memory_size: usize,
    window: *mut i32,
    window_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let body = || {
        // SAFETY: the caller's promise.
        unsafe {
            let generator = Output::new("generator", generator)?;
            let mut state = State {
                plan: open(plan)?,
                simd: Workers::new(compute)?.simd(),
                parameters: (parameters, parameters_size),
                frozen: (frozen, frozen_size),
                memory: (memory, memory_size),
                window: (window, window_size),
                filled: 0,
            };
            state.run(&mut Buffers::new(), |_| Ok(()))?;
            generator.write(jostle_generator { opaque: seal::<jostle_generator, 56>(state) });
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Appends tokens, at least one, to the text. On success `logits` points to the logits [vocab] of the token that
/// comes next; they lie in the generator's memory, may be changed, and stay until the generator is used again.
///
/// Text longer than the context goes on with the last `context` tokens, computed anew for each further token.
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
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let logits = Output::new("logits", logits)?;
            open(generator)?;
            if tokens.is_null() {
                return Err(Refusal::Null("tokens"));
            }
            let count = tokens_size.checked_div(size_of::<i32>()).unwrap_or(0);
            let tokens = buffers.read("tokens", tokens, tokens_size, count)?;
            let found = with_generator(generator, buffers, |generator| {
                generator.feed(tokens).map(<[f32]>::as_mut_ptr)
            })?;
            logits.write(found);
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}

/// Draws the next token by the logits of the last jostle_generator_feed, which it overwrites, and doesn't feed it.
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
    let body = || {
        let mut buffers = Buffers::new();
        // SAFETY: the caller's promise.
        unsafe {
            let token = Output::new("token", token)?;
            let vocab = open(generator)?.plan.config.vocab;
            let sampling = border::structure("sampling", sampling)?.to_core();
            let order = buffers.write("order", order, order_size, vocab)?;
            let drawn = with_generator(generator, buffers, |generator| {
                generator.draw(&sampling, order, seed, number)
            })?;
            token.write(drawn);
        }
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
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
    // SAFETY: the caller's promise.
    let body = || unsafe {
        with_generator(generator, Buffers::new(), |generator| {
            generator.clear();
            Ok(())
        })
    };
    // SAFETY: the caller's promise.
    unsafe { call(error, body) }
}
