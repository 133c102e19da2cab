//! The status that a call returns and, on request, the numbers behind it.

use core::cell::Cell;
use core::ffi::{CStr, c_char};

use jostle::compact::format::{Hex, Number, Rounded, Sink, Written};
use jostle::{CheckpointError, Error, Llama2cError, Plan, Tensor};

use crate::border;

/// How a call ended. A number never changes its meaning, and the number of a removed status is not used again.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum jostle_status {
    /// The call has succeeded.
    JOSTLE_OK = 0,
    /// A pointer that must not be NULL is.
    JOSTLE_NULL_POINTER = 1,
    /// A pointer is not aligned for what it points to.
    JOSTLE_MISALIGNED = 2,
    /// A buffer has fewer bytes than the call needs.
    JOSTLE_BUFFER_TOO_SHORT = 3,
    /// A buffer or result to be written shares bytes with another buffer or a handle of the call.
    JOSTLE_OVERLAP = 4,
    /// A struct's `struct_size` is smaller than the struct was in the first header.
    JOSTLE_STRUCT_TOO_SMALL = 5,
    /// A struct's `struct_size` belongs to a later version, whose fields this library does not know.
    JOSTLE_STRUCT_TOO_LARGE = 6,
    /// A plan, trainer or generator was not made by its init function, or that function failed.
    JOSTLE_NOT_INITIALIZED = 7,
    /// An integer that stands for a choice has an unknown value.
    JOSTLE_UNKNOWN_CHOICE = 8,
    /// A size or number that must be at least 1 is 0.
    JOSTLE_ZERO = 9,
    /// A size, or a product of sizes, exceeds what this machine can address.
    JOSTLE_TOO_LARGE = 10,
    /// The width is not divisible by the number of heads.
    JOSTLE_HEADS = 11,
    /// A number is outside its range.
    JOSTLE_OUT_OF_RANGE = 12,
    /// Sizes that must agree do not, or a text does not end with a whole token.
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
    /// The plan does not fit the call: it has not reserved the memory that the call needs.
    JOSTLE_PLAN = 19,
    /// A part of the learning-rate schedule does not fit into the schedule's steps.
    JOSTLE_STEPS = 20,
    /// A tensor or metadata entry of that name or number, or a checkpoint in flash memory, does not exist.
    JOSTLE_NOT_FOUND = 21,
    /// A string is not UTF-8.
    JOSTLE_NOT_UTF8 = 22,
    /// The system could not start a thread, or they are more than a pool may have.
    JOSTLE_THREADS = 23,
    /// A budget of memory is too small for any plan.
    JOSTLE_BUDGET = 24,
    /// A step that jostle_trainer_poll has begun is not finished yet.
    JOSTLE_UNFINISHED = 25,
    /// The call needs all gradients at once, but the plan has a fused optimizer step.
    JOSTLE_FUSED = 26,
    /// A gradient is not finite in a fused optimizer step: some parameters and their optimiser state have changed already.
    /// Training can continue from a checkpoint.
    JOSTLE_PARTLY_UPDATED = 27,
    /// Sizes inside the library do not match: a bug of jostle, which should be reported. Results of the call are not valid.
    JOSTLE_INTERNAL = 28,
    /// The callback `run` of a jostle_compute did not call the task once for each index. The call has done its work all the
    /// same, and its results are right.
    JOSTLE_RUN = 29,
    /// The processor flushes denormal numbers to zero or does not round to nearest, so training would end in other bits. A
    /// program that was linked with -ffast-math or -Ofast begins in such a mode.
    JOSTLE_FLOATING_POINT = 30,
    /// The loss of a step is a spike: see jostle_trainer_guard. Parameters, optimiser state and step are as they were.
    JOSTLE_SPIKE = 31,
    /// The query heads are not divisible by the key/value heads.
    JOSTLE_KV_HEADS = 32,
    /// A combination that is not supported.
    JOSTLE_UNSUPPORTED = 33,
    /// A checkpoint ends within its header or its data.
    JOSTLE_CHECKPOINT_TRUNCATED = 40,
    /// A checkpoint's header does not have the safetensors format.
    JOSTLE_CHECKPOINT_HEADER = 41,
    /// A name occurs twice in a checkpoint.
    JOSTLE_CHECKPOINT_DUPLICATE = 42,
    /// A checkpoint's tensors overlap, or leave a gap.
    JOSTLE_CHECKPOINT_OFFSETS = 43,
    /// A tensor that the model has is missing from a checkpoint.
    JOSTLE_CHECKPOINT_MISSING = 44,
    /// A tensor in a checkpoint has another shape than the model's.
    JOSTLE_CHECKPOINT_SHAPE = 45,
    /// A checkpoint was altered: its checksum does not match.
    JOSTLE_CHECKPOINT_CHECKSUM = 46,
    /// A metadata entry that a checkpoint needs is missing or malformed.
    JOSTLE_CHECKPOINT_METADATA = 47,
    /// A checkpoint belongs to another model.
    JOSTLE_CHECKPOINT_CONFIGURATION = 48,
    /// A metadata key is reserved or occurs twice.
    JOSTLE_CHECKPOINT_KEY = 49,
    /// A function of a jostle_flash has returned an error.
    JOSTLE_FLASH = 50,
    /// Flash memory does not hold the bytes that were just programmed.
    JOSTLE_FLASH_CONTENTS = 51,
    /// A safetensors file has a tensor that the model does not have.
    JOSTLE_CHECKPOINT_UNUSED = 52,
    /// The numbers of a tensor in a checkpoint are not F32, F16 or BF16.
    JOSTLE_CHECKPOINT_TYPE = 53,
    /// A file of llama2.c ends within its header or an entry.
    JOSTLE_LLAMA2C_TRUNCATED = 60,
    /// A token's text in a tokenizer of llama2.c is empty, or longer than the file says that its longest is.
    JOSTLE_LLAMA2C_PIECE = 61,
    /// A token of a tokenizer of llama2.c does not have the name of the byte that it must stand for, e.g. <0x0A> for token 13.
    JOSTLE_LLAMA2C_BYTE = 62,
    /// A tokenizer of llama2.c has too few tokens for all bytes.
    JOSTLE_LLAMA2C_VOCAB = 63,
    /// A number in the header of a model of llama2.c is not valid.
    JOSTLE_LLAMA2C_HEADER = 64,
    /// A model's file of llama2.c does not have the length that its header states.
    JOSTLE_LLAMA2C_LENGTH = 65,
    /// The model in a file of llama2.c has another shape than the plan's.
    JOSTLE_LLAMA2C_CONFIGURATION = 66,
    /// Files of llama2.c have no model with this value of the configuration.
    JOSTLE_LLAMA2C_UNSUPPORTED = 67,
    /// A refusal that has no number in this version of the header.
    JOSTLE_OTHER = 99,
}

