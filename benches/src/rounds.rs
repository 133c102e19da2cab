//! Timing in turns: every contender once a round, for as many rounds as it takes.

use std::time::{Duration, Instant};

/// The middle one; the lower of the two middle ones where there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// How many calls of `work` take about `duration`.
pub fn calls_in(duration: Duration, mut work: impl FnMut()) -> u32 {
    let mut calls = 1_u32;
    loop {
        let start = Instant::now();
        (0..calls).for_each(|_| work());
        let elapsed = start.elapsed();
        if elapsed * 4 > duration || calls >= 1 << 24 {
            let wanted = f64::from(calls) * duration.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
            return (wanted as u32).max(1);
        }
        calls *= 2;
    }
}

/// Seconds that one call of `work` takes, on average over `calls`.
pub fn seconds(calls: u32, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..calls).for_each(|_| work());
    start.elapsed().as_secs_f64() / f64::from(calls)
}
