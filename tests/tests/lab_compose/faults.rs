//! Deploys that do not come to their end.

use std::{fmt::Write as _, process::Stdio};

use tests::wait;

use crate::{ECHO, LIMIT, files::Files};

pub fn a_deploy_that_stopped_goes_on(files: &Files) {
    files
        .ctl(&[
            "service",
            "create",
            "-d",
            "--name",
            "taken",
            "-p",
            "8100:8080",
            ECHO,
        ])
        .ok();
    let file = files.write(
        "middle.yml",
        &format!(
            "services:\n  a: {{image: '{ECHO}'}}\n  b: {{image: '{ECHO}', ports: ['8100:8080'], depends_on: [a]}}\n  c: {{image: '{ECHO}', depends_on: [b]}}\n"
        ),
    );
    let said = files.stack("deploy", &file, "m").failed();
    for words in [
        "failed to create service m_b",
        "8100",
        "taken",
        "created before that: network m_default, service m_a",
        "the next deploy of the same files goes on from here",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    let first = files.until_tasks("m", 1);
    files.ctl(&["service", "rm", "taken"]).ok();
    let printed = files.stack("deploy", &file, "m").ok();
    assert!(
        printed.contains("m_a") && printed.contains("nothing changed"),
        "{printed}"
    );
    let all = files.until_tasks("m", 3);
    assert!(all.is_superset(&first), "{all:?} {first:?}");
    files.remove("m");
}

/// Whatever the deploy had come to: the next one brings the whole, and restarts nothing.
pub fn a_manager_killed_in_mid_deploy(files: &Files) {
    const SERVICES: usize = 12;
    let mut text = "services:\n".to_owned();
    for n in 1..=SERVICES {
        writeln!(text, "  s{n}: {{image: '{ECHO}', stop_grace_period: 1s}}").unwrap();
    }
    let file = files.write("many.yml", &text);
    let mut command = files
        .manager
        .ctl_command(["stack", "deploy", "-c", &file, "many"])
        .unwrap();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let deploy = files.manager.spawn(command).unwrap();
    let names = || {
        let listed = files.ctl(&["service", "ls", "--format", "{{.Name}}"]);
        listed
            .stdout
            .lines()
            .filter(|name| name.starts_with("many_"))
            .count()
    };
    wait::until("the deploy is in its middle", LIMIT, || match names() {
        0 | 1 => Err(()),
        _ => Ok(()),
    });
    files.manager.kill().unwrap();
    let done = deploy.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    eprintln!("killed: {}", said.trim());
    if !done.status.success() {
        assert!(
            said.contains("created before that: network many_default"),
            "{said}"
        );
    }
    files.manager.start().unwrap();
    let before = names();
    let tasks_before = wait::until("what was made runs", LIMIT, || {
        let tasks = files.tasks("many")?;
        if tasks.len() == before {
            Ok(tasks)
        } else {
            Err(format!("{tasks:?}"))
        }
    });
    let printed = files.stack("deploy", &file, "many").ok();
    assert_eq!(
        printed.matches("nothing changed").count(),
        before,
        "{printed}"
    );
    let all = files.until_tasks("many", SERVICES);
    assert!(all.is_superset(&tasks_before));
    files.remove("many");
}
