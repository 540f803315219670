//! `--ulimit`, `--device`, `--cpus`, `--sysctl`, `--add-host`.

use serde_json::{Value, json};

/// `--ulimit NAME=SOFT[:HARD]`.
pub fn ulimit(text: &str) -> Result<Value, String> {
    let bad = || format!("--ulimit {text:?}: write NAME=SOFT[:HARD], as in nofile=1024:2048");
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| {
        if text == "unlimited" {
            Ok(-1)
        } else {
            text.parse::<i64>().map_err(|_| bad())
        }
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard >= 0 && (soft > hard || soft == -1) {
        return Err(format!(
            "--ulimit {text:?}: the soft limit is above the hard one"
        ));
    }
    Ok(json!({"Name": name, "Hard": hard, "Soft": soft}))
}

/// `--device HOST[:CONTAINER[:rwm]]`.
pub fn device(text: &str) -> Result<Value, String> {
    let rights = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, permissions) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, second] if rights(second) => (*host, *host, *second),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, permissions] if rights(permissions) => (*host, *inside, *permissions),
        _ => return Err(format!("--device {text:?}: write HOST[:CONTAINER[:rwm]]")),
    };
    if !host.starts_with('/') && !host.contains('=') {
        return Err(format!("--device {text:?}: the path must be absolute"));
    }
    Ok(json!({"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": permissions}))
}

/// `--cpus 1.5` to billionths of a processor.
pub fn cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("--cpus {text:?}: write a number such as 0.5 or 2");
    let number: f64 = text.trim().parse().map_err(|_| bad())?;
    if !number.is_finite() || !(0.0..=1_000_000.0).contains(&number) {
        return Err(bad());
    }
    Ok((number * 1e9).round() as i64)
}

/// `--memory-swap`: -1 is without limit.
pub fn swap(text: &str) -> Result<i64, String> {
    if text.trim() == "-1" {
        Ok(-1)
    } else {
        crate::output::units::parse_memory(text)
    }
}

/// `--add-host NAME:IP` or `NAME=IP` to `NAME:IP`.
pub fn extra_host(text: &str) -> Result<String, String> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, ip)) = split.filter(|(name, ip)| !name.is_empty() && !ip.is_empty()) else {
        return Err(format!("--add-host {text:?}: write NAME:IP"));
    };
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    if ip != "host-gateway" && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("--add-host {text:?}: {ip:?} is no IP address"));
    }
    Ok(format!("{name}:{ip}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits_and_devices() {
        assert_eq!(
            ulimit("nofile=1024").unwrap(),
            json!({"Name": "nofile", "Hard": 1024, "Soft": 1024})
        );
        assert_eq!(
            ulimit("nofile=1:2").unwrap(),
            json!({"Name": "nofile", "Hard": 2, "Soft": 1})
        );
        assert_eq!(
            ulimit("core=-1").unwrap(),
            json!({"Name": "core", "Hard": -1, "Soft": -1})
        );
        for bad in ["nofile", "nofile=x", "nofile=3:2"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
        let device_of = |h: &str, c: &str, p: &str| json!({"PathOnHost": h, "PathInContainer": c, "CgroupPermissions": p});
        assert_eq!(
            device("/dev/fuse").unwrap(),
            device_of("/dev/fuse", "/dev/fuse", "rwm")
        );
        assert_eq!(
            device("/dev/a:/dev/b:r").unwrap(),
            device_of("/dev/a", "/dev/b", "r")
        );
        assert_eq!(
            device("/dev/a:rw").unwrap(),
            device_of("/dev/a", "/dev/a", "rw")
        );
        assert!(device("fuse").is_err());
    }

    #[test]
    fn processors_and_hosts() {
        assert_eq!(cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(cpus("0.001"), Ok(1_000_000));
        assert!(cpus("-1").is_err() && cpus("x").is_err() && cpus("nan").is_err());
        assert_eq!(extra_host("a:10.0.0.1").unwrap(), "a:10.0.0.1");
        assert_eq!(extra_host("a=[::1]").unwrap(), "a:::1");
        assert_eq!(extra_host("a:host-gateway").unwrap(), "a:host-gateway");
        assert!(extra_host("a").is_err() && extra_host("a:b").is_err());
        assert_eq!(swap("-1"), Ok(-1));
    }
}
