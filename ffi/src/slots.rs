//! Checkpoints in two slots of flash memory, which functions of the caller erase, program and read.

use core::ffi::c_void;

use jostle::checkpoint::Progress;
use jostle::checkpoint::slots::{self, Flash, Slot, Slots};

use core::mem::offset_of;

use crate::border::{self, Buffers, Output, Structure, open};
use crate::buffers::jostle_buffers;
use crate::checkpoint::{CheckpointArguments, MetadataPairs, jostle_metadata, jostle_progress};
use crate::plan::jostle_plan;
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_error, jostle_status};

/// Erases a whole slot, 0 or 1. Returns 0 or its own error code, which jostle_error has as `given`.
pub type jostle_flash_erase = Option<unsafe extern "C" fn(context: *mut c_void, slot: usize) -> i32>;

/// Programs `size` erased bytes of a slot, beginning at byte `at`; both are multiples of `write_size`. Returns as
/// jostle_flash_erase.
pub type jostle_flash_program = Option<
    unsafe extern "C" fn(context: *mut c_void, slot: usize, at: usize, bytes: *const u8, size: usize) -> i32,
>;

/// Reads `size` bytes of a slot, beginning at byte `at`, whatever the slot holds. Returns as jostle_flash_erase; an error, for
/// example, if the memory detects a word that was programmed in part.
pub type jostle_flash_read = Option<
    unsafe extern "C" fn(context: *mut c_void, slot: usize, at: usize, bytes: *mut u8, size: usize) -> i32,
>;

/// Two slots of flash memory. A slot begins with a record of 32 bytes, or of `write_size` if that is more, and then holds the
/// checkpoint. The record has three little-endian numbers: the number of the save (8 bytes), the length of the checkpoint
/// (8), and a CRC-32 of both and of the checkpoint (4). The rest of the record is padding.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_flash {
    /// sizeof(jostle_flash).
    pub struct_size: u32,
    /// The number of bytes that are programmed at once; at least 1.
    pub write_size: u32,
    /// The size of each slot in bytes, at least as jostle_slots_size says.
    pub slot_size: usize,
    /// Erases.
    pub erase: jostle_flash_erase,
    /// Programs.
    pub program: jostle_flash_program,
    /// Reads.
    pub read: jostle_flash_read,
    /// Passed to the three functions; may be NULL.
    pub context: *mut c_void,
}

// SAFETY: numbers and pointers without padding; `struct_size` comes first.
unsafe impl Structure for jostle_flash {
    const FIRST_SIZE: usize = offset_of!(jostle_flash, context) + size_of::<*mut c_void>();
}

/// The place of a whole checkpoint in flash memory. If flash is memory-mapped, the jostle_checkpoint functions can read the
/// checkpoint there.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_slot {
    /// The number of the save, counted from 1.
    pub sequence: u64,
    /// The slot, 0 or 1.
    pub index: usize,
    /// The offset of the checkpoint in the slot, in bytes.
    pub offset: usize,
    /// The size of the checkpoint in bytes.
    pub size: usize,
    /// The error of reading the other slot; 0 if it could be read. If the error passes, that slot may have a newer checkpoint.
    pub other_error: i32,
    /// 0.
    pub reserved: u32,
}

/// The caller's functions.
struct Driver {
    write_size: usize,
    slot_size: usize,
    erase: unsafe extern "C" fn(*mut c_void, usize) -> i32,
    program: unsafe extern "C" fn(*mut c_void, usize, usize, *const u8, usize) -> i32,
    read: unsafe extern "C" fn(*mut c_void, usize, usize, *mut u8, usize) -> i32,
    context: *mut c_void,
}

impl Driver {
    /// # Safety
    /// A pointer other than NULL is readable for as many bytes as its `struct_size` says; its functions do what their
    /// types' comments say.
    unsafe fn new(call: &Call, flash: *const jostle_flash) -> Result<Driver, Refused> {
        // SAFETY: the caller's promise is the same.
        let flash = unsafe { border::structure(call, "flash", flash)? };
        Ok(Driver {
            write_size: flash.write_size as usize,
            slot_size: flash.slot_size,
            erase: flash.erase.ok_or(Refusal::Null("erase")).or_refuse(call)?,
            program: flash.program.ok_or(Refusal::Null("program")).or_refuse(call)?,
            read: flash.read.ok_or(Refusal::Null("read")).or_refuse(call)?,
            context: flash.context,
        })
    }
}

fn result(code: i32) -> Result<(), i32> {
    if code == 0 { Ok(()) } else { Err(code) }
}

impl Flash for Driver {
    fn slot_size(&self) -> usize {
        self.slot_size
    }

    fn write_size(&self) -> usize {
        self.write_size
    }

    fn erase(&mut self, slot: usize) -> Result<(), i32> {
        // SAFETY: the caller of `new` vouches for the function.
        result(unsafe { (self.erase)(self.context, slot) })
    }

    fn program(&mut self, slot: usize, at: usize, bytes: &[u8]) -> Result<(), i32> {
        // SAFETY: as above; the bytes are readable.
        result(unsafe { (self.program)(self.context, slot, at, bytes.as_ptr(), bytes.len()) })
    }

