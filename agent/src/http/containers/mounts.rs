//! From `Binds`, `Mounts` and `Tmpfs` to the engine's mounts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::docker::{
    Mount, MountBindOptions, MountImageOptions, MountTmpfsOptions, MountType, MountVolumeOptions,
};
use model::Refusal;
use runtime::engine::{MountKind, MountSpec};

use super::create::absent;

/// All mounts a client asks for; a path may be asked for once.
pub(super) fn read(
    binds: Option<Vec<String>>,
    mounts: Option<Vec<Mount>>,
    tmpfs: Option<HashMap<String, String>>,
) -> Result<Vec<MountSpec>, Refusal> {
    let mut specs = Vec::new();
    for text in binds.unwrap_or_default() {
        specs.push(bind(&text)?);
    }
    for given in mounts.unwrap_or_default() {
        specs.push(mount(given)?);
    }
    let mut tmpfs: Vec<_> = tmpfs.unwrap_or_default().into_iter().collect();
    tmpfs.sort();
    for (target, options) in tmpfs {
        specs.push(of_tmpfs(target, &options)?);
    }
    let mut targets = BTreeSet::new();
    for spec in &specs {
        if !spec.target.starts_with('/') {
            return Err(Refusal::invalid(format!(
                "invalid mount path {:?}: it must be absolute",
                spec.target
            )));
        }
        if spec.target.trim_end_matches('/').is_empty() {
            return Err(Refusal::invalid("invalid mount: destination can't be '/'"));
        }
        if !targets.insert(spec.target.trim_end_matches('/')) {
            return Err(Refusal::invalid(format!(
                "Duplicate mount point: {}",
                spec.target
            )));
        }
    }
    Ok(specs)
}

/// `source:target[:options]` of `-v`; a source that is no path is a volume's name.
fn bind(text: &str) -> Result<MountSpec, Refusal> {
    let wrong = |why: &str| {
        Refusal::invalid(format!(
            "invalid volume specification: '{text}': {why}; write SOURCE:TARGET[:OPTIONS]"
        ))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(wrong("too many colons")),
    };
    if target.is_empty() || (source.is_empty() && parts.len() > 1) {
        return Err(wrong("a part is empty"));
    }
    let mut read_only = false;
    let mut propagation = String::new();
    let mut no_copy = false;
    let mut non_recursive = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "nocopy" => no_copy = true,
            "bind-nonrecursive" => non_recursive = true,
            // SELinux labels and the consistency words of Docker Desktop have no effect on a
            // host without them, in Docker as here.
            "rw" | "rbind" | "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => {}
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                option.clone_into(&mut propagation);
            }
            other => return Err(wrong(&format!("unknown option {other:?}"))),
        }
    }
    let kind = if source.starts_with('/') {
        MountKind::Bind {
            source: source.to_owned(),
            create_source: true,
            propagation,
            non_recursive,
        }
    } else {
        if source.starts_with('.') {
            return Err(wrong("a source that is a path must be absolute"));
        }
        if !propagation.is_empty() {
            return Err(wrong("propagation belongs to bind mounts"));
        }
        MountKind::Volume {
            name: (!source.is_empty()).then(|| source.to_owned()),
            no_copy,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            subpath: String::new(),
        }
    };
    Ok(MountSpec {
        target: target.to_owned(),
        read_only,
        kind,
    })
}

