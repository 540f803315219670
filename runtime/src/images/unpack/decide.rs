//! The decisions of unpacking, over bytes alone.

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pack {
    None,
    Gzip,
    Zstd,
}

/// Tells the compression by the first bytes; the error names one that is known and not
/// understood. Media types are not asked: registries and archives often get them wrong.
pub fn packing(start: &[u8]) -> Result<Pack, &'static str> {
    // RFC 1952 2.3.1; RFC 8878 3.1.1 and 3.1.2 (skippable frames, used by estargz and zstd:chunked).
    match start {
        [0x1f, 0x8b, ..] => Ok(Pack::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Pack::Zstd),
        [b'B', b'Z', b'h', ..] => Err("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err("xz"),
        _ => Ok(Pack::None),
    }
}

/// The names on the way from the root; nothing for `..` and embedded zero bytes. Absolute
/// paths count from the image's root, as for a process that is rooted there.
pub fn components(path: &[u8]) -> Option<Vec<Vec<u8>>> {
    if path.contains(&0) {
        return None;
    }
    path.split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(|part| (part != b"..").then(|| part.to_vec()))
        .collect()
}

/// What the last part of a path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    Plain,
    /// The directory hides everything below it.
    Opaque,
    /// This name is hidden.
    Whiteout(&'a [u8]),
    /// Left over by AUFS; of no meaning.
    Bookkeeping,
    /// A whiteout of nothing, of the directory itself or of its parent.
    Invalid,
}

pub fn classify(name: &[u8]) -> Name<'_> {
    match name.strip_prefix(b".wh.") {
        None => Name::Plain,
        Some(b".wh..opq") => Name::Opaque,
        Some(rest) if rest.starts_with(b".wh.") => Name::Bookkeeping,
        Some(b"" | b"." | b"..") => Name::Invalid,
        Some(rest) => Name::Whiteout(rest),
    }
}

/// Whether an image may set this attribute. `trusted.overlay.*` would steer the overlay itself
/// (a redirect leads out of the layer), and labels of another host's SELinux mean nothing here.
pub fn keep_xattr(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.")
}

/// `SECONDS[.FRACTION]` as PAX writes times; nanoseconds beyond are cut.
pub fn pax_time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = &fraction[..fraction.len().min(9)];
    let nanos = format!("{digits:0<9}").parse().ok()?;
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        for (start, pack) in [
            (&[0x1f, 0x8b, 8][..], Ok(Pack::Gzip)),
            (&[0x28, 0xb5, 0x2f, 0xfd], Ok(Pack::Zstd)),
            (&[0x50, 0x2a, 0x4d, 0x18], Ok(Pack::Zstd)),
            (b"BZh9", Err("bzip2")),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Err("xz")),
            (b"etc/", Ok(Pack::None)),
            (b"", Ok(Pack::None)),
        ] {
            assert_eq!(packing(start), pack);
        }
    }

    #[test]
    fn paths_that_climb_are_none() {
        let path = |text: &str| components(text.as_bytes()).map(|c| c.join(&b'/'));
        for (text, out) in [
            ("a/b", Some("a/b")),
            ("./a//b/", Some("a/b")),
            ("/etc/passwd", Some("etc/passwd")),
            ("./", Some("")),
            ("..", None),
            ("a/../b", None),
            ("/../b", None),
            ("a/..", None),
            ("a\0b", None),
            ("...", Some("...")),
        ] {
            assert_eq!(path(text), out.map(|o| o.as_bytes().to_vec()), "{text:?}");
        }
    }

    #[test]
    fn whiteouts_are_told_by_name() {
        for (name, out) in [
            ("x", Name::Plain),
            (".wh", Name::Plain),
            (".wh.x", Name::Whiteout(b"x")),
            (".wh..wh..opq", Name::Opaque),
            (".wh..wh.plnk", Name::Bookkeeping),
            (".wh..wh.aufs", Name::Bookkeeping),
            (".wh.", Name::Invalid),
            (".wh..", Name::Invalid),
            (".wh...", Name::Invalid),
            (".wh..x", Name::Whiteout(b".x")),
        ] {
            assert_eq!(classify(name.as_bytes()), out, "{name}");
        }
    }

    #[test]
    fn attributes_that_steer_the_host_are_dropped() {
        for (name, kept) in [
            ("security.capability", true),
            ("user.mime", true),
            ("trusted.overlay.redirect", false),
            ("trusted.overlay.opaque", false),
            ("security.selinux", false),
            ("system.posix_acl_access", false),
        ] {
            assert_eq!(keep_xattr(name.as_bytes()), kept, "{name}");
        }
    }

    #[test]
    fn times_have_nanoseconds() {
        for (text, time) in [
            ("12", Some((12, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.1234567891", Some((12, 123_456_789))),
            ("-1", Some((-1, 0))),
            ("x", None),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(pax_time(text.as_bytes()), time, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_path_climbs(path in proptest::collection::vec(any::<u8>(), 0..40)) {
            for part in components(&path).unwrap_or_default() {
                prop_assert!(!part.is_empty() && part != b"." && part != b"..");
                prop_assert!(!part.contains(&b'/') && !part.contains(&0));
                if let Name::Whiteout(hidden) = classify(&part) {
                    prop_assert!(!matches!(hidden, b"" | b"." | b".."));
                }
            }
        }
    }
}
