//! How often the kernel follows the cluster: at once, unless that is nearly all it does.

use std::time::{Duration, Instant};

/// The part of the time that following may take in the long run.
const PART: u32 = 10;
/// Work of so long a time's share is done without a pause.
const CREDIT: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_millis(150);

/// Where hundreds of tasks come at once each of them changes the rules of every container; in a
/// pause many changes become one.
pub(super) struct Pace {
    /// When the work done so far has had its share of time.
    due: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// Work that began then took so long.
    pub(super) fn took(&mut self, begun: Instant, time: Duration) {
        let longest = begun + time + CREDIT + LONGEST_PAUSE;
        self.due = (self.due.max(begun) + time * PART).min(longest);
    }

    /// How long others are to be waited for before the next.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now + CREDIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Works `times` times, each as soon as it may; how long all of it takes.
    fn play(pace: &mut Pace, start: Instant, work: Duration, times: u32) -> Duration {
        let mut now = start;
        for _ in 0..times {
            now += pace.pause(now);
            pace.took(now, work);
            now += work;
        }
        now - start
    }

    #[test]
    fn what_is_rare_is_done_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(
            play(&mut pace, start, 10 * MILLISECOND, 3),
            30 * MILLISECOND
        );
        let later = start + Duration::from_secs(1);
        assert_eq!(pace.pause(later), Duration::ZERO);
        assert_eq!(
            play(&mut pace, later, 10 * MILLISECOND, 3),
            30 * MILLISECOND
        );
    }

    #[test]
    fn a_flood_has_its_part_of_the_time() {
        let start = Instant::now();
        let took = play(&mut Pace::new(start), start, 10 * MILLISECOND, 100);
        let fair = 1000 * MILLISECOND * PART;
        assert!(took + 2 * CREDIT > fair && took <= fair, "{took:?}");
    }

    #[test]
    fn no_pause_is_longer_than_the_longest() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.took(start, Duration::from_secs(5));
        let done = start + Duration::from_secs(5);
        assert_eq!(pace.pause(done), LONGEST_PAUSE);
    }
}
