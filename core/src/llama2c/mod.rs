//! The files of Karpathy's [llama2.c](https://github.com/karpathy/llama2.c), read where they lie in memory.

mod tokenizer;

pub use tokenizer::{BOS, EOS, Piece, Tokenizer};
