//! What a call returns: a status, and on request the numbers behind it. Knows the core's errors, nothing of
//! what calls do.

use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};

use jostle::{CheckpointError, Error};

use crate::border;

/// How a call ended. A number never changes its meaning and is never used again.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum jostle_status {
    /// The call did what it is for.
    JOSTLE_OK = 0,
    /// A pointer that must not be NULL is.
    JOSTLE_NULL_POINTER = 1,
    /// A pointer is not aligned for what it points to.
    JOSTLE_MISALIGNED = 2,
    /// A buffer has fewer bytes than the call needs.
    JOSTLE_BUFFER_TOO_SHORT = 3,
    /// A buffer to be written shares bytes with another buffer of the call.
    JOSTLE_OVERLAP = 4,
    /// A struct's `struct_size` is smaller than this library knows the struct to be.
    JOSTLE_STRUCT_TOO_SMALL = 5,
    /// A struct's `struct_size` is that of a later version, whose fields this library doesn't know.
    JOSTLE_STRUCT_TOO_LARGE = 6,
    /// A plan, trainer or generator was not made by its init function, or that function failed.
    JOSTLE_NOT_INITIALIZED = 7,
    /// An integer that stands for a choice is none of the choices.
    JOSTLE_UNKNOWN_CHOICE = 8,
    /// A size or number that must be at least 1 is 0.
    JOSTLE_ZERO = 9,
    /// A size, or a product of sizes, exceeds what this machine can address.
    JOSTLE_TOO_LARGE = 10,
    /// The width is not divisible by the number of heads.
    JOSTLE_HEADS = 11,
    /// A number is outside its range.
    JOSTLE_OUT_OF_RANGE = 12,
    /// Sizes that must agree do not.
    JOSTLE_LENGTH = 13,
    /// A token or target is outside the vocabulary.
    JOSTLE_TOKEN = 14,
    /// A sequence is longer than the model's context.
    JOSTLE_CONTEXT = 15,
    /// A text has too few tokens.
    JOSTLE_TOO_FEW_TOKENS = 16,
    /// The loss, the gradient norm or a logit is NaN or infinite; parameters are as they were.
    JOSTLE_NOT_FINITE = 17,
    /// The instruction set is absent from this processor or build.
    JOSTLE_INSTRUCTION_SET = 18,
    /// The plan was made for something else: it did not reserve what the call needs.
    JOSTLE_PLAN = 19,
    /// A part of the learning-rate schedule is longer than the room left for it.
    JOSTLE_STEPS = 20,
    /// There is no tensor or metadata of that name or number, or no checkpoint in flash memory.
    JOSTLE_NOT_FOUND = 21,
    /// A string is not UTF-8.
    JOSTLE_NOT_UTF8 = 22,
    /// The system refuses to start a thread.
    JOSTLE_THREADS = 23,
    /// A budget of memory is too small for any plan.
    JOSTLE_BUDGET = 24,
    /// A step that jostle_trainer_poll began is not done yet.
    JOSTLE_UNFINISHED = 25,
    /// What needs the gradients of all parameters at once, and the update is fused into the backward pass.
    JOSTLE_FUSED = 26,
    /// A gradient is not finite in a step whose update is fused into the backward pass: parameters and optimiser state
    /// have changed in part. Training can go on from a checkpoint.
    JOSTLE_PARTLY_UPDATED = 27,
    /// A checkpoint ends before its header or its data does.
    JOSTLE_CHECKPOINT_TRUNCATED = 40,
    /// A checkpoint's header is not what safetensors prescribes.
    JOSTLE_CHECKPOINT_HEADER = 41,
    /// A name occurs twice in a checkpoint.
    JOSTLE_CHECKPOINT_DUPLICATE = 42,
    /// A checkpoint's tensors overlap, or leave a gap.
    JOSTLE_CHECKPOINT_OFFSETS = 43,
    /// A tensor that the model has is missing from a checkpoint.
    JOSTLE_CHECKPOINT_MISSING = 44,
    /// A tensor in a checkpoint has another type or shape than the model's.
    JOSTLE_CHECKPOINT_SHAPE = 45,
    /// A checkpoint was altered: its checksum does not match.
    JOSTLE_CHECKPOINT_CHECKSUM = 46,
    /// A metadata entry that a checkpoint needs is missing or malformed.
    JOSTLE_CHECKPOINT_METADATA = 47,
    /// A checkpoint is of another model.
    JOSTLE_CHECKPOINT_CONFIGURATION = 48,
    /// A metadata key is reserved or occurs twice.
    JOSTLE_CHECKPOINT_KEY = 49,
    /// A function of a jostle_flash has returned an error.
    JOSTLE_FLASH = 50,
    /// Flash memory does not hold what was just programmed.
    JOSTLE_FLASH_CONTENTS = 51,
    /// A refusal that this version of the header has no number for.
    JOSTLE_OTHER = 99,
}

