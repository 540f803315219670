//! The documentation is true: links lead somewhere, commands that it shows are commands, files that
//! it shows are files the programs read, and the reference is what the programs say of themselves.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use agent::config::{Flags, Settings, Typed};
use clap::{Command, CommandFactory, Parser};
use tests::page::{Step, take_apart};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Every page: those at the top and all below docs.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![top().join("docs"), top()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && folder != top() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 10);
    found
}

/// Targets of `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

/// What a heading is called by in a link, as hosting sites make it.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let (prose, _) = take_apart(page);
    let headings = prose.iter().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line)).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut broken = String::new();
    for (path, page) in pages() {
        for (number, line) in take_apart(&page).0 {
            for target in links(line).filter(|target| !target.contains("://")) {
                let (file, place) = target.split_once('#').unwrap_or((target, ""));
                let file = match file {
                    "" => path.clone(),
                    file => path.parent().unwrap().join(file),
                };
                let there = file.exists()
                    && (place.is_empty()
                        || fs::read_to_string(&file)
                            .is_ok_and(|page| anchors(&page).contains(place)));
                if !there {
                    writeln!(broken, "{}:{number}: {target}", path.display()).unwrap();
                }
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{broken}");
}

/// Words of a command line, up to where a shell would do something with the rest.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (None, '|' | '>' | ';' | '&') => break,
            (None, '#') if word.is_none() => break,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (Some(open), c) if c == open => quote = None,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Why a line would not be understood by the program it names.
fn refused(words: &[String]) -> Option<String> {
    match words.first()?.as_str() {
        "sudo" => refused(&words[1..]),
        "ovnctl" => {
            let line: Vec<OsString> = words.iter().map(OsString::from).collect();
            match ctl::cli::parse(&line) {
                Err(stop) if stop.status != 0 => Some(stop.text),
                _ => None,
            }
        }
        "ovnd" => match Typed::try_parse_from(words) {
            Err(error) if error.exit_code() != 0 => Some(error.to_string()),
            _ => None,
        },
        path if path.starts_with("scripts/") || path.starts_with("vagrant/") => {
            (!top().join(path).is_file()).then(|| format!("there is no {path}"))
        }
        _ => None,
    }
}

#[test]
fn commands_shown_are_commands() {
    let (mut wrong, mut count) = (String::new(), 0);
    for (path, page) in pages() {
        for block in take_apart(&page)
            .1
            .iter()
            .filter(|block| block.language == "console")
        {
            for Step { line, command, .. } in block.steps() {
                count += 1;
                if let Some(why) = refused(&words(&command)) {
                    writeln!(wrong, "{}:{line}: {command}\n{why}", path.display()).unwrap();
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "commands that are not understood:\n{wrong}"
    );
    assert!(count > 30, "only {count} commands were found in all pages");
}

#[test]
fn settings_shown_are_settings() {
    let mut count = 0;
    for (path, page) in pages() {
        for block in take_apart(&page)
            .1
            .iter()
            .filter(|block| block.language == "toml")
        {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(&file, &block.text).unwrap();
            let flags = Flags {
                config: Some(file.path().to_owned()),
                ..Flags::default()
            };
            if let Err(error) = Settings::load(&flags) {
                panic!("{}:{}: {error}", path.display(), block.line);
            }
            count += 1;
        }
    }
    assert!(count > 0);
}

/// Every command's own help, one after the other.
fn reference(program: Command, title: &str, introduction: &str) -> String {
    let mut program = program.term_width(100);
    program.build();
    let mut text = format!("# {title}\n\n{introduction}\n");
    let mut contents = String::new();
    let mut body = String::new();
    chapter(&mut program, "", &mut contents, &mut body);
    let _ = write!(text, "\n{contents}{body}");
    text
}

fn chapter(command: &mut Command, before: &str, contents: &mut String, body: &mut String) {
    let name = format!("{before}{}", command.get_name());
    let help = command.render_long_help().to_string();
    let _ = writeln!(contents, "- [{name}](#{})", anchor(&name));
    let _ = write!(body, "\n## {name}\n\n```text\n");
    for line in help.trim_end().lines() {
        let _ = writeln!(body, "{}", line.trim_end());
    }
    body.push_str("```\n");
    let inner = command.get_subcommands_mut();
    for sub in inner.filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        chapter(sub, &format!("{name} "), contents, body);
    }
}

/// Compares with the page in the tree, or writes it when UPDATE_REFERENCE is set.
fn is_current(page: &str, text: &str) {
    let path = top().join(page);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let differs = there.lines().zip(text.lines()).position(|(a, b)| a != b);
    assert!(
        there == text,
        "{page} is not what the program says (first at line {:?}); \
         UPDATE_REFERENCE=1 cargo nextest run --release --workspace -E 'test(reference)' writes it anew",
        differs.map(|line| line + 1)
    );
}

const GENERATED: &str = "This page is made from the program's own help; do not edit it.";

#[test]
fn the_reference_of_ovnctl_is_current() {
    is_current(
        "docs/reference/ovnctl.md",
        &reference(ctl::cli::command(), "Commands of ovnctl", GENERATED),
    );
}

#[test]
fn the_reference_of_ovnd_is_current() {
    is_current(
        "docs/reference/ovnd.md",
        &reference(Typed::command(), "Commands of ovnd", GENERATED),
    );
}

#[test]
fn blocks_and_words_are_taken_apart() {
    let page = "a [b](c.md)\n```console\nhost1$ ovnctl run \\\n    'a b' x | cat\nanswer\n# not a prompt's\n```\n";
    let (prose, blocks) = take_apart(page);
    assert_eq!(prose, [(1, "a [b](c.md)")]);
    assert_eq!(links(prose[0].1).collect::<Vec<_>>(), ["c.md"]);
    let steps = blocks[0].steps();
    let step = &steps[0];
    assert_eq!(
        (steps.len(), step.line, step.host.as_str()),
        (1, 3, "host1")
    );
    assert_eq!(step.command, "ovnctl run 'a b' x | cat");
    assert_eq!(step.answer, ["answer", "# not a prompt's"]);
    assert_eq!(words(&step.command), ["ovnctl", "run", "a b", "x"]);
    assert!(refused(&words("ovnctl netwrok ls")).is_some());
    assert!(refused(&words("ovnctl network ls")).is_none());
    assert_eq!(anchor("## ovnctl run"), "ovnctl-run");
}
