//! Our answers beside a real Docker Engine's, field by field: what differs is in a table of
//! docs/api.md, with the reason, and nothing else does.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{collections::BTreeMap, fs, path::Path};

use tests::{
    Lab, Options,
    recorded::{Answer, Deviation, compare, play},
};

/// Where the table begins.
const HEADING: &str = "## Beside a real engine's answers";

fn top(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A row of the table: answers and fields may end in `*`.
#[derive(Debug)]
struct Row {
    answers: Vec<String>,
    fields: Vec<String>,
    what: String,
}

impl Row {
    fn fits(&self, deviation: &Deviation) -> bool {
        let one = |patterns: &[String], text: &str| {
            patterns
                .iter()
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(beginning) => text.starts_with(beginning),
                    None => pattern == text,
                })
        };
        one(&self.answers, &deviation.answer)
            && one(&self.fields, &deviation.field)
            && (self.what == "any" || self.what == deviation.what)
    }
}

fn rows(page: &str) -> Vec<Row> {
    let (_, section) = page.split_once(HEADING).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let words = |cell: &str| {
        let words = cell
            .split(',')
            .map(|word| word.trim().trim_matches('`').to_owned());
        words.collect::<Vec<_>>()
    };
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 4, "{line}");
        assert!(cells[3].trim().len() > 5, "no reason: {line}");
        Row {
            answers: words(cells[0]),
            fields: words(cells[1]),
            what: cells[2].trim().to_owned(),
        }
    };
    lines.map(row).collect()
}

#[test]
fn answers_are_those_of_a_real_engine_but_for_what_is_argued() {
    let recorded: BTreeMap<String, Answer> =
        serde_json::from_str(&top("tests/recorded/docker.json")).unwrap();
    assert!(recorded.len() > 50, "{}", recorded.len());
    let lab = Lab::up(Options {
        workers: 0,
        cluster: false,
        ..Options::for_test("recorded")
    })
    .unwrap();
    let host = lab.host("manager01");
    let ours = play(&host.socket(), &host.member().address().to_string()).unwrap();
    assert_eq!(
        ours.len(),
        recorded.len(),
        "record the engine's answers again"
    );
    if let Some(file) = std::env::var_os("RECORDED_OURS") {
        fs::write(file, serde_json::to_string_pretty(&ours).unwrap()).unwrap();
    }
    let rows = rows(&top("docs/api.md"));
    let found = compare(&recorded, &ours);
    let shown = |one: &Deviation| format!("| `{}` | `{}` | {} |", one.answer, one.field, one.what);
    let new: Vec<String> = found
        .iter()
        .filter(|deviation| !rows.iter().any(|row| row.fits(deviation)))
        .map(shown)
        .collect();
    assert!(
        new.is_empty(),
        "{} not in docs/api.md:\n{}",
        new.len(),
        new.join("\n")
    );
    let idle: Vec<&Row> = rows
        .iter()
        .filter(|row| !found.iter().any(|deviation| row.fits(deviation)))
        .collect();
    assert!(
        idle.is_empty(),
        "in docs/api.md, and not so any more: {idle:#?}"
    );
    lab.down().unwrap();
}