use jostle_status::*;

/// Each status and what it says: numbers have gaps, so that a table by number would be twice as large.
const TEXTS: [(jostle_status, &CStr); 41] = [
    (JOSTLE_OK, c"success"),
    (JOSTLE_NULL_POINTER, c"a pointer is NULL"),
    (JOSTLE_MISALIGNED, c"a pointer is not aligned"),
    (JOSTLE_BUFFER_TOO_SHORT, c"a buffer is too short"),
    (JOSTLE_OVERLAP, c"a buffer to be written overlaps another"),
    (JOSTLE_STRUCT_TOO_SMALL, c"a struct_size is too small"),
    (JOSTLE_STRUCT_TOO_LARGE, c"a struct_size is of a later version"),
    (JOSTLE_NOT_INITIALIZED, c"a handle is not initialized"),
    (JOSTLE_UNKNOWN_CHOICE, c"an integer is none of the choices"),
    (JOSTLE_ZERO, c"a size is 0"),
    (JOSTLE_TOO_LARGE, c"a size is too large for this machine"),
    (JOSTLE_HEADS, c"the width is not divisible by the heads"),
    (JOSTLE_OUT_OF_RANGE, c"a number is out of range"),
    (JOSTLE_LENGTH, c"sizes do not agree"),
    (JOSTLE_TOKEN, c"a token is outside the vocabulary"),
    (JOSTLE_CONTEXT, c"a sequence is longer than the context"),
    (JOSTLE_TOO_FEW_TOKENS, c"the text has too few tokens"),
    (JOSTLE_NOT_FINITE, c"a result is not finite; nothing was changed"),
    (JOSTLE_INSTRUCTION_SET, c"the instruction set is absent here"),
    (JOSTLE_PLAN, c"the plan was made for something else"),
    (JOSTLE_STEPS, c"a part of the schedule is too long"),
    (JOSTLE_NOT_FOUND, c"there is nothing of that name or number"),
    (JOSTLE_NOT_UTF8, c"a string is not UTF-8"),
    (JOSTLE_THREADS, c"the system refuses a thread"),
    (JOSTLE_BUDGET, c"the budget of memory is too small"),
    (JOSTLE_UNFINISHED, c"a step in pieces is not done yet"),
    (JOSTLE_FUSED, c"impossible where the update is fused into the backward pass"),
    (JOSTLE_PARTLY_UPDATED, c"a gradient is not finite; parameters have changed in part"),
    (JOSTLE_CHECKPOINT_TRUNCATED, c"the checkpoint is truncated"),
    (JOSTLE_CHECKPOINT_HEADER, c"the checkpoint's header is not safetensors"),
    (JOSTLE_CHECKPOINT_DUPLICATE, c"a name occurs twice in the checkpoint"),
    (JOSTLE_CHECKPOINT_OFFSETS, c"the checkpoint's tensors overlap or leave a gap"),
    (JOSTLE_CHECKPOINT_MISSING, c"a tensor is missing from the checkpoint"),
    (JOSTLE_CHECKPOINT_SHAPE, c"a tensor in the checkpoint has another shape"),
    (JOSTLE_CHECKPOINT_CHECKSUM, c"the checkpoint was altered"),
    (JOSTLE_CHECKPOINT_METADATA, c"the checkpoint's metadata is missing or malformed"),
    (JOSTLE_CHECKPOINT_CONFIGURATION, c"the checkpoint is of another model"),
    (JOSTLE_CHECKPOINT_KEY, c"a metadata key is reserved or occurs twice"),
    (JOSTLE_FLASH, c"flash memory refuses"),
    (JOSTLE_FLASH_CONTENTS, c"flash memory does not hold what was programmed"),
    (JOSTLE_OTHER, c"refused"),
];

