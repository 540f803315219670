//! What to do next with one container: a pure function of its record, what was seen of its
//! process, and the time.

use serde::{Deserialize, Serialize};

use super::RestartPolicy;

const SECOND: i64 = 1_000_000_000;
const FIRST_DELAY: i64 = SECOND / 10;
const LONGEST_DELAY: i64 = 60 * SECOND;
/// A run of this length starts the delays anew.
const LONG_RUN: i64 = 10 * SECOND;
/// The exit code of a container whose host or monitor went away.
pub const LOST: i64 = 255;

/// Where a container stands, as the record says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Created,
    Running,
    Paused,
    /// Ended, and will be started again at `restart_at`.
    Restarting,
    Exited,
    Removing,
}

/// The part of a record that decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    pub phase: Phase,
    pub policy: RestartPolicy,
    pub auto_remove: bool,
    /// Somebody stopped it since its last start.
    pub stopped_by_hand: bool,
    /// Something of a run may be left: process, runtime state, network.
    pub dirty: bool,
    pub exit_code: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub restart_count: u32,
    pub restart_delay: i64,
    pub restart_at: i64,
    /// A run was begun at some time.
    pub ran: bool,
}

/// What was seen of the container's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    Alive,
    /// Its monitor wrote how it ended.
    Ended {
        code: i64,
    },
    /// Neither a process nor a word about it.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// [`Life::note_exit`], and tell those who wait.
    NoteExit {
        code: i64,
    },
    /// A process the record knows nothing of: its start was cut in two.
    Kill,
    /// Take back what a run left; keep the network for the next one.
    CleanUp {
        keep_network: bool,
    },
    Start,
    WakeAt(i64),
    Remove,
}

/// One step. Carrying it out and asking again leads to `Nothing` or `WakeAt`.
pub fn next(life: &Life, observed: Observed, now: i64) -> Action {
    match (life.phase, observed) {
        (Phase::Removing, _) => Action::Remove,
        (Phase::Running | Phase::Paused, Observed::Ended { code }) => Action::NoteExit { code },
        (Phase::Running | Phase::Paused, Observed::Gone) => Action::NoteExit { code: LOST },
        (Phase::Created | Phase::Restarting | Phase::Exited, Observed::Alive) => Action::Kill,
        (Phase::Created | Phase::Restarting | Phase::Exited, _) if life.dirty => Action::CleanUp {
            keep_network: life.phase == Phase::Restarting,
        },
        (Phase::Exited, _) if life.auto_remove => Action::Remove,
        (Phase::Running | Phase::Paused, Observed::Alive) | (Phase::Created | Phase::Exited, _) => {
            Action::Nothing
        }
        (Phase::Restarting, _) if life.restart_at <= now => Action::Start,
        (Phase::Restarting, _) => Action::WakeAt(life.restart_at),
    }
}

impl Life {
    /// The process ended at `now`; decides whether it will be started again.
    pub fn note_exit(&mut self, code: i64, now: i64) {
        self.exit_code = code;
        self.finished_at = now;
        if self.stopped_by_hand || !self.policy_restarts(code) {
            self.phase = Phase::Exited;
            return;
        }
        self.restart_delay = if self.restart_delay == 0 || now - self.started_at >= LONG_RUN {
            FIRST_DELAY
        } else {
            (self.restart_delay * 2).min(LONGEST_DELAY)
        };
        self.restart_at = now + self.restart_delay;
        self.restart_count += 1;
        self.phase = Phase::Restarting;
    }

