//! From pointers and numbers of C to slices and values of Rust. Every check of a pointer is here.

use core::alloc::Layout;
use core::ffi::{CStr, c_char};
use core::mem;

use jostle::Error;

use crate::status::Refusal;

/// Bytes `first..end` of a buffer of this call.
#[derive(Clone, Copy)]
struct Span {
    first: usize,
    end: usize,
    written: bool,
}

/// The buffers of one call: none may be NULL, misaligned or too short, and none that is written may share bytes
/// with another, since Rust's slices promise that.
pub(crate) struct Buffers {
    spans: [Span; Buffers::MOST],
    count: usize,
}

impl Buffers {
    /// Buffers of one call, at most.
    const MOST: usize = 12;

    pub fn new() -> Buffers {
        Buffers { spans: [Span { first: 0, end: 0, written: false }; Buffers::MOST], count: 0 }
    }

    /// Checks a buffer of `size` bytes that must hold `wanted` elements.
    fn check<T>(
        &mut self,
        what: &'static str,
        data: *const T,
        size: usize,
        wanted: usize,
        written: bool,
    ) -> Result<(), Refusal> {
        self.check_layout(what, data.addr(), Layout::new::<T>(), size, wanted, written)
    }

    /// Once in a program, whatever the elements.
    #[inline(never)]
    fn check_layout(
        &mut self,
        what: &'static str,
        first: usize,
        element: Layout,
        size: usize,
        wanted: usize,
        written: bool,
    ) -> Result<(), Refusal> {
        if first == 0 {
            return Err(Refusal::Null(what));
        }
        if !first.is_multiple_of(element.align()) {
            return Err(Refusal::Misaligned(what));
        }
        let bytes = wanted.checked_mul(element.size()).filter(|bytes| isize::try_from(*bytes).is_ok());
        let bytes = bytes.ok_or(Error::TooLarge { what })?;
        if size < bytes {
            return Err(Refusal::Short { what, given: size, wanted: bytes });
        }
        let end = first.checked_add(bytes).ok_or(Error::TooLarge { what })?;
        let (span, count) = (Span { first, end, written }, self.count);
        let shares = |other: &Span| first < other.end && other.first < end && (written || other.written);
        if self.spans.iter().take(count).any(shares) {
            return Err(Refusal::Overlap(what));
        }
        // More than MOST would be a mistake of this crate's, which every test of the call would find.
        *self.spans.get_mut(count).ok_or(Error::TooLarge { what })? = span;
        self.count = count.saturating_add(1);
        Ok(())
    }

    /// The first `wanted` elements of a buffer of `size` bytes. Where none is wanted, it may be NULL.
    ///
    /// # Safety
    /// A pointer other than NULL is readable for `size` bytes while the slice is used.
    pub unsafe fn read<'a, T: Number>(
        &mut self,
        what: &'static str,
        data: *const T,
        size: usize,
        wanted: usize,
    ) -> Result<&'a [T], Refusal> {
        if wanted == 0 {
            return Ok(&[]);
        }
        self.check(what, data, size, wanted, false)?;
        // SAFETY: neither NULL nor misaligned, and long enough; the caller vouches for the memory. Any bits are
        // a number. No buffer of this call that is written shares a byte.
        Ok(unsafe { core::slice::from_raw_parts(data, wanted) })
    }

    /// As [`Buffers::read`], but empty where the pointer is NULL.
    ///
    /// # Safety
    /// As for [`Buffers::read`].
    pub unsafe fn read_optional<'a, T: Number>(
        &mut self,
        what: &'static str,
        data: *const T,
        size: usize,
        wanted: usize,
    ) -> Result<&'a [T], Refusal> {
        // SAFETY: the caller's promise is the same.
        if data.is_null() { Ok(&[]) } else { unsafe { self.read(what, data, size, wanted) } }
    }

    /// The first `wanted` elements of a buffer of `size` bytes, to be written. Where none is wanted, it may be
    /// NULL.
    ///
    /// # Safety
    /// A pointer other than NULL is writable for `size` bytes, and nobody else uses them, while the slice is.
    pub unsafe fn write<'a, T: Number>(
        &mut self,
        what: &'static str,
        data: *mut T,
        size: usize,
        wanted: usize,
    ) -> Result<&'a mut [T], Refusal> {
        if wanted == 0 {
            return Ok(&mut []);
        }
        self.check(what, data, size, wanted, true)?;
        // SAFETY: as in `read`; and no other buffer of this call shares a byte.
        Ok(unsafe { core::slice::from_raw_parts_mut(data, wanted) })
    }

    /// As [`Buffers::write`], but empty where the pointer is NULL.
    ///
    /// # Safety
    /// As for [`Buffers::write`].
    pub unsafe fn write_optional<'a, T: Number>(
        &mut self,
        what: &'static str,
        data: *mut T,
        size: usize,
        wanted: usize,
    ) -> Result<&'a mut [T], Refusal> {
        // SAFETY: the caller's promise is the same.
        if data.is_null() { Ok(&mut []) } else { unsafe { self.write(what, data, size, wanted) } }
    }
}

/// Types of which any bits are a value.
///
/// # Safety
/// Any bits are a value, and there is no padding.
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

/// A struct whose first field is `struct_size: u32`, and whose other fields are any bits.
///
/// # Safety
/// As said.
pub(crate) unsafe trait Structure: Copy {}

