//! A table of three libraries' GFLOP/s at each shape, on one thread, taking turns. It compares jostle with the better of
//! the other two, and with the processor's peak in the same rounds.
//!
//! `sgemm-table [instruction set] [filter] [rounds]`

use std::time::Duration;

use jostle::InstructionSet;
use jostle_benches::peak;
use jostle_benches::product::{Library, Operands, SHAPES};
use jostle_benches::rounds::{calls_in, median, seconds};

/// How long each contender computes in each round.
const TURN: Duration = Duration::from_millis(2);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let simd = match arguments.next().as_deref() {
        None | Some("best") => InstructionSet::detect(),
        Some(name) => InstructionSet::named(name).expect("this processor has the instructions"),
    };
    let filter = arguments.next().unwrap_or_default();
    let rounds = arguments.next().map_or(31, |rounds| rounds.parse().expect("a number of rounds"));
    println!("One thread, {}, medians of {rounds} rounds, GFLOP/s.\n", simd.name());
    println!(
        "| shape (m x k x n) | | jostle | matrixmultiply | gemm | jostle / best other | share of peak |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|");
    let peak_calls = calls_in(TURN / 4, peak::run);
    let mut peaks = Vec::new();
    for shape in SHAPES.iter().filter(|shape| shape.name().contains(&filter)) {
        let mut operands = Operands::new(*shape, simd);
        let calls = Library::ALL.map(|library| calls_in(TURN, || operands.compute(library)));
        let giga = |operations: u64, seconds: f64| operations as f64 / seconds / 1e9;
        let (mut speeds, mut ratios, mut shares) = ([const { Vec::new() }; 3], Vec::new(), Vec::new());
        for round in 0..rounds {
            let mut turn = [0.0; 3];
            for i in 0..3 {
                // Each library comes after each of the others equally often.
                let which = (i + round) % 3;
                let seconds = seconds(calls[which], || operands.compute(Library::ALL[which]));
                turn[which] = giga(shape.operations(), seconds);
            }
            let peak = giga(peak::operations(), seconds(peak_calls, peak::run));
            speeds.iter_mut().zip(turn).for_each(|(speeds, speed)| speeds.push(speed));
            ratios.push(turn[0] / turn[1].max(turn[2]));
            shares.push(turn[0] / peak);
            peaks.push(peak);
        }
        let [jostle, matrixmultiply, gemm] = speeds.map(median);
        println!(
            "| {} | {} | {jostle:.1} | {matrixmultiply:.1} | {gemm:.1} | {:.2} | {:.0} % |",
            shape.name(),
            shape.role,
            median(ratios),
            100.0 * median(shares),
        );
    }
    println!("\nPeak: {:.1} GFLOP/s.", median(peaks));
}
