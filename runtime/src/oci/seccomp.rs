//! The default system call filter: an allow list in `seccomp.txt`, as Docker has one.

use serde_json::{Value, json};

const LIST: &str = include_str!("seccomp.txt");
/// Flags of clone(2) that make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;
const AF_VSOCK: u64 = 40;
const ENOSYS: i32 = 38;

/// The `linux.seccomp` object for a container with these capabilities.
pub fn default_profile(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut names: Vec<&str> = Vec::new();
    let mut wanted = false;
    for line in LIST.lines() {
        if line.starts_with('#') {
            continue;
        }
        if let Some(words) = line.strip_prefix("  ") {
            if wanted {
                names.extend(words.split(' '));
            }
        } else if let Some(capability) = line.strip_prefix("cap ") {
            wanted = has(capability);
        } else {
            wanted = line == "allow";
        }
    }
    names.sort_unstable();
    names.dedup();
    let allow = |names: Value, args: Value| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args});
    let mut calls = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    for value in [0u64, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        calls.push(allow(
            json!(["personality"]),
            json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]),
        ));
    }
    calls.push(allow(
        json!(["socket"]),
        json!([{"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE"}]),
    ));
    if has("CAP_SYS_ADMIN") {
        calls.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW"}));
    } else {
        calls.push(allow(
            json!(["clone"]),
            json!([{"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]),
        ));
        calls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures(),
        "syscalls": calls,
    })
}

fn architectures() -> Value {
    match std::env::consts::ARCH {
        "x86_64" => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        "aarch64" => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        _ => json!([]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_open_calls() {
        let allowed = |caps: &[&str], call: &str| {
            let caps: Vec<String> = caps.iter().map(|c| (*c).to_owned()).collect();
            default_profile(&caps)["syscalls"][0]["names"]
                .as_array()
                .unwrap()
                .iter()
                .any(|name| name == call)
        };
        for (caps, call, wanted) in [
            (&[][..], "openat", true),
            (&[], "mount", false),
            (&["CAP_SYS_ADMIN"], "mount", true),
            (&[], "ptrace", true),
            (&[], "keyctl", false),
            (&["CAP_SYS_ADMIN"], "keyctl", false),
            (&[], "io_uring_setup", false),
            (&["CAP_SYS_TIME"], "settimeofday", true),
            (&[], "personality", false),
        ] {
            assert_eq!(allowed(caps, call), wanted, "{caps:?} {call}");
        }
    }
}
