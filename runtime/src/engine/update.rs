//! Limits and the restart policy of a container that exists.

use std::{fs, sync::Arc};

use model::Refusal;

use super::{
    Engine, Resources, RestartPolicy, Update, cgroup::unreclaimable, container::Container,
    machine::Phase, run::flatten, stop::refused,
};
use crate::oci::{OciError, bundle};

/// The least memory of a container, as Docker has it.
const LEAST_MEMORY: i64 = 6 << 20;
/// Microseconds, see sched-bwc.rst of the kernel.
const PERIODS: std::ops::RangeInclusive<i64> = 1_000..=1_000_000;
const LEAST_QUOTA: i64 = 1_000;
/// A hundredth of a processor, in billionths.
const LEAST_CPU: i64 = 10_000_000;

/// What the host has.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// `0-3,6`.
    cpus: String,
    /// As numbers; what cannot be read bounds nothing.
    numbers: Option<Vec<u32>>,
}

impl Engine {
    /// Refused before anything changes: what the host or the container cannot have. One that runs
    /// has the new limits when this returns; they hold from its next start on as well.
    pub async fn update(&self, reference: &str, update: Update) -> Result<(), Refusal> {
        let container = self.find(reference)?;
        let this = self.arc();
        // On its own task: a client that goes away must not leave it half done.
        let work = self.tasks.spawn(async move {
            let _turn = container.turn.lock().await;
            this.update_held(&container, &update).await
        });
        flatten(work.await)
    }

