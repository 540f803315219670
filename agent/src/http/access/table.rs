//! Which role each route needs. What is not in the table needs the highest one, and a test walks
//! the router and fails for a route that is not there.

use axum::http::Method;

use crate::role::Role::{self, Admin, Operator, ReadOnly};

/// Methods, as bits would be: those of a row.
#[derive(Debug, Clone, Copy)]
enum How {
    /// GET and HEAD.
    Get,
    Post,
    Put,
    Delete,
    Any,
}

/// `*` is one part of a path, `**` one or more.
const TABLE: &[(How, &str, Role)] = &[
    // What a look at the host and its cluster shows. Logs are among it: who watches programs needs
    // them, and a secret that a program writes there is no secret any more. So are environment
    // variables and configs, which Docker shows to everybody, too.
    (How::Get, "/_ping", ReadOnly),
    (How::Get, "/version", ReadOnly),
    (How::Get, "/info", ReadOnly),
    (How::Get, "/metrics", ReadOnly),
    (How::Get, "/health", ReadOnly),
    (How::Get, "/events", ReadOnly),
    (How::Get, "/system/df", ReadOnly),
    (How::Get, "/plugins", ReadOnly),
    (How::Get, "/plugins/**", ReadOnly),
    (How::Get, "/containers/json", ReadOnly),
    (How::Get, "/containers/*/json", ReadOnly),
    (How::Get, "/containers/*/top", ReadOnly),
    (How::Get, "/containers/*/changes", ReadOnly),
    (How::Get, "/containers/*/stats", ReadOnly),
    (How::Get, "/containers/*/logs", ReadOnly),
    (How::Post, "/containers/*/wait", ReadOnly),
    (How::Get, "/exec/*/json", ReadOnly),
    (How::Get, "/images/json", ReadOnly),
    (How::Get, "/images/search", ReadOnly),
    (How::Get, "/images/**/json", ReadOnly),
    (How::Get, "/images/**/history", ReadOnly),
    (How::Get, "/volumes", ReadOnly),
    (How::Get, "/volumes/*", ReadOnly),
    (How::Get, "/networks", ReadOnly),
    (How::Get, "/networks/*", ReadOnly),
    (How::Get, "/nodes", ReadOnly),
    (How::Get, "/nodes/*", ReadOnly),
    (How::Get, "/services", ReadOnly),
    (How::Get, "/services/*", ReadOnly),
    (How::Get, "/services/*/logs", ReadOnly),
    (How::Get, "/tasks", ReadOnly),
    (How::Get, "/tasks/*", ReadOnly),
    (How::Get, "/tasks/*/logs", ReadOnly),
    (How::Get, "/secrets", ReadOnly),
    (How::Get, "/secrets/*", ReadOnly),
    (How::Get, "/configs", ReadOnly),
    (How::Get, "/configs/*", ReadOnly),
    (How::Get, "/overnet/attachments", ReadOnly),
    (How::Get, "/overnet/cluster", ReadOnly),
    (How::Get, "/overnet/dataplane", ReadOnly),
    (How::Get, "/overnet/doctor", ReadOnly),
    (How::Get, "/overnet/paths", ReadOnly),
    (How::Get, "/overnet/ports", ReadOnly),
    (How::Get, "/overnet/traffic", ReadOnly),
    // Files of containers and images, where secrets may lie, and what asks a registry in this
    // host's name.
    (How::Get, "/containers/*/archive", Operator),
    (How::Get, "/containers/*/export", Operator),
    (How::Get, "/images/get", Operator),
    (How::Get, "/images/**/get", Operator),
    (How::Get, "/distribution/**", Operator),
    (How::Post, "/auth", Operator),
    // Its address has the token in it.
    (How::Get, "/overnet/visualizer", Operator),
    // Everyday changes. The handlers of create, update, exec, attach and archive look at the wish.
    (How::Post, "/containers/create", Operator),
    (How::Post, "/containers/prune", Operator),
    (How::Delete, "/containers/*", Operator),
    (How::Post, "/containers/*/start", Operator),
    (How::Post, "/containers/*/stop", Operator),
    (How::Post, "/containers/*/restart", Operator),
    (How::Post, "/containers/*/kill", Operator),
    (How::Post, "/containers/*/pause", Operator),
    (How::Post, "/containers/*/unpause", Operator),
    (How::Post, "/containers/*/rename", Operator),
    (How::Post, "/containers/*/resize", Operator),
    (How::Post, "/containers/*/update", Operator),
    (How::Post, "/containers/*/attach", Operator),
    (How::Get, "/containers/*/attach/ws", Operator),
    (How::Put, "/containers/*/archive", Operator),
    (How::Post, "/containers/*/exec", Operator),
    (How::Post, "/exec/*/start", Operator),
    (How::Post, "/exec/*/resize", Operator),
    (How::Post, "/images/create", Operator),
    (How::Post, "/images/prune", Operator),
    (How::Post, "/images/**/push", Operator),
    (How::Delete, "/images/**", Operator),
    (How::Post, "/volumes/create", Operator),
    (How::Post, "/volumes/prune", Operator),
    (How::Put, "/volumes/*", Operator),
    (How::Delete, "/volumes/*", Operator),
    (How::Post, "/networks/create", Operator),
    (How::Post, "/networks/prune", Operator),
    (How::Delete, "/networks/*", Operator),
    (How::Post, "/networks/*/connect", Operator),
    (How::Post, "/networks/*/disconnect", Operator),
    (How::Post, "/services/create", Operator),
    (How::Delete, "/services/*", Operator),
    (How::Post, "/services/*/update", Operator),
    (How::Post, "/services/*/rebalance", Operator),
    (How::Post, "/secrets/create", Operator),
    (How::Post, "/secrets/*/update", Operator),
    (How::Delete, "/secrets/*", Operator),
    (How::Post, "/configs/create", Operator),
    (How::Post, "/configs/*/update", Operator),
    (How::Delete, "/configs/*", Operator),
    // Refused for everybody, with what to do instead.
    (How::Any, "/build", Operator),
    (How::Any, "/build/**", Operator),
    (How::Any, "/session", Operator),
    (How::Any, "/grpc", Operator),
    (How::Any, "/commit", Operator),
    (How::Any, "/plugins/**", Operator),
    // An image under a name that a privileged service uses runs with that service's rights.
    (How::Post, "/images/load", Admin),
    (How::Post, "/images/**/tag", Admin),
    // Join tokens, keys, the cluster as a whole, and the host's namespaces.
    (How::Get, "/swarm", Admin),
    (How::Get, "/swarm/unlockkey", Admin),
    (How::Post, "/swarm/*", Admin),
    (How::Post, "/nodes/*/update", Admin),
    (How::Delete, "/nodes/*", Admin),
    (How::Get, "/overnet/backup", Admin),
    (How::Post, "/overnet/restore", Admin),
    (How::Post, "/overnet/rejoin", Admin),
    (How::Post, "/overnet/attachments", Admin),
    (How::Delete, "/overnet/attachments", Admin),
    (How::Post, "/overnet/visualizer", Admin),
    (How::Delete, "/overnet/visualizer", Admin),
];