use jostle_status::*;

/// Each status and its text.
const TEXTS: [(jostle_status, &CStr); 57] = [
    (JOSTLE_OK, c"success"),
    (JOSTLE_NULL_POINTER, c"a pointer is NULL"),
    (JOSTLE_MISALIGNED, c"a pointer is not aligned"),
    (JOSTLE_BUFFER_TOO_SHORT, c"a buffer is too short"),
    (JOSTLE_OVERLAP, c"a buffer to be written overlaps another"),
    (JOSTLE_STRUCT_TOO_SMALL, c"a struct_size is too small"),
    (JOSTLE_STRUCT_TOO_LARGE, c"a struct_size belongs to a later version"),
    (JOSTLE_NOT_INITIALIZED, c"a handle is not initialized"),
    (JOSTLE_UNKNOWN_CHOICE, c"an unknown value for a choice"),
    (JOSTLE_ZERO, c"a size is 0"),
    (JOSTLE_TOO_LARGE, c"a size is too large for this machine"),
    (JOSTLE_HEADS, c"the width is not divisible by the heads"),
    (JOSTLE_OUT_OF_RANGE, c"a number is out of range"),
    (JOSTLE_LENGTH, c"sizes do not agree"),
    (JOSTLE_TOKEN, c"a token is outside the vocabulary"),
    (JOSTLE_CONTEXT, c"a sequence is longer than the context"),
    (JOSTLE_TOO_FEW_TOKENS, c"the text has too few tokens"),
    (JOSTLE_NOT_FINITE, c"a result is not finite; nothing was changed"),
    (JOSTLE_INSTRUCTION_SET, c"the instruction set is not available"),
    (JOSTLE_PLAN, c"the plan does not fit the call"),
    (JOSTLE_STEPS, c"a part of the schedule is too long"),
    (JOSTLE_NOT_FOUND, c"not found"),
    (JOSTLE_NOT_UTF8, c"a string is not UTF-8"),
    (JOSTLE_THREADS, c"a thread could not be started"),
    (JOSTLE_BUDGET, c"the budget of memory is too small"),
    (JOSTLE_UNFINISHED, c"a step in pieces is not finished yet"),
    (JOSTLE_FUSED, c"not possible with a fused optimizer step"),
    (JOSTLE_PARTLY_UPDATED, c"a gradient is not finite; some parameters have changed"),
    (JOSTLE_INTERNAL, c"internal error; please report it"),
    (JOSTLE_SPIKE, c"the loss is a spike; nothing was changed"),
    (JOSTLE_KV_HEADS, c"the query heads are not divisible by the key/value heads"),
    (JOSTLE_UNSUPPORTED, c"a combination is not supported"),
    (JOSTLE_FLOATING_POINT, c"the floating-point mode changes results"),
    (JOSTLE_RUN, c"run must call the task once for each index"),
    (JOSTLE_CHECKPOINT_TRUNCATED, c"the checkpoint is truncated"),
    (JOSTLE_CHECKPOINT_HEADER, c"the checkpoint's header does not have the safetensors format"),
    (JOSTLE_CHECKPOINT_DUPLICATE, c"a name occurs twice in the checkpoint"),
    (JOSTLE_CHECKPOINT_OFFSETS, c"the checkpoint's tensors overlap or leave a gap"),
    (JOSTLE_CHECKPOINT_MISSING, c"a tensor is missing from the checkpoint"),
    (JOSTLE_CHECKPOINT_SHAPE, c"a tensor in the checkpoint has another shape"),
    (JOSTLE_CHECKPOINT_CHECKSUM, c"the checkpoint was altered"),
    (JOSTLE_CHECKPOINT_METADATA, c"the checkpoint's metadata is missing or malformed"),
    (JOSTLE_CHECKPOINT_CONFIGURATION, c"the checkpoint belongs to another model"),
    (JOSTLE_CHECKPOINT_KEY, c"a metadata key is reserved or occurs twice"),
    (JOSTLE_FLASH, c"a flash memory function failed"),
    (JOSTLE_FLASH_CONTENTS, c"flash memory does not hold the programmed bytes"),
    (JOSTLE_CHECKPOINT_UNUSED, c"the model does not have a tensor of the file"),
    (JOSTLE_CHECKPOINT_TYPE, c"a tensor in the checkpoint is not F32, F16 or BF16"),
    (JOSTLE_LLAMA2C_TRUNCATED, c"the file of llama2.c is truncated"),
    (JOSTLE_LLAMA2C_PIECE, c"a token's text has a wrong length"),
    (JOSTLE_LLAMA2C_BYTE, c"a token does not have its byte's name"),
    (JOSTLE_LLAMA2C_VOCAB, c"the tokenizer lacks tokens for bytes"),
    (JOSTLE_LLAMA2C_HEADER, c"a number in the header is not valid"),
    (JOSTLE_LLAMA2C_LENGTH, c"the file does not have the length that its header states"),
    (JOSTLE_LLAMA2C_CONFIGURATION, c"the file's model has another shape than the plan's"),
    (JOSTLE_LLAMA2C_UNSUPPORTED, c"files of llama2.c have no such model"),
    (JOSTLE_OTHER, c"refused"),
];

