//! Image references: `NAME[:TAG][@DIGEST]`.

/// A reference taken apart, with Docker's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Registry host, `docker.io` by default.
    pub registry: String,
    /// Repository within it.
    pub path: String,
    /// Tag, when written.
    pub tag: Option<String>,
    /// `sha256:…`, when written.
    pub digest: Option<String>,
}

impl Reference {
    /// Reads a reference; wrong ones are refused in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            Err(format!(
                "{text:?} is no image reference (invalid reference format): {why}"
            ))
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if name.is_empty() {
            return bad("the name is missing");
        }
        if tag.as_deref().is_some_and(|t| {
            t.is_empty()
                || t.len() > 128
                || !t
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
                || t.starts_with(['.', '-'])
        }) {
            return bad("the tag is not valid");
        }
        if digest
            .as_deref()
            .is_some_and(|d| d.split_once(':').is_none_or(|(_, hex)| hex.len() < 32))
        {
            return bad("the digest is not valid");
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.chars().any(char::is_uppercase) =>
            {
                (
                    if first == "index.docker.io" {
                        "docker.io"
                    } else {
                        first
                    },
                    path.to_owned(),
                )
            }
            _ => ("docker.io", name.to_owned()),
        };
        let path = if registry == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        if path.chars().any(char::is_uppercase) {
            return bad("the repository name must be lowercase");
        }
        if path.split('/').any(str::is_empty)
            || !path
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
        {
            return bad("the repository name is not valid");
        }
        Ok(Self {
            registry: registry.to_owned(),
            path,
            tag,
            digest,
        })
    }

    /// `docker.io/library/alpine`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// `alpine`: without the parts that go without saying.
    pub fn familiar(&self) -> String {
        if self.registry == "docker.io" {
            self.path
                .strip_prefix("library/")
                .unwrap_or(&self.path)
                .to_owned()
        } else {
            self.repository()
        }
    }

    /// The digest, else the tag, else `latest`.
    pub fn tag_or_digest(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }

    /// `:tag` or `@digest` behind `name`.
    pub fn with_version(&self, name: &str) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{name}@{digest}"),
            (None, Some(tag)) => format!("{name}:{tag}"),
            (None, None) => format!("{name}:latest"),
        }
    }

    /// The key of the registry in Docker's configuration file.
    pub fn credential_key(&self) -> &str {
        if self.registry == "docker.io" {
            "https://index.docker.io/v1/"
        } else {
            &self.registry
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let cases = [
            ("alpine", "docker.io/library/alpine", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine", "alpine:3.20"),
            ("me/app", "docker.io/me/app", "me/app:latest"),
            (
                "registry:5000/example/echo:v1",
                "registry:5000/example/echo",
                "registry:5000/example/echo:v1",
            ),
            ("localhost/x", "localhost/x", "localhost/x:latest"),
            ("ghcr.io/a/b", "ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ];
        for (text, repository, familiar) in cases {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(reference.repository(), repository);
            assert_eq!(reference.with_version(&reference.familiar()), familiar);
        }
        let pinned = Reference::parse(&format!("alpine:3@{digest}")).unwrap();
        assert_eq!(pinned.tag_or_digest(), digest);
        for bad in ["", ":x", "UPPER", "a:", "a@sha256:0", "a//b", "a b", "x:-y"] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
