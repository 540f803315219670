//! An archive of images, laid out in a scratch folder. Names inside it are keys of a table and
//! never become paths.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use model::Refusal;
use serde::Deserialize;

use crate::images::{
    digest::Digest,
    files::{Files, Scratch},
    manifest::{self, Choice, Parsed},
    reference::Reference,
    unpack::decompress,
};

/// Manifests and configurations are read whole; larger ones are no honest ones.
const SMALL: u64 = 8 << 20;

pub struct Archive {
    files: HashMap<String, PathBuf>,
    /// Old docker archives name equal layers by symbolic links between their folders.
    links: HashMap<String, String>,
    _folder: Scratch,
}

/// One line of a docker-archive's `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    pub config: String,
    pub repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub layers: Vec<String>,
}

impl Archive {
    pub fn read(store: &Files, stream: impl Read) -> io::Result<Self> {
        let folder = Scratch::directory(store.temporary())?;
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let mut tar = tar::Archive::new(decompress(stream)?);
        for (at, entry) in tar.entries()?.enumerate() {
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some(name) = normal("", &name) else {
                continue;
            };
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let path = folder.path.join(at.to_string());
                io::copy(&mut entry, &mut File::create_new(&path)?)?;
                files.insert(name, path);
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let base = if kind.is_symlink() { parent(&name) } else { "" };
                if let Some(target) = normal(base, &String::from_utf8_lossy(&target)) {
                    links.insert(name, target);
                }
            }
        }
        Ok(Self {
            files,
            links,
            _folder: folder,
        })
    }

    /// Where a file of the archive lies.
    pub fn path(&self, name: &str) -> io::Result<&Path> {
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, format!("{name} is missing in it"));
        let mut key = normal("", name).ok_or_else(missing)?;
        // Each link is followed once at most, so a circle ends.
        for _ in 0..=self.links.len() {
            if let Some(path) = self.files.get(&key) {
                return Ok(path);
            }
            key = self.links.get(&key).ok_or_else(missing)?.clone();
        }
        Err(missing())
    }

    pub fn small(&self, name: &str) -> Result<Vec<u8>, Refusal> {
        let read = || {
            let path = self.path(name)?;
            if fs::metadata(path)?.len() > SMALL {
                return Err(io::Error::other(format!(
                    "{name} is larger than {SMALL} bytes"
                )));
            }
            fs::read(path)
        };
        read().map_err(|error| Refusal::invalid(format!("the archive cannot be loaded: {error}")))
    }

    pub fn blob_path(&self, digest: &Digest) -> io::Result<&Path> {
        self.path(&format!("blobs/sha256/{}", digest.hex()))
    }

    /// A small blob of an OCI layout, checked.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>, Refusal> {
        let bytes = self.small(&format!("blobs/sha256/{}", digest.hex()))?;
        let found = Digest::of(&bytes);
        if found == *digest {
            Ok(bytes)
        } else {
            Err(Refusal::invalid(format!(
                "the archive is damaged: blob {digest} has the digest {found}"
            )))
        }
    }

    /// The images of a docker-archive; nothing when it is none.
    pub fn docker_images(&self) -> Result<Option<Vec<DockerImage>>, Refusal> {
        if self.path("manifest.json").is_err() {
            return Ok(None);
        }
        serde_json::from_slice(&self.small("manifest.json")?)
            .map(Some)
            .map_err(|error| Refusal::invalid(format!("the archive's manifest.json: {error}")))
    }

    /// The images of an OCI layout; nothing when it is none.
    pub fn oci_images(&self) -> Result<Option<Vec<Choice>>, Refusal> {
        if self.path("index.json").is_err() {
            return Ok(None);
        }
        match manifest::parse(&self.small("index.json")?) {
            Ok(Parsed::Index { choices, .. }) => Ok(Some(choices)),
            Ok(Parsed::Image(_)) => Err(Refusal::invalid("the archive's index.json is no index")),
            Err(reason) => Err(Refusal::invalid(format!(
                "the archive's index.json {reason}"
            ))),
        }
    }
}

/// What an entry of an OCI layout is called: containerd's full name, or a full name where the
/// specification has a tag. A mere tag names no repository and is no name.
pub fn names(choice: &Choice) -> Vec<Reference> {
    let text = |key: &str| choice.annotations.get(key).and_then(|value| value.as_str());
    let full = text("io.containerd.image.name").or_else(|| {
        text("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']))
    });
    full.and_then(|name| name.parse().ok())
        .map(Reference::or_latest)
        .into_iter()
        .collect()
}

/// A name relative to the archive's root, with `.` and `..` worked out; nothing when it climbs
/// out of it.
fn normal(base: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_keys_inside_the_archive() {
        for (base, name, out) in [
            ("", "./manifest.json", Some("manifest.json")),
            ("a", "../b/layer.tar", Some("b/layer.tar")),
            ("", "../x", None),
            ("a", "../../x", None),
            ("", "/", None),
        ] {
            assert_eq!(normal(base, name).as_deref(), out, "{base} {name}");
        }
    }

    #[test]
    fn oci_names_need_a_repository() {
        let digest = Digest::of("x");
        for (annotations, name) in [
            (
                r#"{"io.containerd.image.name":"docker.io/library/a:1"}"#,
                Some("a:1"),
            ),
            (
                r#"{"org.opencontainers.image.ref.name":"reg.example/a:1"}"#,
                Some("reg.example/a:1"),
            ),
            (r#"{"org.opencontainers.image.ref.name":"latest"}"#, None),
            ("{}", None),
        ] {
            let index = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"{digest}","size":1,"annotations":{annotations}}}]}}"#
            );
            let Parsed::Index { choices, .. } = manifest::parse(index.as_bytes()).unwrap() else {
                panic!("no index");
            };
            let found: Vec<_> = names(&choices[0]).iter().map(Reference::familiar).collect();
            assert_eq!(found, name.into_iter().collect::<Vec<_>>(), "{annotations}");
        }
    }
}
