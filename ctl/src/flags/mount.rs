//! `--volume`, `--mount` and `--tmpfs`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{boolean, comma_fields};
use crate::output::units::parse_memory;

/// What `--volume` asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Volume {
    /// A host path or a named volume, in the daemon's `SOURCE:TARGET[:OPTIONS]` form.
    Bind(String),
    /// A target alone: an anonymous volume.
    Anonymous(String),
}

/// Reads one `--volume`; a source that begins with `.` is a path from `directory`.
pub fn volume(text: &str, directory: &Path) -> Result<Volume, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let bad = |why: &str| {
        Err(format!(
            "--volume {text:?}: {why}; write SOURCE:TARGET[:ro]"
        ))
    };
    match parts.as_slice() {
        [target] if target.starts_with('/') => Ok(Volume::Anonymous((*target).to_owned())),
        [_] => bad("the target must be an absolute path"),
        [source, target] | [source, target, _] if source.is_empty() || target.is_empty() => {
            bad("the source and the target must not be empty")
        }
        [source, rest @ ..] if rest.len() <= 2 => {
            let source = if source.starts_with('.') {
                absolute(source, directory)
            } else {
                (*source).to_owned()
            };
            Ok(Volume::Bind(format!("{source}:{}", rest.join(":"))))
        }
        _ => bad("too many colons"),
    }
}

fn absolute(path: &str, directory: &Path) -> String {
    let mut clean = std::path::PathBuf::new();
    for part in directory.join(path).components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean.display().to_string()
}

/// `--tmpfs /path[:options]` to a map entry.
pub fn tmpfs(text: &str) -> Result<(String, Value), String> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') {
        return Err(format!("--tmpfs {text:?}: the path must be absolute"));
    }
    Ok((path.to_owned(), Value::from(options)))
}

/// Reads one `--mount type=…,source=…,target=…`.
pub fn mount(text: &str, directory: &Path) -> Result<Value, String> {
    read_mount(text, directory).map_err(|why| format!("--mount {text:?}: {why}"))
}