    /// Whether a container that does not run is to be started when the engine starts.
    pub fn starts_with_engine(&self) -> bool {
        if self.phase != Phase::Exited || !self.ran {
            return false;
        }
        match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !self.stopped_by_hand,
            RestartPolicy::OnFailure(_) => {
                !self.stopped_by_hand && self.policy_restarts(self.exit_code)
            }
        }
    }

    /// Whether the file systems of its volumes are to be mounted: not only while it runs, but
    /// from the beginning of a start on, and between a crash and the restart.
    pub fn holds_volumes(&self) -> bool {
        self.dirty
            || matches!(
                self.phase,
                Phase::Running | Phase::Paused | Phase::Restarting
            )
    }

    fn policy_restarts(&self, code: i64) -> bool {
        match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure(most) => code != 0 && (most == 0 || self.restart_count < most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(phase: Phase) -> Life {
        Life {
            phase,
            ran: true,
            ..Life::default()
        }
    }

    #[test]
    fn steps() {
        let dirty = |phase| Life {
            dirty: true,
            ..life(phase)
        };
        let removed = Life {
            auto_remove: true,
            ..life(Phase::Exited)
        };
        let waiting = Life {
            restart_at: 50,
            ..life(Phase::Restarting)
        };
        for (life, observed, action) in [
            (life(Phase::Created), Observed::Gone, Action::Nothing),
            (dirty(Phase::Created), Observed::Alive, Action::Kill),
            (
                dirty(Phase::Created),
                Observed::Gone,
                Action::CleanUp {
                    keep_network: false,
                },
            ),
            (dirty(Phase::Running), Observed::Alive, Action::Nothing),
            (dirty(Phase::Paused), Observed::Alive, Action::Nothing),
            (
                dirty(Phase::Running),
                Observed::Ended { code: 3 },
                Action::NoteExit { code: 3 },
            ),
            (
                dirty(Phase::Running),
                Observed::Gone,
                Action::NoteExit { code: LOST },
            ),
            (
                dirty(Phase::Exited),
                Observed::Gone,
                Action::CleanUp {
                    keep_network: false,
                },
            ),
            (
                dirty(Phase::Restarting),
                Observed::Gone,
                Action::CleanUp { keep_network: true },
            ),
            (life(Phase::Exited), Observed::Gone, Action::Nothing),
            (removed, Observed::Ended { code: 0 }, Action::Remove),
            (waiting.clone(), Observed::Gone, Action::Start),
            (
                Life {
                    restart_at: 101,
                    ..waiting
                },
                Observed::Gone,
                Action::WakeAt(101),
            ),
            (dirty(Phase::Removing), Observed::Alive, Action::Remove),
        ] {
            assert_eq!(next(&life, observed, 100), action, "{life:?} {observed:?}");
        }
    }

    #[test]
    fn restart_policies() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        // policy, by hand, code, restarts so far -> restarts at exit, starts with the engine
        for (policy, by_hand, code, count, at_exit, with_engine) in [
            (No, false, 1, 0, false, false),
            (Always, false, 0, 7, true, true),
            (Always, true, 0, 0, false, true),
            (UnlessStopped, false, 0, 0, true, true),
            (UnlessStopped, true, 0, 0, false, false),
            (OnFailure(0), false, 0, 0, false, false),
            (OnFailure(0), false, 1, 99, true, true),
            (OnFailure(3), false, 1, 2, true, true),
            (OnFailure(3), false, 1, 3, false, false),
            (OnFailure(3), true, 137, 0, false, false),
        ] {
            let mut it = Life {
                policy,
                stopped_by_hand: by_hand,
                restart_count: count,
                ..life(Phase::Running)
            };
            it.note_exit(code, 1);
            assert_eq!(
                it.phase == Phase::Restarting,
                at_exit,
                "{policy:?} {by_hand} {code}"
            );
            let rest = Life {
                policy,
                stopped_by_hand: by_hand,
                exit_code: code,
                restart_count: count,
                ..life(Phase::Exited)
            };
            assert_eq!(
                rest.starts_with_engine(),
                with_engine,
                "{policy:?} {by_hand} {code}"
            );
        }
    }

    #[test]
    fn volumes_are_held_until_it_is_at_rest() {
        for (phase, dirty, holds) in [
            (Phase::Created, false, false),
            (Phase::Created, true, true),
            (Phase::Running, true, true),
            (Phase::Paused, true, true),
            (Phase::Restarting, false, true),
            (Phase::Exited, true, true),
            (Phase::Exited, false, false),
            (Phase::Removing, false, false),
        ] {
            let it = Life {
                dirty,
                ..life(phase)
            };
            assert_eq!(it.holds_volumes(), holds, "{phase:?} {dirty}");
        }
    }

    #[test]
    fn delays_double_to_a_minute_and_start_anew_after_a_long_run() {
        let mut it = Life {
            policy: RestartPolicy::Always,
            ..life(Phase::Running)
        };
        let mut delays = Vec::new();
        let mut now = 0;
        for _ in 0..12 {
            it.started_at = now;
            it.note_exit(1, now);
            delays.push(it.restart_delay / 1_000_000);
            now = it.restart_at;
        }
        assert_eq!(delays[..4], [100, 200, 400, 800]);
        assert_eq!(delays[11], 60_000);
        it.started_at = now;
        it.note_exit(1, now + LONG_RUN);
        assert_eq!(it.restart_delay, FIRST_DELAY);
    }
}
