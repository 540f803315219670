//! The keys of a service's deploy.

use super::Form::{Count, Duration, Int, List, Map, Number, OneOf, Pairs, Size, Text, Texts};
use super::{Key, honoured, noted, warned};

pub const KEYS: &[Key] = &[
    honoured("services.*.deploy", &[Map]),
    noted(
        "services.*.deploy.mode",
        &[OneOf(&[
            "replicated",
            "global",
            "replicated-job",
            "global-job",
        ])],
        "replicated where it is left out",
    ),
    noted(
        "services.*.deploy.replicas",
        &[Count],
        "1 where it is left out; not with global",
    ),
    honoured(
        "services.*.deploy.endpoint_mode",
        &[OneOf(&["vip", "dnsrr"])],
    ),
    honoured("services.*.deploy.labels", &[Pairs]),
    honoured("services.*.deploy.update_config", &[Map]),
    honoured("services.*.deploy.update_config.parallelism", &[Count]),
    honoured("services.*.deploy.update_config.delay", &[Duration]),
    honoured(
        "services.*.deploy.update_config.failure_action",
        &[OneOf(&["pause", "continue", "rollback"])],
    ),
    honoured("services.*.deploy.update_config.monitor", &[Duration]),
    honoured(
        "services.*.deploy.update_config.max_failure_ratio",
        &[Number],
    ),
    honoured(
        "services.*.deploy.update_config.order",
        &[OneOf(&["stop-first", "start-first"])],
    ),
    honoured("services.*.deploy.rollback_config", &[Map]),
    honoured("services.*.deploy.rollback_config.parallelism", &[Count]),
    honoured("services.*.deploy.rollback_config.delay", &[Duration]),
    honoured(
        "services.*.deploy.rollback_config.failure_action",
        &[OneOf(&["pause", "continue"])],
    ),
    honoured("services.*.deploy.rollback_config.monitor", &[Duration]),
    honoured(
        "services.*.deploy.rollback_config.max_failure_ratio",
        &[Number],
    ),
    honoured(
        "services.*.deploy.rollback_config.order",
        &[OneOf(&["stop-first", "start-first"])],
    ),
    honoured("services.*.deploy.resources", &[Map]),
    honoured("services.*.deploy.resources.limits", &[Map]),
    honoured("services.*.deploy.resources.limits.cpus", &[Number]),
    honoured("services.*.deploy.resources.limits.memory", &[Size]),
    honoured("services.*.deploy.resources.limits.pids", &[Int]),
    honoured("services.*.deploy.resources.reservations", &[Map]),
    honoured("services.*.deploy.resources.reservations.cpus", &[Number]),
    honoured("services.*.deploy.resources.reservations.memory", &[Size]),
    honoured(
        "services.*.deploy.resources.reservations.generic_resources",
        &[List],
    ),
    honoured(
        "services.*.deploy.resources.reservations.generic_resources.[]",
        &[Map],
    ),
    honoured(
        "services.*.deploy.resources.reservations.generic_resources.[].discrete_resource_spec",
        &[Map],
    ),
    honoured(
        "services.*.deploy.resources.reservations.generic_resources.[].discrete_resource_spec.kind",
        &[Text],
    ),
    honoured(
        "services.*.deploy.resources.reservations.generic_resources.[].discrete_resource_spec.value",
        &[Count],
    ),
    warned(
        "services.*.deploy.resources.reservations.devices",
        "tasks get no devices of the host; use generic_resources",
    ),
    honoured("services.*.deploy.restart_policy", &[Map]),
    honoured(
        "services.*.deploy.restart_policy.condition",
        &[OneOf(&["none", "on-failure", "any"])],
    ),
    honoured("services.*.deploy.restart_policy.delay", &[Duration]),
    honoured("services.*.deploy.restart_policy.max_attempts", &[Count]),
    honoured("services.*.deploy.restart_policy.window", &[Duration]),
    honoured("services.*.deploy.placement", &[Map]),
    honoured("services.*.deploy.placement.constraints", &[Texts]),
    honoured("services.*.deploy.placement.preferences", &[List]),
    honoured("services.*.deploy.placement.preferences.[]", &[Map]),
    honoured("services.*.deploy.placement.preferences.[].spread", &[Text]),
    honoured(
        "services.*.deploy.placement.max_replicas_per_node",
        &[Count],
    ),
];
