//! Version negotiation: `/v1.24/…` to `/v1.53/…`, and paths without a version, which mean the newest.

use std::fmt;

use model::Refusal;

/// The oldest version that is served; old clients hard-code it.
pub const MINIMUM: ApiVersion = ApiVersion::new(1, 24);
/// The newest version that is served and what `Api-Version` says.
pub const MAXIMUM: ApiVersion = ApiVersion::new(1, 53);
/// What `Server` and `ServerVersion` say: our own version.
pub const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    pub major: u32,
    pub minor: u32,
}

impl ApiVersion {
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(major) || !digits(minor) {
            return None;
        }
        Some(Self::new(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl Default for ApiVersion {
    fn default() -> Self {
        MAXIMUM
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Splits a request's path into the version it asks for and the rest, which starts with `/`.
///
/// `/v1.41/info` is (1.41, `/info`); `/info` is (newest, `/info`).
pub fn split_path(path: &str) -> Result<(ApiVersion, &str), Refusal> {
    let Some((first, rest_at)) = path.strip_prefix("/v").and_then(|tail| {
        let end = tail.find('/').unwrap_or(tail.len());
        Some((ApiVersion::parse(&tail[..end])?, 2 + end))
    }) else {
        return Ok((MAXIMUM, path));
    };
    if first < MINIMUM {
        return Err(Refusal::invalid(format!(
            "client version {first} is too old. Minimum supported API version is {MINIMUM}, please upgrade your client to a newer version"
        )));
    }
    if first > MAXIMUM {
        return Err(Refusal::invalid(format!(
            "client version {first} is too new. Maximum supported API version is {MAXIMUM}"
        )));
    }
    let rest = &path[rest_at..];
    Ok((first, if rest.is_empty() { "/" } else { rest }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split() {
        for (path, version, rest) in [
            ("/_ping", "1.53", "/_ping"),
            ("/v1.24/_ping", "1.24", "/_ping"),
            ("/v1.53/containers/json", "1.53", "/containers/json"),
            ("/v1.41", "1.41", "/"),
            ("/version", "1.53", "/version"),
            ("/volumes/v1.2", "1.53", "/volumes/v1.2"),
            ("/vx.y/info", "1.53", "/vx.y/info"),
        ] {
            let (found, tail) = split_path(path).unwrap();
            assert_eq!(
                (found.to_string().as_str(), tail),
                (version, rest),
                "{path}"
            );
        }
    }

    #[test]
    fn versions_out_of_range_are_refused() {
        for (path, words) in [
            ("/v1.23/info", "too old"),
            ("/v1.54/info", "too new"),
            ("/v2.0/x", "too new"),
        ] {
            let refusal = split_path(path).unwrap_err();
            assert_eq!(refusal.kind.status(), 400);
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }
}
