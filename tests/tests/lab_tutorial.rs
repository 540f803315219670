//! The tutorial does what it says: each command is run as printed, on the host whose prompt it
//! stands behind, and answers what the page shows.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::time::Duration;

use tests::{
    Host, Lab, Options, Output,
    page::{Block, Step, take_apart},
    wait,
};

const PAGE: &str = include_str!("../../docs/tutorial.md");
/// What the page calls things whose true names only the cluster knows.
const ADDRESS: &str = "192.168.56.11";
const TOKEN: &str = "SWMTKN-1-…";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_tutorial_as_printed() {
    let lab = Lab::up(Options {
        cluster: false,
        ..Options::for_test("tutorial")
    })
    .unwrap();
    let address = lab.host("manager01").member().address().to_string();
    let mut token = TOKEN.to_owned();
    let (_, blocks) = take_apart(PAGE);
    let consoles = blocks.iter().filter(|block| block.language == "console");
    let mut count = 0;
    for step in consoles.flat_map(Block::steps) {
        let host = match step.host.as_str() {
            "manager" => lab.host("manager01"),
            other => lab.host(other),
        };
        let command = step.command.replace(ADDRESS, &address);
        let said = run(&host, &command.replace(TOKEN, &token), &step);
        if let Some(word) = said.split_whitespace().find(|w| w.starts_with("SWMTKN-1-")) {
            word.clone_into(&mut token);
        }
        count += 1;
    }
    assert!(count > 20, "only {count} commands stand on the page");
    let left = lab.host("manager01").ctl(["service", "ls", "-q"]).ok();
    assert_eq!(left, "", "the page's last part leaves nothing");
    lab.down().unwrap();
}

/// What a command prints. Where the page shows an answer, it has to come to that.
fn run(host: &Host, command: &str, step: &Step) -> String {
    let programs = tests::lab::binary("ovnctl").unwrap();
    let programs = programs.parent().unwrap().display();
    let once = || -> Output {
        let script = format!("PATH={programs}:$PATH; {command}");
        host.exec(["sh", "-c", &script])
    };
    if step.answer.is_empty() {
        return once().ok();
    }
    let what = format!("line {}: {command}", step.line);
    wait::until(&what, LIMIT, || {
        let output = once();
        let printed: Vec<String> = output.stdout.lines().map(without_id).collect();
        let shown: Vec<String> = step.answer.iter().map(|line| without_id(line)).collect();
        (output.success() && printed == shown)
            .then_some(output.stdout.clone())
            .ok_or(output)
    })
}

/// A row of a list with `ID` where it has a shortened one.
fn without_id(line: &str) -> String {
    let is_id = |word: &str| {
        word.len() == 12
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    match line.split_once(' ') {
        Some((word, rest)) if is_id(word) => format!("ID {rest}"),
        _ => line.trim_end().to_owned(),
    }
}
