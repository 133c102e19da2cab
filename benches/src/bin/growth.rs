//! The growth of a step's time with context, width, batch and threads, each alone: Markdown tables. The points of a table
//! take turns.

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use jostle::InstructionSet;
use jostle_benches::operations;
use jostle_benches::rounds::median;
use jostle_benches::session::{Session, Sizes};
use jostle_pool::Pool;

/// V, T, L, H, C, B of the model that every table starts from.
const BASE: Sizes = [65, 128, 2, 4, 128, 4];
const CONTEXT: usize = 1;
const WIDTH: usize = 4;
const BATCH: usize = 5;

const DROPOUT: f32 = 0.1;

/// How long a turn is at least, as far as whole steps allow.
const TURN: Duration = Duration::from_millis(20);

#[derive(Parser)]
struct Arguments {
    /// The number of turns of each point
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

/// A point of a table: a model, and the number of threads that it trains on.
struct Point {
    value: usize,
    sizes: Sizes,
    threads: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { rounds } = Arguments::parse();
    let [vocab, context, layers, heads, width, batch] = BASE;
    println!("V {vocab}, T {context}, L {layers}, H {heads}, C {width}, B {batch} where not said otherwise,");
    println!(
        "one thread, dropout {DROPOUT}, {}, medians of {rounds} rounds.",
        InstructionSet::detect().name()
    );
    let sized = |which: usize, values: &[usize]| -> Vec<Point> {
        let point = |value| {
            let mut sizes = BASE;
            sizes[which] = value;
            Point { value, sizes, threads: 1 }
        };
        values.iter().copied().map(point).collect()
    };
    table("Context", &sized(CONTEXT, &[64, 128, 256, 512, 1024, 2048]), rounds)?;
    table("Width", &sized(WIDTH, &[64, 128, 256, 512, 1024]), rounds)?;
    table("Batch", &sized(BATCH, &[1, 2, 4, 8, 16, 32]), rounds)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let doubled = std::iter::successors(Some(1), |threads| Some(2 * threads));
    let threads = doubled.take_while(|threads| *threads < processors).chain([processors]);
    let points: Vec<Point> = threads.map(|threads| Point { value: threads, sizes: BASE, threads }).collect();
    table("Threads", &points, rounds)
}

fn table(name: &str, points: &[Point], rounds: usize) -> Result<(), Box<dyn Error>> {
    let simd = InstructionSet::detect();
    let pools = points.iter().map(|point| Pool::new(point.threads)).collect::<Result<Vec<_>, _>>()?;
    let sessions = points.iter().map(|point| Session::new(point.sizes, DROPOUT, point.threads));
    let mut sessions = sessions.collect::<Result<Vec<_>, _>>()?;
    let operations: Vec<u64> = sessions.iter().map(|session| operations::step(&session.plan)).collect();
    let trainers = sessions.iter_mut().zip(&pools).map(|(session, pool)| session.trainer(simd, pool));
    let mut trainers = trainers.collect::<Result<Vec<_>, _>>()?;

    let mut times = vec![Vec::new(); points.len()];
    // The first round warms up.
    for round in 0..=rounds {
        for ((trainer, text), times) in trainers.iter_mut().zip(&mut times) {
            let (start, mut steps) = (Instant::now(), 0);
            while start.elapsed() < TURN {
                trainer.step(*text)?;
                steps += 1;
            }
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() / f64::from(steps));
            }
        }
    }

    println!("\n## {name}\n");
    println!(
        "| {} | ms per step | tokens/s | GFLOP/s | time, of the first | work, of the first |",
        name.to_lowercase()
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    let times: Vec<f64> = times.into_iter().map(median).collect();
    for ((point, seconds), work) in points.iter().zip(&times).zip(&operations) {
        println!(
            "| {} | {:.2} | {:.0} | {:.1} | {:.2} | {:.2} |",
            point.value,
            seconds * 1e3,
            (point.sizes[CONTEXT] * point.sizes[BATCH]) as f64 / seconds,
            *work as f64 / seconds / 1e9,
            seconds / times[0],
            *work as f64 / operations[0] as f64,
        );
    }
    Ok(())
}