fn mount(given: Mount) -> Result<MountSpec, Refusal> {
    let Mount {
        target,
        source,
        typ,
        read_only,
        // A word of Docker Desktop, without effect on Linux.
        consistency: _,
        bind_options,
        volume_options,
        image_options,
        tmpfs_options,
    } = given;
    let target = target.unwrap_or_default();
    let source = source.unwrap_or_default();
    let wrong = |why: &str| Refusal::invalid(format!("invalid mount config for {target:?}: {why}"));
    if target.is_empty() {
        return Err(Refusal::invalid(
            "invalid mount config: field Target must not be empty",
        ));
    }
    let kind = match typ {
        Some(MountType::BIND) => {
            if volume_options.is_some() || tmpfs_options.is_some() {
                return Err(wrong("options of another type on a bind mount"));
            }
            if !source.starts_with('/') {
                return Err(wrong("the source of a bind mount must be an absolute path"));
            }
            bind_kind(source, bind_options.unwrap_or_default(), &target)?
        }
        Some(MountType::VOLUME) => {
            if bind_options.is_some() || tmpfs_options.is_some() {
                return Err(wrong("options of another type on a volume"));
            }
            volume_kind(source, volume_options.unwrap_or_default(), &target)?
        }
        Some(MountType::TMPFS) => {
            if bind_options.is_some() || volume_options.is_some() || !source.is_empty() {
                return Err(wrong(
                    "a tmpfs has no source and no options of another type",
                ));
            }
            let MountTmpfsOptions {
                size_bytes,
                mode,
                options,
            } = tmpfs_options.unwrap_or_default();
            MountKind::Tmpfs {
                size: size_bytes
                    .filter(|size| *size > 0)
                    .and_then(|size| u64::try_from(size).ok()),
                mode: mode
                    .filter(|mode| *mode != 0)
                    .and_then(|mode| u32::try_from(mode).ok()),
                options: options
                    .unwrap_or_default()
                    .into_iter()
                    .map(|pair| pair.join("="))
                    .collect(),
            }
        }
        Some(MountType::IMAGE) => {
            if bind_options.is_some() || volume_options.is_some() || tmpfs_options.is_some() {
                return Err(wrong("options of another type on an image"));
            }
            let MountImageOptions { subpath } = image_options.unwrap_or_default();
            return Ok(MountSpec {
                target,
                read_only: true,
                kind: MountKind::Image {
                    image: source,
                    subpath: subpath.unwrap_or_default(),
                },
            });
        }
        Some(MountType::CLUSTER) => {
            return Err(absent(&format!("a mount of type cluster ({target})")));
        }
        Some(MountType::NPIPE) => return Err(wrong("type npipe exists on Windows only")),
        None => {
            return Err(wrong(
                "Type is missing; give it bind, volume, tmpfs or image",
            ));
        }
    };
    if image_options.is_some() {
        return Err(wrong("ImageOptions belong to mounts of type image"));
    }
    Ok(MountSpec {
        target,
        read_only: read_only.unwrap_or(false),
        kind,
    })
}

fn bind_kind(
    source: String,
    options: MountBindOptions,
    target: &str,
) -> Result<MountKind, Refusal> {
    let MountBindOptions {
        propagation,
        non_recursive,
        create_mountpoint,
        read_only_non_recursive,
        read_only_force_recursive,
    } = options;
    if read_only_non_recursive.unwrap_or(false) || read_only_force_recursive.unwrap_or(false) {
        return Err(absent(&format!(
            "bind-recursive=writable or readonly ({target})"
        )));
    }
    Ok(MountKind::Bind {
        source,
        create_source: create_mountpoint.unwrap_or(false),
        propagation: propagation.map(|word| word.to_string()).unwrap_or_default(),
        non_recursive: non_recursive.unwrap_or(false),
    })
}

fn volume_kind(
    name: String,
    options: MountVolumeOptions,
    target: &str,
) -> Result<MountKind, Refusal> {
    let MountVolumeOptions {
        no_copy,
        labels,
        driver_config,
        subpath,
    } = options;
    let driver = driver_config.unwrap_or_default();
    let named = driver.name.unwrap_or_default();
    if !matches!(named.as_str(), "" | "local") {
        return Err(absent(&format!("volume driver {named} ({target})")));
    }
    Ok(MountKind::Volume {
        name: (!name.is_empty()).then_some(name),
        no_copy: no_copy.unwrap_or(false),
        labels: labels.unwrap_or_default().into_iter().collect(),
        options: driver.options.unwrap_or_default().into_iter().collect(),
        subpath: subpath.unwrap_or_default(),
    })
}

/// `--tmpfs TARGET:size=64m,mode=1770,…`
fn of_tmpfs(target: String, text: &str) -> Result<MountSpec, Refusal> {
    let mut size = None;
    let mut mode = None;
    let mut read_only = false;
    let mut options = Vec::new();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let wrong = || Refusal::invalid(format!("invalid tmpfs option {option:?} for {target}"));
        match option.split_once('=') {
            Some(("size", value)) if !value.ends_with('%') => {
                size = Some(bytes(value).ok_or_else(wrong)?);
            }
            Some(("mode", value)) => {
                mode = Some(u32::from_str_radix(value, 8).map_err(|_| wrong())?);
            }
            _ if option == "ro" => read_only = true,
            _ if option == "rw" => {}
            _ => options.push(option.to_owned()),
        }
    }
    Ok(MountSpec {
        target,
        read_only,
        kind: MountKind::Tmpfs {
            size,
            mode,
            options,
        },
    })
}

