//! Errors, with the given and the wanted values. This module depends on no other.

use core::fmt;

/// The reason why a call is refused. A refused call has written nothing, unless its documentation says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A size that must be at least 1 is 0.
    Zero {
        /// The size's name, e.g. `"layers"`.
        what: &'static str,
    },
    /// A size, or a product of sizes, exceeds the address space of this machine (or [`crate::Config::LARGEST`]).
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
    /// The query heads cannot be divided evenly among the key/value heads.
    KvHeads {
        /// The number of query heads, H.
        heads: usize,
        /// The number of key/value heads.
        kv_heads: usize,
    },
    /// A number outside its range (dropout rate, epsilon, temperature, ...).
    Range {
        /// The number's name.
        what: &'static str,
        /// Its value.
        given: f32,
        /// The valid range, in words.
        wanted: &'static str,
    },
    /// A slice does not have exactly the wanted length, in elements.
    Length {
        /// The slice's name.
        what: &'static str,
        /// Its length.
        given: usize,
        /// The wanted length.
        wanted: usize,
    },
    /// A token is outside `0..vocab`. (A target may also be -1, which is ignored.)
    Token {
        /// Its index in the slice.
        index: usize,
        /// Its value.
        token: i64,
        /// The vocabulary's size, V.
        vocab: usize,
    },
    /// A sequence is longer than the model's context.
    Context {
        /// The sequence's length.
        length: usize,
        /// The model's context.
        context: usize,
    },
    /// A text has too few tokens for a window (context + 1).
    Data {
        /// The number of tokens.
        given: usize,
        /// The least number that the call needs.
        wanted: usize,
    },
    /// The loss or a logit is NaN or infinite. No gradient has changed, and no token was drawn.
    NotFinite {
        /// `"loss"`, `"logit"` or `"greatest logit"`.
        what: &'static str,
        /// Its value.
        value: f32,
    },
    /// The loss or the gradient norm of a training step is NaN or infinite. Parameters, optimiser state and step are as
    /// before. [`crate::Trainer::skip`] continues with the next step.
    Diverged {
        /// The step's number, from 0.
        step: u64,
        /// `"loss"` or `"gradient norm"`.
        what: &'static str,
        /// Its value.
        value: f32,
        /// The index in [`crate::Plan::tensors`] of the first tensor that is not finite: of parameters for the loss, of
        /// gradients for the norm. `None` if all of them are finite, and on bare metal.
        tensor: Option<usize>,
    },
    /// The loss of a training step is a spike ([`crate::SpikeGuard`]). Parameters, optimiser state and step are as before.
    /// [`crate::Trainer::skip`] continues with the next step.
    Spike {
        /// The step's number, from 0.
        step: u64,
        /// The loss.
        loss: f32,
        /// Its distance from the mean of the losses before it, in standard deviations.
        z: f32,
    },
    /// The processor is in a mode in which results would have other bits.
    FloatingPoint {
        /// The fault of the mode, in words.
        what: &'static str,
        /// The right mode, in words.
        wanted: &'static str,
    },
    /// The name of an instruction set is unknown, or this processor or build does not have the instruction set.
    InstructionSet,
    /// The combination is not supported.
    Unsupported {
        /// What is not supported, in words.
        what: &'static str,
    },
    /// The plan has not reserved the memory that the call needs.
    Plan {
        /// The purpose of the missing memory.
        what: &'static str,
    },
    /// A character is malformed or not in the table.
    Character {
        /// Its byte position in the text.
        index: usize,
    },
    /// A buffer is too short.
    Buffer {
        /// The buffer's name.
        what: &'static str,
        /// Its length, in elements.
        given: usize,
        /// The least length that the call needs.
        wanted: usize,
    },
    /// A table is not strictly ascending.
    Unsorted {
        /// The table's name.
        what: &'static str,
        /// The index of the first element that is not greater than its predecessor.
        index: usize,
    },
    /// A part of a learning-rate schedule does not fit into the schedule's steps.
    Steps {
        /// `"warmup"` or `"decay_steps"`.
        what: &'static str,
        /// Its number of steps.
        given: u64,
        /// The most steps that fit.
        most: u64,
    },
    /// A budget of memory is too small for any plan.
    Budget {
        /// Its size in bytes.
        given: usize,
        /// The size of the smallest plan in bytes.
        wanted: usize,
    },
    /// No tensor of the model has this name.
    Name {
        /// The index of the name in the given list.
        index: usize,
    },
    /// The call needs all gradients at once, but the plan has a fused optimizer step.
    Fused {
        /// `"clip"`, `"accumulate"`, `"guard"` or `"backward"`.
        what: &'static str,
    },
    /// A gradient is NaN or infinite in a fused optimizer step. Tensors that were updated before it have changed, and so has
    /// their optimiser state. Training can continue from a checkpoint.
    PartlyUpdated {
        /// The index of the gradient's tensor in [`crate::Plan::tensors`].
        tensor: usize,
    },
    /// Sizes inside the engine do not match: a bug of jostle. The results of the call are not valid.
    Internal {
        /// The operation that detected it.
        operation: &'static str,
    },
    /// A step that [`crate::Trainer::poll`] has begun is not finished yet.
    Unfinished,
    /// A function of the flash memory's driver has failed.
    Flash {
        /// `"erase"`, `"program"` or `"read"`.
        operation: &'static str,
        /// The slot.
        slot: usize,
        /// The driver's error code.
        code: i32,
    },
    /// Flash memory does not hold the bytes that were just programmed.
    FlashContents {
        /// The slot.
        slot: usize,
    },
    /// The bytes are not a checkpoint of this model.
    Checkpoint(CheckpointError),
    /// The bytes are not a file of llama2.c.
    Llama2c(Llama2cError),
}

