//! Turns C pointers and sizes into Rust slices and values. All reading and writing through the caller's pointers is here.

use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use jostle::Error;
use jostle::compact::format::{Sink, Written};
use jostle::compact::utf8;

use crate::status::{Call, Refusal, Refused};

/// The buffers of one call. None may be NULL, misaligned or too short. A buffer that is written must not share bytes with
/// another buffer, because Rust's slices must not.
pub(crate) struct Buffers<'c> {
    pub call: &'c Call,
    /// The first and the end address of each of the `count` buffers, and whether it is written.
    spans: [[usize; 2]; MOST],
    written: [bool; MOST],
    count: usize,
}

/// The most buffers that one call has.
const MOST: usize = 12;

impl<'c> Buffers<'c> {
    pub fn new(call: &'c Call) -> Buffers<'c> {
        Buffers { call, spans: [[0; 2]; MOST], written: [false; MOST], count: 0 }
    }

    /// Checks a buffer of `size` bytes that must hold `wanted` elements, whose size and alignment is `element` bytes. It may
    /// be NULL if `wanted` is 0. Not generic, so that programs contain it once.
    #[inline(never)]
    fn check(
        &mut self,
        what: &'static str,
        data: *const u8,
        size: usize,
        wanted: usize,
        element: usize,
        written: bool,
    ) -> Result<NonNull<u8>, Refused> {
        if wanted == 0 {
            return Ok(NonNull::<u64>::dangling().cast());
        }
        let data = pointer(self.call, what, data.cast_mut(), element)?;
        let first = data.addr().get();
        let bytes = wanted.checked_mul(element).filter(|bytes| isize::try_from(*bytes).is_ok());
        let end = bytes.and_then(|bytes| first.checked_add(bytes));
        let (Some(bytes), Some(end)) = (bytes, end) else {
            return Err(self.call.refuse_as_core(&Error::TooLarge { what }));
        };
        if size < bytes {
            return Err(self.call.refuse(Refusal::Short { what, given: size, wanted: bytes }));
        }
        let others = self.spans.iter().zip(&self.written).take(self.count);
        for ([other_first, other_end], other_written) in others {
            if first < *other_end && *other_first < end && (written || *other_written) {
                return Err(self.call.refuse(Refusal::Overlap(what)));
            }
        }
        let place = self.spans.get_mut(self.count).zip(self.written.get_mut(self.count));
        // More than MOST is a bug of this crate, which every test of the call would find.
        let Some(place) = place else {
            return Err(self.call.refuse_as_core(&Error::TooLarge { what }));
        };
        (*place.0, *place.1) = ([first, end], written);
        self.count += 1;
        Ok(data)
    }

    /// The first `wanted` elements of a buffer of `size` bytes, which may be NULL if `wanted` is 0.
    ///
    /// # Safety
    /// A pointer other than NULL is readable for `size` bytes while the slice is used.
    pub unsafe fn read<'a, T: Number>(
        &mut self,
        what: &'static str,
        data: *const T,
        size: usize,
        wanted: usize,
    ) -> Result<&'a [T], Refused> {
        let data = self.check(what, data.cast(), size, wanted, size_of::<T>(), false)?;
        // SAFETY: the pointer is aligned, not NULL, and the caller vouches for `size` bytes, which are enough. Any bits are
        // a valid number. No buffer that this call writes shares a byte with this one.
        Ok(unsafe { core::slice::from_raw_parts(data.cast().as_ptr(), wanted) })
    }

    /// All elements of a buffer of `size` bytes, which must be a multiple of theirs. It may not be NULL.
    ///
    /// # Safety
    /// As for [`Buffers::read`].
    pub unsafe fn read_all<'a, T: Number>(
        &mut self,
        what: &'static str,
        data: *const T,
        size: usize,
    ) -> Result<&'a [T], Refused> {
        pointer(self.call, what, data.cast_mut().cast(), 1)?;
        let count = size / size_of::<T>();
        let wanted = count.wrapping_mul(size_of::<T>());
        if size != wanted {
            return Err(self.call.refuse_as_core(&Error::Length { what, given: size, wanted }));
        }
        // SAFETY: the caller's promise is the same.
        unsafe { self.read(what, data, size, count) }
    }

    /// As [`Buffers::read`], but empty if the pointer is NULL.
    ///
    /// # Safety
    /// As for [`Buffers::read`].
    pub unsafe fn read_optional<'a, T: Number>(
        &mut self,
        what: &'static str,
        data: *const T,
        size: usize,
        wanted: usize,
    ) -> Result<&'a [T], Refused> {
        let wanted = if data.is_null() { 0 } else { wanted };
        // SAFETY: the caller's promise is the same.
        unsafe { self.read(what, data, size, wanted) }
    }

    /// The first `wanted` elements of a buffer of `size` bytes, to be written. It may be NULL if `wanted` is 0.
    ///
    /// # Safety
    /// A pointer other than NULL is writable for `size` bytes, and nobody else uses them, while the slice is.
    pub unsafe fn write<'a, T: Number>(
        &mut self,
        what: &'static str,
        data: *mut T,
        size: usize,
        wanted: usize,
    ) -> Result<&'a mut [T], Refused> {
        let data = self.check(what, data.cast(), size, wanted, size_of::<T>(), true)?;
        // SAFETY: as in `read`. No other buffer of this call shares a byte with this one.
        Ok(unsafe { core::slice::from_raw_parts_mut(data.cast().as_ptr(), wanted) })
    }

    /// As [`Buffers::write`], but empty if the pointer is NULL.
    ///
    /// # Safety
    /// As for [`Buffers::write`].
    pub unsafe fn write_optional<'a, T: Number>(
        &mut self,
        what: &'static str,
        data: *mut T,
        size: usize,
        wanted: usize,
    ) -> Result<&'a mut [T], Refused> {
        let wanted = if data.is_null() { 0 } else { wanted };
        // SAFETY: the caller's promise is the same.
        unsafe { self.write(what, data, size, wanted) }
    }
}