const UNKNOWN: &CStr = c"unknown status";

/// [`TEXTS`] in a row, each after its status. A table of references would take twelve more bytes of flash for each.
static PACKED: [c_char; packed_len()] = {
    let (mut packed, mut end, mut index) = ([0; packed_len()], 0, 0);
    while index < TEXTS.len() {
        let (status, text) = (TEXTS[index].0, TEXTS[index].1.to_bytes_with_nul());
        packed[end] = status as c_char;
        end += 1;
        let mut place = 0;
        while place < text.len() {
            packed[end] = text[place] as c_char;
            (place, end) = (place + 1, end + 1);
        }
        index += 1;
    }
    packed
};

const fn packed_len() -> usize {
    let (mut len, mut index) = (0, 0);
    while index < TEXTS.len() {
        len += 2 + TEXTS[index].1.count_bytes();
        index += 1;
    }
    len
}

/// The text of a status.
fn text(number: i32) -> &'static CStr {
    let mut rest = PACKED.as_slice();
    while let Some((status, texts)) = rest.split_first() {
        if i32::from(*status) == number {
            // SAFETY: each text of PACKED ends with a zero.
            return unsafe { CStr::from_ptr(texts.as_ptr()) };
        }
        let len = texts.iter().take_while(|c| **c != 0).count();
        rest = texts.get(len.saturating_add(1)..).unwrap_or_default();
    }
    UNKNOWN
}

/// The numbers behind a status other than JOSTLE_OK.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct jostle_error {
    /// The status that the call has returned.
    pub status: i32,
    /// JOSTLE_OUT_OF_RANGE, JOSTLE_NOT_FINITE, JOSTLE_SPIKE: the number; otherwise 0.
    pub value: f32,
    /// The name of the refused argument or field, of the tensor of a checkpoint, or the name that was not found;
    /// zero-terminated, cut off if it is longer; may be empty.
    pub what: [c_char; 64],
    /// JOSTLE_OUT_OF_RANGE: the valid range, in words. JOSTLE_CHECKPOINT_SHAPE, JOSTLE_CHECKPOINT_TYPE: the tensor's, and
    /// the model's. JOSTLE_NOT_FINITE in training: the step, and the first tensor that is not finite (of parameters for the
    /// loss, of gradients for the norm). Zero-terminated; otherwise empty.
    pub range: [c_char; 64],
    /// JOSTLE_TOKEN, JOSTLE_CHECKPOINT_KEY, JOSTLE_RUN: the index; checkpoints: the byte or the tensor; JOSTLE_FLASH: the
    /// slot; JOSTLE_NOT_FINITE: the tensor; JOSTLE_LLAMA2C_PIECE, JOSTLE_LLAMA2C_BYTE: the token; else 0.
    pub index: i64,
    /// The given number, in bytes for buffers; JOSTLE_FLASH: the function's error; JOSTLE_NOT_FINITE, JOSTLE_SPIKE:
    /// the step; otherwise 0.
    pub given: i64,
    /// The wanted number, in bytes for buffers; JOSTLE_RUN: the number of indices; otherwise 0.
    pub wanted: i64,
}

