//! Buffers that begin at a cache line, as in the Python package.

use std::ops::{Deref, DerefMut, Range};

/// The bytes of a cache line. A vector that straddles two takes twice as long (`docs/performance.md`).
const LINE: usize = 64;

/// A buffer to be read and written as a slice.
pub struct Floats {
    memory: Vec<f32>,
    within: Range<usize>,
}

/// Zeros.
pub fn zeros(count: usize) -> Floats {
    let memory = vec![0.0; count + LINE / size_of::<f32>()];
    let first = memory.as_ptr().align_offset(LINE);
    Floats { memory, within: first..first + count }
}

/// Numbers between minus and plus one half without a pattern, the same at every call.
pub fn random(count: usize) -> Floats {
    let mut floats = zeros(count);
    for (i, x) in floats.iter_mut().enumerate() {
        *x = ((i as u32).wrapping_mul(2_654_435_769) >> 8) as f32 / (1 << 24) as f32 - 0.5;
    }
    floats
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[self.within.clone()]
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.within.clone()]
    }
}