    async fn update_held(
        &self,
        container: &Arc<Container>,
        update: &Update,
    ) -> Result<(), Refusal> {
        let (before, policy, auto_remove) = {
            let record = container.record();
            let host = &record.spec.host;
            (host.resources.clone(), host.restart, host.auto_remove)
        };
        let phase = container.phase();
        if phase == Phase::Removing {
            return Err(Refusal::conflict(format!(
                "cannot update container {}: it is marked for removal and cannot be \"update\"",
                container.id
            )));
        }
        if auto_remove
            && update
                .restart
                .is_some_and(|wanted| wanted != RestartPolicy::No)
        {
            return Err(Refusal::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        let after = merged(&before, update)?;
        // What was given before may not fit today's host, and is not asked for again.
        check_values(&update.resources, &Host::read())?;
        check_memory(&after)?;
        let runs = matches!(phase, Phase::Running | Phase::Paused);
        if runs && after.memory != before.memory {
            fits(after.memory, unreclaimable(&self.cgroup_of(&container.id)))?;
        }
        // The wish first: what a kill leaves behind is a container that gets it with its next start.
        remember(container, &after, update.restart.unwrap_or(policy))?;
        if runs
            && after != before
            && let Err(error) = self.apply(container, &after).await
        {
            remember(container, &before, policy)?;
            if let Err(error) = self.apply(container, &before).await {
                tracing::warn!(container = container.id.as_str(), %error, "limits as they were");
            }
            return Err(refused(container, "update", &error));
        }
        self.tell(&container.record(), "update", &[]);
        Ok(())
    }

    async fn apply(&self, container: &Container, resources: &Resources) -> Result<(), OciError> {
        let id = container.id.clone();
        let file = container.bundle.join("update.json");
        let limits = bundle::new_limits(resources).to_string();
        self.private(move |executor| {
            fs::write(&file, limits)
                .map_err(OciError::io(format!("writing {}", file.display())))?;
            executor.update(id.as_str(), &file)
        })
        .await
    }
}

fn remember(
    container: &Container,
    resources: &Resources,
    policy: RestartPolicy,
) -> Result<(), Refusal> {
    container.change_durably(|record| {
        record.spec.host.resources = resources.clone();
        record.spec.host.restart = policy;
        record.life.policy = policy;
    })
}

impl Host {
    pub(super) fn read() -> Self {
        let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        Self::of(text.trim())
    }

    fn of(cpus: &str) -> Self {
        Self {
            cpus: cpus.to_owned(),
            numbers: processors(cpus),
        }
    }
}

/// `0-2,4` as a list of numbers.
fn processors(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // A list of more than any host has is a mistake.
        if first > last || last > 65_535 {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// The limits with the change; nothing is known of the host here.
fn merged(before: &Resources, update: &Update) -> Result<Resources, Refusal> {
    let wish = &update.resources;
    let mut after = before.clone();
    let by_period = |one: &Resources| one.cpu_period != 0 || one.cpu_quota != 0;
    if wish.nano_cpus != 0 && by_period(wish) {
        return Err(Refusal::invalid(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set",
        ));
    }
    if wish.nano_cpus != 0 && by_period(before) {
        return Err(Refusal::conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period/Quota has already been set",
        ));
    }
    if before.nano_cpus != 0 && by_period(wish) {
        return Err(Refusal::conflict(
            "Conflicting options: CPU Period/Quota cannot be updated as NanoCPUs has already been set",
        ));
    }
    let outgrown = before.memory_swap > 0 && wish.memory > before.memory_swap;
    if outgrown && wish.memory_swap == 0 {
        return Err(Refusal::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    for (into, value) in [
        (&mut after.memory, wish.memory),
        (&mut after.memory_reservation, wish.memory_reservation),
        (&mut after.memory_swap, wish.memory_swap),
        (&mut after.nano_cpus, wish.nano_cpus),
        (&mut after.cpu_shares, wish.cpu_shares),
        (&mut after.cpu_period, wish.cpu_period),
        (&mut after.cpu_quota, wish.cpu_quota),
    ] {
        if value != 0 {
            *into = value;
        }
    }
    for (into, value) in [
        (&mut after.cpuset_cpus, &wish.cpuset_cpus),
        (&mut after.cpuset_mems, &wish.cpuset_mems),
    ] {
        if !value.is_empty() {
            into.clone_from(value);
        }
    }
    if let Some(limit) = update.pids_limit {
        after.pids_limit = limit.max(0);
    }
    if wish.blkio_weight != 0 {
        after.blkio_weight = wish.blkio_weight;
    }
    Ok(after)
}

/// What is wrong with limits by themselves and on this host, in Docker's words.
pub(super) fn check(limits: &Resources, host: &Host) -> Result<(), Refusal> {
    check_values(limits, host)?;
    check_memory(limits)
}

/// Each limit by itself.
fn check_values(limits: &Resources, host: &Host) -> Result<(), Refusal> {
    if limits.memory != 0 && limits.memory < LEAST_MEMORY {
        return Err(Refusal::invalid("Minimum memory limit allowed is 6MB"));
    }
    if limits.memory_reservation != 0 && limits.memory_reservation < LEAST_MEMORY {
        return Err(Refusal::invalid(
            "Minimum memory reservation allowed is 6MB",
        ));
    }
    let count = host.numbers.as_ref().map(|all| all.len() as i64);
    let most = count.map_or(i64::MAX, |count| count.saturating_mul(1_000_000_000));
    if limits.nano_cpus != 0 && !(LEAST_CPU..=most).contains(&limits.nano_cpus) {
        return Err(Refusal::invalid(match count {
            Some(count) => format!(
                "range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
            ),
            None => "range of CPUs is from 0.01".to_owned(),
        }));
    }
    if limits.cpu_period != 0 && !PERIODS.contains(&limits.cpu_period) {
        return Err(Refusal::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if limits.cpu_quota > 0 && limits.cpu_quota < LEAST_QUOTA {
        return Err(Refusal::invalid(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ));
    }
    if !limits.cpuset_cpus.is_empty() {
        let wanted = processors(&limits.cpuset_cpus).ok_or_else(|| {
            Refusal::invalid(format!(
                "Invalid value {} for cpuset cpus; write it as 0-2,4",
                limits.cpuset_cpus
            ))
        })?;
        let missing = |there: &Vec<u32>| !wanted.iter().all(|one| there.contains(one));
        if host.numbers.as_ref().is_some_and(missing) {
            return Err(Refusal::invalid(format!(
                "Requested CPUs are not available - requested {}, available: {}",
                limits.cpuset_cpus, host.cpus
            )));
        }
    }
    if limits.blkio_weight != 0 && !(10..=1000).contains(&limits.blkio_weight) {
        return Err(Refusal::invalid("Range of blkio weight is from 10 to 1000"));
    }
    Ok(())
}

/// The limits of memory beside each other.
fn check_memory(limits: &Resources) -> Result<(), Refusal> {
    if limits.memory_swap > 0 && limits.memory_swap < limits.memory {
        return Err(Refusal::invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ));
    }
    if limits.memory == 0 && limits.memory_swap > 0 {
        return Err(Refusal::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if limits.memory != 0 && limits.memory < limits.memory_reservation {
        return Err(Refusal::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    Ok(())
}

/// Less than it holds would have the kernel refuse it, or kill the container.
fn fits(limit: i64, held: u64) -> Result<(), Refusal> {
    let limit = u64::try_from(limit).unwrap_or(0);
    if limit == 0 || held <= limit {
        return Ok(());
    }
    Err(Refusal::conflict(format!(
        "unable to set memory limit to {limit} (current usage: {held}): the container holds more; give it more, or stop it first"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(
        before: impl FnOnce(&mut Resources),
        wish: impl FnOnce(&mut Update),
    ) -> Result<Resources, Refusal> {
        let (mut old, mut update) = (Resources::default(), Update::default());
        before(&mut old);
        wish(&mut update);
        let after = merged(&old, &update)?;
        check_values(&update.resources, &Host::of("0-1,3"))?;
        check_memory(&after).map(|()| after)
    }

    #[test]
    fn what_is_not_named_stays() {
        let after = outcome(
            |old| {
                old.memory = 64 << 20;
                old.pids_limit = 10;
                old.cpu_shares = 512;
            },
            |update| {
                update.resources.memory = 32 << 20;
                update.resources.cpuset_cpus = "0,3".into();
            },
        );
        let after = after.unwrap();
        assert_eq!((after.memory, after.pids_limit), (32 << 20, 10));
        assert_eq!((after.cpu_shares, after.cpuset_cpus.as_str()), (512, "0,3"));
        let after = outcome(
            |old| old.pids_limit = 10,
            |update| update.pids_limit = Some(-1),
        );
        assert_eq!(after.unwrap().pids_limit, 0);
    }

    #[test]
    fn wrong_values_are_refused_in_dockers_words() {
        type Wish = fn(&mut Update);
        type Old = fn(&mut Resources);
        let none: Old = |_| ();
        let cases: [(Old, Wish, u16, &str); 13] = [
            (none, |u| u.resources.memory = 1 << 20, 400, "6MB"),
            (
                none,
                |u| u.resources.memory_swap = 64 << 20,
                400,
                "always set the Memory limit",
            ),
            (
                |r| r.memory = 64 << 20,
                |u| u.resources.memory_swap = 32 << 20,
                400,
                "larger than memory limit",
            ),
            (
                |r| (r.memory, r.memory_swap) = (32 << 20, 64 << 20),
                |u| u.resources.memory = 128 << 20,
                409,
                "update the memoryswap at the same time",
            ),
            (
                |r| r.memory = 16 << 20,
                |u| u.resources.memory_reservation = 32 << 20,
                400,
                "less than memory reservation",
            ),
            (
                none,
                |u| u.resources.memory_reservation = 1,
                400,
                "reservation allowed is 6MB",
            ),
            (
                none,
                |u| u.resources.nano_cpus = 4_000_000_000,
                400,
                "only 3 CPUs",
            ),
            (
                |r| r.cpu_quota = 50_000,
                |u| u.resources.nano_cpus = 1_000_000_000,
                409,
                "already been set",
            ),
            (
                |r| r.nano_cpus = 1_000_000_000,
                |u| u.resources.cpu_quota = 50_000,
                409,
                "already been set",
            ),
            (none, |u| u.resources.cpu_period = 10, 400, "1ms"),
            (
                none,
                |u| u.resources.cpuset_cpus = "0-2".into(),
                400,
                "not available",
            ),
            (
                none,
                |u| u.resources.cpuset_cpus = "all".into(),
                400,
                "0-2,4",
            ),
            (none, |u| u.resources.blkio_weight = 5, 400, "10 to 1000"),
        ];
        for (old, wish, status, words) in cases {
            let refusal = outcome(old, wish).unwrap_err();
            assert!(refusal.message.contains(words), "{}", refusal.message);
            assert_eq!(refusal.kind.status(), status, "{}", refusal.message);
        }
    }

    #[test]
    fn what_was_given_before_is_not_held_against_todays_host() {
        let more = |old: &mut Resources| old.nano_cpus = 64_000_000_000;
        assert!(outcome(more, |update| update.restart = Some(RestartPolicy::Always)).is_ok());
        let mut wish = Resources::default();
        more(&mut wish);
        assert!(check(&wish, &Host::of("0-1")).is_err());
        assert!(
            check(&wish, &Host::of("")).is_ok(),
            "a host that is not known"
        );
    }

    #[test]
    fn memory_is_not_taken_from_under_a_container() {
        assert!(fits(0, u64::MAX).is_ok() && fits(10, 10).is_ok());
        assert_eq!(fits(10, 11).unwrap_err().kind.status(), 409);
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(processors("0-2,4"), Some(vec![0, 1, 2, 4]));
        for wrong in ["", "2-1", "a", "0-", "0-99999999"] {
            assert_eq!(processors(wrong), None, "{wrong}");
        }
    }
}
