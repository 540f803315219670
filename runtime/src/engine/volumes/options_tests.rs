use super::*;

fn options(pairs: &[(&str, &str)]) -> Options {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn file_system(kind: &str, device: &str, o: &str) -> FileSystem {
    FileSystem::of(&options(&[("type", kind), ("device", device), ("o", o)]))
        .unwrap()
        .unwrap()
}

#[test]
fn what_is_asked_for() {
    assert_eq!(FileSystem::of(&options(&[])), Ok(None));
    assert_eq!(
        FileSystem::of(&options(&[("type", ""), ("device", "")])),
        Ok(None)
    );
    let tmpfs = file_system("tmpfs", "tmpfs", "size=16m,uid=1000,noexec,nosuid,suid");
    assert_eq!(
        tmpfs,
        FileSystem {
            kind: "tmpfs".into(),
            device: "tmpfs".into(),
            flags: MsFlags::MS_NOEXEC,
            propagation: MsFlags::empty(),
            data: "size=16m,uid=1000".into(),
        }
    );
    assert!(tmpfs.is_volatile() && !tmpfs.is_bind());
    let bind = file_system("none", "/srv/data", "bind,ro,rshared");
    assert_eq!(
        (bind.flags, bind.propagation, bind.data.as_str()),
        (
            MsFlags::MS_BIND | MsFlags::MS_RDONLY,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            ""
        )
    );
    assert!(!bind.is_volatile() && bind.is_bind());
}

#[test]
fn what_is_refused() {
    for (pairs, words) in [
        (
            &[("type", "tmpfs")][..],
            "missing required option: \"device\"",
        ),
        (
            &[("device", "/dev/sdb")],
            "missing required option: \"type\"",
        ),
        (&[("o", "ro")], "missing required option: \"type\""),
        (
            &[("type", "tmpfs"), ("device", "")],
            "\"device\"; it is empty",
        ),
        (&[("size", "1g")], "there are no quotas"),
        (&[("mountpoint", "/x")], "invalid option: \"mountpoint\""),
        (
            &[("type", "none"), ("device", "data"), ("o", "bind")],
            "absolute path",
        ),
        (&[("type", "none"), ("device", "/data")], "no file system"),
        (
            &[("type", "tmpfs"), ("device", "x"), ("o", "remount")],
            "remount is not possible",
        ),
    ] {
        let refusal = FileSystem::of(&options(pairs)).unwrap_err();
        assert!(refusal.message.contains(words), "{words}: {refusal}");
    }
}

#[test]
fn hosts_and_their_addresses() {
    for (kind, device, o, host) in [
        (
            "nfs",
            ":/export",
            "addr=nas.lan,rw,nfsvers=4",
            Some("nas.lan"),
        ),
        ("nfs4", "nas.lan:/export", "", Some("nas.lan")),
        ("nfs", "[fd00::1]:/export", "", Some("fd00::1")),
        ("nfs", ":/export", "", None),
        ("cifs", "//files/share", "username=a", Some("files")),
        ("cifs", "//files/share", "addr=192.0.2.9", Some("192.0.2.9")),
        ("ext4", "/dev/sdb1", "addr=x", None),
    ] {
        assert_eq!(
            file_system(kind, device, o).host(),
            host,
            "{kind} {device} {o}"
        );
    }
    let nfs = file_system("nfs", ":/e", "addr=nas.lan,nfsvers=4,soft");
    assert_eq!(
        nfs.with_address("192.0.2.7").data,
        "nfsvers=4,soft,addr=192.0.2.7"
    );
}

#[test]
fn differences_are_named() {
    let tmpfs = options(&[("type", "tmpfs"), ("device", "tmpfs")]);
    let secret = options(&[("type", "cifs"), ("device", "//a/b"), ("o", "password=x")]);
    let other = options(&[("type", "cifs"), ("device", "//a/b"), ("o", "password=y")]);
    for (there, asked, words) in [
        (&tmpfs, &options(&[]), None),
        (&tmpfs, &tmpfs, None),
        (
            &options(&[]),
            &tmpfs,
            Some(
                "device is none and \"tmpfs\" is asked for, type is none and \"tmpfs\" is asked for",
            ),
        ),
        (
            &secret,
            &other,
            Some("o is not the same (ovnctl volume inspect shows it)"),
        ),
    ] {
        assert_eq!(difference(there, asked).as_deref(), words);
    }
}