/// Why this crate refuses a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
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
    /// Neither slot has a checkpoint; perhaps one of them could not be read.
    NoCheckpoint {
        unread: Option<(usize, i32)>,
    },
    NotUtf8(&'static str),
    Run {
        what: &'static str,
        index: usize,
        count: usize,
    },
    #[cfg(feature = "hosted")]
    Threads {
        given: usize,
    },
}

/// A call was refused. Only [`Call`] makes this value, after it has set the status and written the error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused(());

/// One call from C: its status so far, and the place for the error. A refusal writes both at once, so results need no room
/// for the numbers.
pub(crate) struct Call {
    status: Cell<jostle_status>,
    error: *mut jostle_error,
}

impl Call {
    #[cold]
    #[inline(never)]
    pub fn refuse(&self, refusal: Refusal) -> Refused {
        self.tell(refusal.status(), &refusal.details())
    }

    #[cold]
    #[inline(never)]
    pub fn refuse_as_core(&self, error: &Error) -> Refused {
        self.tell(status_of(error), &error.into())
    }

    /// Refuses as the core does. On hosts, an error about a tensor names it, and says how a checkpoint's differs, or in which
    /// step it is not finite; devices have no room for that.
    #[cold]
    #[inline(never)]
    pub fn refuse_about(&self, plan: &Plan, error: &Error) -> Refused {
        let refused = self.refuse_as_core(error);
        if !cfg!(feature = "hosted") {
            return refused;
        }
        let (tensor, differs) = match *error {
            Error::Checkpoint(CheckpointError::Missing { tensor }) | Error::PartlyUpdated { tensor } => {
                (tensor, None)
            }
            Error::Diverged { step, tensor, .. } => {
                let tensor = tensor.and_then(|tensor| plan.tensors().nth(tensor));
                self.explain(&Diverged { step, tensor });
                return refused;
            }
            Error::Checkpoint(CheckpointError::Shape { tensor, given, wanted }) => {
                (tensor, Some(Differs::Shape(given, wanted)))
            }
            Error::Checkpoint(CheckpointError::Type { tensor, given }) => {
                (tensor, Some(Differs::Type(given)))
            }
            _ => return refused,
        };
        // The tensors of the optimiser's state have the same numbers again.
        let index = tensor.checked_rem(plan.tensors().count());
        if let Some(tensor) = index.and_then(|index| plan.tensors().nth(index)) {
            self.rename(&tensor.name);
        }
        if let Some(differs) = differs {
            self.explain(&differs);
        }
        refused
    }

    /// Writes `range` in the error of a call that has been refused.
    fn explain(&self, range: &dyn Written) {
        if let Some(error) = self.place() {
            // SAFETY: the refusal has written the error there.
            unsafe { (*error).range = border::written(range) };
        }
    }

    /// Refuses a name that nothing has.
    #[cold]
    #[inline(never)]
    pub fn refuse_name(&self, name: &dyn Written) -> Refused {
        let refused = self.refuse(Refusal::NotFound { what: "", index: 0 });
        self.rename(name);
        refused
    }

    /// Replaces the name in the error of a call that has been refused.
    pub fn rename(&self, name: &dyn Written) {
        if let Some(error) = self.place() {
            // SAFETY: the refusal has written the error there.
            unsafe { (*error).what = border::written(name) };
        }
    }

    /// The place for the error, if there is one.
    fn place(&self) -> Option<*mut jostle_error> {
        (!self.error.is_null() && self.error.is_aligned()).then_some(self.error)
    }

    #[inline(never)]
    fn tell(&self, status: jostle_status, details: &Details) -> Refused {
        self.status.set(status);
        if let Some(place) = self.place() {
            let Details { what, range, value, index, given, wanted } = *details;
            let (what, range) = (border::fixed_string(in_c(what)), border::fixed_string(range));
            let (status, index) = (status as i32, integer(index));
            // SAFETY: the pointer is aligned and not NULL; the caller of `call` vouches for writing.
            unsafe { place.write(jostle_error { status, value, what, range, index, given, wanted }) };
        }
        Refused(())
    }
}

/// The step that diverged, and the first tensor that is not finite.
struct Diverged {
    step: u64,
    tensor: Option<Tensor>,
}

impl Written for Diverged {
    fn write(&self, out: &mut dyn Sink) {
        out.put(b"in step ");
        Number(self.step).write(out);
        if let Some(tensor) = &self.tensor {
            out.put(b", ");
            tensor.name.write(out);
        }
    }
}