/// The least role that a request needs, by its path without the version.
pub(super) fn needed(method: &Method, path: &str) -> Role {
    row(method, path).unwrap_or(Admin)
}

/// Whether `role` is enough for a request, as far as its method and path say.
pub(super) fn allows(role: Role, method: &Method, path: &str) -> bool {
    role >= needed(method, path)
}

/// Whether a request changes something or reaches into a container, so that it is worth a line.
pub(super) fn is_change(method: &Method, path: &str) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let takes_part = path.ends_with("/attach/ws");
    let watches = path.starts_with("/containers/") && path.ends_with("/wait");
    takes_part || (!reads && !watches)
}

fn row(method: &Method, path: &str) -> Option<Role> {
    let meets = |how: How| match how {
        How::Get => matches!(*method, Method::GET | Method::HEAD),
        How::Post => *method == Method::POST,
        How::Put => *method == Method::PUT,
        How::Delete => *method == Method::DELETE,
        How::Any => true,
    };
    let found = TABLE.iter().find(|(how, pattern, _)| {
        meets(*how) && pattern.starts_with(head(path)) && fits(pattern, path)
    });
    found.map(|(_, _, role)| *role)
}

/// The path's first part: most rows differ in it.
fn head(path: &str) -> &str {
    let end = path[1.min(path.len())..].find('/');
    end.map_or(path, |end| &path[..=end])
}

