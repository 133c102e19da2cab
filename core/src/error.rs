//! Errors, as values that name the given and the wanted value. Knows nothing of the rest of the crate.

use core::fmt;

/// The reasons for which a call can fail. A failed call has written nothing, unless its documentation says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A size that must be at least 1 is 0.
    Zero {
        /// The size's name, e.g. `"layers"`.
        what: &'static str,
    },
    /// A size, or a product of sizes, exceeds the address space of this machine (or [`crate::config::LARGEST`]).
    TooLarge {
        /// The size's name.
        what: &'static str,
    },
    /// The width cannot be divided evenly among the heads.
    Heads {
        /// The model's width, C.
        width: usize,
        /// The number of heads, H.
        heads: usize,
    },
    /// A number outside its range (dropout rate, epsilon, temperature, ...).
    Range {
        /// The number's name.
        what: &'static str,
        /// The given value.
        given: f32,
        /// The allowed range, in words.
        wanted: &'static str,
    },
    /// A slice does not have exactly the wanted length.
    Length {
        /// The slice's name.
        what: &'static str,
        /// Its length.
        given: usize,
        /// The wanted length.
        wanted: usize,
    },
    /// A token outside `0..vocab` (targets may also be -1: ignored).
    Token {
        /// Its index in the slice.
        index: usize,
        /// Its value.
        token: i64,
        /// The vocabulary's size, V.
        vocab: usize,
    },
    /// More positions than the model's context has.
    Context {
        /// The given number.
        length: usize,
        /// The model's context.
        context: usize,
    },
    /// Too few tokens for a window (context + 1).
    Data {
        /// The number of tokens.
        given: usize,
        /// The least number that is enough.
        wanted: usize,
    },
    /// The loss or the gradient norm is NaN or infinite, and the step changed no parameter; or a logit is, and
    /// nothing was drawn.
    NotFinite {
        /// `"loss"`, `"gradient norm"`, `"logit"` or `"greatest logit"`.
        what: &'static str,
        /// Its value.
        value: f32,
    },
    /// The requested instruction set is unknown, or not available on this processor or in this build.
    InstructionSet,
    /// The plan was made for another use: the call needs memory that the plan did not reserve.
    Plan {
        /// The missing part.
        what: &'static str,
    },
    /// A character outside the table, or a malformed one.
    Character {
        /// Its byte position in the text.
        index: usize,
    },
    /// A buffer to be filled is too short.
    Buffer {
        /// The buffer's name.
        what: &'static str,
        /// Its length, in elements.
        given: usize,
        /// The least length that is enough.
        wanted: usize,
    },
    /// A table is not strictly ascending.
    Unsorted {
        /// The table's name.
        what: &'static str,
        /// The index of the first element that is not greater than the one before it.
        index: usize,
    },
    /// A part of a learning-rate schedule has more steps than are left for it.
    Steps {
        /// `"warmup"` or `"decay_steps"`.
        what: &'static str,
        /// The given value.
        given: u64,
        /// The number of steps that are left.
        most: u64,
    },
    /// A budget of memory is too small for any plan.
    Budget {
        /// The bytes of the budget.
        given: usize,
        /// The bytes of the smallest plan.
        wanted: usize,
    },
    /// A name that does not belong to a tensor of the model.
    Name {
        /// Its index among the given names.
        index: usize,
    },
    /// The call needs the gradients of all parameters at once, but the plan fuses the update into backward.
    Fused {
        /// `"clip"`, `"accumulate"` or `"backward"`.
        what: &'static str,
    },
    /// A gradient is NaN or infinite in a step with a fused update. Tensors whose gradients came earlier have already
    /// changed, and the optimiser's state with them. Training can continue from a checkpoint.
    PartlyUpdated {
        /// The number of the gradient's tensor, in the order of [`crate::Plan::tensors`].
        tensor: usize,
    },
    /// A step that [`crate::Trainer::poll`] began is not finished.
    Unfinished,
    /// The flash driver reports an error.
    Flash {
        /// `"erase"`, `"program"` or `"read"`.
        operation: &'static str,
        /// The slot.
        slot: usize,
        /// The driver's own error.
        code: i32,
    },
    /// Flash memory does not contain the bytes that were just programmed.
    FlashContents {
        /// The slot.
        slot: usize,
    },
    /// The bytes are not a checkpoint of this model.
    Checkpoint(CheckpointError),
}

