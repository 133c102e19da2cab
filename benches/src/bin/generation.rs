//! Times generation of one text, greedily, from an empty window to a full one, on one thread; and in turns with it
//! how fast that thread reads memory. Prints one line of JSON.

use std::error::Error;
use std::time::Duration;

use clap::Parser;
use jostle::initialization::initialize;
use jostle::{Config, Generator, InstructionSet, Options, Plan, Sampling};
use jostle_benches::bandwidth::Memory;
use jostle_benches::rounds::{calls_in, median, seconds};

/// How long a turn of generation is at least, as far as whole windows allow.
const TURN: Duration = Duration::from_millis(200);

#[derive(Parser)]
struct Arguments {
    /// Vocabulary, context, layers, heads and width
    #[arg(long, value_name = "V,T,L,H,C", value_delimiter = ',', required = true)]
    sizes: Vec<usize>,
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { sizes, turns } = Arguments::parse();
    let [vocab, context, layers, heads, width] = sizes.as_slice().try_into()?;
    let simd = InstructionSet::detect();
    let plan = Plan::new(&Config::new(vocab, context, layers, heads, width), &Options::new(1))?;
    let mut parameters = vec![0.0; plan.parameters];
    initialize(simd, &plan, &mut parameters, 1)?;
    let (mut memory, mut window, mut order) = (vec![0.0; plan.generation], vec![0; context], vec![0; vocab]);
    let mut generator = Generator::new(&plan, simd, &parameters, &mut memory, &mut window)?;

    let mut fill = || {
        generator.clear();
        let mut token = 0;
        for number in 0..context as u64 {
            generator.feed(&[token]).expect("a token of the vocabulary");
            token = generator.draw(&Sampling::GREEDY, &mut order, 1, number).expect("finite logits");
        }
    };
    let buffer = Memory::new();
    let windows = calls_in(TURN, &mut fill);
    let (mut speeds, mut bandwidths, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    // The head is tied: all its rows are read, and those of the position embedding one by one.
    let read = 4 * (plan.parameters - context * width);
    for _ in 0..turns {
        let speed = context as f64 / seconds(windows, &mut fill);
        let bandwidth = buffer.bytes() as f64 / seconds(1, || buffer.read());
        speeds.push(speed);
        bandwidths.push(bandwidth);
        shares.push(speed * read as f64 / bandwidth);
    }
    println!(
        "{}",
        serde_json::json!({
            "library": "jostle",
            "sizes": sizes,
            "instruction_set": simd.name(),
            "parameters": plan.parameters,
            "bytes_per_token": read,
            "tokens_per_second": median(speeds),
            "bytes_per_second": median(bandwidths),
            "share": median(shares),
        })
    );
    Ok(())
}
