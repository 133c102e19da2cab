//! Steps on request, for processes that take turns: the protocol of `compare/turns.py`.

use std::error::Error;
use std::io::{self, BufRead};
use std::time::Instant;

use serde_json::{Value, json};

use crate::rounds::median;

/// Reports that the process is up, and returns at the first turn. Memory allocated from then on is the model's.
pub fn ready() -> io::Result<()> {
    println!("{{}}");
    io::stdin().lock().fill_buf().map(|_| ())
}

/// Reads a number of steps from each line of input, does them, and answers with a line of JSON: the median of their
/// wall-clock times, and `about`. Returns at the end of input.
pub fn serve(
    about: &Value,
    mut step: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lock().lines() {
        let times = (0..line?.trim().parse()?).map(|_| {
            let start = Instant::now();
            step()?;
            Ok(start.elapsed().as_secs_f64() * 1e3)
        });
        let times = times.collect::<Result<Vec<f64>, Box<dyn Error>>>()?;
        println!("{}", json!({ "median_ms": median(times), "about": about }));
    }
    Ok(())
}
