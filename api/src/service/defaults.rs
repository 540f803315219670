//! What applies where a spec says nothing, for `insertDefaults`.

use model::{service::UpdateConfig, task::RestartPolicy};

use super::{
    spec::{SpecView, UpdateConfigView},
    template::RestartView,
};

/// How long a task's container has between its stop signal and the kill, nanoseconds.
const STOP_GRACE_PERIOD: i64 = 10_000_000_000;

pub(super) fn insert(spec: &mut SpecView) {
    let job = spec.mode.replicated_job.is_some() || spec.mode.global_job.is_some();
    if let Some(container) = &mut spec.task_template.container_spec {
        container.stop_grace_period.get_or_insert(STOP_GRACE_PERIOD);
    }
    // Jobs are not restarted after success and know no updates.
    if job {
        return;
    }
    spec.task_template
        .restart_policy
        .get_or_insert_with(|| RestartView::from(&RestartPolicy::default()));
    let update = || UpdateConfigView::from(&UpdateConfig::default());
    spec.update_config.get_or_insert_with(update);
    spec.rollback_config.get_or_insert_with(update);
}
