use std::sync::Arc;

use model::{
    EndpointId, Meta,
    service::ServiceMode,
    task::{RestartPolicy, TaskSpec},
};
use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000_000;
const NOW: i64 = 100 * SECOND;

fn task(desired: TaskState) -> Task {
    Task {
        id: "t1".into(),
        meta: Meta::default(),
        service: "s1".into(),
        service_name: "web".into(),
        slot: 1,
        node: Some("n1".into()),
        spec: Arc::new(TaskSpec::default()),
        spec_version: 1,
        labels: std::collections::BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        status: TaskStatus::default(),
        desired,
        start_after: 0,
        endpoints: vec![EndpointId::new("e1")],
        ports: Vec::new(),
        generic_resources: Vec::new(),
        job_iteration: None,
        handover: Handover::Pending,
        in_since: 0,
        attempt: 0,
        drain: Duration::from_secs(5),
    }
}

fn own(state: TaskState) -> Own {
    Own {
        status: TaskStatus {
            state,
            ..TaskStatus::default()
        },
        ..Own::default()
    }
}

fn seen(run: Run) -> Option<Seen> {
    Some(Seen {
        id: model::ContainerId::new("c1"),
        run,
        ..Seen::default()
    })
}

const RUNS: Run = Run::Runs(Health::Unasked);

#[test]
fn a_life_from_accepted_to_its_end() {
    use TaskState as S;
    let healthy = Run::Runs(Health::Healthy);
    let starting = Run::Runs(Health::Starting);
    let unhealthy = Run::Runs(Health::Unhealthy);
    // desired, state, what runs -> action, next state
    for (desired, state, run, action, next) in [
        (
            S::Running,
            S::Accepted,
            None,
            Action::Prepare,
            Some(S::Preparing),
        ),
        (
            S::Ready,
            S::Accepted,
            None,
            Action::Prepare,
            Some(S::Preparing),
        ),
        (
            S::Ready,
            S::Preparing,
            Some(Run::Created),
            Action::Nothing,
            Some(S::Ready),
        ),
        (
            S::Ready,
            S::Ready,
            Some(Run::Created),
            Action::Nothing,
            None,
        ),
        (
            S::Running,
            S::Ready,
            Some(Run::Created),
            Action::Start,
            Some(S::Starting),
        ),
        (
            S::Running,
            S::Preparing,
            Some(Run::Created),
            Action::Start,
            Some(S::Starting),
        ),
        (
            S::Complete,
            S::Ready,
            Some(Run::Created),
            Action::Start,
            Some(S::Starting),
        ),
        (
            S::Running,
            S::Starting,
            Some(RUNS),
            Action::Nothing,
            Some(S::Running),
        ),
        (
            S::Running,
            S::Starting,
            Some(starting),
            Action::Nothing,
            None,
        ),
        (
            S::Running,
            S::Ready,
            Some(starting),
            Action::Nothing,
            Some(S::Starting),
        ),
        (
            S::Running,
            S::Starting,
            Some(healthy),
            Action::Nothing,
            Some(S::Running),
        ),
        (
            S::Running,
            S::Running,
            Some(starting),
            Action::Nothing,
            None,
        ),
        (S::Running, S::Running, Some(unhealthy), Action::Stop, None),
        (
            S::Running,
            S::Running,
            Some(Run::Ended { code: 0 }),
            Action::Nothing,
            Some(S::Complete),
        ),
        (
            S::Running,
            S::Running,
            Some(Run::Ended { code: 3 }),
            Action::Nothing,
            Some(S::Failed),
        ),
        (
            S::Running,
            S::Running,
            None,
            Action::Nothing,
            Some(S::Failed),
        ),
        // An end before anything ran.
        (
            S::Shutdown,
            S::Accepted,
            None,
            Action::Nothing,
            Some(S::Shutdown),
        ),
        (
            S::Shutdown,
            S::Ready,
            Some(Run::Created),
            Action::Nothing,
            Some(S::Shutdown),
        ),
        (S::Shutdown, S::Starting, Some(starting), Action::Stop, None),
        (
            S::Remove,
            S::Ready,
            Some(Run::Created),
            Action::Remove,
            None,
        ),
        (S::Remove, S::Running, Some(RUNS), Action::Stop, None),
        (
            S::Remove,
            S::Running,
            Some(Run::Ended { code: 0 }),
            Action::Remove,
            None,
        ),
        (
            S::Remove,
            S::Running,
            None,
            Action::Nothing,
            Some(S::Shutdown),
        ),
        (
            S::Shutdown,
            S::Running,
            Some(Run::Ended { code: 143 }),
            Action::Nothing,
            Some(S::Shutdown),
        ),
        // After the end.
        (
            S::Running,
            S::Failed,
            Some(Run::Ended { code: 1 }),
            Action::Nothing,
            None,
        ),
        (S::Running, S::Failed, Some(RUNS), Action::Stop, None),
        (
            S::Shutdown,
            S::Shutdown,
            Some(Run::Ended { code: 0 }),
            Action::Nothing,
            None,
        ),
        (
            S::Remove,
            S::Failed,
            Some(Run::Ended { code: 1 }),
            Action::Remove,
            None,
        ),
        (S::Remove, S::Shutdown, None, Action::Nothing, None),
    ] {
        let step = decide(
            &task(desired),
            &own(state),
            run.and_then(seen).as_ref(),
            NOW,
        );
        let found = (step.action, step.status.map(|next| next.state));
        assert_eq!(found, (action, next), "{desired:?} {state:?} {run:?}");
    }
}

