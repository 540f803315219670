//! Image names as Docker reads and writes them.
//!
//! Grammar: distribution/reference. `busybox` stands for `docker.io/library/busybox:latest`;
//! people are shown the short ("familiar") form again.

use std::{fmt, str::FromStr};

use model::Refusal;

use super::digest::Digest;

const HUB: &str = "docker.io";
const LIBRARY: &str = "library/";

/// A name in a registry, with a tag, a digest, both or neither.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port, `docker.io` for names without one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path in the registry, with `library/` for Docker Hub's own images.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether no registry was named; `docker.io` means the same.
    pub fn is_unplaced(&self) -> bool {
        self.registry == HUB
    }

    /// The same name; without tag and digest it gets the tag `latest`.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }

    /// The same repository under another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, Refusal> {
        if is_tag(tag) {
            Ok(Self {
                tag: Some(tag.into()),
                digest: None,
                ..self.clone()
            })
        } else {
            Err(invalid(tag))
        }
    }

    /// The same repository under a digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Registry and repository as kept on disk: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Registry and repository as shown to people: `busybox`.
    pub fn familiar_name(&self) -> String {
        familiar(&self.name()).into()
    }

    /// The whole reference as shown to people: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

/// The short form of a full name: `docker.io/library/busybox` is shown as `busybox`. Works on
/// names with tag or digest too.
pub fn familiar(name: &str) -> &str {
    let rest = name.strip_prefix("docker.io/").unwrap_or(name);
    if rest.len() == name.len() {
        rest
    } else {
        rest.strip_prefix(LIBRARY).unwrap_or(rest)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl FromStr for Reference {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(digest.parse::<Digest>().map_err(|_| invalid(text))?),
            ),
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to a port.
        let (name, tag) = match rest.rfind(':') {
            Some(at) if !rest[at..].contains('/') => (&rest[..at], Some(&rest[at + 1..])),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid(text));
        }
        let (registry, repository) = split_registry(name);
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Refusal::invalid(format!(
                "invalid reference format: repository name ({repository}) must be lowercase"
            )));
        }
        let bare_id = digest.is_none() && tag.is_none() && is_hex64(text);
        if bare_id || !is_registry(registry) || !repository.split('/').all(is_component) {
            return Err(invalid(text));
        }
        let registry = if registry == "index.docker.io" {
            HUB
        } else {
            registry
        };
        let repository = if registry == HUB && !repository.contains('/') {
            format!("{LIBRARY}{repository}")
        } else {
            repository.into()
        };
        // Of the name in full, as it is kept and read again.
        if registry.len() + 1 + repository.len() > MOST {
            return Err(Refusal::invalid(format!(
                "invalid reference format: repository name must not be more than {MOST} characters"
            )));
        }
        Ok(Self {
            registry: registry.into(),
            repository,
            tag: tag.map(Into::into),
            digest,
        })
    }
}

/// Of a name without tag and digest.
const MOST: usize = 255;

fn invalid(text: &str) -> Refusal {
    Refusal::invalid(format!("invalid reference format: {text:?}"))
}

/// The part before the first slash is a registry only when it looks like a host.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (host, rest)
        }
        _ => (HUB, name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rfind(':') {
        Some(at) if !text.ends_with(']') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    let port_good = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let host_good = if let Some(inner) = host.strip_prefix('[') {
        inner.strip_suffix(']').is_some_and(|six| {
            !six.is_empty() && six.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        })
    } else {
        host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    port_good && host_good
}

/// `[a-z0-9]+` runs joined by one dot, one or two underscores, or dashes.
fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(|b| alnum(*b)) || !bytes.last().is_some_and(|b| alnum(*b)) {
        return false;
    }
    text.split(|c: char| alnum(c as u8) && c.is_ascii())
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_hex64(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            (
                "index.docker.io/library/busybox",
                "docker.io/library/busybox",
                "busybox",
            ),
            ("me/app:v1", "docker.io/me/app:v1", "me/app:v1"),
            ("localhost/app", "localhost/app", "localhost/app"),
            (
                "127.0.0.1:5000/a/b:c",
                "127.0.0.1:5000/a/b:c",
                "127.0.0.1:5000/a/b:c",
            ),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            (
                "reg.example/a__b/c-d.e",
                "reg.example/a__b/c-d.e",
                "reg.example/a__b/c-d.e",
            ),
            (
                &format!("a@{digest}"),
                &format!("docker.io/library/a@{digest}"),
                &format!("a@{digest}"),
            ),
        ] {
            let parsed: Reference = text.parse().expect(text);
            assert_eq!(parsed.to_string(), full);
            assert_eq!(parsed.familiar(), familiar);
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for text in [
            "",
            "a:",
            ":a",
            "a/",
            "/a",
            "a//b",
            "Busybox",
            "a/B",
            "a b",
            "-a",
            "a..b",
            "a___b",
            "a@sha256:1",
            "a:-x",
            "../a",
            "a/../b",
            "é",
            &"a".repeat(64),
            "a:é",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn latest_is_only_a_default() {
        let parse = |text: &str| text.parse::<Reference>().unwrap().or_latest().familiar();
        assert_eq!(parse("a"), "a:latest");
        assert_eq!(parse("a:b"), "a:b");
        let digest = format!("a@sha256:{}", "a".repeat(64));
        assert_eq!(parse(&digest), digest);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_round_trips(text in "\\PC{0,80}") {
            if let Ok(parsed) = text.parse::<Reference>() {
                prop_assert_eq!(&parsed.to_string().parse::<Reference>().unwrap(), &parsed);
                prop_assert_eq!(parsed.familiar().parse::<Reference>().unwrap(), parsed);
            }
        }
    }
}
