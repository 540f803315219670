//! What the last probes of one path say: pure.

use std::{collections::VecDeque, time::Duration};

use model::{NodeId, PathSight, PathState, Tally};

/// Probes that are remembered.
const KEPT: usize = 30;
/// Every so many probes one has full size.
const FULL_EVERY: usize = 6;
/// Between two probes of a path that is well, or known to be bad.
const CALM: Duration = Duration::from_secs(5);
/// The same while more has to be known.
const HURRY: Duration = Duration::from_secs(1);
/// Lost in a row: no accident.
const BROKEN: usize = 3;
/// Lost in a row: known to be bad.
const KNOWN_BAD: usize = 8;
/// Losses among those remembered that are none of chance, such as a host that stood still.
const LOSSY: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Small,
    Full,
}

/// How a probe went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Lost,
    /// The other host has it, and nobody told how long it took.
    Arrived,
    /// There and back.
    Back(Duration),
}

/// The last probes of one path, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Window(VecDeque<(Size, Outcome)>);

impl Window {
    pub fn note(&mut self, size: Size, outcome: Outcome) {
        if outcome != Outcome::Lost && self.0.iter().all(|(_, earlier)| *earlier == Outcome::Lost) {
            // One of the ends was being made, or nothing went through at all: that is over, and
            // says nothing of the path as it is.
            self.0.clear();
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((size, outcome));
    }

    /// Of the next probe.
    pub fn next_size(&self) -> Size {
        let small = |(size, _): &&(Size, Outcome)| *size == Size::Small;
        let since_full = self.0.iter().rev().take_while(small).count();
        let due = if self.lost_in_a_row(Size::Full) > 0 || since_full == self.0.len() {
            // Whether one is lost by chance is known only after the next; the first is not put off.
            1
        } else {
            FULL_EVERY - 1
        };
        if since_full >= due {
            Size::Full
        } else {
            Size::Small
        }
    }

    /// Until the next probe; one that is not answered by then is lost.
    pub fn pause(&self) -> Duration {
        let lost = self.0.iter().any(|(_, outcome)| *outcome == Outcome::Lost);
        let row = |size| self.lost_in_a_row(size);
        let known_bad = row(Size::Small).max(row(Size::Full)) >= KNOWN_BAD;
        if self.0.len() < FULL_EVERY || (lost && !known_bad) {
            HURRY
        } else {
            CALM
        }
    }

    /// What is to be told of the path.
    pub fn sight(&self, to: NodeId, full_size: u32) -> PathSight {
        let mut times: Vec<Duration> = self
            .of(Size::Small)
            .filter_map(|outcome| match outcome {
                Outcome::Back(time) => Some(time),
                Outcome::Arrived | Outcome::Lost => None,
            })
            .collect();
        times.sort_unstable();
        PathSight {
            to,
            state: self.verdict(),
            small: self.tally(Size::Small),
            full: self.tally(Size::Full),
            full_size,
            median: times.get(times.len() / 2).copied(),
            worst: times.last().copied(),
        }
    }

    pub fn verdict(&self) -> PathState {
        let (small, full) = (self.tally(Size::Small), self.tally(Size::Full));
        let arrived = small.lost < small.sent || full.lost < full.sent;
        let full_row = self.lost_in_a_row(Size::Full);
        if self.lost_in_a_row(Size::Small) >= BROKEN {
            PathState::Unreachable
        } else if full_row >= BROKEN || (full_row + 1 >= BROKEN && small.lost == 0) {
            PathState::SmallOnly
        } else if small.lost + full.lost >= LOSSY && arrived {
            PathState::Lossy
        } else if small.lost < small.sent && full.lost < full.sent {
            PathState::Fine
        } else {
            PathState::Unknown
        }
    }

    fn of(&self, wanted: Size) -> impl DoubleEndedIterator<Item = Outcome> + '_ {
        let of_size =
            move |(size, outcome): &(Size, Outcome)| (*size == wanted).then_some(*outcome);
        self.0.iter().filter_map(of_size)
    }

    fn lost_in_a_row(&self, size: Size) -> usize {
        let lost = |outcome: &Outcome| *outcome == Outcome::Lost;
        self.of(size).rev().take_while(lost).count()
    }

