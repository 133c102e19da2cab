//! Times training steps of jostle: forward, loss, backward, clipping by global norm 1, AdamW. Prints one line of
//! JSON, with the fields of `pytorch/step.py`.

use std::error::Error;
use std::time::Instant;

use clap::Parser;
use jostle::InstructionSet;
use jostle_benches::rounds::median;
use jostle_benches::session::Session;
use jostle_pool::Pool;

#[derive(Parser)]
struct Arguments {
    /// Vocabulary, context, layers, heads, width and batch
    #[arg(long, value_name = "V,T,L,H,C,B", value_delimiter = ',', required = true)]
    sizes: Vec<usize>,
    #[arg(long, default_value_t = 0.0)]
    dropout: f32,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Steps before those that are timed
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Vector instructions: portable, neon, avx2 or avx512 [default: the fastest there are]
    #[arg(long)]
    instruction_set: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let Arguments { dropout, threads, warmup, steps, .. } = arguments;
    let simd = match &arguments.instruction_set {
        None => InstructionSet::detect(),
        Some(name) => InstructionSet::named(name)?,
    };
    let sizes = arguments.sizes.as_slice().try_into()?;
    let mut session = Session::new(sizes, dropout, threads)?;
    let parameters = session.plan.parameters;
    let pool = Pool::new(threads)?;
    let (mut trainer, text) = session.trainer(simd, &pool)?;
    let (mut times, mut loss) = (Vec::new(), 0.0);
    for step in 0..warmup + steps {
        let start = Instant::now();
        loss = trainer.step(text)?.loss;
        if step >= warmup {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let fastest = times.iter().copied().fold(f64::INFINITY, f64::min);
    let median = median(times);
    let [_, context, _, _, _, batch] = sizes;
    println!(
        "{}",
        serde_json::json!({
            "library": "jostle",
            "sizes": arguments.sizes,
            "parameters": parameters,
            "dropout": dropout,
            "threads": threads,
            "steps": steps,
            "median_ms": median,
            "fastest_ms": fastest,
            "tokens_per_second": (batch * context) as f64 / median * 1e3,
            "loss": loss,
        })
    );
    Ok(())
}
