//! The files of llama2.c: tokenizers, on a handle that holds the caller's pointers, and models.

use core::mem::offset_of;

use jostle::llama2c::{Model, Piece, Tokenizer, Version};

use crate::border::{self, Buffers, Handle, Kind, Output, open};
use crate::buffers::jostle_buffers;
use crate::config::{flag, jostle_config};
use crate::plan::jostle_plan;
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_error, jostle_status};

/// A tokenizer.bin of llama2.c: byte-pair encoding with scores. It holds pointers to the caller's buffers and owns nothing, so
/// there is nothing to free.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_llama2c_tokenizer {
    /// Made by jostle_llama2c_tokenizer_init.
    pub opaque: [u64; 1],
    /// Likewise.
    pub more: [usize; 28],
}

/// The value in a [`jostle_llama2c_tokenizer`].
#[derive(Clone, Copy)]
pub struct State {
    file: (*const u8, usize),
    index: (*const u32, usize),
}

impl Handle for jostle_llama2c_tokenizer {
    type Value = State;
    const KIND: &'static Kind = &Kind {
        name: "tokenizer",
        mark: u64::from_le_bytes(*b"jost.l2c"),
        opaque: offset_of!(jostle_llama2c_tokenizer, opaque),
    };
}

impl State {
    /// # Safety
    /// The buffers are as at jostle_llama2c_tokenizer_init.
    unsafe fn tokenizer<'a>(&self, buffers: &mut Buffers<'_>) -> Result<Tokenizer<'a>, Refused> {
        // SAFETY: the caller's promise is the same.
        unsafe {
            let file = buffers.read_all("file", self.file.0, self.file.1)?;
            Ok(Tokenizer::with_index(file, buffers.read_all("index", self.index.0, self.index.1)?))
        }
    }
}

/// Checks a tokenizer.bin of llama2.c. Computes its number of tokens, and the size in bytes of the index that
/// jostle_llama2c_tokenizer_init fills.
///
/// # Safety
/// `file` is readable for `file_size` bytes; `vocab` and `index_size` are writable; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_llama2c_tokenizer_size(
    file: *const u8,
    file_size: usize,
    vocab: *mut usize,
    index_size: *mut usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let vocab = Output::new(call, "vocab", vocab)?;
            let index_size = Output::new(call, "index_size", index_size)?;
            let file = Buffers::new(call).read_all("file", file, file_size)?;
            let length = Tokenizer::index_len(file).or_refuse(call)?;
            vocab.write(Tokenizer::vocab_of(length));
            index_size.write(size_of::<u32>() * length);
            Ok(())
        })
    }
}

/// Makes a tokenizer of a tokenizer.bin, whose tokens are looked up where they lie.
///
/// `index`: as many bytes as jostle_llama2c_tokenizer_size says.
///
/// # Safety
/// `tokenizer` is writable, `file` readable for `file_size` bytes, `index` writable for `index_size` bytes, `error` NULL or
/// writable. As long as the tokenizer is used, file and index stay where they are, and nobody writes them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_llama2c_tokenizer_init(
    tokenizer: *mut jostle_llama2c_tokenizer,
    file: *const u8,
    file_size: usize,
    index: *mut u32,
    index_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let tokenizer = Output::new(call, "tokenizer", tokenizer)?;
            let mut buffers = Buffers::new(call);
            let bytes = buffers.read_all("file", file, file_size)?;
            let length = Tokenizer::index_len(bytes).or_refuse(call)?;
            Tokenizer::new(bytes, buffers.write("index", index, index_size, length)?).or_refuse(call)?;
            let index = (index.cast_const(), size_of::<u32>() * length);
            tokenizer.seal(&State { file: (file, file_size), index });
            Ok(())
        })
    }
}

