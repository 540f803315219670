//! What is asked for guests and told of them, and what is refused before anything is looked at. Pure.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use model::{Refusal, name::check_container_name};
use runtime::network::ConnectedEndpoint;

/// IFNAMSIZ without the end.
const LONGEST_NAME: usize = 15;

/// A wish for a place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestWish {
    /// Where the namespace is: a file that it is bound at, or `/proc/PID/ns/net`.
    pub netns: PathBuf,
    pub network: String,
    /// Of the endpoint, in DNS; absent: made of the path.
    pub name: Option<String>,
    pub aliases: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub interface: Option<String>,
    /// Gives it a way out of the network and a default route.
    pub gateway: bool,
    /// What who asks calls it.
    pub owner: String,
}

/// Which attachments are meant: those that meet all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    pub netns: Option<PathBuf>,
    /// Name, id or beginning of an id.
    pub network: Option<String>,
    pub owner: Option<String>,
}

/// A guest's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestEndpoint {
    pub netns: PathBuf,
    /// Where we hold it.
    pub bound: PathBuf,
    pub owner: String,
    pub interface: String,
    pub endpoint: ConnectedEndpoint,
    /// Its way out, with the interface of it.
    pub gateway: Option<WayOut>,
    /// Hosts that had not confirmed in time.
    pub late: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut {
    pub interface: String,
    pub mac: [u8; 6],
    pub addresses: Vec<(IpAddr, u8)>,
    pub via: Vec<IpAddr>,
}

/// The name in DNS, all else that the user gave looked at too.
pub(super) fn checked_name(wish: &GuestWish) -> Result<String, Refusal> {
    if !wish.netns.is_absolute() {
        return Err(Refusal::invalid(format!(
            "{:?} is no absolute path of a network namespace, as /run/netns/NAME or /proc/PID/ns/net are",
            wish.netns.display().to_string()
        )));
    }
    if let Some(interface) = &wish.interface {
        let fits = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        let reserved = matches!(interface.as_str(), "." | ".." | "lo");
        if interface.is_empty()
            || interface.len() > LONGEST_NAME
            || !interface.chars().all(fits)
            || reserved
        {
            return Err(Refusal::invalid(format!(
                "{interface:?} is no name for an interface: 1 to {LONGEST_NAME} visible characters without / and :"
            )));
        }
    }
    let name = match &wish.name {
        Some(name) => name.clone(),
        None => name_by_path(&wish.netns),
    };
    check_names(&name, &wish.aliases)?;
    Ok(name)
}

pub fn check_names(name: &str, aliases: &[String]) -> Result<(), Refusal> {
    check_container_name(name)?;
    aliases
        .iter()
        .try_for_each(|alias| check_container_name(alias))
}

/// `/run/netns/web` is `web`, `/proc/12/ns/net` is `pid-12`.
fn name_by_path(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts[..] {
        [.., "proc", pid, "ns", "net"] => format!("pid-{pid}"),
        [.., last] => last.to_owned(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_paths() {
        for (path, name) in [
            ("/run/netns/web", "web"),
            ("/proc/12/ns/net", "pid-12"),
            ("/run/docker/netns/0a1b", "0a1b"),
            ("/", "/"),
        ] {
            assert_eq!(name_by_path(Path::new(path)), name);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_asked() {
        let good = GuestWish {
            netns: "/run/netns/web".into(),
            network: "ch03".into(),
            ..GuestWish::default()
        };
        assert_eq!(checked_name(&good).unwrap(), "web");
        let bad = |change: &dyn Fn(&mut GuestWish)| {
            let mut wish = good.clone();
            change(&mut wish);
            checked_name(&wish).unwrap_err().message
        };
        for (said, part) in [
            (bad(&|w| w.netns = "run/netns/web".into()), "absolute"),
            (bad(&|w| w.netns = "/".into()), "container name"),
            (bad(&|w| w.name = Some("a b".into())), "container name"),
            (bad(&|w| w.aliases = vec!["-x".into()]), "container name"),
            (
                bad(&|w| w.interface = Some("a/b".into())),
                "no name for an interface",
            ),
            (
                bad(&|w| w.interface = Some("lo".into())),
                "no name for an interface",
            ),
            (
                bad(&|w| w.interface = Some("x".repeat(16))),
                "no name for an interface",
            ),
            (
                bad(&|w| w.interface = Some(String::new())),
                "no name for an interface",
            ),
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}