    fn tally(&self, size: Size) -> Tally {
        let mut tally = Tally::default();
        for outcome in self.of(size) {
            tally.sent += 1;
            tally.lost += u32::from(outcome == Outcome::Lost);
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACK: Outcome = Outcome::Back(Duration::from_millis(1));

    /// Runs probes of the sizes that the window asks for.
    fn run(window: &mut Window, probes: usize, mut path: impl FnMut(usize, Size) -> Outcome) {
        for number in 0..probes {
            let size = window.next_size();
            window.note(size, path(number, size));
        }
    }

    fn after(probes: usize, path: impl FnMut(usize, Size) -> Outcome) -> Window {
        let mut window = Window::default();
        run(&mut window, probes, path);
        window
    }

    #[test]
    fn a_path_is_judged_by_its_last_probes() {
        let lost = |wanted: fn(usize, Size) -> bool| {
            move |number, size| {
                if wanted(number, size) {
                    Outcome::Lost
                } else {
                    BACK
                }
            }
        };
        type Loss = fn(usize, Size) -> bool;
        // probes, which are lost, verdict, lost small and full
        let cases: [(usize, Loss, PathState, u32, u32); 11] = [
            (0, |_, _| true, PathState::Unknown, 0, 0),
            (1, |_, _| false, PathState::Unknown, 0, 0),
            (2, |_, _| false, PathState::Fine, 0, 0),
            (100, |_, _| false, PathState::Fine, 0, 0),
            (2, |_, _| true, PathState::Unknown, 1, 1),
            (5, |_, _| true, PathState::Unreachable, 3, 2),
            (100, |_, _| true, PathState::Unreachable, 15, 15),
            (3, |_, size| size == Size::Full, PathState::Unknown, 0, 1),
            (4, |_, size| size == Size::Full, PathState::SmallOnly, 0, 2),
            (100, |number, _| number == 80, PathState::Fine, 1, 0),
            (100, |number, _| number % 5 == 0, PathState::Lossy, 5, 1),
        ];
        for (probes, loss, state, small, full) in cases {
            let window = after(probes, lost(loss));
            let sight = window.sight("n".into(), 1450);
            assert_eq!(sight.state, state, "{probes} {window:?}");
            assert_eq!(
                (sight.small.lost, sight.full.lost),
                (small, full),
                "{window:?}"
            );
            assert!(sight.small.sent + sight.full.sent <= 30);
        }
    }

    #[test]
    fn every_sixth_has_full_size_and_after_a_lost_one_every_second() {
        let sizes = |loss: bool| {
            let mut sizes = String::new();
            after(14, |_, size| {
                sizes.push(if size == Size::Full { 'F' } else { 's' });
                if loss && size == Size::Full {
                    Outcome::Lost
                } else {
                    BACK
                }
            });
            sizes
        };
        assert_eq!(sizes(false), "sFsssssFsssssF");
        assert_eq!(sizes(true), "sFsFsFsFsFsFsF");
    }

    #[test]
    fn more_is_asked_while_something_is_not_known() {
        let pause = |window: &Window| window.pause().as_secs();
        assert_eq!(pause(&Window::default()), 1);
        let mut window = after(6, |_, _| BACK);
        assert_eq!(pause(&window), 5);
        run(&mut window, 1, |_, _| Outcome::Lost);
        assert_eq!(pause(&window), 1);
        // An outage that lasts is not asked after at that pace.
        run(&mut window, 20, |_, _| Outcome::Lost);
        assert_eq!(pause(&window), 5);
        // One that is over is forgotten at the faster one.
        run(&mut window, 28, |_, _| BACK);
        assert_eq!((window.verdict(), pause(&window)), (PathState::Lossy, 1));
        run(&mut window, 2, |_, _| BACK);
        assert_eq!((window.verdict(), pause(&window)), (PathState::Fine, 5));
    }

    #[test]
    fn what_was_lost_before_anything_arrived_does_not_count() {
        let mut window = after(2, |_, _| Outcome::Lost);
        run(&mut window, 2, |_, _| BACK);
        assert_eq!(window.verdict(), PathState::Fine);
        assert_eq!(
            window.tally(Size::Small).lost + window.tally(Size::Full).lost,
            0
        );
    }

    #[test]
    fn times_are_those_of_small_probes_that_came_back() {
        let mut window = Window::default();
        for (size, outcome) in [
            (Size::Small, Outcome::Back(Duration::from_micros(300))),
            (Size::Full, Outcome::Back(Duration::from_secs(1))),
            (Size::Small, Outcome::Back(Duration::from_micros(900))),
            (Size::Small, Outcome::Arrived),
            (Size::Small, Outcome::Lost),
            (Size::Small, Outcome::Back(Duration::from_micros(200))),
        ] {
            window.note(size, outcome);
        }
        let sight = window.sight("n".into(), 1450);
        assert_eq!(sight.median, Some(Duration::from_micros(300)));
        assert_eq!(sight.worst, Some(Duration::from_micros(900)));
        assert_eq!((sight.small.sent, sight.small.lost), (5, 1));
        let nothing = Window::default().sight("n".into(), 0);
        assert_eq!((nothing.median, nothing.worst), (None, None));
    }
}