/// The reason why bytes are refused as a file of llama2.c.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Llama2cError {
    /// The file ends within its header or an entry.
    Truncated {
        /// The number of bytes.
        given: usize,
        /// The least number of bytes that the file must have.
        wanted: usize,
    },
    /// A number in a model's header is not valid.
    Header {
        /// `"version"`, `"tied"`, or a size of the model.
        what: &'static str,
        /// Its value.
        given: i32,
    },
    /// A model's file does not have the length that its header states.
    Length {
        /// The number of bytes.
        given: usize,
        /// The number that the header states.
        wanted: usize,
    },
    /// The file's model does not have the shape of the plan's.
    Configuration {
        /// The field that differs.
        what: &'static str,
    },
    /// The files do not have models with this value.
    Unsupported {
        /// The field of the configuration.
        what: &'static str,
    },
    /// A token's text is empty, or longer than the file says that its longest is.
    Piece {
        /// The token.
        token: usize,
        /// The length of its text.
        given: i64,
        /// The longest length.
        most: u32,
    },
    /// A token that must stand for a byte does not have the byte's name, e.g. `<0x0A>` for token 13.
    Byte {
        /// The token.
        token: usize,
    },
    /// The vocabulary lacks the control tokens and bytes that every tokenizer has.
    Vocab {
        /// The number of tokens.
        given: usize,
        /// The least number of tokens.
        wanted: usize,
    },
}