/// How a tensor in a checkpoint differs from the model's.
enum Differs {
    Shape([usize; 2], [usize; 2]),
    Type(&'static str),
}

impl Written for Differs {
    fn write(&self, out: &mut dyn Sink) {
        let shape = |out: &mut dyn Sink, [rows, columns]: [usize; 2], matrix| {
            out.put(b"[");
            Number(rows as u64).write(out);
            if matrix {
                out.put(b", ");
                Number(columns as u64).write(out);
            }
            out.put(b"]");
        };
        match *self {
            Differs::Shape(given, wanted) => {
                // Vectors have the second side 1.
                let matrix = given[1] != 1 || wanted[1] != 1;
                shape(out, given, matrix);
                out.put(b"; expected ");
                shape(out, wanted, matrix);
            }
            Differs::Type(given) => {
                given.write(out);
                out.put(b"; expected F32, F16 or BF16");
            }
        }
    }
}

/// Turns the core's errors into refusals.
pub(crate) trait OrRefuse<T> {
    fn or_refuse(self, call: &Call) -> Result<T, Refused>;
}

impl<T> OrRefuse<T> for Result<T, Error> {
    #[inline(always)]
    fn or_refuse(self, call: &Call) -> Result<T, Refused> {
        match self {
            Ok(value) => Ok(value),
            Err(ref error) => Err(call.refuse_as_core(error)),
        }
    }
}

impl<T> OrRefuse<T> for Result<T, Refusal> {
    fn or_refuse(self, call: &Call) -> Result<T, Refused> {
        self.map_err(|refusal| call.refuse(refusal))
    }
}

/// The fields of [`jostle_error`] besides the status.
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

impl Refusal {
    fn status(&self) -> jostle_status {
        match *self {
            Refusal::Null(_) => JOSTLE_NULL_POINTER,
            Refusal::Misaligned(_) => JOSTLE_MISALIGNED,
            Refusal::Short { .. } => JOSTLE_BUFFER_TOO_SHORT,
            Refusal::Overlap(_) => JOSTLE_OVERLAP,
            Refusal::StructSize { given, wanted, .. } if given < wanted => JOSTLE_STRUCT_TOO_SMALL,
            Refusal::StructSize { .. } => JOSTLE_STRUCT_TOO_LARGE,
            Refusal::NotInitialized(_) => JOSTLE_NOT_INITIALIZED,
            Refusal::Choice { .. } => JOSTLE_UNKNOWN_CHOICE,
            Refusal::NotFound { .. } | Refusal::NoCheckpoint { .. } => JOSTLE_NOT_FOUND,
            Refusal::NotUtf8(_) => JOSTLE_NOT_UTF8,
            Refusal::Run { .. } => JOSTLE_RUN,
            #[cfg(feature = "hosted")]
            Refusal::Threads { .. } => JOSTLE_THREADS,
        }
    }