    fn read(&mut self, slot: usize, at: usize, bytes: &mut [u8]) -> Result<(), i32> {
        // SAFETY: as above; the bytes are writable.
        result(unsafe { (self.read)(self.context, slot, at, bytes.as_mut_ptr(), bytes.len()) })
    }
}

/// The slots, with the caller's `block` to work in.
///
/// # Safety
/// `block` is writable for the given number of bytes while the slots are used.
#[inline(never)]
unsafe fn slots<'a>(
    buffers: &mut Buffers<'_>,
    driver: &'a mut Driver,
    (block, block_size): (*mut u8, usize),
) -> Result<Slots<'a>, Refused> {
    // SAFETY: the caller's promise is the same.
    let block = unsafe { buffers.write("block", block, block_size, block_size)? };
    Slots::new(driver, block).or_refuse(buffers.call)
}

/// Computes the size in bytes that a slot needs for a checkpoint of `checkpoint_size` bytes, if `write_size` bytes are
/// programmed at once.
///
/// # Safety
/// `size` is writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_slots_size(
    checkpoint_size: usize,
    write_size: u32,
    size: *mut usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let output = Output::new(call, "size", size)?;
            output.write(slots::size(checkpoint_size, write_size as usize).or_refuse(call)?);
            Ok(())
        })
    }
}

/// Finds the newest whole checkpoint; JOSTLE_NOT_FOUND if there is none. A slot that cannot be read counts as one without a
/// checkpoint, because memory with error detection refuses words that were programmed in part. `slot` tells so or, if there
/// is no checkpoint, `error`: its `given` is the error of reading, its `index` the slot. `block` is memory to work in: at least 32 bytes and at
/// least `write_size`; more is faster.
///
/// # Safety
/// `flash` is readable for as many bytes as its `struct_size` says, and its functions may be called; `block` is writable
/// for the given number of bytes, `slot` writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_slots_newest(
    flash: *const jostle_flash,
    block: *mut u8,
    block_size: usize,
    slot: *mut jostle_slot,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let output = Output::new(call, "slot", slot)?;
            let mut driver = Driver::new(call, flash)?;
            let mut buffers = Buffers::new(call);
            let mut slots = slots(&mut buffers, &mut driver, (block, block_size))?;
            let newest = slots.newest().or_refuse(call)?;
            let newest = newest.ok_or(Refusal::NoCheckpoint { unread: slots.unread() });
            let Slot { index, sequence, offset, length } = newest.or_refuse(call)?;
            let other_error = slots.unread().map_or(0, |(_, code)| code);
            output.write(jostle_slot { sequence, index, offset, size: length, other_error, reserved: 0 });
            Ok(())
        })
    }
}

/// Saves a checkpoint, as jostle_checkpoint_write writes it, in the slot that does not hold the newest whole checkpoint,
/// and reads it back. If the power fails meanwhile, either the newest whole checkpoint is as it was or this one is whole.
/// `block` is as for jostle_slots_newest; between steps, a workspace will do.
///
/// # Safety
/// `flash` is readable for as many bytes as its `struct_size` says, and its functions may be called; `block` is writable
/// for the given number of bytes. The other arguments are as for jostle_checkpoint_write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_slots_save(
    flash: *const jostle_flash,
    plan: *const jostle_plan,
    buffers: *const jostle_buffers,
    progress: *const jostle_progress,
    metadata: *const jostle_metadata,
    metadata_count: usize,
    block: *mut u8,
    block_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    let arguments = CheckpointArguments { plan, buffers, progress, metadata, metadata_count };
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let mut pairs = MetadataPairs::NONE;
            let mut driver = Driver::new(call, flash)?;
            let (plan, contents) = arguments.contents(&mut pairs, &mut buffers)?;
            let mut slots = slots(&mut buffers, &mut driver, (block, block_size))?;
            slots.save(plan, &contents).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Reads the newest whole checkpoint as jostle_checkpoint_read does; JOSTLE_NOT_FOUND if there is none. `block` is as
/// for jostle_slots_newest, and as long as the checkpoint's header: JOSTLE_BUFFER_TOO_SHORT tells that length in `error`.
/// JOSTLE_FLASH may leave the buffers written in part; another refusal leaves them as they were.
///
/// # Safety
/// `flash` is readable for as many bytes as its `struct_size` says, and its functions may be called; `block` is writable
/// for the given number of bytes. The other arguments are as for jostle_checkpoint_read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_slots_load(
    flash: *const jostle_flash,
    plan: *const jostle_plan,
    buffers: *const jostle_buffers,
    block: *mut u8,
    block_size: usize,
    progress: *mut jostle_progress,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut used = Buffers::new(call);
            let output = Output::beside(call, "progress", progress, plan)?;
            let mut driver = Driver::new(call, flash)?;
            let plan = open(call, plan)?;
            let (parameters, state) = border::structure(call, "buffers", buffers)?.write(plan, &mut used)?;
            let mut slots = slots(&mut used, &mut driver, (block, block_size))?;
            let loaded =
                slots.load(plan, parameters, state).map_err(|error| call.refuse_about(plan, &error))?;
            let loaded = loaded.ok_or(Refusal::NoCheckpoint { unread: slots.unread() });
            let Progress { step, seed } = loaded.or_refuse(call)?;
            output.write(jostle_progress { step, seed });
            Ok(())
        })
    }
}
