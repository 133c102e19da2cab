//! Reads, uses and writes a tokenizer; reads and writes a model.

use core::hint::black_box;

use jostle::Error;
use jostle::llama2c::{Piece, Tokenizer};
#[cfg(feature = "llama")]
use jostle::{
    Plan,
    llama2c::{Model, Version},
};

use crate::Memory;

pub fn tokenizer(memory: &mut Memory) -> Result<(), Error> {
    let Memory { checkpoint: file, order: index, batch: tokens, text, .. } = memory;
    let tokenizer = Tokenizer::new(file, index)?;
    let count = tokenizer.encode(text, true, true, tokens)?;
    let tokens = tokens.get(..count).unwrap_or_default();
    black_box(tokenizer.decode(black_box(None), tokens, text)?);
    let pieces = tokens.iter().map(|_| Piece { text, score: black_box(0.0) });
    black_box(Tokenizer::write(pieces, file)?);
    Ok(())
}

#[cfg(feature = "llama")]
pub fn model(memory: &mut Memory) -> Result<(), Error> {
    let model = Model::new(memory.checkpoint)?;
    let plan = Plan::new(model.config(), black_box(&crate::OPTIONS))?;
    model.read(&plan, memory.parameters)?;
    let version = black_box(Version::V0);
    black_box(Model::write(&plan, memory.parameters, &[], version, memory.checkpoint)?);
    Ok(())
}
