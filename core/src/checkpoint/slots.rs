//! Checkpoints in two slots of flash memory, so that one is complete whenever the power fails. Knows nothing of
//! devices.
//!
//! A slot begins with its record, rounded up to the unit of programming. The checkpoint's bytes follow.
//!
//! | bytes | record |
//! |---|---|
//! | 0..8 | sequence number: one more than in the newest complete slot |
//! | 8..16 | length of the checkpoint in bytes |
//! | 16..20 | CRC-32 of the checkpoint, then of the 16 bytes before |
//!
//! All numbers are little-endian. [`Slots::save`] erases the slot that is not the newest complete one, and programs
//! the checkpoint. It programs the record last. A slot is complete if its record matches its contents. After an
//! interrupted save it does not, and the other slot is used.

use core::num::NonZeroUsize;

use super::crc::Crc;
use super::numbers::Numbers;
use super::read::{self, Header};
use super::write::Writing;
use super::{Contents, Progress};
use crate::error::{CheckpointError, Error};
use crate::layout::Plan;

/// The bytes of a record before rounding up, with padding after its fields.
const RECORD: usize = 32;

/// A driver for two slots of flash memory, numbered 0 and 1. [`Error::Flash`] passes on its error numbers.
pub trait Flash {
    /// The bytes of each slot.
    fn slot_size(&self) -> usize;

    /// The unit of programming in bytes; at least 1.
    fn write_size(&self) -> usize;

    /// Erases a whole slot.
    ///
    /// # Errors
    /// The driver's.
    fn erase(&mut self, slot: usize) -> Result<(), i32>;

    /// Programs erased bytes from byte `at` of a slot on; `at` and the length are multiples of
    /// [`Flash::write_size`].
    ///
    /// # Errors
    /// The driver's.
    fn program(&mut self, slot: usize, at: usize, bytes: &[u8]) -> Result<(), i32>;

    /// Reads from byte `at` of a slot on, whatever the contents.
    ///
    /// # Errors
    /// The driver's, for example if the memory detects a word that was programmed in part.
    fn read(&mut self, slot: usize, at: usize, bytes: &mut [u8]) -> Result<(), i32>;
}

/// The place of a complete checkpoint. Bytes `offset..offset + length` of the slot are a file for
/// [`Checkpoint::new`](super::Checkpoint::new), which can read memory-mapped flash in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// 0 or 1.
    pub index: usize,
    /// The number of its save, counted from 1.
    pub sequence: u64,
    /// The bytes before the checkpoint.
    pub offset: usize,
    /// The bytes of the checkpoint.
    pub length: usize,
}

impl Slot {
    /// The fields of the record that its checksum covers.
    fn fields(&self) -> [[u8; 8]; 2] {
        [self.sequence.to_le_bytes(), (self.length as u64).to_le_bytes()]
    }

    /// The record's checksum, from the checksum of the checkpoint.
    fn checksum(&self, contents: Crc) -> u32 {
        contents.update(self.fields().as_flattened()).finish()
    }
}

/// Two slots of flash memory, and a block of the caller's memory to work in.
pub struct Slots<'a> {
    flash: &'a mut dyn Flash,
    block: &'a mut [u8],
    /// The unit of programming in bytes.
    unit: NonZeroUsize,
    /// The bytes of a record in flash, a multiple of the unit.
    record: usize,
    /// See [`Slots::unread`].
    unread: Option<(usize, i32)>,
}