/// Refuses a pointer that is NULL or not aligned to `align` bytes.
#[inline(never)]
fn pointer(call: &Call, what: &'static str, pointer: *mut u8, align: usize) -> Result<NonNull<u8>, Refused> {
    match NonNull::new(pointer) {
        None => Err(call.refuse(Refusal::Null(what))),
        Some(pointer) if !pointer.addr().get().is_multiple_of(align) => {
            Err(call.refuse(Refusal::Misaligned(what)))
        }
        Some(pointer) => Ok(pointer),
    }
}

/// Types that every bit pattern is a valid value of.
///
/// # Safety
/// Every bit pattern is a valid value; the type has no padding.
pub(crate) unsafe trait Number: Copy {}
// SAFETY: a number.
unsafe impl Number for f32 {}
// SAFETY: a number.
unsafe impl Number for i32 {}
// SAFETY: a number.
unsafe impl Number for u32 {}
// SAFETY: a number.
unsafe impl Number for u16 {}
// SAFETY: a number.
unsafe impl Number for u8 {}

/// A struct whose first field is `struct_size: u32`. Later versions only append fields, so a program that was built with an
/// older header hands over the first bytes of the struct.
///
/// # Safety
/// The struct is `#[repr(C)]` without padding, its first field is `struct_size: u32`, and every bit pattern is a valid value
/// of each field.
pub(crate) unsafe trait Structure: Copy {
    /// The size in the first header, which is the smallest that is accepted: the end of the last field that it had.
    const FIRST_SIZE: usize;
    /// The fields after `FIRST_SIZE` as the init function sets them. The other fields are not read.
    const DEFAULTS: Option<Self> = None;
}

/// The sizes that `struct_size` may have.
struct Sizes {
    what: &'static str,
    first: usize,
    here: usize,
}

impl Sizes {
    const fn of<T: Structure>(what: &'static str) -> Sizes {
        const {
            let appended = T::FIRST_SIZE < size_of::<T>();
            assert!(T::FIRST_SIZE <= size_of::<T>() && T::FIRST_SIZE.is_multiple_of(SIZE_ALIGN));
            assert!(T::DEFAULTS.is_some() == appended, "appended fields, and only these, have defaults");
            assert!(align_of::<T>().is_multiple_of(SIZE_ALIGN));
        }
        Sizes { what, first: T::FIRST_SIZE, here: size_of::<T>() }
    }

    /// Refuses a size that no version up to this one has had.
    #[inline(never)]
    fn check(&self, call: &Call, given: usize) -> Result<(), Refused> {
        let &Sizes { what, first, here } = self;
        if (first..=here).contains(&given) && given.is_multiple_of(SIZE_ALIGN) {
            return Ok(());
        }
        let wanted = if given < first { first } else { here };
        Err(call.refuse(Refusal::StructSize { what, given, wanted }))
    }

