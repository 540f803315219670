//! Manifests as registries serve them: OCI and Docker's schema 2, single or by platform.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{digest::Digest, image::Platform};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What is asked for, best first.
pub const ACCEPTED: &[&str] = &[OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

/// A pointer to content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    #[serde(rename = "mediaType")]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub media_type: String,
    pub config: Pointer,
    pub layers: Vec<Pointer>,
}

/// One line of a list by platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub pointer: Pointer,
    pub platform: Option<Platform>,
    pub annotations: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    Image(Manifest),
    Index {
        media_type: String,
        choices: Vec<Choice>,
    },
}

impl Parsed {
    pub fn media_type(&self) -> &str {
        match self {
            Self::Image(manifest) => &manifest.media_type,
            Self::Index { media_type, .. } => media_type,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<Pointer>,
    layers: Option<Vec<Pointer>>,
    manifests: Option<Vec<WireChoice>>,
}

#[derive(Deserialize)]
struct WireChoice {
    #[serde(flatten)]
    pointer: Pointer,
    platform: Option<WirePlatform>,
    #[serde(default)]
    annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct WirePlatform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    variant: Option<String>,
}

/// Reads a manifest or a list; the error completes "the manifest of X ...".
pub fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let wire: Wire = serde_json::from_slice(bytes).map_err(|e| format!("cannot be read: {e}"))?;
    match wire.schema_version {
        Some(2) => {}
        Some(1) => {
            return Err(
                "is of the retired schema 1; push the image again with a newer client".into(),
            );
        }
        other => return Err(format!("is of an unknown schema {other:?}")),
    }
    if let Some(choices) = wire.manifests {
        let choices = choices.into_iter().map(|choice| Choice {
            pointer: choice.pointer,
            platform: choice.platform.map(|p| Platform {
                architecture: p.architecture,
                os: p.os,
                variant: p.variant.filter(|v| !v.is_empty()),
            }),
            annotations: choice.annotations.unwrap_or_default(),
        });
        return Ok(Parsed::Index {
            media_type: wire.media_type.unwrap_or_else(|| OCI_INDEX.into()),
            choices: choices.collect(),
        });
    }
    let (Some(config), Some(layers)) = (wire.config, wire.layers) else {
        return Err("names neither a configuration with layers nor other manifests".into());
    };
    if ![OCI_CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str()) {
        return Err(format!(
            "describes no container image but {}",
            config.media_type
        ));
    }
    let media_type = wire.media_type.unwrap_or_else(|| OCI_MANIFEST.into());
    Ok(Parsed::Image(Manifest {
        media_type,
        config,
        layers,
    }))
}

/// A manifest for content of our own, in OCI form.
pub fn compose(config: &Pointer, layers: &[Pointer]) -> Vec<u8> {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config,
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}

/// The platform of this host in image terms.
pub fn host() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", None),
        "x86" => ("386", None),
        "aarch64" => ("arm64", Some("v8")),
        "arm" => ("arm", Some("v7")),
        "powerpc64" => ("ppc64le", None),
        other => (other, None),
    };
    Platform {
        architecture: architecture.into(),
        os: "linux".into(),
        variant: variant.map(Into::into),
    }
}

/// Of a list, the image for a platform: the very variant, or one that names none.
pub fn choose<'a>(choices: &'a [Choice], wanted: &Platform) -> Option<&'a Choice> {
    let fits = |choice: &&Choice| {
        choice
            .platform
            .as_ref()
            .is_some_and(|p| p.os == wanted.os && p.architecture == wanted.architecture)
    };
    let variant = |choice: &Choice| choice.platform.as_ref().and_then(|p| p.variant.clone());
    let candidates = || choices.iter().filter(fits);
    candidates()
        .find(|choice| variant(choice) == wanted.variant)
        .or_else(|| candidates().find(|choice| variant(choice).is_none() || wanted.variant.is_none()))
        // A list of one without a platform is what simple tools write.
        .or_else(|| choices.first().filter(|only| choices.len() == 1 && only.platform.is_none()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointer(media_type: &str, seed: &str) -> Pointer {
        Pointer {
            media_type: media_type.into(),
            digest: Digest::of(seed),
            size: 3,
        }
    }

    #[test]
    fn what_is_composed_is_parsed() {
        let config = pointer(OCI_CONFIG, "c");
        let layers = vec![pointer(OCI_LAYER_GZIP, "l")];
        let parsed = parse(&compose(&config, &layers)).unwrap();
        assert_eq!(
            parsed,
            Parsed::Image(Manifest {
                media_type: OCI_MANIFEST.into(),
                config,
                layers
            })
        );
    }

    #[test]
    fn other_things_are_refused_with_a_reason() {
        let digest = Digest::of("x");
        let helm = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"{digest}","size":1}},"layers":[]}}"#
        );
        for (text, reason) in [
            ("{", "cannot be read"),
            (r#"{"schemaVersion":1}"#, "retired schema 1"),
            (r"{}", "unknown schema"),
            (r#"{"schemaVersion":2}"#, "neither"),
            (helm.as_str(), "no container image"),
            (
                r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:../x","size":1},"layers":[]}"#,
                "no digest",
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_platform_picks_the_variant() {
        let choice = |arch: &str, variant: Option<&str>| Choice {
            pointer: pointer(OCI_MANIFEST, &format!("{arch}{variant:?}")),
            platform: Some(Platform {
                architecture: arch.into(),
                os: "linux".into(),
                variant: variant.map(Into::into),
            }),
            annotations: serde_json::Map::new(),
        };
        let wanted = |arch: &str, variant: Option<&str>| choice(arch, variant).platform.unwrap();
        let list = [
            choice("unknown", None),
            choice("arm", Some("v6")),
            choice("arm", Some("v7")),
            choice("arm64", None),
            choice("amd64", None),
        ];
        for (arch, variant, found) in [
            ("amd64", None, Some(4)),
            ("arm64", Some("v8"), Some(3)),
            ("arm", Some("v7"), Some(2)),
            ("arm", Some("v5"), None),
            ("s390x", None, None),
        ] {
            let got = choose(&list, &wanted(arch, variant));
            assert_eq!(got, found.map(|at| &list[at]), "{arch} {variant:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