#[test]
fn what_fails_is_rejected_before_its_start_and_failed_after() {
    use TaskState as S;
    for (state, next) in [
        (S::Preparing, S::Rejected),
        (S::Starting, S::Failed),
        (S::Running, S::Failed),
    ] {
        let own = Own {
            failure: Some("no such image".into()),
            ..own(state)
        };
        let step = decide(&task(S::Running), &own, None, NOW);
        let status = step.status.unwrap();
        assert_eq!(
            (status.state, status.error.as_str()),
            (next, "no such image")
        );
    }
}

#[test]
fn a_task_leaves_load_balancing_before_it_is_stopped() {
    let at = |seconds: i64| NOW + seconds * SECOND;
    // handover, alone since, draining since, counted -> action, deadline
    for (handover, alone, draining, counted, action, deadline) in [
        (
            Handover::In,
            None,
            None,
            None,
            Action::Nothing,
            Some(at(10)),
        ),
        (
            Handover::In,
            Some(NOW),
            None,
            None,
            Action::Nothing,
            Some(at(4)),
        ),
        (Handover::In, Some(at(-4)), None, None, Action::Count, None),
        (Handover::Out, None, None, None, Action::Count, None),
        (
            Handover::Out,
            None,
            Some(NOW),
            Some((NOW, 0)),
            Action::Stop,
            None,
        ),
        (
            Handover::Out,
            None,
            Some(NOW),
            Some((NOW, 2)),
            Action::Nothing,
            Some(NOW + SECOND / 10),
        ),
        (
            Handover::Out,
            None,
            Some(at(-1)),
            Some((at(-1), 2)),
            Action::Count,
            None,
        ),
        (
            Handover::Out,
            None,
            Some(at(-5)),
            Some((NOW, 2)),
            Action::Stop,
            None,
        ),
    ] {
        let task = Task {
            handover,
            ..task(TaskState::Shutdown)
        };
        let own = Own {
            alone_since: alone,
            draining_since: draining,
            counted,
            ending_since: Some(NOW),
            ..own(TaskState::Running)
        };
        let step = decide(&task, &own, seen(RUNS).as_ref(), NOW);
        assert_eq!(
            (step.action, step.deadline),
            (action, deadline),
            "{handover:?} {alone:?} {draining:?} {counted:?}"
        );
    }
}

#[test]
fn without_a_manager_the_same_task_is_started_again_within_its_policy() {
    let policy = |condition, max_attempts| {
        Some(RestartPolicy {
            condition,
            max_attempts,
            delay: Duration::from_secs(2),
            ..RestartPolicy::default()
        })
    };
    use RestartCondition::{Any, None as Never, OnFailure};
    let long_alone = Some(NOW - 10 * SECOND);
    let just_alone = Some(NOW - SECOND);
    // policy, alone since, ended seconds ago, code, restarts -> action, deadline
    for (policy, alone, ago, code, restarts, action, deadline) in [
        (None, None, 9, 1, 0, Action::Nothing, None),
        (None, long_alone, 9, 1, 0, Action::Restart, None),
        (policy(Any, 0), long_alone, 9, 0, 0, Action::Restart, None),
        (
            policy(Any, 0),
            long_alone,
            1,
            1,
            0,
            Action::Nothing,
            Some(NOW + SECOND),
        ),
        (
            policy(Any, 0),
            just_alone,
            9,
            1,
            0,
            Action::Nothing,
            Some(NOW + 3 * SECOND),
        ),
        (
            policy(OnFailure, 0),
            long_alone,
            9,
            0,
            0,
            Action::Nothing,
            None,
        ),
        (
            policy(OnFailure, 3),
            long_alone,
            9,
            1,
            2,
            Action::Restart,
            None,
        ),
        (
            policy(OnFailure, 3),
            long_alone,
            9,
            1,
            3,
            Action::Nothing,
            None,
        ),
        (policy(Never, 0), long_alone, 9, 1, 0, Action::Nothing, None),
    ] {
        let mut task = task(TaskState::Running);
        task.spec = Arc::new(TaskSpec {
            restart: policy.clone(),
            ..TaskSpec::default()
        });
        let mut own = own(TaskState::Running);
        own.alone_since = alone;
        own.status.restarts = restarts;
        let seen = Seen {
            run: Run::Ended { code },
            finished_at: NOW - ago * SECOND,
            ..Seen::default()
        };
        let step = decide(&task, &own, Some(&seen), NOW);
        assert_eq!(
            (step.action, step.deadline),
            (action, deadline),
            "{policy:?} {alone:?} {ago} {code} {restarts}"
        );
    }
}

