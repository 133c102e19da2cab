//! An archive that another project has written in Rust, with a standard library of its own.

/// The sum of the numbers below `n`.
#[unsafe(no_mangle)]
pub extern "C" fn neighbour_sum(n: i32) -> i32 {
    let numbers: Vec<i32> = (0..n).collect();
    println!("beside another archive: {} numbers", numbers.len());
    numbers.iter().sum()
}
