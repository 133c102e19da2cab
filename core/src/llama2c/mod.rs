//! The files of Karpathy's [llama2.c](https://github.com/karpathy/llama2.c), read where they lie in memory.

#[cfg(feature = "llama")]
mod model;
mod tokenizer;

#[cfg(feature = "llama")]
pub use model::{Model, Version};
pub use tokenizer::{BOS, EOS, Piece, Tokenizer};

/// The four bytes at a place.
fn word(file: &[u8], at: usize) -> Option<[u8; 4]> {
    file.get(at..)?.first_chunk().copied()
}
