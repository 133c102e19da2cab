//! Checkpoints in the caller's bytes.

use core::ffi::c_char;

use jostle::checkpoint::{self, Checkpoint, Contents, Progress};
use jostle::{CheckpointError, Error, Plan};

use crate::border::{self, Buffers, Output, input, open};
use crate::buffers::jostle_buffers;
use crate::config::{flag, jostle_config};
use crate::plan::jostle_plan;
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_error, jostle_status};

/// The progress of training.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_progress {
    /// The number of steps done.
    pub step: u64,
    /// The seed of batches and dropout.
    pub seed: u64,
}

/// A metadata entry of the caller's: zero-terminated text in UTF-8. Keys differ from each other, are not "format" and do not
/// begin with "jostle.".
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_metadata {
    /// The name.
    pub key: *const c_char,
    /// The text.
    pub value: *const c_char,
}

/// The most metadata entries that jostle_checkpoint_write takes.
pub const JOSTLE_METADATA_MOST: usize = 16;

/// Metadata entries as pairs of text.
pub(crate) struct MetadataPairs<'a> {
    pairs: [(&'a str, &'a str); JOSTLE_METADATA_MOST],
    count: usize,
}

impl<'a> MetadataPairs<'a> {
    pub const NONE: MetadataPairs<'a> = MetadataPairs { pairs: [("", ""); JOSTLE_METADATA_MOST], count: 0 };

    /// # Safety
    /// `metadata` is readable for `count` entries, and their strings are.
    pub unsafe fn new(
        call: &Call,
        metadata: *const jostle_metadata,
        count: usize,
    ) -> Result<MetadataPairs<'a>, Refused> {
        let mut pairs = [("", ""); JOSTLE_METADATA_MOST];
        for index in 0..count {
            let place = pairs.get_mut(index).ok_or(Error::TooLarge { what: "metadata" }).or_refuse(call)?;
            // SAFETY: the caller vouches for `count` entries and their strings.
            *place = unsafe {
                // `add` must not be called on NULL.
                input(call, "metadata", metadata)?;
                let entry = input(call, "metadata", metadata.add(index))?;
                (
                    border::string(call, "metadata key", entry.key)?,
                    border::string(call, "metadata value", entry.value)?,
                )
            };
        }
        Ok(MetadataPairs { pairs, count })
    }

    pub fn get(&self) -> &[(&'a str, &'a str)] {
        self.pairs.get(..self.count).unwrap_or_default()
    }
}

/// The arguments that functions which write a checkpoint take, as C hands them over.
pub(crate) struct CheckpointArguments {
    pub plan: *const jostle_plan,
    pub buffers: *const jostle_buffers,
    pub progress: *const jostle_progress,
    pub metadata: *const jostle_metadata,
    pub metadata_count: usize,
}

impl CheckpointArguments {
    /// The plan and the checkpoint's contents; `pairs` keeps the metadata entries.
    ///
    /// # Safety
    /// The pointers are as jostle_checkpoint_write says.
    pub unsafe fn contents<'a>(
        self,
        pairs: &'a mut MetadataPairs<'a>,
        buffers: &mut Buffers<'_>,
    ) -> Result<(&'a Plan, Contents<'a>), Refused> {
        let CheckpointArguments { plan, buffers: given, progress, metadata, metadata_count } = self;
        let call = buffers.call;
        // SAFETY: the caller's promise is the same.
        unsafe {
            let plan = open(call, plan)?;
            let given = border::structure(call, "buffers", given)?;
            *pairs = MetadataPairs::new(call, metadata, metadata_count)?;
            let &jostle_progress { step, seed } = input(call, "progress", progress)?;
            let (parameters, frozen) = given.read(plan, buffers)?;
            let (optimizer, size) = (given.optimizer.cast_const(), given.optimizer_size);
            let state = buffers.read_optional("optimizer", optimizer, size, plan.optimizer())?;
            let optimizer = (!optimizer.is_null()).then_some(state);
            let progress = Progress { step, seed };
            Ok((plan, Contents { parameters, frozen, optimizer, progress, metadata: pairs.get() }))
        }
    }
}

