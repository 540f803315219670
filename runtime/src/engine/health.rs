//! Health checks: the rule is a pure function, the probes are execs.

use std::{sync::Arc, time::Duration};

use super::{
    Engine, ExecSpec, HealthProbe, HealthStatus, HealthView, Healthcheck, container::Container,
    machine::Phase, now,
};

const OUTPUT_LIMIT: usize = 4096;
const KEPT: usize = 5;

/// What a probe's result makes of the health.
fn judge(
    mut health: HealthView,
    check: &Healthcheck,
    probe: HealthProbe,
    started: i64,
) -> HealthView {
    let retries = if check.retries == 0 { 3 } else { check.retries };
    let in_grace = health.status == HealthStatus::Starting
        && probe.start - started < check.start_period.as_nanos() as i64;
    if probe.exit_code == 0 {
        health.status = HealthStatus::Healthy;
        health.failing_streak = 0;
    } else if !in_grace {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = HealthStatus::Unhealthy;
        }
    }
    health.log.push(probe);
    if health.log.len() > KEPT {
        health.log.remove(0);
    }
    health
}

fn or(given: Duration, usual: Duration) -> Duration {
    if given.is_zero() { usual } else { given }
}

/// Probes until this run ends.
pub(super) fn watch(engine: &Engine, container: &Arc<Container>) {
    let (check, started) = {
        let record = container.record();
        (record.effective.health.clone(), record.life.started_at)
    };
    let Some(check) = check else { return };
    let this = engine.arc();
    let container = container.clone();
    engine.spawn(async move {
        loop {
            let starting = container
                .record()
                .health
                .as_ref()
                .is_none_or(|health| health.status == HealthStatus::Starting);
            let in_grace = now() - started < check.start_period.as_nanos() as i64;
            let pause = if starting && in_grace {
                or(check.start_interval, Duration::from_secs(5))
            } else {
                or(check.interval, Duration::from_secs(30))
            };
            tokio::time::sleep(pause).await;
            let same_run = {
                let record = container.record();
                matches!(record.life.phase, Phase::Running | Phase::Paused)
                    && record.life.started_at == started
            };
            if !same_run {
                return;
            }
            if container.phase() == Phase::Paused {
                continue;
            }
            let probe = probe(&this, &container, &check).await;
            let changed = container.change(|record| {
                if record.life.started_at != started {
                    return None;
                }
                let old = record.health.take().unwrap_or_default();
                let before = old.status;
                let new = judge(old, &check, probe, started);
                let after = new.status;
                record.health = Some(new);
                (before != after).then_some(after)
            });
            if let Ok(Some(status)) = changed {
                let word = match status {
                    HealthStatus::Starting => "starting",
                    HealthStatus::Healthy => "healthy",
                    HealthStatus::Unhealthy => "unhealthy",
                };
                this.tell(&container.record(), format!("health_status: {word}"), &[]);
            }
        }
    });
}

async fn probe(engine: &Engine, container: &Container, check: &Healthcheck) -> HealthProbe {
    let start = now();
    let command = match check.test.first().map(String::as_str) {
        Some("CMD-SHELL") => {
            let mut command = vec!["/bin/sh".to_owned(), "-c".to_owned()];
            command.extend(check.test[1..].iter().cloned());
            command
        }
        Some("CMD") => check.test[1..].to_vec(),
        _ => check.test.clone(),
    };
    let spec = ExecSpec {
        command,
        attach_stdout: true,
        attach_stderr: true,
        ..ExecSpec::default()
    };
    let mut output = Vec::new();
    let exec = match engine.exec_create(container.id.as_str(), spec).await {
        Ok(exec) => exec,
        Err(refusal) => {
            return HealthProbe {
                start,
                end: now(),
                exit_code: -1,
                output: refusal.message,
            };
        }
    };
    let run = async {
        let mut attached = engine.exec_start(&exec, None).await?;
        while let Some(chunk) = attached.output.recv().await {
            let room = OUTPUT_LIMIT.saturating_sub(output.len());
            output.extend_from_slice(&chunk.bytes[..chunk.bytes.len().min(room)]);
        }
        Ok::<_, model::Refusal>(
            engine
                .exec_inspect(&exec)
                .ok()
                .and_then(|exec| exec.exit_code),
        )
    };
    let limit = or(check.timeout, Duration::from_secs(30));
    let (exit_code, text) = match tokio::time::timeout(limit, run).await {
        Ok(Ok(code)) => (
            code.unwrap_or(-1),
            String::from_utf8_lossy(&output).into_owned(),
        ),
        Ok(Err(refusal)) => (-1, refusal.message),
        Err(_) => (
            -1,
            format!("Health check exceeded timeout ({} s)", limit.as_secs_f64()),
        ),
    };
    engine.exec_discard(&exec);
    HealthProbe {
        start,
        end: now(),
        exit_code,
        output: text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_after_the_grace_make_unhealthy() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        let check = Healthcheck {
            start_period: Duration::from_nanos(100),
            ..Healthcheck::default()
        };
        let mut health = HealthView::default();
        for (at, exit_code, status, streak) in [
            (50, 1, Starting, 0),
            (150, 1, Starting, 1),
            (160, 0, Healthy, 0),
            (170, 1, Healthy, 1),
            (180, 1, Healthy, 2),
            (190, 1, Unhealthy, 3),
            (200, 0, Healthy, 0),
        ] {
            let probe = HealthProbe {
                start: at,
                end: at,
                exit_code,
                output: String::new(),
            };
            health = judge(health, &check, probe, 0);
            assert_eq!(
                (health.status, health.failing_streak),
                (status, streak),
                "{at}"
            );
        }
        assert_eq!(health.log.len(), KEPT);
    }
}
