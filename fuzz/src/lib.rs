//! Shared by the fuzz targets: numbers from the fuzzer's bytes, buffers of exactly the length that a call is told, and what
//! holds after every call.

use std::ffi::{CStr, c_void};
use std::mem::size_of;
use std::ptr;

use jostle_ffi::compute::{jostle_compute, jostle_task};
use jostle_ffi::status::{jostle_error, jostle_error_message, jostle_status};

/// The most bytes of one buffer.
const LARGEST: usize = 1 << 18;

/// A buffer that was lent to a call.
struct Lent {
    bytes: Box<[u64]>,
    /// Its end; the buffer begins so that it ends with the allocation, where AddressSanitizer watches.
    size: usize,
    /// Whether a refused call may write it.
    scratch: bool,
    before: Vec<u64>,
}

/// The bytes of the fuzzer, read from the front, and the buffers made from them.
pub struct Input<'a> {
    bytes: &'a [u8],
    lent: Vec<Lent>,
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes, lent: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes([(); 4].map(|()| self.byte()))
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    /// True once in `times`.
    pub fn seldom(&mut self, times: u8) -> bool {
        self.byte() % times == times - 1
    }

    /// The next bytes, at most `most`.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(most.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// The rest.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    /// A size: mostly small, sometimes of any magnitude.
    pub fn size(&mut self) -> usize {
        match self.byte() {
            byte @ 0..=223 => usize::from(byte) % 20,
            byte @ 224..=247 => usize::from(byte - 223) * 9 + self.below(9),
            _ => {
                let shift = self.byte() % 64;
                self.u64() as usize >> shift
            }
        }
    }

    /// A choice in `0..end`, seldom any number.
    pub fn choice(&mut self, end: u32) -> u32 {
        if self.seldom(64) { self.u32() } else { u32::from(self.byte()) % end }
    }

    /// A number of any kind: usual, special, or of arbitrary bits.
    pub fn float(&mut self) -> f32 {
        const SPECIAL: [f32; 12] = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MIN_POSITIVE,
            1e-45,
            -1e-40,
            f32::MAX,
            f32::MIN,
        ];
        match self.byte() {
            byte @ 0..=199 => (f32::from(byte) - 100.0) / 64.0,
            byte @ 200..=243 => SPECIAL[usize::from(byte) % SPECIAL.len()],
            _ => f32::from_bits(self.u32()),
        }
    }

    /// A rate that is valid as a rule.
    pub fn rate(&mut self) -> f32 {
        if self.seldom(32) { self.float() } else { f32::from(self.byte() % 100) / 100.0 }
    }

    /// Lends a buffer of numbers for a call that wants `wanted` of them. It is seldom NULL, misaligned, a little shorter or
    /// longer, or another buffer of the call. Its size is never more than the memory behind it.
    pub fn floats(&mut self, wanted: usize) -> (*mut f32, usize) {
        let numbers = self.pattern();
        let (pointer, size) = self.lend(wanted, false);
        // The allocation ends with the buffer, which may begin at an odd address.
        for i in (0..size / 4).filter(|_| !pointer.is_null()) {
            // SAFETY: the buffer has `size` bytes.
            unsafe { pointer.cast::<f32>().add(i).write_unaligned(numbers[i % numbers.len()]) };
        }
        (pointer.cast(), size)
    }

    /// As [`Input::floats`], for scratch, which a refused call may have written.
    pub fn scratch(&mut self, bytes: usize) -> (*mut f32, usize) {
        let (pointer, size) = self.lend(bytes / 4, true);
        (pointer.cast(), size)
    }

    /// As [`Input::floats`], for tokens of a vocabulary.
    pub fn tokens(&mut self, wanted: usize, vocab: usize) -> (*mut i32, usize) {
        let pattern: Vec<u8> = self.some().to_vec();
        let wild = self.seldom(16).then(|| self.u32() as i32);
        let (pointer, size) = self.lend(wanted, false);
        for i in (0..size / 4).filter(|_| !pointer.is_null()) {
            let byte = i32::from(*pattern.get(i % pattern.len().max(1)).unwrap_or(&0));
            let token =
                wild.filter(|_| byte == 255).unwrap_or(byte % i32::try_from(vocab.clamp(1, 255)).unwrap());
            // SAFETY: the buffer has `size` bytes.
            unsafe { pointer.cast::<i32>().add(i).write_unaligned(token) };
        }
        (pointer.cast(), size)
    }

    /// A few numbers, to be repeated.
    pub fn pattern(&mut self) -> Vec<f32> {
        let count = 1 + self.below(24);
        (0..count).map(|_| self.float()).collect()
    }

    /// A few bytes, to be repeated.
    fn some(&mut self) -> &'a [u8] {
        let count = self.below(24);
        self.take(count)
    }

    fn lend(&mut self, wanted: usize, scratch: bool) -> (*mut u8, usize) {
        let (mut elements, mut odd) = (wanted, false);
        if self.seldom(16) {
            match self.byte() % 8 {
                0 => elements = wanted.saturating_sub(1),
                1 => elements = wanted.saturating_add(1),
                2 => elements = self.size(),
                3 => return (ptr::null_mut(), if self.seldom(2) { wanted.saturating_mul(4) } else { 0 }),
                4 => odd = true,
                5 if !self.lent.is_empty() => {
                    let which = self.below(self.lent.len());
                    let lent = &mut self.lent[which];
                    lent.scratch |= scratch;
                    return (lent.pointer(), lent.size);
                }
                _ => {}
            }
        }
        let size = elements.saturating_mul(4).min(LARGEST) - usize::from(odd && elements > 0);
        let bytes = vec![0x5555_5555_5555_5555; size.div_ceil(8)].into_boxed_slice();
        self.lent.push(Lent { bytes, size, scratch, before: Vec::new() });
        let pointer = self.lent.last_mut().unwrap().pointer();
        (pointer, size)
    }

    /// Calls a function, and checks whatever holds after every call: the status is known and has a message, and a refused
    /// call has written nothing. Returns whether it succeeded.
    pub fn call(&mut self, function: impl FnOnce(*mut jostle_error) -> jostle_status) -> bool {
        for lent in &mut self.lent {
            lent.before = lent.bytes.to_vec();
        }
        // SAFETY: numbers only.
        let mut error: jostle_error = unsafe { std::mem::zeroed() };
        let status = function(&mut error);
        if status == jostle_status::JOSTLE_OK {
            return true;
        }
        assert_ne!(status, jostle_status::JOSTLE_INTERNAL);
        assert_eq!(error.status, status as i32);
        let mut message = [1; 300];
        // SAFETY: both are valid.
        let told = unsafe { jostle_error_message(&error, message.as_mut_ptr().cast(), message.len()) };
        assert_eq!(told, jostle_status::JOSTLE_OK);
        let message = CStr::from_bytes_until_nul(&message).unwrap().to_str().unwrap();
        for lent in self.lent.iter().filter(|lent| !lent.scratch) {
            assert_eq!(*lent.bytes, lent.before, "a refused call has written: {message}");
        }
        false
    }

    /// The means of computing. As a rule they are valid.
    pub fn compute(&mut self) -> jostle_compute {
        jostle_compute {
            struct_size: self.struct_size::<jostle_compute>(),
            instruction_set: self.choice(3),
            threads: if self.seldom(16) { self.u32() } else { 1 + self.u32() % 4 },
            reserved: u32::from(self.seldom(64)),
            run: (!self.seldom(16)).then_some(backwards),
            context: ptr::null_mut(),
        }
    }

    /// The right size of a struct, as a rule.
    pub fn struct_size<T>(&mut self) -> u32 {
        if self.seldom(64) { self.u32() >> (self.byte() % 32) } else { size_of::<T>() as u32 }
    }
}

impl Lent {
    /// The buffer ends where the allocation ends, up to seven bytes.
    fn pointer(&mut self) -> *mut u8 {
        let slack = self.bytes.len() * 8 - self.size;
        self.bytes.as_mut_ptr().cast::<u8>().wrapping_add(slack)
    }
}

/// Lends no threads: does the tasks one after the other, from the last to the first.
pub unsafe extern "C" fn backwards(_: *mut c_void, count: usize, task: jostle_task, argument: *mut c_void) {
    for i in (0..count).rev() {
        // SAFETY: each index once.
        unsafe { task(argument, i) };
    }
}

/// The CRC-32 of zlib.
pub fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ (crc & 1) * 0xedb8_8320;
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