/// Writes the tokens of a text to the front of `tokens`, and their number into `count`. They begin with BOS (1) if `bos` is 1,
/// and end with EOS (2) if `eos` is 1. A character that has no token becomes its bytes. The text need not be UTF-8 or end
/// with a zero.
///
/// `tokens`: 16 `text_size` + 24 bytes. The bytes behind the tokens are scratch memory.
///
/// # Safety
/// `tokenizer` is readable and its buffers are as they were at its init; `text` is readable for `text_size` bytes, `tokens`
/// writable for `tokens_size` bytes; `count` is writable; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_llama2c_encode(
    tokenizer: *const jostle_llama2c_tokenizer,
    text: *const u8,
    text_size: usize,
    bos: u32,
    eos: u32,
    tokens: *mut i32,
    tokens_size: usize,
    count: *mut usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let count = Output::beside(call, "count", count, tokenizer)?;
            let mut buffers = Buffers::new(call);
            let tokenizer = open(call, tokenizer)?.tokenizer(&mut buffers)?;
            let text = buffers.read_all("text", text, text_size)?;
            let (bos, eos) = (flag(call, "bos", bos)?, flag(call, "eos", eos)?);
            let room = Tokenizer::room(text.len());
            let tokens = buffers.write("tokens", tokens, tokens_size, room)?;
            count.write(tokenizer.encode(text, bos, eos, tokens).or_refuse(call)?);
            Ok(())
        })
    }
}

/// Writes the text of tokens to the front of `text`, without a zero at its end, and its length into `length`. BOS (1) and EOS
/// (2) have no text. After BOS, a space in front is removed; `previous` is the token before the first one, or -1 if there is
/// none. A piece of a text may end within a character.
///
/// # Safety
/// `tokenizer` is readable and its buffers are as they were at its init; `tokens` is readable for `tokens_size` bytes, `text`
/// writable for `text_size` bytes; `length` is writable; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_llama2c_decode(
    tokenizer: *const jostle_llama2c_tokenizer,
    previous: i32,
    tokens: *const i32,
    tokens_size: usize,
    text: *mut u8,
    text_size: usize,
    length: *mut usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let length = Output::beside(call, "length", length, tokenizer)?;
            let mut buffers = Buffers::new(call);
            let tokenizer = open(call, tokenizer)?.tokenizer(&mut buffers)?;
            let tokens = buffers.read_all("tokens", tokens, tokens_size)?;
            let previous = (previous != -1).then_some(previous);
            let wanted = tokenizer.decoded_len(previous, tokens).or_refuse(call)?;
            let text = buffers.write("text", text, text_size, wanted)?;
            length.write(tokenizer.decode(previous, tokens, text).or_refuse(call)?);
            Ok(())
        })
    }
}

/// Writes a tokenizer.bin to the front of `file`, and its size into `written`. `texts` has the texts of all tokens, one
/// behind the other.
///
/// `lengths`, `scores` [vocab]: the length of each token's text in bytes, and its score. `file`: as many bytes as `texts`,
/// and 8 for each token and 4.
///
/// # Safety
/// `texts` is readable for `texts_size` bytes, `lengths` and `scores` are readable for `vocab` numbers, `file` is writable
/// for `file_size` bytes; `written` is writable; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_llama2c_tokenizer_write(
    texts: *const u8,
    texts_size: usize,
    lengths: *const u32,
    lengths_size: usize,
    scores: *const f32,
    scores_size: usize,
    vocab: usize,
    file: *mut u8,
    file_size: usize,
    written: *mut usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let written = Output::new(call, "written", written)?;
            let mut buffers = Buffers::new(call);
            let lengths = buffers.read("lengths", lengths, lengths_size, vocab)?;
            let scores = buffers.read("scores", scores, scores_size, vocab)?;
            let size = lengths.iter().fold(0_usize, |sum, length| sum.saturating_add(*length as usize));
            let texts = buffers.read("texts", texts, texts_size, size)?;
            let pieces = lengths.iter().zip(scores).scan(texts, |rest, (length, score)| {
                let text = rest.split_off(..*length as usize).unwrap_or_default();
                Some(Piece { text, score: *score })
            });
            let wanted = Tokenizer::file_len(pieces.clone()).or_refuse(call)?;
            let file = buffers.write("file", file, file_size, wanted)?;
            written.write(Tokenizer::write(pieces, file).or_refuse(call)?);
            Ok(())
        })
    }
}