fn read_mount(text: &str, directory: &Path) -> Result<Value, String> {
    let mut kind = "volume".to_owned();
    let (mut source, mut target, mut read_only) = (None, None, false);
    let (mut bind, mut volume, mut tmpfs, mut image) =
        (Map::new(), Map::new(), Map::new(), Map::new());
    let (mut labels, mut options, mut driver) = (Map::new(), Map::new(), None);
    let mut consistency = None;
    for field in comma_fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_lowercase(), Some(value.to_owned())),
            None => (field.trim().to_lowercase(), None),
        };
        let switch = || {
            value
                .as_deref()
                .map_or(Ok(true), |v| boolean(v).map_err(|e| format!("{key}: {e}")))
        };
        let word = || {
            value
                .clone()
                .filter(|v| !v.is_empty())
                .ok_or_else(|| format!("{key} needs a value"))
        };
        let pair = |map: &mut Map<String, Value>| -> Result<(), String> {
            let text = word()?;
            let (k, v) = text.split_once('=').unwrap_or((&text, ""));
            map.insert(k.to_owned(), Value::from(v));
            Ok(())
        };
        match key.as_str() {
            "type" => kind = word()?.to_lowercase(),
            "source" | "src" => source = Some(word()?),
            "target" | "dst" | "destination" => target = Some(word()?),
            "readonly" | "ro" => read_only = switch()?,
            "consistency" => consistency = Some(word()?),
            "bind-propagation" => {
                bind.insert(
                    "Propagation".to_owned(),
                    Value::from(word()?.to_lowercase()),
                );
            }
            "bind-nonrecursive" => {
                bind.insert("NonRecursive".to_owned(), Value::from(switch()?));
            }
            "bind-recursive" => {
                let name = match word()?.as_str() {
                    "enabled" => continue,
                    "disabled" => "NonRecursive",
                    "writable" => "ReadOnlyNonRecursive",
                    "readonly" => "ReadOnlyForceRecursive",
                    other => {
                        return Err(format!(
                            "bind-recursive: {other:?} is none of enabled, disabled, writable, readonly"
                        ));
                    }
                };
                bind.insert(name.to_owned(), Value::Bool(true));
            }
            "volume-nocopy" => {
                volume.insert("NoCopy".to_owned(), Value::from(switch()?));
            }
            "volume-subpath" => {
                volume.insert("Subpath".to_owned(), Value::from(word()?));
            }
            "volume-label" => pair(&mut labels)?,
            "volume-driver" => driver = Some(word()?),
            "volume-opt" => pair(&mut options)?,
            "image-subpath" => {
                image.insert("Subpath".to_owned(), Value::from(word()?));
            }
            "tmpfs-size" => {
                tmpfs.insert("SizeBytes".to_owned(), Value::from(parse_memory(&word()?)?));
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(&word()?, 8)
                    .map_err(|_| "tmpfs-mode must be octal, as in 1777".to_owned())?;
                tmpfs.insert("Mode".to_owned(), Value::from(mode));
            }
            _ => return Err(format!("there is no key {key:?}")),
        }
    }
    let target = target.ok_or("target is missing")?;
    if driver.is_some() || !options.is_empty() {
        let mut config = Map::new();
        if let Some(driver) = driver {
            config.insert("Name".to_owned(), Value::from(driver));
        }
        if !options.is_empty() {
            config.insert("Options".to_owned(), Value::Object(options));
        }
        volume.insert("DriverConfig".to_owned(), Value::Object(config));
    }
    if !labels.is_empty() {
        volume.insert("Labels".to_owned(), Value::Object(labels));
    }
    for (name, wanted, present) in [
        ("bind-*", "bind", !bind.is_empty()),
        ("volume-*", "volume", !volume.is_empty()),
        ("tmpfs-*", "tmpfs", !tmpfs.is_empty()),
        ("image-*", "image", !image.is_empty()),
    ] {
        if present && kind != wanted {
            return Err(format!("{name} keys do not go with type {kind}"));
        }
    }
    let mut mount = Map::new();
    mount.insert("Type".to_owned(), Value::from(kind.as_str()));
    if let Some(source) = source {
        let source = if kind == "bind" && source.starts_with('.') {
            absolute(&source, directory)
        } else {
            source
        };
        mount.insert("Source".to_owned(), Value::from(source));
    } else if kind == "bind" {
        return Err("source is missing".to_owned());
    }
    mount.insert("Target".to_owned(), Value::from(target));
    if read_only {
        mount.insert("ReadOnly".to_owned(), Value::Bool(true));
    }
    if let Some(consistency) = consistency {
        mount.insert("Consistency".to_owned(), Value::from(consistency));
    }
    for (name, part) in [
        ("BindOptions", bind),
        ("VolumeOptions", volume),
        ("TmpfsOptions", tmpfs),
        ("ImageOptions", image),
    ] {
        if !part.is_empty() {
            mount.insert(name.to_owned(), json!(part));
        }
    }
    Ok(Value::Object(mount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let here = Path::new("/home/me");
        let bind = |text: &str| Volume::Bind(text.to_owned());
        let cases = [
            ("/data", Some(Volume::Anonymous("/data".to_owned()))),
            ("/src:/dst", Some(bind("/src:/dst"))),
            ("/src:/dst:ro", Some(bind("/src:/dst:ro"))),
            ("named:/dst", Some(bind("named:/dst"))),
            ("./src:/dst", Some(bind("/home/me/src:/dst"))),
            ("../src:/dst:z", Some(bind("/home/src:/dst:z"))),
            (".:/dst", Some(bind("/home/me:/dst"))),
            ("data", None),
            ("a:b:c:d", None),
            (":/x", None),
            ("/x:", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(volume(text, here).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn mounts() {
        let here = Path::new("/home/me");
        let cases = [
            (
                "type=bind,src=/a,dst=/b,ro",
                json!({"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}),
            ),
            (
                "type=bind,source=./a,target=/b,bind-propagation=rshared",
                json!({"Type":"bind","Source":"/home/me/a","Target":"/b","BindOptions":{"Propagation":"rshared"}}),
            ),
            (
                "source=v,target=/b,volume-nocopy,volume-label=x=1,volume-opt=o=addr=1",
                json!({"Type":"volume","Source":"v","Target":"/b","VolumeOptions":
                {"NoCopy":true,"DriverConfig":{"Options":{"o":"addr=1"}},"Labels":{"x":"1"}}}),
            ),
            (
                "type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770",
                json!({"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":67_108_864,"Mode":1016}}),
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(mount(text, here), Ok(wanted), "{text}");
        }
        for bad in [
            "type=bind,dst=/b",
            "type=bind,src=/a",
            "type=tmpfs,dst=/t,volume-nocopy",
            "bogus=1,dst=/x",
        ] {
            assert!(mount(bad, here).is_err(), "{bad}");
        }
    }
}
