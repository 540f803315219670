//! Capabilities as `--cap-add` and `--cap-drop` name them.

use model::Refusal;

/// Docker's default set.
pub const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All the kernel's, in its order.
pub const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The set a container gets, in the kernel's order.
pub fn effective(
    privileged: bool,
    add: &[String],
    drop: &[String],
) -> Result<Vec<String>, Refusal> {
    if privileged {
        return Ok(ALL.iter().map(|name| (*name).to_owned()).collect());
    }
    let names = |list: &[String]| -> Result<Vec<String>, Refusal> {
        list.iter()
            .map(|name| {
                let upper = name.to_ascii_uppercase();
                let full = if upper == "ALL" || upper.starts_with("CAP_") {
                    upper
                } else {
                    format!("CAP_{upper}")
                };
                if full == "ALL" || ALL.contains(&full.as_str()) {
                    Ok(full)
                } else {
                    Err(Refusal::invalid(format!(
                        "invalid capability: unknown capability to add or drop: {name:?}"
                    )))
                }
            })
            .collect()
    };
    let (add, drop) = (names(add)?, names(drop)?);
    let has = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    Ok(ALL
        .iter()
        .filter(|name| {
            let wanted = has(&add, name);
            let base = if has(&add, "ALL") {
                true
            } else {
                !has(&drop, "ALL") && DEFAULT.contains(name)
            };
            (base && !has(&drop, name)) || (wanted && !has(&drop, name))
        })
        .map(|name| (*name).to_owned())
        .collect())
}

/// The set without what this process does not have itself and so cannot give.
pub fn within(mut set: Vec<String>, held: u64) -> Vec<String> {
    set.retain(|name| {
        ALL.iter()
            .position(|known| known == name)
            .is_some_and(|bit| held & (1 << bit) != 0)
    });
    set
}

/// This process's permitted and bounding set, a bit for each of [`ALL`].
pub fn held() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ["CapPrm:", "CapBnd:"]
        .iter()
        .filter_map(|field| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .fold(u64::MAX, |all, set| all & set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        for (add, drop, count, with, without) in [
            (&[][..], &[][..], 14, "CAP_KILL", "CAP_NET_ADMIN"),
            (&["net_admin"], &[], 15, "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
            (&["NET_RAW"], &["ALL"], 1, "CAP_NET_RAW", "CAP_KILL"),
            (&["ALL"], &["CAP_SYS_ADMIN"], 40, "CAP_BPF", "CAP_SYS_ADMIN"),
        ] {
            let set = effective(false, &list(add), &list(drop)).unwrap();
            assert_eq!(set.len(), count, "{add:?} {drop:?}");
            assert!(set.iter().any(|name| name == with), "{with}");
            assert!(!set.iter().any(|name| name == without), "{without}");
        }
        assert!(effective(false, &list(&["FLY"]), &[]).is_err());
        let all = effective(true, &[], &[]).unwrap();
        assert_eq!(all.len(), ALL.len());
        assert_eq!(within(all, 0b10_0001), ["CAP_CHOWN", "CAP_KILL"]);
    }
}
