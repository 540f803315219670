//! Whole files through [`super::load()`], on plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::{Input, Loaded, Request, load};
use crate::compose::problem::Sources;
use crate::compose::write::yaml;

/// Files by path, the first ones given with `-c`.
struct Case<'a> {
    files: &'a [(&'a str, &'a str)],
    given: &'a [&'a str],
    variables: &'a [(&'a str, &'a str)],
    profiles: &'a [&'a str],
}

const PLAIN: Case<'static> = Case {
    files: &[],
    given: &["/p/a.yml"],
    variables: &[],
    profiles: &[],
};

impl Case<'_> {
    fn run(&self) -> (Result<Loaded, String>, Sources) {
        let files: BTreeMap<&str, &str> = self.files.iter().copied().collect();
        let reader = |path: &Path| {
            let text = files.get(path.to_str().unwrap_or_default());
            text.map(|t| t.as_bytes().to_vec())
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        let inputs: Vec<Input> = self
            .given
            .iter()
            .map(|name| Input {
                name: (*name).to_owned(),
                text: None,
            })
            .collect();
        let owned = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let profiles: BTreeSet<String> = self.profiles.iter().map(|p| (*p).to_owned()).collect();
        let variables: BTreeMap<String, String> = owned(self.variables);
        let request = Request {
            files: &inputs,
            directory: Path::new("/p"),
            variables: &variables,
            profiles: &profiles,
            raw: false,
            reader: &reader,
        };
        let mut sources = Sources::default();
        let loaded = load(&request, &mut sources).map_err(|problems| problems.render(&sources));
        (loaded, sources)
    }

    fn text(&self) -> String {
        yaml(&self.run().0.unwrap().root)
    }

    fn refusal(&self) -> String {
        self.run().0.map(|l| yaml(&l.root)).unwrap_err()
    }
}

#[test]
fn the_environment_wins_over_dot_env() {
    let case = Case {
        files: &[
            (
                "/p/a.yml",
                "services: {a: {image: 'x:${TAG}-${OTHER}-${NO}'}}",
            ),
            ("/p/.env", "TAG=1\nOTHER=2\n"),
        ],
        variables: &[("TAG", "9")],
        ..PLAIN
    };
    assert!(case.text().contains("x:9-2-"), "{}", case.text());
    let warnings = case.run().0.unwrap().warnings;
    assert_eq!(
        warnings[0].message,
        "The \"NO\" variable is not set. Defaulting to a blank string."
    );
}