    /// Copies a struct of the caller's as far as its header knows it.
    ///
    /// # Safety
    /// `given`, unless it is NULL, is readable for four bytes and for as many as its `struct_size` says. `to` is writable
    /// for `here` bytes.
    #[inline(never)]
    unsafe fn read(&self, call: &Call, given: *const u8, to: *mut u8) -> Result<(), Refused> {
        let given = pointer(call, self.what, given.cast_mut(), SIZE_ALIGN)?;
        // SAFETY: the pointer is aligned and not NULL; the caller vouches for the first field.
        let size = unsafe { given.cast::<u32>().read() } as usize;
        self.check(call, size)?;
        // SAFETY: the caller vouches for `size` bytes at `given` and for at least as many at `to`, a value of Rust's own.
        unsafe { to.copy_from_nonoverlapping(given.as_ptr(), size) };
        Ok(())
    }

    /// Writes a struct as far as the caller's header knows it, with `size` as its `struct_size`.
    ///
    /// # Safety
    /// `to`, unless it is NULL, is writable for `size` bytes; `value` is readable for `here` bytes.
    #[inline(never)]
    unsafe fn write(&self, call: &Call, to: *mut u8, size: usize, value: *const u8) -> Result<(), Refused> {
        let to = pointer(call, self.what, to, SIZE_ALIGN)?;
        self.check(call, size)?;
        // SAFETY: the caller vouches for both places; the value is Rust's own, so they share no byte.
        unsafe {
            to.as_ptr().copy_from_nonoverlapping(value, size);
            to.cast::<u32>().write(size as u32);
        }
        Ok(())
    }
}

/// The alignment of `struct_size`. The caller's structs need no more: in an older header, a struct may lack the field that
/// needs more.
const SIZE_ALIGN: usize = align_of::<u32>();

/// The caller's struct, with defaults for the fields that its header does not have.
///
/// # Safety
/// A pointer other than NULL is readable for four bytes and for as many as its `struct_size` says.
pub(crate) unsafe fn structure<T: Structure>(
    call: &Call,
    what: &'static str,
    given: *const T,
) -> Result<T, Refused> {
    let mut value = const { defaults::<T>() };
    // SAFETY: the caller vouches for `given`, and `value` has the size of the struct.
    unsafe { Sizes::of::<T>(what).read(call, given.cast(), value.as_mut_ptr().cast())? };
    // SAFETY: the bytes up to FIRST_SIZE were copied, and any bits are a value; DEFAULTS has set the fields after them.
    Ok(unsafe { value.assume_init() })
}

const fn defaults<T: Structure>() -> MaybeUninit<T> {
    match T::DEFAULTS {
        Some(value) => MaybeUninit::new(value),
        None => MaybeUninit::uninit(),
    }
}

/// Writes a struct that the caller's header says to have `size` bytes.
///
/// # Safety
/// A pointer other than NULL is writable for `size` bytes.
pub(crate) unsafe fn fill<T: Structure>(
    call: &Call,
    what: &'static str,
    place: *mut T,
    size: usize,
    value: &T,
) -> Result<(), Refused> {
    // SAFETY: the caller vouches for `place`; `value` has the size of the struct.
    unsafe { Sizes::of::<T>(what).write(call, place.cast(), size, (&raw const *value).cast()) }
}

/// [`fill`] for a value that the caller did not choose. It is refused if a field that the caller's header lacks differs
/// from its default: the caller would not know.
///
/// # Safety
/// As for [`fill`].
pub(crate) unsafe fn fill_whole<T: Structure>(
    call: &Call,
    what: &'static str,
    place: *mut T,
    size: usize,
    value: &T,
) -> Result<(), Refused> {
    let sizes = Sizes::of::<T>(what);
    if sizes.first < sizes.here {
        sizes.check(call, size)?;
        let beyond = sizes.here.saturating_sub(size);
        let defaults = const { defaults::<T>() };
        // SAFETY: a struct has no padding, and its last `beyond` bytes lie behind FIRST_SIZE, so DEFAULTS has them too.
        let [unknown, defaults] = [&raw const *value, defaults.as_ptr()]
            .map(|value| unsafe { core::slice::from_raw_parts(value.cast::<u8>().add(size), beyond) });
        if unknown != defaults {
            return Err(call.refuse(Refusal::StructSize { what, given: size, wanted: sizes.here }));
        }
    }
    // SAFETY: the caller's promise is the same.
    unsafe { fill(call, what, place, size, value) }
}