    fn details(&self) -> Details {
        let none = Details::default();
        match *self {
            Refusal::Null(what)
            | Refusal::Misaligned(what)
            | Refusal::Overlap(what)
            | Refusal::NotInitialized(what)
            | Refusal::NotUtf8(what) => Details { what, ..none },
            Refusal::Short { what, given, wanted } | Refusal::StructSize { what, given, wanted } => {
                Details { what, given: integer(given), wanted: integer(wanted), ..none }
            }
            Refusal::Choice { what, given } => Details { what, given: given.into(), ..none },
            Refusal::NotFound { what, index } => Details { what, index, ..none },
            Refusal::NoCheckpoint { unread } => {
                let (index, code) = unread.unwrap_or_default();
                Details { what: "checkpoint", index, given: code.into(), ..none }
            }
            Refusal::Run { what, index, count } => Details { what, index, wanted: integer(count), ..none },
            #[cfg(feature = "hosted")]
            Refusal::Threads { given } => Details { what: "threads", given: integer(given), ..none },
        }
    }
}

/// The status of an error of the core.
#[inline(never)]
fn status_of(error: &Error) -> jostle_status {
    match error {
        Error::Zero { .. } => JOSTLE_ZERO,
        Error::TooLarge { .. } => JOSTLE_TOO_LARGE,
        Error::Heads { .. } => JOSTLE_HEADS,
        Error::KvHeads { .. } => JOSTLE_KV_HEADS,
        Error::Unsupported { .. } => JOSTLE_UNSUPPORTED,
        Error::Range { .. } => JOSTLE_OUT_OF_RANGE,
        Error::Length { .. } => JOSTLE_LENGTH,
        Error::Token { .. } => JOSTLE_TOKEN,
        Error::Context { .. } => JOSTLE_CONTEXT,
        Error::Data { .. } => JOSTLE_TOO_FEW_TOKENS,
        Error::NotFinite { .. } | Error::Diverged { .. } => JOSTLE_NOT_FINITE,
        Error::FloatingPoint { .. } => JOSTLE_FLOATING_POINT,
        Error::Spike { .. } => JOSTLE_SPIKE,
        Error::InstructionSet => JOSTLE_INSTRUCTION_SET,
        Error::Plan { .. } => JOSTLE_PLAN,
        Error::Buffer { .. } => JOSTLE_BUFFER_TOO_SHORT,
        Error::Unfinished => JOSTLE_UNFINISHED,
        Error::Name { .. } => JOSTLE_NOT_FOUND,
        Error::Fused { .. } => JOSTLE_FUSED,
        Error::PartlyUpdated { .. } => JOSTLE_PARTLY_UPDATED,
        Error::Internal { .. } => JOSTLE_INTERNAL,
        Error::Budget { .. } => JOSTLE_BUDGET,
        Error::Steps { .. } => JOSTLE_STEPS,
        Error::Flash { .. } => JOSTLE_FLASH,
        Error::FlashContents { .. } => JOSTLE_FLASH_CONTENTS,
        Error::Checkpoint(error) => match error {
            CheckpointError::Truncated { .. } => JOSTLE_CHECKPOINT_TRUNCATED,
            CheckpointError::Header { .. } => JOSTLE_CHECKPOINT_HEADER,
            CheckpointError::Duplicate { .. } => JOSTLE_CHECKPOINT_DUPLICATE,
            CheckpointError::Offsets { .. } => JOSTLE_CHECKPOINT_OFFSETS,
            CheckpointError::Missing { .. } => JOSTLE_CHECKPOINT_MISSING,
            CheckpointError::Shape { .. } => JOSTLE_CHECKPOINT_SHAPE,
            CheckpointError::Unused { .. } => JOSTLE_CHECKPOINT_UNUSED,
            CheckpointError::Type { .. } => JOSTLE_CHECKPOINT_TYPE,
            CheckpointError::Checksum { .. } => JOSTLE_CHECKPOINT_CHECKSUM,
            CheckpointError::Metadata { .. } => JOSTLE_CHECKPOINT_METADATA,
            CheckpointError::Configuration { .. } => JOSTLE_CHECKPOINT_CONFIGURATION,
            CheckpointError::Key { .. } => JOSTLE_CHECKPOINT_KEY,
            CheckpointError::Buffer { .. } => JOSTLE_BUFFER_TOO_SHORT,
            _ => JOSTLE_OTHER,
        },
        Error::Llama2c(error) => match error {
            Llama2cError::Truncated { .. } => JOSTLE_LLAMA2C_TRUNCATED,
            Llama2cError::Piece { .. } => JOSTLE_LLAMA2C_PIECE,
            Llama2cError::Byte { .. } => JOSTLE_LLAMA2C_BYTE,
            Llama2cError::Vocab { .. } => JOSTLE_LLAMA2C_VOCAB,
            Llama2cError::Header { .. } => JOSTLE_LLAMA2C_HEADER,
            Llama2cError::Length { .. } => JOSTLE_LLAMA2C_LENGTH,
            Llama2cError::Configuration { .. } => JOSTLE_LLAMA2C_CONFIGURATION,
            Llama2cError::Unsupported { .. } => JOSTLE_LLAMA2C_UNSUPPORTED,
            _ => JOSTLE_OTHER,
        },
        _ => JOSTLE_OTHER,
    }
}

/// The name, the given and the wanted size of an error of the core; 0 for sizes that it does not have.
#[inline(never)]
fn name_and_sizes(error: &Error) -> (&'static str, usize, usize) {
    match *error {
        Error::TooLarge { what }
        | Error::Range { what, .. }
        | Error::NotFinite { what, .. }
        | Error::Diverged { what, .. }
        | Error::FloatingPoint { what, .. }
        | Error::Plan { what }
        | Error::Unsupported { what }
        | Error::Fused { what }
        | Error::Steps { what, .. }
        | Error::Internal { operation: what }
        | Error::Flash { operation: what, .. }
        | Error::Checkpoint(
            CheckpointError::Metadata { key: what } | CheckpointError::Configuration { key: what },
        ) => (what, 0, 0),
        Error::Spike { .. } => ("loss", 0, 0),
        Error::Zero { what } => (what, 0, 1),
        Error::Length { what, given, wanted } | Error::Buffer { what, given, wanted } => {
            (what, given, wanted)
        }
        Error::Heads { width, heads } => ("heads", heads, width),
        Error::KvHeads { heads, kv_heads } => ("kv_heads", kv_heads, heads),
        Error::Token { vocab, .. } => ("token", 0, vocab),
        Error::Context { length, context } => ("length", length, context),
        Error::Data { given, wanted } => ("tokens", given, wanted),
        Error::InstructionSet => ("instruction_set", 0, 0),
        Error::Budget { given, wanted } => ("budget", given, wanted),
        Error::Name { .. } => ("name", 0, 0),
        Error::PartlyUpdated { .. } => ("tensor", 0, 0),
        Error::FlashContents { .. } => ("slot", 0, 0),
        Error::Checkpoint(
            CheckpointError::Truncated { given, wanted }
            | CheckpointError::Offsets { given, wanted }
            | CheckpointError::Buffer { given, wanted },
        ) => ("checkpoint", given, wanted),
        Error::Checkpoint(CheckpointError::Key { .. }) => ("metadata", 0, 0),
        Error::Checkpoint(
            CheckpointError::Missing { .. } | CheckpointError::Shape { .. } | CheckpointError::Type { .. },
        ) => ("tensor", 0, 0),
        Error::Checkpoint(_) => ("checkpoint", 0, 0),
        Error::Llama2c(
            Llama2cError::Truncated { given, wanted } | Llama2cError::Length { given, wanted },
        ) => ("file", given, wanted),
        Error::Llama2c(
            Llama2cError::Header { what, .. }
            | Llama2cError::Configuration { what }
            | Llama2cError::Unsupported { what },
        ) => (what, 0, 0),
        Error::Llama2c(Llama2cError::Vocab { given, wanted }) => ("vocab", given, wanted),
        Error::Llama2c(_) => ("token", 0, 0),
        _ => ("", 0, 0),
    }
}

impl From<&Error> for Details {
    fn from(error: &Error) -> Details {
        let (what, given, wanted) = name_and_sizes(error);
        let mut details =
            Details { what, given: integer(given), wanted: integer(wanted), ..Details::default() };
        match *error {
            Error::Range { given, wanted, .. } => (details.value, details.range) = (given, wanted),
            Error::NotFinite { value, .. } => details.value = value,
            Error::Spike { step, loss, .. } => (details.value, details.given) = (loss, step.cast_signed()),
            Error::Diverged { step, value, tensor, .. } => {
                details.value = value;
                (details.index, details.given) = (tensor.unwrap_or(0), step.cast_signed());
            }
            Error::Token { index, token, .. } => (details.index, details.given) = (index, token),
            Error::Steps { given, most, .. } => {
                let integer = |steps| i64::try_from(steps).unwrap_or(i64::MAX);
                (details.given, details.wanted) = (integer(given), integer(most));
            }
            Error::Flash { slot, code, .. } => (details.index, details.given) = (slot, code.into()),
            Error::Checkpoint(CheckpointError::Checksum { stated, computed }) => {
                (details.given, details.wanted) = (computed.into(), stated.into());
            }
            Error::Llama2c(Llama2cError::Header { given, .. }) => details.given = given.into(),
            Error::Llama2c(Llama2cError::Piece { token, given, most }) => {
                (details.index, details.given, details.wanted) = (token, given, most.into());
            }
            Error::Llama2c(Llama2cError::Byte { token: index })
            | Error::Name { index }
            | Error::PartlyUpdated { tensor: index }
            | Error::FlashContents { slot: index }
            | Error::Checkpoint(
                CheckpointError::Header { at: index }
                | CheckpointError::Duplicate { at: index }
                | CheckpointError::Missing { tensor: index }
                | CheckpointError::Unused { at: index }
                | CheckpointError::Shape { tensor: index, .. }
                | CheckpointError::Type { tensor: index, .. }
                | CheckpointError::Key { index },
            ) => details.index = index,
            _ => {}
        }
        details
    }
}

/// Arguments of Rust that have another name in C.
const IN_C: [(&str, &str); 5] = [
    ("dropout rate", "rate"),
    ("peak", "learning_rate"),
    ("last", "final_learning_rate"),
    ("row of C", "c_stride"),
    ("frozen parameters", "frozen"),
];

fn in_c(what: &'static str) -> &'static str {
    IN_C.iter().find(|(core, _)| *core == what).map_or(what, |(_, c)| c)
}

/// Runs the body of a call and returns its status.
///
/// # Safety
/// `error` is NULL or writable.
pub(crate) unsafe fn call(
    error: *mut jostle_error,
    body: impl FnOnce(&Call) -> Result<(), Refused>,
) -> jostle_status {
    let call = Call { status: Cell::new(JOSTLE_OK), error };
    // A refusal has set the status.
    let _ = body(&call);
    call.status.get()
}

/// A static, zero-terminated sentence without a full stop for a status; "unknown status" for an unknown number.
#[unsafe(no_mangle)]
pub extern "C" fn jostle_status_string(status: i32) -> *const c_char {
    text(status).as_ptr()
}

/// Writes an error as a sentence into `text`, zero-terminated, and cut off if it does not fit.
///
/// # Safety
/// `error` was filled by a call that failed; `text` is writable for `text_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_error_message(
    error: *const jostle_error,
    text: *mut c_char,
    text_size: usize,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above, and the error to be written is NULL.
    unsafe {
        call(core::ptr::null_mut(), |call| {
            let error = border::input(call, "error", error)?;
            if text.is_null() {
                return Err(call.refuse(Refusal::Null("text")));
            }
            let Some(room) = text_size.checked_sub(1) else {
                return Err(call.refuse(Refusal::Short { what: "text", given: 0, wanted: 1 }));
            };
            let mut sink = Room { text: text.cast(), room };
            error.write(&mut sink);
            // SAFETY: `sink` has moved on by at most `room` bytes, one less than there are.
            sink.text.write(0);
            Ok(())
        })
    }
}

impl jostle_error {
    fn write(&self, out: &mut dyn Sink) {
        out.put(text(self.status).to_bytes());
        if self.what.first().is_some_and(|c| *c != 0) {
            out.put(b": ");
            put_fixed(out, &self.what);
        }
        let mut rest = self.numbers();
        while let Some(byte) = rest.split_off_first() {
            match byte {
                b'V' => Rounded(self.value).write(out),
                b'R' => put_fixed(out, &self.range),
                b'I' => put_integer(out, self.index),
                b'G' => put_integer(out, self.given),
                b'W' => put_integer(out, self.wanted),
                b'X' => Hex(self.given as u32, 8).write(out),
                b'Y' => Hex(self.wanted as u32, 8).write(out),
                _ => out.put(&[*byte]),
            }
        }
    }