/// The reason why bytes are refused as a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The bytes end within the header or the data.
    Truncated {
        /// The number of bytes.
        given: usize,
        /// The least number of bytes that the file must have.
        wanted: usize,
    },
    /// The header does not have the safetensors format.
    Header {
        /// The byte offset at which reading stopped.
        at: usize,
    },
    /// Two tensors, or two metadata entries, have the same name.
    Duplicate {
        /// The byte offset of the second.
        at: usize,
    },
    /// The tensors overlap or leave a gap in the data.
    Offsets {
        /// The number of bytes of all tensors.
        given: usize,
        /// The length of the data in bytes.
        wanted: usize,
    },
    /// A tensor that the model has is missing.
    Missing {
        /// Its index in [`crate::Plan::tensors`]. The tensors of the optimiser's state follow in the same order.
        tensor: usize,
    },
    /// A tensor does not have the shape of the model's.
    Shape {
        /// Its index in [`crate::Plan::tensors`]. The tensors of the optimiser's state follow in the same order.
        tensor: usize,
        /// The first two sides of its shape; missing ones are 1.
        given: [usize; 2],
        /// The shape of the model's tensor.
        wanted: [usize; 2],
    },
    /// A tensor's numbers are not F32, F16 or BF16.
    Type {
        /// Its index in [`crate::Plan::tensors`]. The tensors of the optimiser's state follow in the same order.
        tensor: usize,
        /// The name of their type, e.g. `BF16`.
        given: &'static str,
    },
    /// The file has a tensor that the model does not have: see [`crate::checkpoint::Checkpoint::unused`].
    Unused {
        /// The byte offset of its name.
        at: usize,
    },
    /// The checksum does not match: the bytes were altered.
    Checksum {
        /// The checksum in the file.
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
    /// A metadata key to write is reserved (`format`, or beginning with `jostle.`) or occurs twice.
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
            Error::Zero { what } => write!(f, "{what} is 0; expected at least 1"),
            Error::TooLarge { what } => write!(f, "{what} is too large for this machine"),
            Error::Heads { width, heads } => write!(f, "width {width} is not divisible by heads {heads}"),
            Error::KvHeads { heads, kv_heads } => {
                write!(f, "heads {heads} is not divisible by kv_heads {kv_heads}")
            }
            Error::Range { what, given, wanted } => write!(f, "{what} is {given}; expected {wanted}"),
            Error::Length { what, given, wanted } => {
                write!(f, "{what} has {given} elements; expected {wanted}")
            }
            Error::Token { index, token, vocab } => {
                write!(f, "token {token} at index {index} is outside the vocabulary of {vocab}")
            }
            Error::Context { length, context } => {
                write!(f, "{length} positions exceed the context of {context}")
            }
            Error::Data { given, wanted } => write!(f, "{given} tokens given; at least {wanted} are needed"),
            Error::NotFinite { what, value } => write!(f, "{what} is {value}; nothing was changed"),
            Error::Diverged { step, what, value, tensor } => {
                write!(f, "step {step}: {what} is {value}; nothing was changed")?;
                match tensor {
                    Some(tensor) => write!(f, "; the first tensor that is not finite is {tensor}"),
                    None => Ok(()),
                }
            }
            Error::Spike { step, loss, z } => {
                write!(f, "step {step}: loss {loss} is a spike, {z} standard deviations; nothing was changed")
            }
            Error::FloatingPoint { what, wanted } => {
                write!(f, "floating-point mode of the processor: {what}; expected {wanted}")
            }
            Error::InstructionSet => write!(f, "the instruction set is unknown or not available here"),
            Error::Unsupported { what } => write!(f, "{what} is not supported"),
            Error::Plan { what } => write!(f, "the plan has no memory for {what}"),
            Error::Character { index } => write!(f, "character at byte {index} is not in the table"),
            Error::Buffer { what, given, wanted } => {
                write!(f, "{what} has {given} elements; expected at least {wanted}")
            }
            Error::Unsorted { what, index } => write!(f, "{what} is not strictly ascending at index {index}"),
            Error::Steps { what, given, most } => {
                write!(f, "{what} is {given} steps; expected at most {most}")
            }
            Error::Name { index } => write!(f, "the model has no tensor of name {index}"),
            Error::Fused { what } => {
                write!(f, "{what} is not possible with a fused optimizer step")
            }
            Error::PartlyUpdated { tensor } => {
                write!(f, "the gradient of tensor {tensor} is not finite; some parameters have changed")
            }
            Error::Internal { operation } => {
                write!(f, "internal error: the sizes in {operation} do not match; please report this bug")
            }
            Error::Unfinished => f.write_str("a step in pieces is not finished yet"),
            Error::Budget { given, wanted } => {
                write!(f, "a budget of {given} bytes is too small; expected at least {wanted}")
            }
            Error::Flash { operation, slot, code } => {
                write!(f, "flash: {operation} of slot {slot}: error {code}")
            }
            Error::FlashContents { slot } => {
                write!(f, "flash: slot {slot} does not hold the programmed bytes")
            }
            Error::Checkpoint(error) => write!(f, "checkpoint: {error}"),
            Error::Llama2c(error) => write!(f, "file of llama2.c: {error}"),
        }
    }
}