/// The value behind a pointer, which is refused if it is NULL or misaligned.
///
/// # Safety
/// A pointer other than NULL points to a valid value, and nobody writes it while the reference is used.
pub(crate) unsafe fn input<'a, T>(
    call: &Call,
    what: &'static str,
    given: *const T,
) -> Result<&'a T, Refused> {
    let given = pointer(call, what, given.cast_mut().cast(), align_of::<T>())?;
    // SAFETY: the pointer is aligned and not NULL; the caller vouches for the value.
    Ok(unsafe { given.cast().as_ref() })
}

/// The place of a result, which a call writes once it has succeeded.
#[derive(Clone, Copy)]
pub(crate) struct Output<T>(NonNull<T>);

impl<T> Output<T> {
    /// # Safety
    /// A pointer other than NULL is writable until the call returns.
    pub unsafe fn new(call: &Call, what: &'static str, place: *mut T) -> Result<Output<T>, Refused> {
        Ok(Output(pointer(call, what, place.cast(), align_of::<T>())?.cast()))
    }

    /// As [`Output::new`], for a call that also gets a handle: the result must not share bytes with it.
    ///
    /// # Safety
    /// As for [`Output::new`].
    #[inline(always)]
    pub unsafe fn beside<H: Handle>(
        call: &Call,
        what: &'static str,
        place: *mut T,
        handle: *const H,
    ) -> Result<Output<T>, Refused> {
        let kind = (size_of::<T>(), align_of::<T>());
        Ok(Output(beside(call, what, place.cast(), kind, handle.addr(), size_of::<H>())?.cast()))
    }

    pub fn write(self, value: T) {
        // SAFETY: the pointer is aligned and not NULL; `new`'s caller vouches for writing.
        unsafe { self.0.write(value) }
    }
}

/// The place of a result of this size and alignment, beside a handle. Not generic, so that programs contain it once.
#[inline(never)]
fn beside(
    call: &Call,
    what: &'static str,
    place: *mut u8,
    (size, align): (usize, usize),
    handle: usize,
    handle_size: usize,
) -> Result<NonNull<u8>, Refused> {
    apart(call, what, (place.addr(), size), (handle, handle_size))?;
    pointer(call, what, place, align)
}

/// Refuses a result that shares bytes with a handle or a buffer; each is an address and a size.
pub(crate) fn apart(
    call: &Call,
    what: &'static str,
    (place, size): (usize, usize),
    (handle, handle_size): (usize, usize),
) -> Result<(), Refused> {
    if place < handle.wrapping_add(handle_size) && handle < place.wrapping_add(size) {
        return Err(call.refuse(Refusal::Overlap(what)));
    }
    Ok(())
}

/// A zero-terminated string as text.
///
/// # Safety
/// A pointer other than NULL is readable up to the terminating zero, and stays so while the text is used.
pub(crate) unsafe fn string<'a>(
    call: &Call,
    what: &'static str,
    text: *const c_char,
) -> Result<&'a str, Refused> {
    let text = pointer(call, what, text.cast_mut().cast(), 1)?;
    // SAFETY: the caller vouches for the terminating zero.
    let text = unsafe { CStr::from_ptr(text.cast().as_ptr()) }.to_bytes();
    if !utf8::is_valid(text) {
        return Err(call.refuse(Refusal::NotUtf8(what)));
    }
    // SAFETY: just checked.
    Ok(unsafe { core::str::from_utf8_unchecked(text) })
}

/// A text of known length, with room for a terminating zero.
struct Fixed {
    text: [c_char; 64],
    length: usize,
}

impl Sink for Fixed {
    fn put(&mut self, text: &[u8]) {
        let most = self.text.len().saturating_sub(1);
        for (place, byte) in self.text.iter_mut().take(most).skip(self.length).zip(text) {
            *place = *byte as c_char;
        }
        self.length = self.length.saturating_add(text.len());
    }
}

/// What `value` writes, with a terminating zero, cut off if it does not fit.
#[inline(never)]
pub(crate) fn written(value: &dyn Written) -> [c_char; 64] {
    let mut fixed = Fixed { text: [0; 64], length: 0 };
    value.write(&mut fixed);
    fixed.text
}

/// The text with a terminating zero, cut off if it does not fit.
pub(crate) fn fixed_string<const N: usize>(text: &str) -> [c_char; N] {
    let mut fixed = [0; N];
    for (place, byte) in fixed.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *place = byte as c_char;
    }
    fixed
}