/// Computes the exact size of a checkpoint in bytes, with these metadata entries. The checkpoint has the optimiser's state if
/// `optimizer` is 1, and does not if it is 0.
///
/// # Safety
/// `plan` is readable, `metadata` readable for `metadata_count` entries (NULL for none), `size` writable, `error`
/// NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_checkpoint_size(
    plan: *const jostle_plan,
    optimizer: u32,
    metadata: *const jostle_metadata,
    metadata_count: usize,
    size: *mut usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let (size, plan, pairs) = (
                Output::beside(call, "size", size, plan)?,
                open(call, plan)?,
                MetadataPairs::new(call, metadata, metadata_count)?,
            );
            let optimizer = flag(call, "optimizer", optimizer)?;
            size.write(checkpoint::size(plan, optimizer, pairs.get()).or_refuse(call)?);
            Ok(())
        })
    }
}

/// Writes a checkpoint in the safetensors format, with Hugging Face GPT-2's names and a checksum: parameters, optimiser
/// state, configuration, progress and metadata. `written` receives the number of bytes, the same as jostle_checkpoint_size
/// tells.
///
/// Of `buffers`, it uses `parameters`, `frozen` and `optimizer`. If `optimizer` is NULL, the file has no optimiser state:
/// it can be used, but training cannot continue from it.
///
/// # Safety
/// `plan`, `buffers` and `progress` are readable. The buffers that it uses are readable, `bytes` is writable for the given
/// bytes. `metadata` is readable for `metadata_count` entries (NULL for none), `written` is writable, `error` is NULL or
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_checkpoint_write(
    plan: *const jostle_plan,
    buffers: *const jostle_buffers,
    progress: *const jostle_progress,
    metadata: *const jostle_metadata,
    metadata_count: usize,
    bytes: *mut u8,
    bytes_size: usize,
    written: *mut usize,
    error: *mut jostle_error,
) -> jostle_status {
    let arguments = CheckpointArguments { plan, buffers, progress, metadata, metadata_count };
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let mut pairs = MetadataPairs::NONE;
            let output = Output::beside(call, "written", written, plan)?;
            let (plan, contents) = arguments.contents(&mut pairs, &mut buffers)?;
            let wanted =
                checkpoint::size(plan, contents.optimizer.is_some(), contents.metadata).or_refuse(call)?;
            let bytes = buffers.write("bytes", bytes, bytes_size, wanted)?;
            output.write(checkpoint::write(bytes, plan, &contents).or_refuse(call)?);
            Ok(())
        })
    }
}

/// Refuses a file, with the name of the tensor that is wrong in it.
#[cold]
#[inline(never)]
fn refuse_file(call: &Call, plan: &Plan, file: &Checkpoint<'_>, error: &Error) -> Refused {
    let refused = call.refuse_about(plan, error);
    if cfg!(feature = "hosted")
        && let Error::Checkpoint(CheckpointError::Unused { .. }) = error
        && let Some(name) = file.unused(plan).next()
        && let Ok(name) = name.copy_to(&mut [0; 64])
    {
        call.rename(&name);
    }
    refused
}

/// Examines the bytes of a file.
///
/// # Safety
/// `bytes` is readable for `bytes_size` bytes.
unsafe fn examine<'a>(
    buffers: &mut Buffers<'_>,
    bytes: *const u8,
    bytes_size: usize,
) -> Result<Checkpoint<'a>, Refused> {
    if bytes.is_null() {
        return Err(buffers.call.refuse(Refusal::Null("bytes")));
    }
    // SAFETY: the caller's promise is the same.
    let bytes = unsafe { buffers.read("bytes", bytes, bytes_size, bytes_size)? };
    Checkpoint::new(bytes).or_refuse(buffers.call)
}

