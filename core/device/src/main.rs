//! Tests of the core on emulated devices. Products must have the reference's bits, and other loops the contract's. Then
//! prints the instructions of products and of a training step.
#![no_std]
#![no_main]

mod faults;
mod loops;
mod products;
mod step;

use core::fmt::Write;

use device::board::{Console, instructions, stop};

/// In hundredths, since printing floats needs much code.
fn ratio(console: &mut Console, name: &str, taken: u32, work: u32) {
    let hundredths = (u64::from(taken) * 100).div_ceil(u64::from(work.max(1)));
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    let _ = writeln!(
        console,
        "{name}: {taken} instructions, {work} multiply-accumulates, {whole}.{rest:02} each"
    );
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    let mut console = Console;
    match products::compare(&[1, 2, 3, 4, 5, 8, 11], &[0, 1, 2, 3, 4, 7, 70]) {
        Ok(count) => {
            let _ = writeln!(console, "{count} products have the reference's bits");
        }
        Err(size) => {
            let _ = writeln!(console, "FAILED: a product has other bits than the reference: {size:?}");
            stop(1)
        }
    }
    match loops::compare() {
        Ok(lengths) => {
            let _ = writeln!(console, "loops over {lengths} lengths have the contract's bits");
        }
        Err((what, length)) => {
            let _ = writeln!(console, "FAILED: {what} of length {length} has other bits than the contract's");
            stop(1)
        }
    }
    match faults::stays_in_bounds() {
        Ok(true) => {
            let _ = writeln!(console, "mismatched sizes write nothing out of bounds");
        }
        _ => {
            let _ = writeln!(console, "FAILED: a step with mismatched sizes");
            stop(1)
        }
    }
    let mut slow = false;
    for side in [16, 32, 64] {
        let names = ["A B^T", "A B", "A^T B"];
        for (name, taken) in names.into_iter().zip(products::count(side, instructions)) {
            let work = (side * side * side) as u32;
            ratio(&mut console, name, taken, work);
            slow = taken / work > 100;
        }
    }
    if slow {
        let _ = writeln!(
            console,
            "no floating-point unit: a step takes more instructions than the timer can count"
        );
        stop(0)
    }
    let steps = [
        ("width 16", step::width_16(instructions)),
        ("width 32", step::width_32(instructions)),
        ("width 32, 4 micro-batches", step::width_32_accumulated(instructions)),
    ];
    for (name, step) in steps {
        match step {
            Ok((taken, work, parameters)) => {
                let _ = write!(console, "step of {parameters} parameters, ");
                ratio(&mut console, name, taken, work);
            }
            Err(error) => {
                let _ = writeln!(console, "FAILED: {error}");
                stop(1)
            }
        }
    }
    stop(0)
}
