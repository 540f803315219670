//! What is mounted where, as the kernel tells it.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};

use super::OciError;

/// The places at and below a directory where something is mounted, the last mounted first: so
/// they can be unmounted one after the other. A place with two mounts is named twice. The
/// directory is an absolute path without symbolic links, as the kernel names it.
pub fn at_or_below(directory: &Path) -> Result<Vec<PathBuf>, OciError> {
    // A thread may have a mount namespace of its own; `/proc/self` is the first thread's.
    let text = fs::read("/proc/thread-self/mountinfo")
        .map_err(OciError::io("reading /proc/thread-self/mountinfo"))?;
    let mut places = parse(&text);
    places.retain(|place| place.starts_with(directory));
    places.reverse();
    Ok(places)
}

/// Takes what is mounted below a directory out of this thread's mount namespace, except what is
/// to be kept. For a private namespace: whatever lives in it must not keep file systems of
/// others busy.
pub fn hide_below(directory: &Path, keep: &dyn Fn(&Path) -> bool) -> Result<(), OciError> {
    for place in at_or_below(directory)? {
        if !keep(&place) {
            // One that went by itself meanwhile is as good.
            let _ = umount2(&place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
    }
    Ok(())
}

/// The mount points of a mountinfo file, in its order.
fn parse(text: &[u8]) -> Vec<PathBuf> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
        .collect()
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = match rest {
            [b'\\', digits @ ..] if digits.len() >= 3 => std::str::from_utf8(&digits[..3])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        if let Some(code) = code {
            bytes.push(code);
            rest = &rest[4..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points() {
        let text = br"22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 27 0:50 / /var/lib/overnet/volumes/data/_data rw,relatime - tmpfs tmpfs rw,size=16384k
91 27 0:51 / /a\040b\134c\1 rw - tmpfs tmpfs rw
short line
";
        let wanted = [
            "/proc",
            "/",
            "/var/lib/overnet/volumes/data/_data",
            r"/a b\c\1",
        ];
        assert_eq!(parse(text), wanted.map(PathBuf::from));
    }

    #[test]
    fn of_this_process() {
        assert!(at_or_below(Path::new("/")).unwrap().contains(&"/".into()));
        assert!(at_or_below(Path::new("/proc/none")).unwrap().is_empty());
    }
}