const UNKNOWN: &CStr = c"unknown status";

/// The status of a number, and what it says.
fn known(number: i32) -> Option<(jostle_status, &'static CStr)> {
    TEXTS.iter().find(|(status, _)| *status as i32 == number).copied()
}

/// What was given and what was wanted: the numbers behind a status other than JOSTLE_OK. Never grows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct jostle_error {
    /// What the call returned.
    pub status: i32,
    /// JOSTLE_OUT_OF_RANGE, JOSTLE_NOT_FINITE: the number; otherwise 0.
    pub value: f32,
    /// The name of the argument or field that was refused; zero-terminated; may be empty.
    pub what: [c_char; 48],
    /// JOSTLE_OUT_OF_RANGE: the range that was wanted, in words; zero-terminated; otherwise empty.
    pub range: [c_char; 48],
    /// JOSTLE_TOKEN, JOSTLE_CHECKPOINT_KEY: the element's index; checkpoints: the byte or the tensor; JOSTLE_FLASH: the
    /// slot; else 0.
    pub index: i64,
    /// What was given, in bytes for buffers; JOSTLE_FLASH: the function's error; 0 where there is nothing to tell.
    pub given: i64,
    /// What was wanted, in bytes for buffers; 0 where there is nothing to tell.
    pub wanted: i64,
}