/// A model's file, examined.
///
/// # Safety
/// `file` is readable for the given number of bytes while the result is used.
#[inline(never)]
unsafe fn examine<'a>(
    buffers: &mut Buffers<'_>,
    file: *const u8,
    file_size: usize,
) -> Result<Model<'a>, Refused> {
    // SAFETY: the caller's promise is the same.
    let file = unsafe { buffers.read_all("file", file, file_size)? };
    Model::new(file).or_refuse(buffers.call)
}

fn version(call: &Call, given: u32) -> Result<Version, Refused> {
    match given {
        0 => Ok(Version::V0),
        1 => Ok(Version::V1),
        given => Err(call.refuse(Refusal::Choice { what: "version", given })),
    }
}

/// Writes the configuration of the model in a file of llama2.c (version 0 or 1) of exactly `file_size` bytes.
/// JOSTLE_STRUCT_TOO_SMALL if the caller's header lacks a field that the model needs.
///
/// # Safety
/// `file` is readable for `file_size` bytes; `config` is writable for `struct_size` bytes, which is sizeof(jostle_config) in the
/// caller's header; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_llama2c_config(
    file: *const u8,
    file_size: usize,
    config: *mut jostle_config,
    struct_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let model = examine(&mut Buffers::new(call), file, file_size)?;
            let value = jostle_config::from_core(model.config());
            border::fill_whole(call, "config", config, struct_size, &value)
        })
    }
}

/// Reads the parameters of a model in a file of llama2.c, except frozen ones. The rows of query and key matrices are put in
/// Hugging Face's order. A file that is refused leaves the parameters as they were.
///
/// # Safety
/// `file` is readable for `file_size` bytes, `plan` is readable, `parameters` is writable for `parameters_size` bytes, `error`
/// is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_llama2c_read(
    file: *const u8,
    file_size: usize,
    plan: *const jostle_plan,
    parameters: *mut f32,
    parameters_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let plan = open(call, plan)?;
            let mut buffers = Buffers::new(call);
            let model = examine(&mut buffers, file, file_size)?;
            let parameters = buffers.write("parameters", parameters, parameters_size, plan.parameters())?;
            model.read(plan, parameters).or_refuse(call)
        })
    }
}

/// Computes the size in bytes of the file of llama2.c that jostle_llama2c_write writes. JOSTLE_LLAMA2C_UNSUPPORTED if such
/// files have no model of that configuration.
///
/// # Safety
/// `plan` is readable, `size` writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_llama2c_size(
    plan: *const jostle_plan,
    version: u32,
    size: *mut usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let size = Output::beside(call, "size", size, plan)?;
            let plan = open(call, plan)?;
            let version = self::version(call, version)?;
            size.write(Model::file_len(plan.config(), version).or_refuse(call)?);
            Ok(())
        })
    }
}

/// Writes a model as a file of llama2.c, and its size into `written`. `version` is 0, which llama2.c runs, or 1. Of `buffers`, it
/// uses `parameters` and `frozen`.
///
/// `file`: as many bytes as jostle_llama2c_size says.
///
/// # Safety
/// `plan` and `buffers` are readable, and so are the buffers that it uses; `file` is writable for `file_size` bytes; `written`
/// is writable; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_llama2c_write(
    plan: *const jostle_plan,
    buffers: *const jostle_buffers,
    version: u32,
    file: *mut u8,
    file_size: usize,
    written: *mut usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let written = Output::beside(call, "written", written, plan)?;
            let plan = open(call, plan)?;
            let given = border::structure(call, "buffers", buffers)?;
            let version = self::version(call, version)?;
            let length = Model::file_len(plan.config(), version).or_refuse(call)?;
            let mut buffers = Buffers::new(call);
            let (parameters, frozen) = given.read(plan, &mut buffers)?;
            let file = buffers.write("file", file, file_size, length)?;
            written.write(Model::write(plan, parameters, frozen, version, file).or_refuse(call)?);
            Ok(())
        })
    }
}
