//! The files of the page, which are part of the program.

use std::sync::LazyLock;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

struct File {
    /// Without the slash; the page itself is empty.
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    tag: String,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const DRAWING: &str = "image/svg+xml";
const PAGE: &str = "text/html; charset=utf-8";

macro_rules! files {
    ($($name:literal $kind:ident $file:literal),* $(,)?) => {
        [$(($name, $kind, include_str!(concat!("../../../visualizer/", $file)))),*]
    };
}

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let files = files! {
        "" PAGE "index.html",
        "board.js" SCRIPT "board.js",
        "dom.js" SCRIPT "dom.js",
        "feed.js" SCRIPT "feed.js",
        "icon.svg" DRAWING "icon.svg",
        "logs.js" SCRIPT "logs.js",
        "main.js" SCRIPT "main.js",
        "model.js" SCRIPT "model.js",
        "networks.js" SCRIPT "networks.js",
        "panel.js" SCRIPT "panel.js",
        "services.js" SCRIPT "services.js",
        "style.css" STYLE "style.css",
        "tunnels.js" SCRIPT "tunnels.js",
        "words.js" SCRIPT "words.js",
    };
    files
        .into_iter()
        .map(|(name, kind, text)| File {
            name,
            kind,
            text,
            tag: format!("\"{}\"", hex::encode(&Sha256::digest(text)[..8])),
        })
        .collect()
});

/// Asks for the token.
const DOOR: &str = include_str!("../../../visualizer/door.html");

/// A file of the page, or that the browser has it already; absent for what is none.
pub(super) fn file(path: &str, headers: &HeaderMap) -> Option<Response> {
    let name = path.strip_prefix('/')?;
    let file = FILES.iter().find(|file| file.name == name)?;
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tags| tags.to_str().is_ok_and(|tags| tags.contains(&file.tag)));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, file.kind)], Body::from(file.text)).into_response()
    };
    // Asked for again each time, so that a newer ovnd is never shown by an older page.
    if let Ok(tag) = file.tag.parse() {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Some(response)
}

/// 401 with a form for the token.
pub(super) fn door() -> Response {
    (
        StatusCode::UNAUTHORIZED,
        [(header::CONTENT_TYPE, PAGE)],
        DOOR,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the page's modules import and the page names is served, and nothing from elsewhere.
    #[test]
    fn everything_that_the_page_names_is_there() {
        for file in FILES.iter() {
            let quoted = file.text.split(['"', '\'']);
            let named = quoted.filter(|word| {
                let name = word.trim_start_matches("./");
                name.rsplit_once('.').is_some_and(|(stem, kind)| {
                    matches!(kind, "js" | "css" | "svg") && !stem.contains([' ', '\n'])
                })
            });
            for name in named {
                let path = format!("/{}", name.trim_start_matches("./"));
                assert!(
                    super::file(&path, &HeaderMap::new()).is_some(),
                    "{:?} names {name}",
                    file.name
                );
            }
            for word in ["https://", "src=\"//", "@import", "url("] {
                assert!(!file.text.contains(word), "{:?} has {word}", file.name);
            }
        }
    }

    #[test]
    fn a_browser_that_has_it_gets_it_no_second_time() {
        let first = file("/main.js", &HeaderMap::new()).unwrap();
        assert_eq!(first.status(), 200);
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()["etag"].clone());
        assert_eq!(file("/main.js", &headers).unwrap().status(), 304);
        assert_eq!(file("/style.css", &headers).unwrap().status(), 200);
        for path in ["/main", "/../Cargo.toml", "main.js", "/package.json"] {
            assert!(file(path, &HeaderMap::new()).is_none(), "{path}");
        }
    }
}