/// Why the border or the core refuses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Core(Error),
    Null(&'static str),
    Misaligned(&'static str),
    Short {
        what: &'static str,
        given: usize,
        wanted: usize,
    },
    Overlap(&'static str),
    StructSize {
        what: &'static str,
        given: usize,
        wanted: usize,
    },
    NotInitialized(&'static str),
    Choice {
        what: &'static str,
        given: u32,
    },
    NotFound {
        what: &'static str,
        index: usize,
    },
    NotUtf8(&'static str),
    #[cfg(feature = "hosted")]
    Threads {
        given: usize,
    },
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Core(error)
    }
}

/// The fields of [`jostle_error`], each only where it tells something.
#[derive(Default)]
struct Details {
    what: &'static str,
    range: &'static str,
    value: f32,
    index: usize,
    given: i64,
    wanted: i64,
}

fn integer(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Details {
    fn named(&mut self, what: &'static str, status: jostle_status) -> jostle_status {
        self.what = what;
        status
    }

    #[inline(never)]
    fn sizes(
        &mut self,
        what: &'static str,
        given: usize,
        wanted: usize,
        status: jostle_status,
    ) -> jostle_status {
        (self.given, self.wanted) = (integer(given), integer(wanted));
        self.named(what, status)
    }

    fn at(&mut self, what: &'static str, index: usize, status: jostle_status) -> jostle_status {
        self.index = index;
        self.named(what, status)
    }

    /// Fills in what a refusal tells, and returns its status.
    fn fill(&mut self, refusal: &Refusal) -> jostle_status {
        match *refusal {
            Refusal::Core(Error::Checkpoint(error)) => self.fill_from_checkpoint(error),
            Refusal::Core(error) => self.fill_from_core(error),
            Refusal::Null(what) => self.named(what, JOSTLE_NULL_POINTER),
            Refusal::Misaligned(what) => self.named(what, JOSTLE_MISALIGNED),
            Refusal::Short { what, given, wanted } => {
                self.sizes(what, given, wanted, JOSTLE_BUFFER_TOO_SHORT)
            }
            Refusal::Overlap(what) => self.named(what, JOSTLE_OVERLAP),
            Refusal::StructSize { what, given, wanted } => {
                let small = given < wanted;
                let status = if small { JOSTLE_STRUCT_TOO_SMALL } else { JOSTLE_STRUCT_TOO_LARGE };
                self.sizes(what, given, wanted, status)
            }
            Refusal::NotInitialized(what) => self.named(what, JOSTLE_NOT_INITIALIZED),
            Refusal::Choice { what, given } => {
                self.given = i64::from(given);
                self.named(what, JOSTLE_UNKNOWN_CHOICE)
            }
            Refusal::NotFound { what, index } => self.at(what, index, JOSTLE_NOT_FOUND),
            Refusal::NotUtf8(what) => self.named(what, JOSTLE_NOT_UTF8),
            #[cfg(feature = "hosted")]
            Refusal::Threads { given } => self.sizes("threads", given, 0, JOSTLE_THREADS),
        }
    }

    fn fill_from_core(&mut self, error: Error) -> jostle_status {
        match error {
            Error::Zero { what } => {
                self.wanted = 1;
                self.named(what, JOSTLE_ZERO)
            }
            Error::TooLarge { what } => self.named(what, JOSTLE_TOO_LARGE),
            Error::Heads { width, heads } => self.sizes("heads", heads, width, JOSTLE_HEADS),
            Error::Range { what, given, wanted } => {
                (self.value, self.range) = (given, wanted);
                self.named(what, JOSTLE_OUT_OF_RANGE)
            }
            Error::Length { what, given, wanted } => self.sizes(what, given, wanted, JOSTLE_LENGTH),
            Error::Token { index, token, vocab } => {
                (self.given, self.wanted) = (token, integer(vocab));
                self.at("token", index, JOSTLE_TOKEN)
            }
            Error::Context { length, context } => self.sizes("length", length, context, JOSTLE_CONTEXT),
            Error::Data { given, wanted } => self.sizes("tokens", given, wanted, JOSTLE_TOO_FEW_TOKENS),
            Error::NotFinite { what, value } => {
                self.value = value;
                self.named(what, JOSTLE_NOT_FINITE)
            }
            Error::InstructionSet => self.named("instruction_set", JOSTLE_INSTRUCTION_SET),
            Error::Plan { what } => self.named(what, JOSTLE_PLAN),
            Error::Buffer { what, given, wanted } => self.sizes(what, given, wanted, JOSTLE_BUFFER_TOO_SHORT),
            Error::Unfinished => JOSTLE_UNFINISHED,
            Error::Name { index } => self.at("name", index, JOSTLE_NOT_FOUND),
            Error::Fused { what } => self.named(what, JOSTLE_FUSED),
            Error::PartlyUpdated { tensor } => self.at("tensor", tensor, JOSTLE_PARTLY_UPDATED),
            Error::Budget { given, wanted } => self.sizes("budget", given, wanted, JOSTLE_BUDGET),
            Error::Steps { what, given, most } => {
                let [given, most] = [given, most].map(|steps| i64::try_from(steps).unwrap_or(i64::MAX));
                (self.given, self.wanted) = (given, most);
                self.named(what, JOSTLE_STEPS)
            }
            Error::Flash { operation, slot, code } => {
                self.given = i64::from(code);
                self.at(operation, slot, JOSTLE_FLASH)
            }
            Error::FlashContents { slot } => self.at("slot", slot, JOSTLE_FLASH_CONTENTS),
            _ => JOSTLE_OTHER,
        }
    }

    fn fill_from_checkpoint(&mut self, error: CheckpointError) -> jostle_status {
        const WHAT: &str = "checkpoint";
        match error {
            CheckpointError::Truncated { given, wanted } => {
                self.sizes(WHAT, given, wanted, JOSTLE_CHECKPOINT_TRUNCATED)
            }
            CheckpointError::Header { at } => self.at(WHAT, at, JOSTLE_CHECKPOINT_HEADER),
            CheckpointError::Duplicate { at } => self.at(WHAT, at, JOSTLE_CHECKPOINT_DUPLICATE),
            CheckpointError::Offsets { given, wanted } => {
                self.sizes(WHAT, given, wanted, JOSTLE_CHECKPOINT_OFFSETS)
            }
            CheckpointError::Missing { tensor } => self.at(WHAT, tensor, JOSTLE_CHECKPOINT_MISSING),
            CheckpointError::Shape { tensor } => self.at(WHAT, tensor, JOSTLE_CHECKPOINT_SHAPE),
            CheckpointError::Checksum { stated, computed } => {
                (self.given, self.wanted) = (i64::from(computed), i64::from(stated));
                self.named(WHAT, JOSTLE_CHECKPOINT_CHECKSUM)
            }
            CheckpointError::Metadata { key } => self.named(key, JOSTLE_CHECKPOINT_METADATA),
            CheckpointError::Configuration { key } => self.named(key, JOSTLE_CHECKPOINT_CONFIGURATION),
            CheckpointError::Key { index } => self.at("metadata", index, JOSTLE_CHECKPOINT_KEY),
            CheckpointError::Buffer { given, wanted } => {
                self.sizes(WHAT, given, wanted, JOSTLE_BUFFER_TOO_SHORT)
            }
            _ => self.named(WHAT, JOSTLE_OTHER),
        }
    }
}

/// What the core calls an argument or field, and what the header does, where that is something else.
const IN_C: [(&str, &str); 9] = [
    ("dropout.embedding", "embedding_dropout"),
    ("dropout.attention", "attention_dropout"),
    ("dropout.attention_projection", "attention_projection_dropout"),
    ("dropout.mlp_projection", "mlp_projection_dropout"),
    ("dropout rate", "rate"),
    ("peak", "learning_rate"),
    ("last", "final_learning_rate"),
    ("row of C", "c_stride"),
    ("frozen parameters", "frozen"),
];

fn in_c(what: &'static str) -> &'static str {
    IN_C.iter().find(|(core, _)| *core == what).map_or(what, |(_, c)| c)
}

/// Runs a call's body, and tells its caller how it ended.
///
/// # Safety
/// `error` is NULL or writable.
pub(crate) unsafe fn call(
    error: *mut jostle_error,
    body: impl FnOnce() -> Result<(), Refusal>,
) -> jostle_status {
    match body() {
        Ok(()) => JOSTLE_OK,
        // SAFETY: the caller's promise.
        Err(refusal) => unsafe { tell(error, refusal) },
    }
}

/// Apart, so that no stack is taken by what has not gone wrong.
///
/// # Safety
/// As for [`call`].
#[inline(never)]
unsafe fn tell(error: *mut jostle_error, refusal: Refusal) -> jostle_status {
    let mut details = Details::default();
    let status = details.fill(&refusal);
    if !error.is_null() && error.is_aligned() {
        let Details { what, range, value, index, given, wanted } = details;
        let (what, range) = (border::fixed_string(in_c(what)), border::fixed_string(range));
        let index = integer(index);
        // SAFETY: the caller vouches that a pointer other than NULL is writable; it is aligned.
        unsafe {
            error.write(jostle_error { status: status as i32, value, what, range, index, given, wanted })
        };
    }
    status
}

/// A sentence without a full stop for a status, static and zero-terminated; "unknown status" for a number that
/// is none.
#[unsafe(no_mangle)]
pub extern "C" fn jostle_status_string(status: i32) -> *const c_char {
    known(status).map_or(UNKNOWN, |(_, text)| text).as_ptr()
}

/// Writes what `error` tells as a sentence into `text`, zero-terminated and cut off where it doesn't fit.
///
/// # Safety
/// `error` was filled by a call that failed; `text` is writable for `text_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_error_message(
    error: *const jostle_error,
    text: *mut c_char,
    text_size: usize,
) -> jostle_status {
    let body = || {
        if error.is_null() {
            return Err(Refusal::Null("error"));
        }
        if !error.is_aligned() {
            return Err(Refusal::Misaligned("error"));
        }
        if text.is_null() {
            return Err(Refusal::Null("text"));
        }
        let Some(room) = text_size.checked_sub(1) else {
            return Err(Refusal::Short { what: "text", given: 0, wanted: 1 });
        };
        // SAFETY: neither NULL nor misaligned; the caller vouches for the rest.
        let error = unsafe { &*error };
        let mut sink = Sink { text: text.cast(), room };
        // What doesn't fit is cut off.
        let _ = error.write(&mut sink);
        // SAFETY: `sink` has moved on by at most `room` bytes, one less than there are.
        unsafe { sink.text.write(0) };
        Ok(())
    };
    // SAFETY: no error is to be told.
    unsafe { call(core::ptr::null_mut(), body) }
}

impl jostle_error {
    fn write(&self, sink: &mut Sink) -> fmt::Result {
        let (status, text) =
            known(self.status).map_or((None, UNKNOWN), |(status, text)| (Some(status), text));
        sink.write_str(text.to_str().unwrap_or_default())?;
        if self.what.first().is_some_and(|c| *c != 0) {
            sink.write_str(": ")?;
            sink.write_fixed(&self.what)?;
        }
        match status {
            Some(JOSTLE_OUT_OF_RANGE) => {
                sink.write_str(" is ")?;
                sink.write_float(self.value)?;
                sink.write_str("; wanted: ")?;
                sink.write_fixed(&self.range)
            }
            Some(JOSTLE_NOT_FINITE) => {
                sink.write_str(" is ")?;
                sink.write_float(self.value)
            }
            Some(JOSTLE_TOKEN) => {
                write!(sink, " {} at index {}; wanted: below {}", self.given, self.index, self.wanted)
            }
            Some(JOSTLE_CHECKPOINT_CHECKSUM) => {
                write!(sink, ": its checksum is {:08x}; it states {:08x}", self.given, self.wanted)
            }
            Some(JOSTLE_FLASH) => write!(sink, " of slot {}: error {}", self.index, self.given),
            Some(JOSTLE_UNKNOWN_CHOICE) => write!(sink, " is {}", self.given),
            Some(JOSTLE_ZERO) => Ok(()),
            _ if self.wanted != 0 => write!(sink, ": given {}, wanted {}", self.given, self.wanted),
            _ if self.index != 0 => write!(sink, ": number {}", self.index),
            _ => Ok(()),
        }
    }
}

/// Where text goes: memory of the caller's with so many bytes left.
struct Sink {
    text: *mut u8,
    room: usize,
}

impl Sink {
    fn write_fixed(&mut self, text: &[c_char]) -> fmt::Result {
        text.iter().take_while(|c| **c != 0).try_for_each(|c| self.write_char(char::from(*c as u8)))
    }

    /// A number to seven digits. Not by `core::fmt`, whose way with floats is large and can panic.
    fn write_float(&mut self, x: f32) -> fmt::Result {
        const DIGITS: i32 = 7;
        if x.is_nan() {
            return self.write_str("NaN");
        }
        if x.is_sign_negative() {
            self.write_str("-")?;
        }
        if x.is_infinite() {
            return self.write_str("infinity");
        }
        // As d.dddddd times a power of ten.
        let (mut x, mut exponent) = (f64::from(x.abs()), 0);
        while x >= 10.0 {
            (x, exponent) = (x / 10.0, exponent + 1);
        }
        while x != 0.0 && x < 1.0 {
            (x, exponent) = (x * 10.0, exponent - 1);
        }
        let mut number = (x * 1e6 + 0.5) as u32;
        if number >= 10_000_000 {
            (number, exponent) = (number / 10, exponent + 1);
        }
        let mut digits = [0; DIGITS as usize];
        for digit in digits.iter_mut().rev() {
            (*digit, number) = ((number % 10) as u8, number / 10);
        }
        let zeros = digits.iter().rev().take_while(|digit| **digit == 0).count() as i32;

        let plain = (-5..DIGITS).contains(&exponent);
        let first = if plain { exponent } else { 0 };
        let last = (first + 1 - DIGITS + zeros).min(0);
        for place in (last..=first.max(0)).rev() {
            if place == -1 {
                self.write_str(".")?;
            }
            let digit = usize::try_from(first - place).ok().and_then(|index| digits.get(index));
            self.write_char(char::from(b'0' + digit.unwrap_or(&0)))?;
        }
        if plain { Ok(()) } else { write!(self, "e{exponent}") }
    }
}

impl fmt::Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.room = self.room.checked_sub(1).ok_or(fmt::Error)?;
            // SAFETY: there was room for this byte; whoever made the sink vouches for that many.
            unsafe {
                self.text.write(byte);
                self.text = self.text.add(1);
            }
        }
        Ok(())
    }
}
