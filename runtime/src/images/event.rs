//! Progress of transfers, shaped like the lines Docker's API streams.

use std::sync::Arc;

use serde::Serialize;

/// One line of progress. Serialised as it stands it is a line of Docker's JSON stream (add the
/// line end).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PullEvent {
    /// `Pulling from library/busybox`, `Downloading`, `Pull complete`, ...
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The layer's short id, or the tag in the first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// A ready-made bar, which old clients print as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Text of `load`, already with its line end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Machine-readable result, for example the pushed tag, digest and size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// Bytes so far and in all; both absent once done (Docker sends `{}` then).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ProgressDetail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

impl PullEvent {
    /// A line of its own.
    pub fn status(status: impl Into<String>) -> Self {
        Self {
            status: status.into(),
            ..Self::default()
        }
    }

    /// A state of one layer.
    pub fn layer(id: impl Into<String>, status: &str) -> Self {
        Self {
            status: status.into(),
            id: Some(id.into()),
            progress_detail: Some(ProgressDetail::default()),
            ..Self::default()
        }
    }

    /// Bytes of one layer.
    pub fn bytes(id: impl Into<String>, status: &str, current: u64, total: u64) -> Self {
        Self {
            progress_detail: Some(ProgressDetail {
                current: Some(current),
                total: (total > 0).then_some(total),
            }),
            progress: Some(bar(current, total)),
            ..Self::layer(id, status)
        }
    }

    /// A line of text as `load` prints.
    pub fn text(line: impl Into<String>) -> Self {
        Self {
            stream: Some(format!("{}\n", line.into())),
            ..Self::default()
        }
    }
}

/// `[=====>     ]  1.5MB/3MB`, fifty columns, as Docker draws it.
fn bar(current: u64, total: u64) -> String {
    if total == 0 {
        return human(current);
    }
    let filled = usize::try_from(current.min(total) * 50 / total).unwrap_or(50);
    let head = if filled < 50 { ">" } else { "" };
    let tail = " ".repeat(50 - filled - head.len());
    format!(
        "[{}{head}{tail}]  {}/{}",
        "=".repeat(filled),
        human(current),
        human(total)
    )
}

/// Decimal units with at most four significant digits.
fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let decimals = if unit == "B" || value >= 1000.0 {
        0
    } else if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

/// Where progress goes. Cheap to clone; never blocks the transfer, so a slow reader must drop
/// or buffer on its own side.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(PullEvent) + Send + Sync>);

impl Progress {
    pub fn new(sink: impl Fn(PullEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Nobody looks.
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    pub fn send(&self, event: PullEvent) {
        (self.0)(event);
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_dockers() {
        let json = |event: PullEvent| serde_json::to_string(&event).unwrap();
        assert_eq!(
            json(PullEvent::status("Digest: x")),
            r#"{"status":"Digest: x"}"#
        );
        assert_eq!(
            json(PullEvent::layer("abc", "Pull complete")),
            r#"{"status":"Pull complete","id":"abc","progressDetail":{}}"#
        );
        assert_eq!(
            json(PullEvent::bytes("abc", "Downloading", 1500, 3000)),
            format!(
                r#"{{"status":"Downloading","id":"abc","progressDetail":{{"current":1500,"total":3000}},"progress":"[{}>{}]  1.5kB/3kB"}}"#,
                "=".repeat(25),
                " ".repeat(24)
            )
        );
        assert_eq!(json(PullEvent::text("x")), r#"{"stream":"x\n"}"#);
    }

    #[test]
    fn sizes_have_four_digits_at_most() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1536, "1.536kB"),
            (15_360, "15.36kB"),
            (4_261_550, "4.262MB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
