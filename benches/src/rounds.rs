//! Timing in turns: every contender once a round, for as many rounds as it takes.

use std::time::Duration;

/// The processor time of this thread, so that other processes' turns don't count. Without such a clock, the wall clock.
pub fn thread_time() -> Duration {
    #[cfg(unix)]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the clock exists, and the structure is ours to write.
        let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        assert_eq!(status, 0, "the thread's clock");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
    #[cfg(not(unix))]
    {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }
}

/// The median; the lower of the two middle values for an even number.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// The number of calls of `work` that takes about `duration`.
pub fn calls_in(duration: Duration, mut work: impl FnMut()) -> u32 {
    let mut calls = 1_u32;
    loop {
        let start = thread_time();
        (0..calls).for_each(|_| work());
        let elapsed = thread_time() - start;
        if elapsed * 4 > duration || calls >= 1 << 24 {
            let wanted = f64::from(calls) * duration.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
            return (wanted as u32).max(1);
        }
        calls *= 2;
    }
}

/// Seconds that one call of `work` takes, on average over `calls`.
pub fn seconds(calls: u32, mut work: impl FnMut()) -> f64 {
    let start = thread_time();
    (0..calls).for_each(|_| work());
    (thread_time() - start).as_secs_f64() / f64::from(calls)
}
