//! The speed at which one thread reads memory, and updates it as an optimiser does, in buffers larger than any cache.

/// Bytes of the buffer: several times the largest cache.
const BYTES: usize = 512 << 20;

/// Elements summed side by side: enough registers of any width to hide the latency of additions.
const SUMS: usize = 128;

/// The buffer that is read or updated.
pub struct Memory(Vec<f32>);

/// One function of a buffer for each width of registers, and one that takes the widest.
macro_rules! widest {
    ($name:ident($buffer:ident: $type:ty) -> $result:ty $body:block) => {
        fn $name($buffer: $type) -> $result {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn sixteen($buffer: $type) -> $result $body
                #[target_feature(enable = "avx2")]
                fn eight($buffer: $type) -> $result $body
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the instructions are there.
                    return unsafe { sixteen($buffer) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { eight($buffer) };
                }
            }
            $body
        }
    };
}

widest! {
    total(buffer: &[f32]) -> [f32; SUMS] {
        let mut sums = [0.0; SUMS];
        for block in buffer.as_chunks::<SUMS>().0 {
            for (sum, value) in sums.iter_mut().zip(block) {
                *sum += *value;
            }
        }
        sums
    }
}

widest! {
    update(buffer: &mut [f32]) -> () {
        let quarter = buffer.len() / 4;
        let (first, rest) = buffer.split_at_mut(quarter);
        let (second, rest) = rest.split_at_mut(quarter);
        let (third, rest) = rest.split_at_mut(quarter);
        for (((first, second), third), change) in first.iter_mut().zip(second).zip(third).zip(rest) {
            *first -= *change;
            *second -= *change;
            *third -= *change;
        }
    }
}

impl Memory {
    /// A buffer with real pages: zeros could all share one page.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Memory {
        Memory(vec![1.0; BYTES / size_of::<f32>()])
    }

    /// The bytes that one call of [`Memory::read`] reads.
    pub fn bytes(&self) -> u64 {
        size_of_val(&*self.0) as u64
    }

    /// Reads all of it once.
    pub fn read(&self) {
        std::hint::black_box(total(&self.0));
    }

    /// The bytes that one call of [`Memory::update`] reads and writes.
    pub fn bytes_of_update(&self) -> u64 {
        self.bytes() / 4 * 7
    }

    /// Changes three quarters of it by the fourth, as AdamW changes parameters and two moments by gradients.
    pub fn update(&mut self) {
        update(&mut self.0);
    }
}
