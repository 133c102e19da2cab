//! How fast one thread reads memory: the sum of a buffer that no cache holds.

/// Bytes of the buffer, several times the largest caches.
const BYTES: usize = 512 << 20;

/// Elements summed side by side: enough registers of any width that additions do not wait for each other.
const SUMS: usize = 128;

/// What is read.
pub struct Memory(Vec<f32>);

macro_rules! total {
    ($name:ident, $($feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        fn $name(buffer: &[f32]) -> [f32; SUMS] {
            let mut sums = [0.0; SUMS];
            for block in buffer.as_chunks::<SUMS>().0 {
                for (sum, value) in sums.iter_mut().zip(block) {
                    *sum += *value;
                }
            }
            sums
        }
    };
}

total!(baseline,);
#[cfg(target_arch = "x86_64")]
total!(eight, "avx2");
#[cfg(target_arch = "x86_64")]
total!(sixteen, "avx512f");

impl Memory {
    /// A buffer whose every page is there: zeros could all be the same page.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Memory {
        Memory(vec![1.0; BYTES / size_of::<f32>()])
    }

    /// What one call of [`Memory::read`] reads.
    pub fn bytes(&self) -> u64 {
        size_of_val(&*self.0) as u64
    }

    /// Reads all of it once.
    pub fn read(&self) {
        std::hint::black_box(self.total());
    }

    fn total(&self) -> [f32; SUMS] {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the instructions are there.
                return unsafe { sixteen(&self.0) };
            }
            if is_x86_feature_detected!("avx2") {
                // SAFETY: as above.
                return unsafe { eight(&self.0) };
            }
        }
        baseline(&self.0)
    }
}