    /// The end of the sentence, after the name. V is the value, R the range, I the index, G and W the given and the wanted
    /// number, X and Y these two in hexadecimal digits.
    fn numbers(&self) -> &'static [u8] {
        match self.status {
            status if status == JOSTLE_OUT_OF_RANGE as i32 => b" is V; expected R",
            status if status == JOSTLE_NOT_FINITE as i32 && self.range.first() != Some(&0) => b" is V R",
            status if status == JOSTLE_NOT_FINITE as i32 => b" is V",
            status if status == JOSTLE_SPIKE as i32 => b" is V in step G",
            status if status == JOSTLE_HEADS as i32 => b" is G; width is W",
            status if status == JOSTLE_KV_HEADS as i32 => b" is G; heads is W",
            status if status == JOSTLE_TOKEN as i32 => b" G at index I; expected less than W",
            status if status == JOSTLE_CHECKPOINT_CHECKSUM as i32 => b": its checksum is X; it states Y",
            status if status == JOSTLE_FLASH as i32 => b" of slot I: error G",
            status if status == JOSTLE_UNKNOWN_CHOICE as i32 => b" is G",
            status if status == JOSTLE_RUN as i32 => b" index I of W",
            status if status == JOSTLE_ZERO as i32 => b"",
            status if status == JOSTLE_CHECKPOINT_MISSING as i32 => b", number I",
            status if status == JOSTLE_CHECKPOINT_SHAPE as i32 && self.range[0] != 0 => b" is R",
            status if status == JOSTLE_CHECKPOINT_SHAPE as i32 => b", number I",
            status if status == JOSTLE_CHECKPOINT_TYPE as i32 && self.range[0] != 0 => b" is R",
            status if status == JOSTLE_CHECKPOINT_TYPE as i32 => b", number I",
            status if status == JOSTLE_CHECKPOINT_HEADER as i32 => b" at byte I",
            status if status == JOSTLE_CHECKPOINT_DUPLICATE as i32 => b" at byte I",
            status if status == JOSTLE_CHECKPOINT_UNUSED as i32 => b" at byte I",
            status if status == JOSTLE_CHECKPOINT_KEY as i32 => b", entry I",
            status if status == JOSTLE_FLASH_CONTENTS as i32 => b" I",
            status if status == JOSTLE_PARTLY_UPDATED as i32 => b" I",
            status if status == JOSTLE_LLAMA2C_HEADER as i32 => b" is G",
            status if status == JOSTLE_LLAMA2C_PIECE as i32 => b" I: given G, wanted 1 to W",
            status if status == JOSTLE_LLAMA2C_BYTE as i32 => b" I",
            status if status == JOSTLE_NOT_FOUND as i32 && self.given != 0 => b"; reading slot I: error G",
            _ if self.wanted != 0 => b": given G, wanted W",
            _ if self.index != 0 => b": number I",
            _ => b"",
        }
    }
}

/// Text up to its terminating zero.
#[inline(never)]
fn put_fixed(out: &mut dyn Sink, text: &[c_char]) {
    for c in text.iter().take_while(|c| **c != 0) {
        out.put(&[*c as u8]);
    }
}

#[inline(never)]
fn put_integer(out: &mut dyn Sink, number: i64) {
    if number < 0 {
        out.put(b"-");
    }
    Number(number.unsigned_abs()).write(out);
}

/// The caller's memory, with `room` bytes left. Text that does not fit is cut off.
struct Room {
    text: *mut u8,
    room: usize,
}

impl Sink for Room {
    fn put(&mut self, text: &[u8]) {
        for byte in text.iter().take(self.room) {
            // SAFETY: at most `room` bytes are written, for which the maker of this value vouches.
            unsafe {
                self.text.write(*byte);
                self.text = self.text.add(1);
            }
        }
        self.room = self.room.saturating_sub(text.len());
    }
}