/// A struct of the header whose last part, from `opaque` on, holds a mark and then a Rust value. The part consists of
/// pointer-sized words if the value does, so that it is small on machines with small words.
pub(crate) trait Handle {
    /// The type of the value.
    type Value: Copy;
    const KIND: &'static Kind;
}

/// A kind of handle.
pub(crate) struct Kind {
    /// The name in errors.
    pub name: &'static str,
    /// Tells an initialised handle of this kind from other memory.
    pub mark: u64,
    /// The offset of the opaque part in the handle.
    pub opaque: usize,
}

/// The contents of a handle's opaque part.
#[repr(C)]
struct Sealed<T> {
    mark: u64,
    value: T,
}

/// The opaque part of a handle.
fn sealed<H: Handle>(handle: NonNull<H>) -> NonNull<Sealed<H::Value>> {
    const {
        let end = H::KIND.opaque + size_of::<Sealed<H::Value>>();
        assert!(end + RESERVE <= size_of::<H>(), "the handle is too small");
        assert!(align_of::<Sealed<H::Value>>() <= ALIGN && align_of::<H>() == ALIGN);
        assert!(H::KIND.opaque.is_multiple_of(ALIGN) && size_of::<H>().is_multiple_of(ALIGN));
    }
    // SAFETY: the offset is within the handle, as asserted.
    unsafe { handle.byte_add(H::KIND.opaque).cast() }
}

/// What handles have left for later versions of the library, which must not need larger handles than compiled programs have
/// (`header.h`, Results). A version that uses it lowers this number.
const RESERVE: usize = 7 * size_of::<usize>();

/// The alignment of handles, which the mark needs.
const ALIGN: usize = align_of::<u64>();

/// The value that [`Output::seal`] has written into a handle.
///
/// # Safety
/// A pointer other than NULL is readable, and nobody writes there while the reference is used.
pub(crate) unsafe fn open<'a, H: Handle>(call: &Call, handle: *const H) -> Result<&'a H::Value, Refused> {
    // SAFETY: the caller's promise is the same.
    let handle = unsafe { opened(call, H::KIND, handle.cast_mut().cast())? };
    // SAFETY: the mark is there, so `Output::seal` has written the value behind it.
    Ok(unsafe { &sealed::<H>(handle.cast()).as_ref().value })
}

/// Checks that a handle is initialised and of this kind.
///
/// # Safety
/// A pointer other than NULL is readable for the size of such a handle.
#[inline(never)]
unsafe fn opened(call: &Call, kind: &Kind, handle: *mut u8) -> Result<NonNull<u8>, Refused> {
    let handle = pointer(call, kind.name, handle, ALIGN)?;
    // SAFETY: the mark lies within the handle, which is aligned and consists of numbers.
    let mark = unsafe { handle.byte_add(kind.opaque).cast::<u64>().read() };
    if mark == kind.mark { Ok(handle) } else { Err(call.refuse(Refusal::NotInitialized(kind.name))) }
}

/// As [`open`], but writable: the handle counts among the buffers that the call writes.
///
/// # Safety
/// A pointer other than NULL is readable and writable, and nobody else uses it while the reference is.
pub(crate) unsafe fn open_mut<'a, H: Handle>(
    handle: *mut H,
    buffers: &mut Buffers<'_>,
) -> Result<&'a mut H::Value, Refused> {
    // SAFETY: the caller's promise is the same.
    let handle = unsafe { opened_mut(buffers, H::KIND, handle.cast(), size_of::<H>())? };
    // SAFETY: just opened. The caller vouches for writing, and no buffer of this call shares a byte with the handle.
    Ok(unsafe { &mut sealed::<H>(handle.cast()).as_mut().value })
}

/// As [`opened`], but writable, for a handle of `size` bytes.
///
/// # Safety
/// As for [`opened`].
#[inline(never)]
unsafe fn opened_mut(
    buffers: &mut Buffers<'_>,
    kind: &Kind,
    handle: *mut u8,
    size: usize,
) -> Result<NonNull<u8>, Refused> {
    // SAFETY: the caller's promise is the same.
    let handle = unsafe { opened(buffers.call, kind, handle)? };
    buffers.check(kind.name, handle.as_ptr(), size, size / ALIGN, ALIGN, true)
}