/// Writes the configuration of the model in a checkpoint of exactly `bytes_size` bytes. JOSTLE_STRUCT_TOO_SMALL if the model
/// needs a field that the caller's header lacks.
///
/// # Safety
/// `bytes` is readable for the given number of bytes, `config` is writable for `struct_size` bytes, which is sizeof(jostle_config) in
/// the caller's header, `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_checkpoint_config(
    bytes: *const u8,
    bytes_size: usize,
    config: *mut jostle_config,
    struct_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let file = examine(&mut Buffers::new(call), bytes, bytes_size)?;
            let value = jostle_config::from_core(&file.config().or_refuse(call)?);
            border::fill_whole(call, "config", config, struct_size, &value)?;
            Ok(())
        })
    }
}

/// Reads a checkpoint of exactly `bytes_size` bytes into the parameters and, unless it is NULL, the optimiser's state. Of
/// `buffers`, it uses `parameters` and `optimizer`. The plan may have other dropout rates, batch and threads than the
/// checkpoint was trained with. A file that is refused leaves the buffers as they were.
///
/// # Safety
/// `bytes` is readable for the given number of bytes, `buffers` and `plan` are readable, the buffers that it uses are writable,
/// `progress` is writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_checkpoint_read(
    bytes: *const u8,
    bytes_size: usize,
    plan: *const jostle_plan,
    buffers: *const jostle_buffers,
    progress: *mut jostle_progress,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut used = Buffers::new(call);
            let output = Output::beside(call, "progress", progress, plan)?;
            let plan = open(call, plan)?;
            let (parameters, state) = border::structure(call, "buffers", buffers)?.write(plan, &mut used)?;
            let file = examine(&mut used, bytes, bytes_size)?;
            let Progress { step, seed } =
                file.read(plan, parameters, state).map_err(|error| refuse_file(call, plan, &file, &error))?;
            output.write(jostle_progress { step, seed });
            Ok(())
        })
    }
}

/// Reads only the parameters of a safetensors file of exactly `bytes_size` bytes, which another program may have written:
/// GPT-2's names, with or without "transformer." before them, as F32, F16 or BF16. It may have causal masks, and, if the
/// model's head is tied, a "lm_head.weight" that equals "wte.weight". Other tensors that the model does not have are
/// refused.
///
/// # Safety
/// As for jostle_checkpoint_read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_checkpoint_read_parameters(
    bytes: *const u8,
    bytes_size: usize,
    plan: *const jostle_plan,
    parameters: *mut f32,
    parameters_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let plan = open(call, plan)?;
            let parameters = buffers.write("parameters", parameters, parameters_size, plan.parameters())?;
            let file = examine(&mut buffers, bytes, bytes_size)?;
            file.read_parameters(plan, parameters).map_err(|error| refuse_file(call, plan, &file, &error))?;
            Ok(())
        })
    }
}

/// Writes the value of a metadata key into `text`, zero-terminated, and its length without the zero into `length`.
/// JOSTLE_BUFFER_TOO_SHORT tells in `error` how many bytes it needs.
///
/// # Safety
/// `bytes` is readable and `text` writable for the given number of bytes, `key` is zero-terminated, `length` writable, `error`
/// NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_checkpoint_metadata(
    bytes: *const u8,
    bytes_size: usize,
    key: *const c_char,
    text: *mut c_char,
    text_size: usize,
    length: *mut usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let output = Output::new(call, "length", length)?;
            let key = border::string(call, "key", key)?;
            let file = examine(&mut buffers, bytes, bytes_size)?;
            let value = file.metadata(key).ok_or(Refusal::NotFound { what: "metadata", index: 0 });
            let value = value.or_refuse(call)?;
            let length = value.len();
            let text = buffers.write("text", text.cast::<u8>(), text_size, length.saturating_add(1))?;
            if let Some((end, text)) = text.split_last_mut() {
                value.copy_to(text).or_refuse(call)?;
                *end = 0;
            }
            output.write(length);
            Ok(())
        })
    }
}
