//! Generates on request, on one thread: a text from its first token until the context is full, greedily. Reads lines
//! with a number of texts, and answers each with a line of JSON:
//!
//!     echo 20 | generation --sizes 65,64,4,4,128

use std::error::Error;

use clap::Parser;
use jostle::initialize;
use jostle::{Config, Generator, InstructionSet, Options, Plan, Sampling};
use jostle_benches::floats::zeros;
use jostle_benches::turns;

#[derive(Parser)]
struct Arguments {
    /// Vocabulary, context, layers, heads and width
    #[arg(long, value_name = "V,T,L,H,C", value_delimiter = ',', required = true)]
    sizes: Vec<usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let [vocab, context, layers, heads, width] = Arguments::parse().sizes.as_slice().try_into()?;
    let simd = InstructionSet::detect();
    let plan = Plan::new(&Config::new(vocab, context, layers, heads, width), &Options::new(1))?;
    turns::ready()?;
    let mut parameters = zeros(plan.parameters());
    initialize(simd, &plan, &mut parameters, 1)?;
    let (mut memory, mut window, mut order) = (zeros(plan.generation()), vec![0; context], vec![0; vocab]);
    let mut generator = Generator::new(&plan, simd, &parameters, &[], &mut memory, &mut window)?;
    // All parameters except the position embeddings: a token reads only one row of them. The head is tied and reads the
    // whole token embedding.
    let read = size_of::<f32>() * (plan.parameters() - context * width);
    turns::serve(&serde_json::json!({ "parameters": plan.parameters(), "bytes_per_token": read }), || {
        generator.clear();
        let mut token = 0;
        for number in 0..context as u64 {
            generator.feed(&[token])?;
            token = generator.draw(&Sampling::GREEDY, &mut order, 1, number)?;
        }
        Ok(())
    })
}
