//! Who is in a lab, and with which addresses: a pure function of two numbers.

use std::{
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Manager,
    Worker,
    /// Runs the image registry and a name server for the underlay's names.
    Registry,
    /// A machine outside the cluster.
    Client,
}

impl Role {
    /// Whether an ovnd runs there.
    pub fn has_daemon(self) -> bool {
        matches!(self, Self::Manager | Self::Worker)
    }
}

/// One host: its name and its place on the underlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    pub role: Role,
    /// Last byte of every address.
    pub number: u8,
}

impl Member {
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 77, self.number)
    }

    pub fn address6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0x6f76, 0x6e00, 0, 0, 0, 0, u16::from(self.number))
    }

    pub fn mac(&self) -> String {
        format!("02:4c:61:62:00:{:02x}", self.number)
    }
}

/// The switch's own address: the hosts' default gateway, which leads nowhere.
pub const GATEWAY: &str = "192.168.77.1";
pub const GATEWAY6: &str = "fd77:6f76:6e00::1";
pub const PREFIX: u8 = 24;
pub const PREFIX6: u8 = 64;

const FIRST_MANAGER: u8 = 11;
const MOST_MANAGERS: u8 = 80;
const FIRST_WORKER: u8 = 101;
const MOST_WORKERS: u8 = 150;

/// The hosts of a lab, `registry` and `client` first.
pub fn members(managers: u8, workers: u8) -> Result<Vec<Member>> {
    ensure!(
        (1..=MOST_MANAGERS).contains(&managers),
        "--managers is 1 to {MOST_MANAGERS}"
    );
    ensure!(
        workers <= MOST_WORKERS,
        "--workers is at most {MOST_WORKERS}"
    );
    let mut members = vec![
        Member {
            name: "registry".into(),
            role: Role::Registry,
            number: 2,
        },
        Member {
            name: "client".into(),
            role: Role::Client,
            number: 3,
        },
    ];
    let row = |role, word: &str, first: u8, count: u8| {
        let word = word.to_owned();
        (0..count).map(move |i| Member {
            name: format!("{word}{:02}", i + 1),
            role,
            number: first + i,
        })
    };
    members.extend(row(Role::Manager, "manager", FIRST_MANAGER, managers));
    members.extend(row(Role::Worker, "worker", FIRST_WORKER, workers));
    Ok(members)
}

/// Text of /etc/hosts on the host `own`.
pub fn hosts_file(members: &[Member], own: &str) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    for member in members {
        let _ = writeln!(text, "{} {}", member.address(), member.name);
    }
    if !members.iter().any(|member| member.name == own) {
        let _ = writeln!(text, "127.0.1.1 {own}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_fixed_and_unique() {
        let members = members(80, 150).unwrap();
        assert_eq!(members[2].name, "manager01");
        assert_eq!(members[2].address().to_string(), "192.168.77.11");
        assert_eq!(members.last().unwrap().name, "worker150");
        let numbers: std::collections::HashSet<_> = members.iter().map(|m| m.number).collect();
        assert_eq!(numbers.len(), members.len());
        assert!(super::members(0, 1).is_err());
    }
}