/// A number with tmpfs's suffixes k, m, g.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, factor) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 1 << 10),
        b'm' => (&lower[..lower.len() - 1], 1 << 20),
        b'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower.as_str(), 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_bind(source: &str, propagation: &str) -> MountKind {
        MountKind::Bind {
            source: source.into(),
            create_source: true,
            propagation: propagation.into(),
            non_recursive: false,
        }
    }

    fn of_volume(name: Option<&str>, no_copy: bool) -> MountKind {
        MountKind::Volume {
            name: name.map(Into::into),
            no_copy,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            subpath: String::new(),
        }
    }

    #[test]
    fn binds() {
        for (text, target, read_only, kind) in [
            ("/a:/b", "/b", false, of_bind("/a", "")),
            ("/a:/b:ro", "/b", true, of_bind("/a", "")),
            ("/a:/b:ro,z,rshared", "/b", true, of_bind("/a", "rshared")),
            ("data:/b", "/b", false, of_volume(Some("data"), false)),
            ("data:/b:nocopy", "/b", false, of_volume(Some("data"), true)),
            ("/b", "/b", false, of_volume(None, false)),
        ] {
            assert_eq!(
                bind(text).unwrap(),
                MountSpec {
                    target: target.into(),
                    read_only,
                    kind
                },
                "{text}"
            );
        }
        for text in [
            "a:b:c:d",
            ":/b",
            "/a:",
            "./a:/b",
            "/a:/b:fast",
            "data:/b:shared",
        ] {
            assert!(bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_of_the_long_form() {
        let of = |json: &str| mount(api::read(json.as_bytes()).unwrap());
        assert_eq!(
            of(
                r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,
                "BindOptions":{"Propagation":"rslave"}}"#
            )
            .unwrap(),
            MountSpec {
                target: "/b".into(),
                read_only: true,
                kind: MountKind::Bind {
                    source: "/a".into(),
                    create_source: false,
                    propagation: "rslave".into(),
                    non_recursive: false,
                },
            }
        );
        assert_eq!(
            of(r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":4096,"Mode":448}}"#)
                .unwrap()
                .kind,
            MountKind::Tmpfs {
                size: Some(4096),
                mode: Some(0o700),
                options: Vec::new()
            }
        );
        assert_eq!(
            of(
                r#"{"Type":"volume","Source":"v","Target":"/b","VolumeOptions":{"Subpath":"a/b",
                "DriverConfig":{"Name":"local","Options":{"type":"tmpfs","device":"tmpfs"}}}}"#
            )
            .unwrap()
            .kind,
            MountKind::Volume {
                name: Some("v".into()),
                no_copy: false,
                labels: BTreeMap::new(),
                options: [("type", "tmpfs"), ("device", "tmpfs")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
                subpath: "a/b".into(),
            }
        );
        assert_eq!(
            of(r#"{"Type":"image","Source":"a:1","Target":"/b","ImageOptions":{"Subpath":"c"}}"#)
                .unwrap(),
            MountSpec {
                target: "/b".into(),
                read_only: true,
                kind: MountKind::Image {
                    image: "a:1".into(),
                    subpath: "c".into()
                },
            }
        );
        for (json, words) in [
            (r#"{"Type":"bind","Source":"a","Target":"/b"}"#, "absolute"),
            (r#"{"Type":"bind","Source":"/a"}"#, "Target"),
            (
                r#"{"Type":"image","Source":"a","Target":"/b","TmpfsOptions":{"Mode":448}}"#,
                "another type on an image",
            ),
            (r#"{"Type":"npipe","Source":"a","Target":"/b"}"#, "Windows"),
            (r#"{"Source":"a","Target":"/b"}"#, "Type is missing"),
            (
                r#"{"Type":"tmpfs","Source":"a","Target":"/b"}"#,
                "no source",
            ),
            (
                r#"{"Type":"volume","Target":"/b","VolumeOptions":{"DriverConfig":{"Name":"x"}}}"#,
                "volume driver x",
            ),
            (
                r#"{"Type":"volume","Target":"/b","ImageOptions":{"Subpath":"x"}}"#,
                "ImageOptions",
            ),
        ] {
            let refusal = of(json).unwrap_err();
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }

    #[test]
    fn tmpfs_options_and_doubled_targets() {
        let spec = of_tmpfs("/t".into(), "size=64m,mode=1770,noexec,ro").unwrap();
        assert!(spec.read_only);
        assert_eq!(
            spec.kind,
            MountKind::Tmpfs {
                size: Some(64 << 20),
                mode: Some(0o1770),
                options: vec!["noexec".into()]
            }
        );
        assert!(of_tmpfs("/t".into(), "mode=9").is_err());
        for binds in [&["/a:/b", "/c:/b/"][..], &["/a:b"], &["/a:/"]] {
            let binds = binds.iter().map(ToString::to_string).collect();
            assert!(read(Some(binds), None, None).is_err());
        }
    }
}
