//! Times training steps of jostle: forward, loss, backward, clipping by global norm 1, AdamW. Prints one line of
//! JSON, with the fields of `pytorch/step.py`.
//!
//! `step --sizes V,T,L,H,C,B [--dropout 0] [--threads 1] [--warmup 3] [--steps 20] [--simd best]`

use std::time::Instant;

use jostle::initialization::initialize;
use jostle::optimizer::Optimizer;
use jostle::schedule::Schedule;
use jostle::trainer::{Buffers, Recipe, Trainer};
use jostle::{Compute, Config, Dropout, InstructionSet, Options, Plan};
use jostle_benches::pool::Pool;
use jostle_benches::rounds::median;

/// The value behind `--name`.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument.strip_prefix("--") != Some(name)).nth(1)
}

/// The number behind `--name`, or the default.
fn number<N: std::str::FromStr>(name: &str, default: N) -> N {
    match option(name) {
        None => default,
        Some(text) => text.parse().unwrap_or_else(|_| panic!("--{name} takes a number, not {text}")),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sizes = option("sizes").expect("--sizes V,T,L,H,C,B");
    let parsed: Vec<usize> = sizes.split(',').map(|n| n.parse().expect("a number in --sizes")).collect();
    let [vocab, context, layers, heads, width, batch] = parsed[..] else {
        panic!("--sizes takes six numbers")
    };
    let (dropout, threads) = (number("dropout", 0.0_f32), number("threads", 1_usize));
    let (warmup, steps) = (number("warmup", 3_usize), number("steps", 20_usize));
    let simd = match option("simd").as_deref() {
        None | Some("best") => InstructionSet::detect(),
        Some(name) => InstructionSet::named(name)?,
    };

    let config =
        Config { dropout: Dropout::all(dropout), ..Config::new(vocab, context, layers, heads, width) };
    let plan = Plan::new(&config, &Options { threads, ..Options::new(batch) })?;
    let mut parameters = vec![0.0; plan.parameters];
    initialize(simd, &plan, &mut parameters, 1)?;
    let mut state = 1_u64;
    let text: Vec<i32> = (0..100_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocab as u64) as i32
        })
        .collect();
    let recipe = Recipe {
        optimizer: Optimizer::ADAMW,
        schedule: Schedule::constant(1e-3),
        clip: Some(1.0),
        accumulate: 1,
        seed: 1,
    };
    let pool = Pool::new(threads)?;
    let (mut gradients, mut optimizer) = (vec![0.0; plan.gradients], vec![0.0; plan.optimizer]);
    let (mut workspace, mut tokens) = (vec![0.0; plan.workspace()], vec![0; plan.batch]);
    let buffers = Buffers {
        parameters: &mut parameters,
        gradients: &mut gradients,
        optimizer: &mut optimizer,
        workspace: &mut workspace,
        batch: &mut tokens,
    };
    let mut trainer = Trainer::new(&plan, &recipe, buffers, Compute { simd, parallel: &pool })?;
    let (mut times, mut loss) = (Vec::new(), 0.0);
    for step in 0..warmup + steps {
        let start = Instant::now();
        loss = trainer.step(&text[..])?.loss;
        if step >= warmup {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let fastest = times.iter().copied().fold(f64::INFINITY, f64::min);
    let median = median(times);
    println!(
        "{{\"library\": \"jostle\", \"sizes\": \"{sizes}\", \"parameters\": {}, \"dropout\": {dropout}, \
         \"threads\": {threads}, \"steps\": {steps}, \"median_ms\": {median:.3}, \"fastest_ms\": {fastest:.3}, \
         \"tokens_per_second\": {:.0}, \"loss\": {loss:.4}}}",
        plan.parameters,
        (batch * context) as f64 / median * 1e3,
    );
    Ok(())
}
