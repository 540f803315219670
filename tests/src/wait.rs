//! Waiting for a condition instead of for a time.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// Asks again and again until `probe` gives `Ok`, prints how long that took, and panics with
/// the last answer when `limit` has passed.
pub fn until<T, E: Debug>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => {
                eprintln!("{what}: {:.3} s", start.elapsed().as_secs_f64());
                return value;
            }
            Err(last) if start.elapsed() > limit => {
                panic!("{what}: not within {limit:?}; last answer: {last:?}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