#[test]
fn after_a_reboot_what_is_wanted_is_started_again() {
    for (desired, alone, action) in [
        (TaskState::Running, None, Action::Restart),
        (TaskState::Running, Some(NOW - SECOND), Action::Nothing),
        (TaskState::Running, Some(NOW - 5 * SECOND), Action::Restart),
        (TaskState::Shutdown, None, Action::Nothing),
    ] {
        let own = Own {
            rebooted: true,
            alone_since: alone,
            ..own(TaskState::Running)
        };
        let ended = seen(Run::Ended { code: 255 });
        let step = decide(&task(desired), &own, ended.as_ref(), NOW);
        assert_eq!(step.action, action, "{desired:?} {alone:?}");
    }
}

#[test]
fn the_reason_names_memory_and_health() {
    let with = |oom_killed, unhealthy, limit| {
        let mut task = task(TaskState::Running);
        let mut spec = TaskSpec::default();
        spec.limits.memory_bytes = limit;
        task.spec = Arc::new(spec);
        let own = Own {
            unhealthy,
            ..own(TaskState::Running)
        };
        let seen = Seen {
            run: Run::Ended { code: 137 },
            oom_killed,
            ..Seen::default()
        };
        decide(&task, &own, Some(&seen), NOW).status.unwrap().error
    };
    for (oom, unhealthy, limit, text) in [
        (false, false, 0, "task: non-zero exit (137)"),
        (
            true,
            false,
            64 << 20,
            "task: non-zero exit (137): out of memory, its limit is 64 MiB",
        ),
        (true, false, 0, "task: non-zero exit (137): out of memory"),
        (
            false,
            true,
            0,
            "task: non-zero exit (137): dockerexec: unhealthy container",
        ),
    ] {
        assert_eq!(with(oom, unhealthy, limit), text);
    }
}

#[test]
fn a_task_waits_for_what_it_is_to_be_given() {
    let own = Own {
        missing: vec!["secret key".into()],
        ..own(TaskState::Accepted)
    };
    let step = decide(&task(TaskState::Running), &own, None, NOW);
    assert_eq!(step.action, Action::Nothing);
    assert_eq!(step.status.unwrap().error, "waits for secret key");
}

fn any_run() -> impl Strategy<Value = Option<Run>> {
    prop_oneof![
        Just(None),
        Just(Some(Run::Created)),
        Just(Some(RUNS)),
        Just(Some(Run::Runs(Health::Starting))),
        Just(Some(Run::Runs(Health::Unhealthy))),
        (0i64..3).prop_map(|code| Some(Run::Ended { code })),
    ]
}

proptest! {
    #[test]
    fn states_never_go_back_and_nothing_runs_after_the_end(
        desired in prop::sample::select(TaskState::ALL.to_vec()),
        state in prop::sample::select(TaskState::ALL.to_vec()),
        run in any_run(),
        alone in prop::option::of(0i64..200),
        failed in any::<bool>(),
    ) {
        let own = Own {
            alone_since: alone.map(|seconds| seconds * SECOND),
            failure: failed.then(|| "reason".to_owned()),
            ..own(state)
        };
        let step = decide(&task(desired), &own, run.and_then(seen).as_ref(), NOW);
        if let Some(next) = &step.status {
            prop_assert!(next.state >= state);
        }
        let begins = matches!(step.action, Action::Prepare | Action::Start | Action::Restart);
        prop_assert!(!(begins && (state.is_final() || desired > TaskState::Complete)));
    }
}