/// Reads a configuration struct of this version's size.
///
/// # Safety
/// A pointer other than NULL is readable for as many bytes as its `struct_size` says, and for four.
pub(crate) unsafe fn structure<T: Structure>(what: &'static str, pointer: *const T) -> Result<T, Refusal> {
    // SAFETY: the caller's promise.
    unsafe { input(what, pointer.cast::<u32>())? };
    if !pointer.is_aligned() {
        return Err(Refusal::Misaligned(what));
    }
    // SAFETY: the caller vouches for the first field.
    let given = unsafe { pointer.cast::<u32>().read() } as usize;
    check_size::<T>(what, given)?;
    // SAFETY: the caller vouches for that many bytes, which may have any value.
    Ok(unsafe { pointer.read() })
}

/// Refuses a struct of another size than this version's.
pub(crate) fn check_size<T>(what: &'static str, given: usize) -> Result<(), Refusal> {
    let wanted = mem::size_of::<T>();
    if given == wanted { Ok(()) } else { Err(Refusal::StructSize { what, given, wanted }) }
}

/// Refuses a pointer that is NULL or misaligned.
///
/// # Safety
/// A pointer other than NULL is readable, and nobody writes it while the reference is used. What it points to is
/// a value of its type.
pub(crate) unsafe fn input<'a, T>(what: &'static str, pointer: *const T) -> Result<&'a T, Refusal> {
    if pointer.is_null() {
        return Err(Refusal::Null(what));
    }
    if !pointer.is_aligned() {
        return Err(Refusal::Misaligned(what));
    }
    // SAFETY: neither NULL nor misaligned; the caller vouches for the rest.
    Ok(unsafe { &*pointer })
}

/// Where a result goes when the call has succeeded.
#[derive(Clone, Copy)]
pub(crate) struct Output<T>(*mut T);

impl<T> Output<T> {
    /// # Safety
    /// A pointer other than NULL is writable until the call returns.
    pub unsafe fn new(what: &'static str, pointer: *mut T) -> Result<Output<T>, Refusal> {
        if pointer.is_null() {
            Err(Refusal::Null(what))
        } else if !pointer.is_aligned() {
            Err(Refusal::Misaligned(what))
        } else {
            Ok(Output(pointer))
        }
    }

    pub fn write(self, value: T) {
        // SAFETY: neither NULL nor misaligned; whoever made this vouches for the rest.
        unsafe { self.0.write(value) }
    }
}

/// A zero-terminated string as text.
///
/// # Safety
/// A pointer other than NULL is readable up to the terminating zero, and stays so while the text is used.
pub(crate) unsafe fn string<'a>(what: &'static str, text: *const c_char) -> Result<&'a str, Refusal> {
    if text.is_null() {
        return Err(Refusal::Null(what));
    }
    // SAFETY: the caller vouches for it.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Refusal::NotUtf8(what))
}

/// The text, cut off where it and a terminating zero don't fit.
pub(crate) fn fixed_string<const N: usize>(text: &str) -> [c_char; N] {
    let mut fixed = [0; N];
    for (place, byte) in fixed.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *place = byte as c_char;
    }
    fixed
}

/// A struct of the header whose last part, from `opaque` on, holds a value of Rust's, behind a mark that says so. It is
/// made of words as far as the value is, so that it is no larger than need be where these are small.
pub(crate) trait Handle {
    /// What it holds.
    type Value: Copy;
    /// Its name in errors.
    const NAME: &'static str;
    /// Tells an initialised handle of this kind from other memory.
    const MARK: u64;

    /// Where in the handle the opaque part begins.
    const OPAQUE: usize;
}

/// The mark, then the value: what the opaque part of a handle holds.
#[repr(C)]
struct Sealed<T> {
    mark: u64,
    value: T,
}

/// Where a handle's opaque part lies.
fn sealed<H: Handle>(handle: *const H) -> *const Sealed<H::Value> {
    const {
        let end = H::OPAQUE + mem::size_of::<Sealed<H::Value>>();
        assert!(end <= mem::size_of::<H>(), "the handle is too small");
        assert!(mem::align_of::<Sealed<H::Value>>() <= mem::align_of::<H>());
        assert!(H::OPAQUE.is_multiple_of(mem::align_of::<Sealed<H::Value>>()));
    }
    handle.wrapping_byte_add(H::OPAQUE).cast()
}

/// The value that [`seal`] put into a handle, where it lies.
///
/// # Safety
/// A pointer other than NULL is readable, and nobody writes there while the reference is used.
#[inline(never)]
pub(crate) unsafe fn open<'a, H: Handle>(handle: *const H) -> Result<&'a H::Value, Refusal> {
    // SAFETY: the caller's promise; a handle is numbers alone.
    unsafe { input(H::NAME, handle)? };
    let sealed = sealed(handle);
    // SAFETY: the mark lies within the handle, and says that `seal` has written the value behind it.
    unsafe {
        if (*sealed).mark == H::MARK { Ok(&(*sealed).value) } else { Err(Refusal::NotInitialized(H::NAME)) }
    }
}

/// [`open`], to be changed: the handle counts among the buffers that the call writes.
///
/// # Safety
/// A pointer other than NULL is readable and writable, and nobody else uses it while the reference is.
pub(crate) unsafe fn open_mut<'a, H: Handle>(
    handle: *mut H,
    buffers: &mut Buffers,
) -> Result<&'a mut H::Value, Refusal> {
    // SAFETY: the caller's promise.
    unsafe { open(handle)? };
    buffers.check(H::NAME, handle, mem::size_of::<H>(), 1, true)?;
    // SAFETY: just opened; the caller vouches for writing, and no buffer of this call shares a byte.
    Ok(unsafe { &mut (*sealed(handle).cast_mut()).value })
}

impl<H: Handle> Output<H> {
    /// Makes the handle's opaque part hold `value`.
    pub fn seal(self, value: H::Value) {
        // SAFETY: neither NULL nor misaligned, and writable; a handle has room for what is sealed.
        unsafe { sealed(self.0).cast_mut().write(Sealed { mark: H::MARK, value }) };
    }
}
