//! Images as Docker shows them.

use api::filters::Filters;
use runtime::images::Image;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A line of `GET /images/json`.
pub fn summary(image: &Image) -> Value {
    json!({
        "Id": image.id,
        "ParentId": "",
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Created": image.created_at(),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": image.config.labels_of_config(),
        "Containers": -1,
    })
}

/// `GET /images/{name}/json`. The configuration is passed on as it is, with fields that OCI
/// does not know.
pub fn inspect(image: &Image) -> Value {
    let raw: Map<String, Value> = serde_json::from_slice(&image.raw_config).unwrap_or_default();
    let text = |key: &str| raw.get(key).cloned().unwrap_or_else(|| "".into());
    let tagged = OffsetDateTime::from_unix_timestamp(image.last_tagged)
        .ok()
        .filter(|_| image.last_tagged > 0)
        .and_then(|time| time.format(&Rfc3339).ok());
    let (upper, lower) = match image.layers.split_last() {
        Some((upper, lower)) => (upper.display().to_string(), lower),
        None => (String::new(), &[][..]),
    };
    let lower: Vec<_> = lower
        .iter()
        .rev()
        .map(|layer| layer.display().to_string())
        .collect();
    let mut view = json!({
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": "",
        "Created": image.created,
        "DockerVersion": "",
        "Author": text("author"),
        "Config": raw.get("config").cloned().unwrap_or_else(|| json!({})),
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Size": image.size,
        "GraphDriver": {
            "Name": "overlay2",
            "Data": { "UpperDir": upper, "LowerDir": lower.join(":") },
        },
        "RootFS": { "Type": "layers", "Layers": image.config.rootfs().diff_ids() },
        "Metadata": { "LastTagTime": tagged.unwrap_or_else(|| "0001-01-01T00:00:00Z".into()) },
    });
    if let Some(variant) = raw.get("variant") {
        view["Variant"] = variant.clone();
    }
    view
}

/// Whether the filters `reference`, `dangling` and `label` let an image through.
pub fn fits(image: &Image, filters: &Filters) -> bool {
    let dangling = filters.any("dangling", |value| {
        matches!(value, "true" | "1") == image.repo_tags.is_empty()
    });
    let named = filters.any("reference", |pattern| {
        image.repo_tags.iter().any(|name| {
            let bare = name
                .rsplit_once(':')
                .map_or(name.as_str(), |(bare, _)| bare);
            matches(pattern, name) || matches(pattern, bare)
        })
    });
    dangling && named && labelled(image, filters)
}

/// Whether an image has all wanted labels and none of the unwanted.
pub fn labelled(image: &Image, filters: &Filters) -> bool {
    let has = |wish: &String| {
        let (key, value) = wish
            .split_once('=')
            .map_or((wish.as_str(), None), |(k, v)| (k, Some(v)));
        let found = image
            .config
            .labels_of_config()
            .and_then(|labels| labels.get(key));
        found.is_some_and(|found| value.is_none_or(|value| value == found))
    };
    filters.values("label").iter().all(has) && !filters.values("label!").iter().any(has)
}

/// A configuration for an imported file system: this host's platform and nothing else.
pub fn imported() -> runtime::images::ImageConfiguration {
    let mut config = runtime::images::ImageConfiguration::default();
    config.set_created(OffsetDateTime::now_utc().format(&Rfc3339).ok());
    config
}

/// Shell pattern with `*` and `?`, neither of which matches a slash.
fn matches(pattern: &str, text: &str) -> bool {
    fn go(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                go(rest, text)
                    || text
                        .split_first()
                        .is_some_and(|(c, more)| *c != b'/' && go(pattern, more))
            }
            (Some((b'?', rest)), Some((c, more))) => *c != b'/' && go(rest, more),
            (Some((p, rest)), Some((c, more))) => p == c && go(rest, more),
            _ => false,
        }
    }
    go(pattern.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_stop_at_slashes() {
        for (pattern, text, fits) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("busy*:1.*", "busybox:1.36", true),
            ("*", "me/app", false),
            ("*/app", "me/app", true),
            ("b?sybox", "busybox", true),
            ("busy", "busybox", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
