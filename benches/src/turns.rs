//! Steps on request, for processes that take turns: the protocol of `compare/turns.py`.

use std::error::Error;
use std::io::{self, BufRead};
use std::time::Instant;

use serde_json::{Value, json};

use crate::rounds::median;

/// Says that the process is up, and returns when the first turn is asked for: what is allocated from now on is the
/// model's.
pub fn ready() -> io::Result<()> {
    println!("{{}}");
    io::stdin().lock().fill_buf().map(|_| ())
}

/// For each line of input, does as many steps as it says and answers with a line of JSON: the median of their
/// times by the wall clock, and `about`. Returns at the end of input.
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