/// The reasons for which bytes are not a valid checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The bytes end before the header or the data does.
    Truncated {
        /// How many bytes there are.
        given: usize,
        /// The least number that is enough.
        wanted: usize,
    },
    /// The header is not JSON as safetensors prescribes it.
    Header {
        /// The byte at which reading stopped.
        at: usize,
    },
    /// Two tensors, or two metadata entries, have the same name.
    Duplicate {
        /// The byte at which the second begins.
        at: usize,
    },
    /// The tensors leave a gap in the data, or overlap.
    Offsets {
        /// The bytes that they cover, from the data's beginning or in sum.
        given: usize,
        /// The length of the data in bytes.
        wanted: usize,
    },
    /// A tensor that the model has is missing.
    Missing {
        /// Its number in [`crate::layout::Plan::tensors`]; the optimiser's tensors follow, in the same order.
        tensor: usize,
    },
    /// A tensor does not have the type or shape of the model's.
    Shape {
        /// Its number in [`crate::layout::Plan::tensors`]; the optimiser's tensors follow, in the same order.
        tensor: usize,
    },
    /// The bytes have been altered: the checksum does not match.
    Checksum {
        /// The checksum that the file states.
        stated: u32,
        /// The checksum of its data.
        computed: u32,
    },
    /// A metadata entry that is needed to resume is missing or malformed.
    Metadata {
        /// Its key.
        key: &'static str,
    },
    /// The checkpoint belongs to another model.
    Configuration {
        /// The metadata key of the value that differs.
        key: &'static str,
    },
    /// A metadata key to write is reserved (`format`, `jostle.` and more) or occurs twice.
    Key {
        /// Its index in the slice of pairs.
        index: usize,
    },
    /// The buffer to write to is too short.
    Buffer {
        /// Its length in bytes.
        given: usize,
        /// The wanted length.
        wanted: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::Zero { what } => write!(f, "{what} is 0; at least 1 is wanted"),
            Error::TooLarge { what } => write!(f, "{what} is too large for this machine"),
            Error::Heads { width, heads } => write!(f, "width {width} is not divisible by heads {heads}"),
            Error::Range { what, given, wanted } => write!(f, "{what} is {given}; wanted: {wanted}"),
            Error::Length { what, given, wanted } => {
                write!(f, "{what} has {given} elements; wanted: exactly {wanted}")
            }
            Error::Token { index, token, vocab } => {
                write!(f, "token {token} at index {index} is outside the vocabulary of {vocab}")
            }
            Error::Context { length, context } => {
                write!(f, "{length} positions exceed the context of {context}")
            }
            Error::Data { given, wanted } => write!(f, "{given} tokens given; at least {wanted} are needed"),
            Error::NotFinite { what, value } => write!(f, "{what} is {value}; nothing was changed"),
            Error::InstructionSet => write!(f, "that instruction set is unknown or absent here"),
            Error::Plan { what } => write!(f, "the plan did not reserve {what}"),
            Error::Character { index } => write!(f, "character at byte {index} is not in the table"),
            Error::Buffer { what, given, wanted } => {
                write!(f, "{what} has {given} elements; wanted: at least {wanted}")
            }
            Error::Unsorted { what, index } => write!(f, "{what} is not strictly ascending at index {index}"),
            Error::Steps { what, given, most } => {
                write!(f, "{what} is {given} steps; wanted: at most {most}")
            }
            Error::Name { index } => write!(f, "name {index} is no tensor of the model"),
            Error::Fused { what } => {
                write!(f, "{what} is impossible where the update is fused into backward")
            }
            Error::PartlyUpdated { tensor } => {
                write!(f, "the gradient of tensor {tensor} is not finite; parameters have changed in part")
            }
            Error::Unfinished => f.write_str("a step in pieces is not done yet"),
            Error::Budget { given, wanted } => {
                write!(f, "a budget of {given} bytes is too small; wanted: at least {wanted}")
            }
            Error::Flash { operation, slot, code } => {
                write!(f, "flash: {operation} of slot {slot}: error {code}")
            }
            Error::FlashContents { slot } => {
                write!(f, "flash: slot {slot} does not hold what was programmed")
            }
            Error::Checkpoint(error) => write!(f, "checkpoint: {error}"),
        }
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            CheckpointError::Truncated { given, wanted } => {
                write!(f, "{given} bytes; at least {wanted} are needed")
            }
            CheckpointError::Header { at } => write!(f, "the header is not safetensors (byte {at})"),
            CheckpointError::Duplicate { at } => write!(f, "a name occurs twice (byte {at})"),
            CheckpointError::Offsets { given, wanted } => {
                write!(f, "the tensors cover {given} bytes without gap or overlap; the data has {wanted}")
            }
            CheckpointError::Missing { tensor } => write!(f, "tensor {tensor} of the model is missing"),
            CheckpointError::Shape { tensor } => {
                write!(f, "tensor {tensor} has another type or shape than the model's")
            }
            CheckpointError::Checksum { stated, computed } => {
                write!(f, "checksum {computed:08x}, stated {stated:08x}: the bytes were altered")
            }
            CheckpointError::Metadata { key } => write!(f, "metadata {key:?} is missing or malformed"),
            CheckpointError::Configuration { key } => write!(f, "{key} is another than the model's"),
            CheckpointError::Key { index } => {
                write!(f, "the key of metadata pair {index} is reserved or occurs twice")
            }
            CheckpointError::Buffer { given, wanted } => {
                write!(f, "the buffer has {given} bytes; wanted: {wanted}")
            }
        }
    }
}

impl core::error::Error for Error {}
impl core::error::Error for CheckpointError {}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        Error::Checkpoint(error)
    }
}

/// Refuses a slice whose length is not exactly `wanted`.
pub(crate) const fn exact_length(what: &'static str, given: usize, wanted: usize) -> Result<(), Error> {
    if given == wanted { Ok(()) } else { Err(Error::Length { what, given, wanted }) }
}