impl<'a> Slots<'a> {
    /// The block must have room for a record, and for [`Slots::load`] for a checkpoint's header. Its contents are
    /// lost. Between steps, the workspace can serve as the block.
    ///
    /// # Errors
    /// [`Error::Zero`] if the unit of programming is 0, [`Error::Buffer`] if the block or a slot is too short,
    /// [`Error::TooLarge`].
    #[inline(never)]
    pub fn new(flash: &'a mut dyn Flash, block: &'a mut [u8]) -> Result<Slots<'a>, Error> {
        let unit = unit(flash.write_size())?;
        let record = record(unit)?;
        for (what, given) in [("block", block.len()), ("slot", flash.slot_size())] {
            if given < record {
                return Err(Error::Buffer { what, given, wanted: record });
            }
        }
        Ok(Slots { flash, block, unit, record, unread: None })
    }

    /// The newest complete checkpoint, if any.
    ///
    /// # Errors
    /// [`Error::Flash`] if neither slot can be read. A slot that cannot be read is not complete: memory with error
    /// detection refuses to read a word whose programming was interrupted.
    pub fn newest(&mut self) -> Result<Option<Slot>, Error> {
        self.survey().map(|(newest, _)| newest)
    }

    /// The slot that the last call could not read, and the driver's error. That slot may have a newer checkpoint than the
    /// one that the call found. A program can try again if the error may pass.
    pub fn unread(&self) -> Option<(usize, i32)> {
        self.unread
    }

    /// The newest complete checkpoint, and the slot for the next one.
    fn survey(&mut self) -> Result<(Option<Slot>, usize), Error> {
        let slots = [self.whole(0), self.whole(1)];
        self.unread = slots.iter().find_map(|whole| match *whole {
            Err(Error::Flash { slot, code, .. }) => Some((slot, code)),
            _ => None,
        });
        match slots {
            [Ok(Some(first)), Ok(Some(second))] if second.sequence > first.sequence => Ok((Some(second), 0)),
            [Ok(Some(first)), _] => Ok((Some(first), 1)),
            [_, Ok(Some(second))] => Ok((Some(second), 0)),
            [Ok(None), _] => Ok((None, 0)),
            // The first slot may be complete, and readable again later.
            [Err(_), Ok(None)] => Ok((None, 1)),
            [Err(error), Err(_)] => Err(error),
        }
    }

    /// Saves a checkpoint in the slot without the newest complete one, and reads it back. If it fails or is
    /// interrupted, the newest complete checkpoint does not change.
    ///
    /// # Errors
    /// As [`write()`](super::write()); [`Error::Buffer`] if a slot is too short: nothing has been erased then.
    /// [`Error::Flash`]; [`Error::FlashContents`] if the slot does not contain the programmed bytes.
    pub fn save(&mut self, plan: &Plan, contents: &Contents) -> Result<Slot, Error> {
        let writing = Writing::new(plan, contents)?;
        let unit = self.unit;
        let wanted = size(writing.size(), unit.get())?;
        if self.flash.slot_size() < wanted {
            return Err(Error::Buffer { what: "slot", given: self.flash.slot_size(), wanted });
        }
        let (newest, index) = self.survey()?;
        let sequence = newest.map_or(0, |newest| newest.sequence).saturating_add(1);
        let slot = Slot { index, sequence, offset: self.record, length: writing.size() };
        let failed = |operation| move |code| Error::Flash { operation, slot: index, code };
        self.flash.erase(index).map_err(failed("erase"))?;

        let usable = self.block.len() / unit * unit.get();
        let (block, _) = self.block.split_at_mut_checked(usable).unwrap_or_default();
        let (mut crc, mut at, mut filled) = (Crc::START, self.record, 0);
        writing.put(&mut |mut piece: &[u8]| {
            crc = crc.update(piece);
            while !piece.is_empty() {
                let room = block.get_mut(filled..).unwrap_or_default();
                let (now, later) = piece.split_at_checked(room.len()).unwrap_or((piece, &[]));
                room.iter_mut().zip(now).for_each(|(place, byte)| *place = *byte);
                filled += now.len();
                piece = later;
                if filled == usable {
                    self.flash.program(index, at, block).map_err(failed("program"))?;
                    (at, filled) = (at + usable, 0);
                }
            }
            Ok(())
        })?;
        if filled > 0 {
            let padded = filled.checked_next_multiple_of(unit.get()).unwrap_or(filled);
            let rest = block.get_mut(..padded).unwrap_or_default();
            rest.get_mut(filled..).unwrap_or_default().fill(0);
            self.flash.program(index, at, rest).map_err(failed("program"))?;
        }

        let record = block.get_mut(..self.record).unwrap_or_default();
        record.fill(0);
        let [sequence, length] = slot.fields();
        // The checksum's four bytes, and four of padding.
        let fields = [sequence, length, u64::from(slot.checksum(crc)).to_le_bytes()];
        record.iter_mut().zip(fields.as_flattened()).for_each(|(place, byte)| *place = *byte);
        self.flash.program(index, 0, record).map_err(failed("program"))?;
        if self.whole(index)? == Some(slot) { Ok(slot) } else { Err(Error::FlashContents { slot: index }) }
    }

    /// Reads the newest complete checkpoint, as [`Checkpoint::read`](super::Checkpoint::read). Returns `None` without
    /// one.
    ///
    /// # Errors
    /// As [`Checkpoint::read`](super::Checkpoint::read); [`Error::Buffer`] if the block is shorter than the
    /// checkpoint's header. Nothing has been written then. [`Error::Flash`], after which the numbers may be written
    /// in part.
    pub fn load(
        &mut self,
        plan: &Plan,
        parameters: &mut [f32],
        optimizer: Option<&mut [f32]>,
    ) -> Result<Option<Progress>, Error> {
        let Some(slot) = self.newest()? else { return Ok(None) };
        let failed = |code| Error::Flash { operation: "read", slot: slot.index, code };
        let mut length = [0; 8];
        self.flash.read(slot.index, slot.offset, &mut length).map_err(failed)?;
        let length = read::header_length(length)?;
        let data_at = length.saturating_add(8);
        let truncated = CheckpointError::Truncated { given: slot.length, wanted: data_at };
        let data = slot.length.checked_sub(data_at).ok_or(truncated)?;
        let short = Error::Buffer { what: "block", given: self.block.len(), wanted: length };
        let text = self.block.get_mut(..length).ok_or(short)?;
        self.flash.read(slot.index, slot.offset.saturating_add(8), text).map_err(failed)?;

        let header = Header::new(text, data)?;
        header.no_duplicates()?;
        let progress = header.progress()?;
        let data_at = slot.offset.saturating_add(data_at);
        header.copy(plan, parameters, optimizer, &[], &mut |kind: Numbers, begin, numbers: &mut [f32]| {
            let mut at = data_at.saturating_add(begin);
            let mut bytes = [0; 4 * 64];
            for numbers in numbers.chunks_mut(64) {
                let bytes = bytes.get_mut(..numbers.len() * kind.size()).unwrap_or_default();
                self.flash.read(slot.index, at, bytes).map_err(failed)?;
                kind.read(bytes, numbers);
                at = at.saturating_add(bytes.len());
            }
            Ok(())
        })?;
        Ok(Some(progress))
    }

    /// The checkpoint in a slot, if the slot is complete.
    fn whole(&mut self, index: usize) -> Result<Option<Slot>, Error> {
        let failed = |code| Error::Flash { operation: "read", slot: index, code };
        let mut fields = [[0; 8]; 2];
        let mut stated = [0; 4];
        self.flash.read(index, 0, fields.as_flattened_mut()).map_err(failed)?;
        self.flash.read(index, 16, &mut stated).map_err(failed)?;
        let [sequence, length] = fields.map(u64::from_le_bytes);
        let room = self.flash.slot_size().saturating_sub(self.record);
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= room) else {
            return Ok(None);
        };
        let slot = Slot { index, sequence, offset: self.record, length };
        let (mut crc, mut at, mut left) = (Crc::START, slot.offset, length);
        while left > 0 {
            let size = left.min(self.block.len());
            let piece = self.block.get_mut(..size).unwrap_or_default();
            self.flash.read(index, at, piece).map_err(failed)?;
            crc = crc.update(piece);
            (at, left) = (at.saturating_add(size), left.saturating_sub(size));
        }
        Ok((slot.checksum(crc) == u32::from_le_bytes(stated)).then_some(slot))
    }
}

fn unit(write_size: usize) -> Result<NonZeroUsize, Error> {
    NonZeroUsize::new(write_size).ok_or(Error::Zero { what: "write_size" })
}

/// The bytes of a record in flash whose unit of programming is `unit` bytes.
fn record(unit: NonZeroUsize) -> Result<usize, Error> {
    RECORD.checked_next_multiple_of(unit.get()).ok_or(Error::TooLarge { what: "write_size" })
}

/// The bytes that a slot needs for a checkpoint of `length` bytes, in flash whose unit of programming is `write_size`
/// bytes. The size of sectors may require more.
///
/// # Errors
/// [`Error::Zero`], [`Error::TooLarge`] for `write_size`.
pub fn size(length: usize, write_size: usize) -> Result<usize, Error> {
    let too_large = Error::TooLarge { what: "slot" };
    let contents = length.checked_add(record(unit(write_size)?)?).ok_or(too_large)?;
    contents.checked_next_multiple_of(write_size).ok_or(too_large)
}
