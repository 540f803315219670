//! Packages stand on three floors and arrows go down only (docs/architecture.md): a decision
//! cannot touch a host, and the command line speaks the wire API alone.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::collections::BTreeSet;

use serde_json::Value;

/// Each package, and all that it may use of the others.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("model", &[]),
    ("trace", &["model"]),
    ("manager", &["model", "trace"]),
    ("dataplane", &["model", "trace"]),
    ("runtime", &["model", "trace"]),
    ("api", &["model"]),
    (
        "agent",
        &["api", "dataplane", "manager", "model", "runtime", "trace"],
    ),
    ("ctl", &["api", "model", "trace"]),
    (
        "tests",
        &[
            "agent",
            "api",
            "ctl",
            "dataplane",
            "manager",
            "model",
            "runtime",
        ],
    ),
];

/// What the nouns must do without: they know no clock, no chance and no I/O.
const NOT_IN_MODEL: [&str; 8] = [
    "tokio", "rand", "time", "chrono", "nix", "libc", "socket2", "hyper",
];

/// Names that mean "no owner".
const DRAWERS: [&str; 5] = ["common", "util", "utils", "core", "shared"];

fn metadata() -> Vec<Value> {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version=1",
            "--offline",
            "--locked",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// Arrows that the table does not have: `package -> used`.
fn forbidden(packages: &[Value]) -> Vec<String> {
    let own: BTreeSet<&str> = packages.iter().map(name).collect();
    let mut found = Vec::new();
    for package in packages {
        let row = MAY_USE.iter().find(|(of, _)| *of == name(package));
        let Some((_, allowed)) = row else {
            found.push(format!("{} is not in the table", name(package)));
            continue;
        };
        for used in package["dependencies"].as_array().unwrap() {
            let (used, kind) = (name(used), used["kind"].as_str());
            // Tests of a package may use what its code may not, but never a higher floor.
            let pure = name(package) == "model" && kind.is_none() && NOT_IN_MODEL.contains(&used);
            if (own.contains(used) && !allowed.contains(&used)) || pure {
                found.push(format!("{} -> {used}", name(package)));
            }
        }
    }
    found
}

#[test]
fn arrows_go_down_only() {
    let packages = metadata();
    assert_eq!(forbidden(&packages), Vec::<String>::new());
    let names: Vec<&str> = packages.iter().map(name).collect();
    for drawer in DRAWERS {
        assert!(!names.contains(&drawer), "package {drawer}: whose is it?");
    }
}

#[test]
fn a_forbidden_arrow_is_seen() {
    let package = |name: &str, used: &str| serde_json::json!({"name": name, "dependencies": [{"name": used, "kind": null}]});
    let packages = [
        package("manager", "runtime"),
        package("runtime", "model"),
        package("model", "tokio"),
        package("ctl", "tests"),
        package("tests", "serde"),
        package("shared", "serde"),
    ];
    let seen = [
        "manager -> runtime",
        "model -> tokio",
        "ctl -> tests",
        "shared is not in the table",
    ];
    assert_eq!(forbidden(&packages), seen);
}
