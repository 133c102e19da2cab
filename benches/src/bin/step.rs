//! Training steps of jostle on request: forward, loss, backward, clipping by global norm 1, AdamW. Reads lines with
//! a number of steps, and answers each with a line of JSON:
//!
//!     echo 20 | step --sizes 65,64,4,4,128,12

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use jostle::{InstructionSet, Options};
use jostle_benches::session::{Session, Sizes, model};
use jostle_benches::{operations, reference, turns};
use jostle_pool::Pool;

#[derive(Parser)]
struct Arguments {
    /// Vocabulary, context, layers, heads, width and batch
    #[arg(long, value_name = "V,T,L,H,C,B", value_delimiter = ',', required = true)]
    sizes: Vec<usize>,
    /// Key/value heads and hidden width of a Llama [default: a GPT-2]
    #[arg(long, value_name = "K,F", value_delimiter = ',')]
    llama: Option<Vec<usize>>,
    /// Backward recomputes activations
    #[arg(long)]
    recompute: bool,
    /// The rows of logits that exist at a time [default: all]
    #[arg(long, default_value_t = 0)]
    head_rows: usize,
    #[arg(long, default_value_t = 0.0)]
    dropout: f32,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Vector instructions: portable, neon, avx2 or avx512 [default: the fastest there are]
    #[arg(long)]
    instruction_set: Option<String>,
    /// Instead, write the model's numbers without dropout to a safetensors file
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { sizes, llama, recompute, head_rows, dropout, threads, instruction_set, reference } =
        Arguments::parse();
    let sizes: Sizes = sizes.as_slice().try_into()?;
    let llama = llama.map(|sizes| sizes.as_slice().try_into()).transpose()?;
    let (config, options) =
        (model(sizes, llama, dropout), Options { threads, recompute, head_rows, ..Options::new(sizes[5]) });
    if let Some(path) = reference {
        return reference::write(&config, &options, &path);
    }
    let simd = match &instruction_set {
        None => InstructionSet::detect(),
        Some(name) => InstructionSet::named(name)?,
    };
    let pool = Pool::new(threads)?;
    turns::ready()?;
    let mut session = Session::of(&config, &options)?;
    let about = serde_json::json!({
        "parameters": session.plan.parameters(),
        "operations": operations::step(&session.plan),
    });
    let (mut trainer, text) = session.trainer(simd, &pool)?;
    turns::serve(&about, || {
        trainer.step(text)?;
        Ok(())
    })
}
