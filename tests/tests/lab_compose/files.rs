//! The host that deploys, and what the cluster has.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use tests::{Host, Output, wait};

use crate::LIMIT;

/// A folder of compose files, and the host that deploys them.
pub struct Files {
    pub manager: Host,
    pub folder: PathBuf,
}

impl Files {
    pub fn write(&self, name: &str, text: &str) -> String {
        let file = self.folder.join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    pub fn ctl(&self, args: &[&str]) -> Output {
        self.manager.ctl(args)
    }

    pub fn stack(&self, word: &str, file: &str, name: &str) -> Output {
        self.ctl(&["stack", word, "-c", file, name])
    }

    /// Tasks of the stack that shall run, as `ID NAME`; fails while one of them does not.
    pub fn tasks(&self, stack: &str) -> Result<BTreeSet<String>, String> {
        let filter = "desired-state=running";
        let format = "{{.ID}} {{.Name}} {{.CurrentState}}";
        let listed = self.ctl(&[
            "stack",
            "ps",
            "--no-trunc",
            "--filter",
            filter,
            "--format",
            format,
            stack,
        ]);
        if !listed.success() || !listed.stdout.lines().all(|line| line.contains(" Running ")) {
            return Err(format!("{listed:?}"));
        }
        let first = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        Ok(listed.stdout.lines().map(first).collect())
    }

    pub fn until_tasks(&self, stack: &str, count: usize) -> BTreeSet<String> {
        wait::until(&format!("{count} tasks of {stack} run"), LIMIT, || {
            let tasks = self.tasks(stack)?;
            if tasks.len() == count {
                Ok(tasks)
            } else {
                Err(format!("{tasks:?}"))
            }
        })
    }

    pub fn remove(&self, stack: &str) {
        self.ctl(&["stack", "rm", "--detach=false", stack]).ok();
    }

    /// Everything of the cluster that a deploy could make.
    pub fn inventory(&self) -> String {
        let mut all = String::new();
        for kind in ["service", "network", "secret", "config"] {
            let format = if kind == "service" {
                "{{.ID}} {{.Name}}"
            } else {
                "{{.ID}}"
            };
            let listed = self.ctl(&[kind, "ls", "--format", format]).ok();
            let mut lines: Vec<&str> = listed.lines().collect();
            lines.sort_unstable();
            writeln!(all, "{kind}: {}", lines.join(", ")).unwrap();
        }
        all
    }
}