fn fits(pattern: &str, path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let wanted: Vec<&str> = pattern.split('/').collect();
    let same = |wanted: &[&str], parts: &[&str]| {
        let pairs = wanted.iter().zip(parts);
        wanted.len() == parts.len() && pairs.into_iter().all(|(w, p)| w == p || *w == "*")
    };
    match wanted.iter().position(|part| *part == "**") {
        None => same(&wanted, &parts),
        Some(at) => {
            let tail = &wanted[at + 1..];
            parts.len() > at + tail.len()
                && same(&wanted[..at], &parts[..at])
                && same(tail, &parts[parts.len() - tail.len()..])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Method and path of every route, read from what the router says of itself.
    fn routes() -> Vec<(Method, String)> {
        let text = format!("{:?}", super::super::super::routes());
        let (text, _) = text.split_once("fallback_router: ").unwrap();
        let (routers, paths) = text.split_once("node: Node").unwrap();
        let numbered = |text: &str, before: &str| -> BTreeMap<u32, String> {
            // `RouteId(7): MethodRouter(…)` and `RouteId(7): "/nodes"`
            let entries = text.split("RouteId(").skip(1);
            let entries = entries.filter_map(|entry| entry.split_once(before));
            let read = |(number, rest): (&str, &str)| Some((number.parse().ok()?, rest.to_owned()));
            entries.filter_map(read).collect()
        };
        let endpoints = numbered(routers, "): MethodRouter(");
        let mut found = Vec::new();
        for (number, rest) in numbered(paths, "): \"") {
            let path = rest.split('"').next().unwrap();
            let endpoint = &endpoints[&number];
            for (word, method) in [
                ("get", Method::GET),
                ("head", Method::HEAD),
                ("delete", Method::DELETE),
                ("post", Method::POST),
                ("put", Method::PUT),
                ("patch", Method::PATCH),
            ] {
                let (_, handler) = endpoint.split_once(&format!("{word}: ")).unwrap();
                if !handler.starts_with("None") {
                    found.push((method, path.to_owned()));
                }
            }
        }
        found
    }

    /// Paths as clients write them.
    fn written(path: &str) -> Vec<String> {
        let rest: &[&str] = if path.starts_with("/images/") {
            &[
                "a/b:1/json",
                "a/b:1/history",
                "a/b:1/get",
                "a/b/push",
                "a/b/tag",
                "a/b:1",
            ]
        } else {
            &["x", "x/y"]
        };
        let one = path.split('/').map(|part| match part {
            part if part.starts_with("{*") => part,
            part if part.starts_with('{') => "x1",
            part => part,
        });
        let one = one.collect::<Vec<_>>().join("/");
        match one.split_once("{*") {
            Some((before, _)) => rest.iter().map(|rest| format!("{before}{rest}")).collect(),
            None => vec![one],
        }
    }

    #[test]
    fn every_route_has_a_role() {
        let routes = routes();
        assert!(
            routes.len() > 100,
            "the router is read otherwise: {routes:?}"
        );
        for (method, path) in [
            (Method::GET, "/containers/{id}/json"),
            (Method::PUT, "/containers/{id}/archive"),
            (Method::DELETE, "/overnet/attachments"),
            (Method::POST, "/swarm/init"),
        ] {
            assert!(
                routes.contains(&(method.clone(), path.to_owned())),
                "{method} {path}"
            );
        }
        // What `/images/{*rest}` answers by its last word.
        let nothing = |method: &Method, path: &str| {
            let last = path.rsplit('/').next().unwrap_or_default();
            path.starts_with("/images/")
                && match *method {
                    Method::GET => !matches!(last, "json" | "history" | "get" | "search"),
                    Method::POST => !matches!(last, "push" | "tag" | "load" | "create" | "prune"),
                    _ => false,
                }
        };
        let missing: BTreeSet<String> = routes
            .iter()
            .flat_map(|(method, path)| written(path).into_iter().map(move |path| (method, path)))
            .filter(|(method, path)| !nothing(method, path) && row(method, path).is_none())
            .map(|(method, path)| format!("{method} {path}"))
            .collect();
        assert_eq!(missing, BTreeSet::new(), "not in the table of roles");
    }

    #[test]
    fn roles_have_what_they_are_for() {
        let (get, post) = (Method::GET, Method::POST);
        for (method, path, least) in [
            (&get, "/containers/json", ReadOnly),
            (&get, "/containers/abc/logs", ReadOnly),
            (&Method::HEAD, "/_ping", ReadOnly),
            (&post, "/containers/abc/wait", ReadOnly),
            (&get, "/images/registry:5000/a/b:1/json", ReadOnly),
            (&get, "/containers/abc/archive", Operator),
            (&Method::HEAD, "/containers/abc/archive", Operator),
            (&get, "/containers/abc/attach/ws", Operator),
            (&post, "/containers/abc/exec", Operator),
            (&post, "/services/create", Operator),
            (&get, "/images/a/get", Operator),
            (&post, "/images/a/push", Operator),
            (&post, "/images/a/tag", Admin),
            (&post, "/images/load", Admin),
            (&get, "/swarm", Admin),
            (&get, "/swarm/unlockkey", Admin),
            (&post, "/swarm/leave", Admin),
            (&post, "/nodes/x/update", Admin),
            (&get, "/overnet/backup", Admin),
            // What nobody knows.
            (&get, "/containers/abc/secrets", Admin),
            (&get, "/new", Admin),
            (&get, "/containers//json", ReadOnly),
            (&get, "/containers/abc/json/", Admin),
            (&get, "", Admin),
            (&get, "/", Admin),
            (&Method::PATCH, "/containers/json", Admin),
        ] {
            let roles = [Role::None, ReadOnly, Operator, Admin];
            for role in roles {
                let wanted = role >= least;
                assert_eq!(allows(role, method, path), wanted, "{role} {method} {path}");
            }
        }
    }

    #[test]
    fn changes_are_told_from_looks() {
        for (method, path, change) in [
            (Method::GET, "/containers/json", false),
            (Method::HEAD, "/_ping", false),
            (Method::POST, "/containers/a/wait", false),
            (Method::POST, "/containers/a/start", true),
            (Method::GET, "/containers/a/attach/ws", true),
            (Method::DELETE, "/services/a", true),
            (Method::POST, "/new", true),
        ] {
            assert_eq!(is_change(&method, path), change, "{method} {path}");
        }
    }
}
