//! The table against the list of all keys that the Compose Specification has.

use std::collections::BTreeSet;

use super::{Fate, all};
use crate::compose::check::check;
use crate::compose::read::read;

/// Keys of older files, which the current specification has no more.
const OLDER: [&str; 2] = ["services.*.cgroupns_mode", "services.*.volume_driver"];

fn specified() -> BTreeSet<&'static str> {
    include_str!("specification.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect()
}

/// The row that ignores a key, with everything below it.
fn ignored_by(path: &str) -> Option<&'static str> {
    all()
        .filter(|key| key.fate == Fate::Warned)
        .map(|key| key.path)
        .find(|row| {
            path.strip_prefix(row)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
}

#[test]
fn every_key_of_the_specification_is_in_the_table() {
    let rows: BTreeSet<&str> = all().map(|key| key.path).collect();
    let specified = specified();
    assert!(specified.len() > 350, "{} keys are listed", specified.len());
    let missing: Vec<&&str> = specified
        .iter()
        .filter(|path| !rows.contains(**path) && ignored_by(path).is_none())
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    let more: Vec<&&str> = rows
        .iter()
        .filter(|path| !specified.contains(**path) && !OLDER.contains(path))
        .collect();
    assert!(more.is_empty(), "not in the specification: {more:?}");
}

#[test]
fn no_key_of_the_specification_is_refused_or_silently_dropped() {
    for path in specified() {
        let ignored = ignored_by(path);
        // Nothing has every form; what is ignored is warned about when there is something.
        let mut text = if ignored.is_some() { "{v: 1}" } else { "" }.to_owned();
        for segment in path.split('.').rev() {
            text = match segment {
                "[]" if text.is_empty() => "[null]".to_owned(),
                "[]" => format!("[{text}]"),
                "*" => format!("{{name: {text}}}"),
                other => format!("{{{other}: {text}}}"),
            };
        }
        let findings = check(&read(&text, 0).unwrap().root);
        let problems: Vec<String> = findings.problems.into_iter().map(|p| p.message).collect();
        assert_eq!(problems, Vec::<String>::new(), "{path}: {text}");
        let warned: Vec<String> = findings.warnings.into_iter().map(|w| w.message).collect();
        match ignored {
            Some(row) => {
                let name = row.replace('*', "name").replace(".[]", "[0]");
                assert_eq!(warned.len(), 1, "{path}: {warned:?}");
                assert!(
                    warned[0].starts_with(&format!("{name} is ignored: ")),
                    "{warned:?}"
                );
            }
            None => assert_eq!(warned, Vec::<String>::new(), "{path}: {text}"),
        }
    }
}
