//! Who has done what: a line in the log for each change and each refusal, with the target `audit`.
//! It has no bodies, queries or headers, which is where secrets are.

use axum::http::{Method, StatusCode};

use super::{Caller, table};

/// A request that may be worth a line. One whose handler fails has its line all the same, without
/// a code.
pub(super) struct Line {
    caller: Caller,
    method: Method,
    path: String,
    name: Option<String>,
    code: Option<StatusCode>,
}

impl Line {
    /// `name` is what the query says that something new is to be called.
    pub fn begin(caller: Caller, method: Method, path: String, name: Option<String>) -> Self {
        Self {
            caller,
            method,
            path,
            name,
            code: None,
        }
    }

    pub fn end(mut self, code: StatusCode) {
        self.code = Some(code);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let refused = self.code == Some(StatusCode::FORBIDDEN);
        if !refused && !table::is_change(&self.method, &self.path) {
            return;
        }
        let object = self.name.as_deref().unwrap_or_else(|| object(&self.path));
        tracing::info!(
            target: "audit",
            who = %self.caller.who,
            role = self.caller.role.as_str(),
            from = %self.caller.from(),
            method = %self.method,
            path = self.path,
            object,
            code = self.code.map_or(0, |code| code.as_u16()),
            "{}",
            if refused { "refused" } else { "change" },
        );
    }
}

/// What a path is about: the id or name in it.
fn object(path: &str) -> &str {
    let rest = path.trim_start_matches('/');
    let Some((kind, rest)) = rest.split_once('/') else {
        return "";
    };
    if matches!(kind, "overnet" | "swarm") {
        return "";
    }
    if matches!(kind, "images" | "distribution") {
        let verbs = ["json", "history", "get", "push", "tag"];
        return match rest.rsplit_once('/') {
            Some((name, verb)) if verbs.contains(&verb) => name,
            _ if matches!(
                rest,
                "create" | "load" | "prune" | "get" | "json" | "search"
            ) =>
            {
                ""
            }
            _ => rest,
        };
    }
    let name = rest.split('/').next().unwrap_or_default();
    if matches!(name, "create" | "prune" | "json") {
        return "";
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_object() {
        for (path, expected) in [
            ("/containers/web/start", "web"),
            ("/containers/web", "web"),
            ("/containers/create", ""),
            ("/services/s1/update", "s1"),
            ("/images/registry:5000/a/b:1/push", "registry:5000/a/b:1"),
            ("/images/a/b", "a/b"),
            ("/images/create", ""),
            ("/swarm/init", ""),
            ("/auth", ""),
            ("", ""),
        ] {
            assert_eq!(object(path), expected, "{path}");
        }
    }
}