impl<H: Handle> Output<H> {
    /// Writes the mark and `value` into the handle's opaque part.
    pub fn seal(self, value: &H::Value) {
        // SAFETY: the pointer is aligned, not NULL and writable; the handle has room for mark and value, as asserted.
        unsafe { sealed(self.0).write(Sealed { mark: H::KIND.mark, value: *value }) };
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::null_mut;

    use super::{Structure, fill, fill_whole, structure};
    use crate::status::{Call, Refused, call, jostle_status, jostle_status::*};

    /// A struct with two fields that a later version has appended. The first of them needs a larger alignment.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Grown {
        struct_size: u32,
        first: u32,
        appended: u64,
        last: u64,
    }

    const DEFAULTS: Grown = Grown { struct_size: 24, first: 0, appended: 7, last: 8 };

    // SAFETY: numbers and pointers without padding; `struct_size` comes first.
    unsafe impl Structure for Grown {
        const FIRST_SIZE: usize = 8;
        const DEFAULTS: Option<Grown> = Some(DEFAULTS);
    }

    fn status(body: impl FnOnce(&Call) -> Result<(), Refused>) -> jostle_status {
        // SAFETY: `error` is NULL.
        unsafe { call(null_mut(), body) }
    }

    /// Reads a struct whose `struct_size` is `size`.
    fn read(size: u32) -> Result<Grown, jostle_status> {
        let whole = [size, 1, 2, 3, 4, 5];
        let mut found = DEFAULTS;
        let given = whole.as_ptr().cast::<Grown>();
        let ended = status(|call| {
            // SAFETY: the array is as long as the largest size that is accepted.
            found = unsafe { structure(call, "grown", given)? };
            Ok(())
        });
        if ended == JOSTLE_OK { Ok(found) } else { Err(ended) }
    }

    #[test]
    fn a_struct_of_an_older_header_has_defaults_for_what_it_lacks() {
        let appended = 2 | 3 << 32;
        assert_eq!(read(8), Ok(Grown { struct_size: 8, first: 1, ..DEFAULTS }));
        assert_eq!(read(16), Ok(Grown { struct_size: 16, first: 1, appended, ..DEFAULTS }));
        assert_eq!(read(24), Ok(Grown { struct_size: 24, first: 1, appended, last: 4 | 5 << 32 }));
        for size in [0, 4, 7, 9, 23] {
            assert_eq!(read(size), Err(JOSTLE_STRUCT_TOO_SMALL), "{size}");
        }
        for size in [25, 28, u32::MAX] {
            assert_eq!(read(size), Err(JOSTLE_STRUCT_TOO_LARGE), "{size}");
        }
    }

    #[test]
    fn no_byte_is_written_beyond_the_size_that_the_caller_gives() {
        const UNTOUCHED: u32 = 0xA5A5_A5A5;
        let value = Grown { first: 1, ..DEFAULTS };
        for size in [8, 16, 24] {
            let mut memory = [UNTOUCHED; 8];
            let place = memory.as_mut_ptr().cast::<Grown>();
            // SAFETY: the array is longer than the struct.
            let ended = status(|call| unsafe { fill(call, "grown", place, size, &value) });
            assert_eq!((ended, memory[0], memory[1]), (JOSTLE_OK, size as u32, 1));
            assert!(memory[size / 4..].iter().all(|word| *word == UNTOUCHED), "{size}: {memory:x?}");
        }
    }

    #[test]
    fn a_value_that_an_older_header_cannot_hold_is_refused() {
        let fill = |size, value: Grown| {
            let mut memory = [0_u32; 6];
            // SAFETY: the array is as long as the struct.
            status(|call| unsafe { fill_whole(call, "grown", memory.as_mut_ptr().cast(), size, &value) })
        };
        assert_eq!(fill(8, Grown { first: 5, ..DEFAULTS }), JOSTLE_OK);
        assert_eq!(fill(8, Grown { last: 5, ..DEFAULTS }), JOSTLE_STRUCT_TOO_SMALL);
        assert_eq!(fill(16, Grown { last: 5, ..DEFAULTS }), JOSTLE_STRUCT_TOO_SMALL);
        assert_eq!(fill(16, Grown { appended: 5, ..DEFAULTS }), JOSTLE_OK);
        assert_eq!(fill(24, Grown { last: 5, ..DEFAULTS }), JOSTLE_OK);
        assert_eq!(fill(28, DEFAULTS), JOSTLE_STRUCT_TOO_LARGE);
    }
}
