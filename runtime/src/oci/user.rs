//! Who a container runs as: `user[:group]` against the image's own files.

use model::Refusal;

/// Numbers for the kernel, and the home directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// `/` when the files know none.
    pub home: String,
}

/// Looks `user[:group]` up in the texts of `/etc/passwd` and `/etc/group`. `extra` are
/// `--group-add`'s groups.
pub fn resolve(wish: &str, extra: &[String], passwd: &str, group: &str) -> Result<User, Refusal> {
    let (name, group_name) = match wish.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (wish, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Some((
                *fields.first()?,
                fields.get(2)?.parse::<u32>().ok()?,
                fields.get(3)?.parse::<u32>().ok()?,
                (*fields.get(5).unwrap_or(&"/")).to_owned(),
            ))
        })
        .find(|(entry, uid, ..)| *entry == name || number == Some(*uid));
    let (login, uid, mut gid, home) = match (entry, number) {
        (Some((login, uid, gid, home)), _) => (Some(login), uid, gid, home),
        (None, Some(uid)) => (None, uid, 0, "/".to_owned()),
        (None, None) => {
            return Err(Refusal::invalid(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    };
    let groups: Vec<(&str, u32, &str)> = group
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            Some((
                *fields.first()?,
                fields.get(2)?.parse::<u32>().ok()?,
                *fields.get(3).unwrap_or(&""),
            ))
        })
        .collect();
    let find = |wanted: &str| -> Result<u32, Refusal> {
        groups
            .iter()
            .find(|(name, ..)| *name == wanted)
            .map(|(_, gid, _)| *gid)
            .or_else(|| wanted.parse().ok())
            .ok_or_else(|| {
                Refusal::invalid(format!(
                    "unable to find group {wanted}: no matching entries in group file"
                ))
            })
    };
    let mut supplementary = Vec::new();
    match (group_name, login) {
        (Some(name), _) => gid = find(name)?,
        (None, Some(login)) => {
            supplementary.extend(
                groups
                    .iter()
                    .filter(|(_, _, members)| members.split(',').any(|member| member == login))
                    .map(|(_, gid, _)| *gid),
            );
        }
        (None, None) => {}
    }
    for name in extra {
        supplementary.push(find(name)?);
    }
    supplementary.retain(|group| *group != gid);
    supplementary.sort_unstable();
    supplementary.dedup();
    Ok(User {
        uid,
        gid,
        groups: supplementary,
        home: if home.is_empty() {
            "/".to_owned()
        } else {
            home
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlogs:x:4:web,other\n";

    #[test]
    fn users() {
        let user = |uid, gid, groups: &[u32], home: &str| {
            Some(User {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.into(),
            })
        };
        for (wish, extra, wanted) in [
            ("", &[][..], user(0, 0, &[], "/root")),
            ("web", &[], user(33, 33, &[4], "/var/www")),
            ("33", &[], user(33, 33, &[4], "/var/www")),
            ("web:logs", &[], user(33, 4, &[], "/var/www")),
            ("1000", &[], user(1000, 0, &[], "/")),
            ("1000:1000", &[], user(1000, 1000, &[], "/")),
            ("web", &["7".to_owned()], user(33, 33, &[4, 7], "/var/www")),
            ("nobody", &[], None),
            ("web:nogroup", &[], None),
        ] {
            assert_eq!(resolve(wish, extra, PASSWD, GROUP).ok(), wanted, "{wish}");
        }
    }
}