#[test]
fn several_files_merge_in_order() {
    let case = Case {
        files: &[
            (
                "/p/a.yml",
                "services: {a: {image: x, environment: {A: 1}, ports: ['80:80']}}",
            ),
            (
                "/p/b.yml",
                "services: {a: {environment: [B=2], ports: !override ['81:80']}, b: {image: y}}",
            ),
        ],
        given: &["a.yml", "b.yml"],
        ..PLAIN
    };
    insta::assert_snapshot!(case.text(), @r#"
    services:
      a:
        image: x
        environment:
          A: 1
          B: 2
        ports:
          - "81:80"
      b:
        image: y
    "#);
}

#[test]
fn extends_within_a_file_and_from_another() {
    let case = Case {
        files: &[
            (
                "/p/a.yml",
                "services: {base: {image: x, environment: {A: 1}}, a: {extends: base, environment: {B: 2}}, c: {extends: {service: far, file: sub/b.yml}, tty: true}}",
            ),
            (
                "/p/sub/b.yml",
                "services: {deep: {image: z, privileged: true}, far: {extends: {service: deep}, env_file: local.env}}",
            ),
        ],
        ..PLAIN
    };
    let (loaded, sources) = case.run();
    let loaded = loaded.unwrap();
    let c = loaded
        .root
        .get("services")
        .and_then(|s| s.get("c"))
        .unwrap();
    // A relative name belongs to the file that has it.
    assert_eq!(
        sources.base(c.get("env_file").unwrap().at),
        Path::new("/p/sub")
    );
    insta::assert_snapshot!(yaml(&loaded.root), @r"
    services:
      base:
        image: x
        environment:
          A: 1
      a:
        image: x
        environment:
          A: 1
          B: 2
      c:
        image: z
        privileged: true
        env_file: local.env
        tty: true
    ");
}

#[test]
fn includes_bring_their_own_environment_and_folder() {
    let case = Case {
        files: &[
            (
                "/p/a.yml",
                "include: [sub/b.yml]\nservices: {a: {image: 'x:${TAG:-none}'}}",
            ),
            (
                "/p/sub/b.yml",
                "include:\n  - path: [c.yml, d.yml]\n    env_file: other.env\nservices: {b: {image: 'y:${TAG}'}}\nnetworks: {n: {}}",
            ),
            ("/p/sub/.env", "TAG=sub"),
            ("/p/sub/c.yml", "services: {c: {image: 'z:${TAG}${X}'}}"),
            ("/p/sub/d.yml", "services: {c: {tty: true}}"),
            ("/p/sub/other.env", "X=-other"),
        ],
        ..PLAIN
    };
    insta::assert_snapshot!(case.text(), @r#"
    services:
      a:
        image: "x:none"
      b:
        image: "y:sub"
      c:
        image: "z:sub-other"
        tty: true
    networks:
      "n": {}
    "#);
}

#[test]
fn profiles_leave_services_out() {
    let files = [(
        "/p/a.yml",
        "services: {a: {image: x}, d: {image: y, profiles: [debug, dev]}, t: {image: z, profiles: [test]}}",
    )];
    let cases: [(&[&str], &[&str]); 4] = [
        (&[], &["d", "t"]),
        (&["dev"], &["t"]),
        (&["*"], &[]),
        (&["test", "debug"], &[]),
    ];
    for (profiles, out) in cases {
        let loaded = Case {
            files: &files,
            profiles,
            ..PLAIN
        }
        .run()
        .0
        .unwrap();
        assert_eq!(loaded.inactive, out, "{profiles:?}");
    }
}

#[test]
fn what_is_refused_says_where_and_why() {
    let cases: [(&[(&str, &str)], &str); 17] = [
        (&[], "cannot read /p/a.yml"),
        (&[("/p/a.yml", "")], "/p/a.yml: the file is empty"),
        (&[("/p/a.yml", "a: [")], "this is not YAML"),
        (
            &[(
                "/p/a.yml",
                "services:\n  a:\n    image: x\n    replica: 2\n",
            )],
            "/p/a.yml:4:5: services.a.replica: there is no key \"replica\"",
        ),
        (
            &[(
                "/p/a.yml",
                "services:\n  a:\n    image: 'x:${TAG:?set the tag}'\n",
            )],
            "/p/a.yml:3:15: services.a.image: invalid interpolation format: required variable TAG is missing a value: set the tag",
        ),
        (
            &[("/p/a.yml", "services: {a: {image: x, command: 'echo $'}}")],
            "begins no variable",
        ),
        (
            &[
                ("/p/a.yml", "include: [b.yml]"),
                ("/p/b.yml", "include: [./x/../a.yml]"),
            ],
            "./x/../a.yml includes itself, through /p/a.yml, /p/b.yml",
        ),
        (&[("/p/a.yml", "include: [b.yml]")], "cannot read /p/b.yml"),
        (
            &[
                ("/p/a.yml", "include: [b.yml]\nservices: {a: {image: x}}"),
                ("/p/b.yml", "services: {a: {image: y}}"),
            ],
            "services.a: an included file has this name too",
        ),
        (
            &[("/p/a.yml", "services: {a: {extends: b}, b: {extends: a}}")],
            "the service extends itself, through a, b",
        ),
        (
            &[(
                "/p/a.yml",
                "services: {a: {extends: {file: a.yml, service: a}}}",
            )],
            "extends itself",
        ),
        (
            &[("/p/a.yml", "services: {web: {image: x}, a: {extends: wbe}}")],
            "did you mean web?",
        ),
        (
            &[
                ("/p/a.yml", "services: {a: {image: x}}"),
                ("/p/.env", "A=1\nB C=2"),
            ],
            "/p/.env:2: \"B C\": a name cannot contain spaces",
        ),
        (
            &[("/p/a.yml", "services: {a: {image: x, image: y}}")],
            "written twice with different values",
        ),
        (
            &[("/p/a.yml", "services: [a]")],
            "services: expected a mapping, found a list",
        ),
        (
            &[("/p/a.yml", "\"services\"")],
            "a compose file is a mapping",
        ),
        (
            &[(
                "/p/a.yml",
                "services: {a: {image: x, deploy: {replicas: -1}}}",
            )],
            "\"-1\" is negative",
        ),
    ];
    for (files, wanted) in cases {
        let said = Case { files, ..PLAIN }.refusal();
        assert!(said.contains(wanted), "{files:?}\n{said}");
    }
}

#[test]
fn includes_that_multiply_are_stopped() {
    let names: Vec<(String, String)> = (0..12)
        .map(|n| {
            let next = n + 1;
            (format!("/p/f{n}.yml"), format!("include: [f{next}.yml, ./f{next}.yml, x/../f{next}.yml]\nservices: {{s{n}: {{image: x}}}}"))
        })
        .chain([("/p/f12.yml".to_owned(), "services: {z: {image: x}}".to_owned())])
        .collect();
    let files: Vec<(&str, &str)> = names
        .iter()
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    let said = Case {
        files: &files,
        given: &["f0.yml"],
        ..PLAIN
    }
    .refusal();
    assert!(said.contains("more than 100 files"), "{said}");
}

#[test]
fn a_problem_is_shown_with_its_lines() {
    let case = Case {
        files: &[(
            "/p/a.yml",
            "services:\n  웹:\n    image: x\n    deploy: {replica: 3}\n",
        )],
        ..PLAIN
    };
    let said = case.refusal();
    for part in [
        "/p/a.yml:4:14: services.웹.deploy.replica: there is no key \"replica\"",
        "deploy: {replica: 3}",
        "help: did you mean replicas?",
    ] {
        assert!(said.contains(part), "{said}");
    }
}
