//! What hosts say of the ways between them. It is measured anew all the time, so it is in no log:
//! a leader has it from those that told it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use model::{AgedReport, NodeId, PathReport};

/// The last word of each host.
#[derive(Default)]
pub struct PathDesk(Mutex<HashMap<NodeId, (Instant, PathReport)>>);

impl PathDesk {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, (Instant, PathReport)>> {
        // Entries are changed as wholes; none is left half made by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new term: what was said to another leader since is not known here.
    pub fn begin(&self) {
        self.lock().clear();
    }

    pub fn note(&self, report: PathReport, now: Instant) {
        self.lock().insert(report.node.clone(), (now, report));
    }

    /// What the members among the hosts have said, in the order of their ids.
    pub fn all(&self, is_member: impl Fn(&NodeId) -> bool, now: Instant) -> Vec<AgedReport> {
        let mut told = self.lock();
        told.retain(|node, _| is_member(node));
        let mut reports: Vec<AgedReport> = told
            .values()
            .map(|(at, report)| {
                let mut report = report.clone();
                report.paths.retain(|path| is_member(&path.to));
                AgedReport {
                    report,
                    age: now.saturating_duration_since(*at),
                }
            })
            .collect();
        drop(told);
        reports.sort_by(|a, b| a.report.node.cmp(&b.report.node));
        reports
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{PathSight, PathState, Tally};

    use super::*;

    #[test]
    fn the_last_word_of_members_counts_and_ages() {
        let desk = PathDesk::default();
        let start = Instant::now();
        let report = |node: &str, to: &[&str]| PathReport {
            node: node.into(),
            pace: Duration::from_secs(30),
            paths: to
                .iter()
                .map(|to| PathSight {
                    to: (*to).into(),
                    state: PathState::Fine,
                    small: Tally::default(),
                    full: Tally::default(),
                    full_size: 0,
                    median: None,
                    worst: None,
                })
                .collect(),
        };
        desk.note(report("b", &["a"]), start);
        desk.note(report("a", &["b"]), start);
        desk.note(report("a", &["b", "gone"]), start + Duration::from_secs(60));
        desk.note(report("gone", &["a"]), start);
        let all = desk.all(
            |node| node.as_str() != "gone",
            start + Duration::from_secs(100),
        );
        let shown: Vec<_> = all
            .iter()
            .map(|aged| {
                let node = aged.report.node.as_str();
                (
                    node,
                    aged.report.paths.len(),
                    aged.age.as_secs(),
                    aged.is_old(),
                )
            })
            .collect();
        assert_eq!(shown, [("a", 1, 40, false), ("b", 1, 100, true)]);
        desk.begin();
        assert_eq!(desk.all(|_| true, start), []);
    }
}
