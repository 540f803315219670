//! Files that are refused.

use std::time::{Duration, Instant};

use crate::{ECHO, files::Files};

/// Each is one message with the place and the way out, and leaves the cluster as it is.
pub fn bad_files_create_nothing(files: &Files) {
    let image = format!("image: '{ECHO}'");
    let bomb = (1..30).fold("x0: &x0 [a, a]\n".to_owned(), |text, n| {
        format!("{text}x{n}: &x{n} [*x{m}, *x{m}]\n", m = n - 1)
    });
    files.write("ring.yml", "include: [ring2.yml]\n");
    files.write("ring2.yml", "include: [ring.yml]\n");
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("empty.yml", String::new(), &["empty.yml", "empty"]),
        (
            "notyaml.yml",
            "services: [1, 2".into(),
            &["notyaml.yml:1:", "not YAML"],
        ),
        (
            "ring.yml",
            "include: [ring2.yml]\n".into(),
            &["ring2.yml:1:", "includes itself"],
        ),
        (
            "unset.yml",
            "services: {a: {image: '${WHICH:?say which}'}}".into(),
            &["unset.yml:1:24", "WHICH", "say which"],
        ),
        (
            "network.yml",
            format!("services: {{a: {{{image}, networks: [nowhere]}}}}"),
            &["network.yml:1:", "nowhere"],
        ),
        (
            "external.yml",
            format!(
                "services: {{a: {{{image}, networks: [n]}}}}\nnetworks: {{n: {{external: true}}}}"
            ),
            &[
                "network \"n\" is declared as external",
                "ovnctl network create",
            ],
        ),
        (
            "scope.yml",
            format!(
                "services: {{a: {{{image}, networks: [n]}}}}\nnetworks: {{n: {{external: true, name: docker_gwbridge}}}}"
            ),
            &["docker_gwbridge", "not in the right scope"],
        ),
        (
            "range.yml",
            format!("services: {{a: {{{image}, ports: ['8000-8002:80-81']}}}}"),
            &["range.yml:1:", "services.a.ports"],
        ),
        (
            "large.yml",
            format!("x-a: {}\n", "y".repeat(10 << 20)),
            &["large.yml", "too large"],
        ),
        ("bomb.yml", bomb, &["bomb.yml:", "grows beyond"]),
        (
            "typo.yml",
            format!("services: {{a: {{{image}, replica: 2}}}}"),
            &["typo.yml:1:", "services.a.replica"],
        ),
        (
            "twice.yml",
            format!("services: {{a: {{{image}, tty: true, tty: false}}}}"),
            &["twice.yml:1:", "written twice with different values"],
        ),
        (
            "noimage.yml",
            "services: {a: {command: x}}".into(),
            &["noimage.yml:1:", "image"],
        ),
        (
            "file.yml",
            format!(
                "services: {{a: {{{image}, configs: [c]}}}}\nconfigs: {{c: {{file: not-there}}}}"
            ),
            &["file.yml:2:", "not-there"],
        ),
        (
            "secret.yml",
            format!(
                "services: {{a: {{{image}, secrets: [s]}}}}\nsecrets: {{s: {{external: true}}}}"
            ),
            &[
                "secret \"s\" is declared as external",
                "ovnctl secret create",
            ],
        ),
        (
            "wait.yml",
            format!(
                "services: {{a: {{{image}, depends_on: [b]}}, b: {{{image}, depends_on: [a]}}}}"
            ),
            &["services wait for one another", "a -> b -> a"],
        ),
        (
            "constraint.yml",
            format!(
                "services: {{a: {{{image}, deploy: {{placement: {{constraints: ['node.role = x']}}}}}}}}"
            ),
            &["node.role = x"],
        ),
    ];
    let before = files.inventory();
    for (name, text, words) in cases {
        let file = files.write(name, &text);
        let begun = Instant::now();
        let said = files.stack("deploy", &file, "bad").failed();
        for word in words {
            assert!(said.contains(word), "{name}: {word} is not in: {said}");
        }
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{name}: {:?}",
            begun.elapsed()
        );
        assert_eq!(files.inventory(), before, "{name}");
    }
    for (args, word) in [
        (
            &["stack", "deploy", "-c", "/not/there.yml", "bad"][..],
            "/not/there.yml",
        ),
        (&["stack", "deploy", "-c", "/", "bad"], "regular file"),
        (
            &["stack", "deploy", "-c", "/stack/visualizer.yml", "a/b"],
            "a/b",
        ),
        (
            &["stack", "rm", "nothing"],
            "Nothing found in stack: nothing",
        ),
        (
            &["stack", "ps", "nothing"],
            "nothing found in stack: nothing",
        ),
    ] {
        let done = files.ctl(args);
        assert!(done.stderr.contains(word), "{done:?}");
        assert_eq!(files.inventory(), before, "{args:?}");
    }
}