impl fmt::Display for Llama2cError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Llama2cError::Truncated { given, wanted } => {
                write!(f, "{given} bytes; at least {wanted} are needed")
            }
            Llama2cError::Header { what, given } => write!(f, "{what} is {given} in the header"),
            Llama2cError::Length { given, wanted } => {
                write!(f, "{given} bytes; its header states {wanted}")
            }
            Llama2cError::Configuration { what } => write!(f, "{what} differs from the plan's"),
            Llama2cError::Unsupported { what } => write!(f, "such files have no model with this {what}"),
            Llama2cError::Piece { token, given, most } => {
                write!(f, "the text of token {token} has length {given}; expected 1 to {most}")
            }
            Llama2cError::Byte { token } => {
                write!(f, "token {token} is not <0x{:02X}>", token.saturating_sub(3))
            }
            Llama2cError::Vocab { given, wanted } => {
                write!(f, "{given} tokens; expected at least {wanted}")
            }
        }
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            CheckpointError::Truncated { given, wanted } => {
                write!(f, "{given} bytes; at least {wanted} are needed")
            }
            CheckpointError::Header { at } => {
                write!(f, "the header does not have the safetensors format (byte {at})")
            }
            CheckpointError::Duplicate { at } => write!(f, "a name occurs twice (byte {at})"),
            CheckpointError::Offsets { given, wanted } => {
                write!(
                    f,
                    "tensors of {given} bytes do not cover the data of {wanted} bytes without gap or overlap"
                )
            }
            CheckpointError::Missing { tensor } => write!(f, "tensor {tensor} of the model is missing"),
            CheckpointError::Shape { tensor, given, wanted } => {
                write!(f, "tensor {tensor} has shape {given:?}; expected {wanted:?}")
            }
            CheckpointError::Type { tensor, given } => {
                write!(f, "tensor {tensor} is {given}; expected F32, F16 or BF16")
            }
            CheckpointError::Unused { at } => {
                write!(f, "the model does not have the tensor that is named at byte {at}")
            }
            CheckpointError::Checksum { stated, computed } => {
                write!(f, "checksum {computed:08x}, stated {stated:08x}: the bytes were altered")
            }
            CheckpointError::Metadata { key } => write!(f, "metadata {key:?} is missing or malformed"),
            CheckpointError::Configuration { key } => write!(f, "{key} differs from the model's"),
            CheckpointError::Key { index } => {
                write!(f, "the key of metadata pair {index} is reserved or occurs twice")
            }
            CheckpointError::Buffer { given, wanted } => {
                write!(f, "the buffer has {given} bytes; expected {wanted}")
            }
        }
    }
}

impl core::error::Error for Error {}
impl core::error::Error for CheckpointError {}
impl core::error::Error for Llama2cError {}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        Error::Checkpoint(error)
    }
}

impl From<Llama2cError> for Error {
    fn from(error: Llama2cError) -> Self {
        Error::Llama2c(error)
    }
}

/// Refuses a slice whose length is not `wanted`.
pub(crate) const fn exact_length(what: &'static str, given: usize, wanted: usize) -> Result<(), Error> {
    if given == wanted { Ok(()) } else { Err(Error::Length { what, given, wanted }) }
}

/// Refuses a buffer that is too short to be filled.
pub(crate) const fn at_least(what: &'static str, given: usize, wanted: usize) -> Result<(), Error> {
    if given >= wanted { Ok(()) } else { Err(Error::Buffer { what, given, wanted }) }
}
