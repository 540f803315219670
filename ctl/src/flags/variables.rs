//! Environment variables and labels, from flags and files.

use std::collections::BTreeMap;
use std::path::Path;

/// Files first, then flags; `NAME` alone takes its value from the environment, or is left out.
pub fn environment(
    files: &[String],
    flags: &[String],
    directory: &Path,
    outside: &BTreeMap<String, String>,
) -> Result<Vec<String>, String> {
    let mut list = Vec::new();
    for file in files {
        for (number, line) in lines(file, directory)? {
            list.extend(
                one(&line, outside)
                    .map_err(|e| format!("--env-file {file}, line {number}: {e}"))?,
            );
        }
    }
    for flag in flags {
        // A variable that is not set is sent as its bare name: the daemon then removes the image's.
        list.push(
            one(flag, outside)
                .map_err(|e| format!("--env: {e}"))?
                .unwrap_or_else(|| flag.clone()),
        );
    }
    Ok(list)
}

/// Files first, then flags, each `NAME=VALUE` or `NAME`.
pub fn labels(files: &[String], flags: &[String], directory: &Path) -> Result<Vec<String>, String> {
    let mut list = Vec::new();
    for file in files {
        list.extend(lines(file, directory)?.into_iter().map(|(_, line)| line));
    }
    list.extend_from_slice(flags);
    match list
        .iter()
        .find(|label| label.starts_with('=') || label.is_empty())
    {
        Some(bad) => Err(format!("--label {bad:?}: a name is missing before the =")),
        None => Ok(list),
    }
}

fn one(text: &str, outside: &BTreeMap<String, String>) -> Result<Option<String>, String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("{text:?} has no name before the =")),
        Some(_) => Ok(Some(text.to_owned())),
        None if text.is_empty() => Err("a name is missing".to_owned()),
        None if text.contains(char::is_whitespace) => {
            Err(format!("{text:?}: a name cannot contain spaces"))
        }
        None => Ok(outside.get(text).map(|value| format!("{text}={value}"))),
    }
}

fn lines(file: &str, directory: &Path) -> Result<Vec<(usize, String)>, String> {
    let text = std::fs::read_to_string(directory.join(file))
        .map_err(|e| format!("cannot read {file}: {e}"))?;
    Ok(text
        .trim_start_matches('\u{feff}')
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_start().to_owned()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_flags_and_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("e"),
            "# a comment\n\n  A=1\nHOME\nNOTHING\nB=x y\n",
        )
        .unwrap();
        let outside = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
        let list = environment(
            &["e".to_owned()],
            &["C=3".to_owned(), "HOME".to_owned(), "UNSET".to_owned()],
            folder.path(),
            &outside,
        );
        assert_eq!(
            list.unwrap(),
            ["A=1", "HOME=/root", "B=x y", "C=3", "HOME=/root", "UNSET"]
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let none = BTreeMap::new();
        let here = Path::new("/");
        assert!(environment(&[], &["=x".to_owned()], here, &none).is_err());
        assert!(
            environment(&["/nonexistent".to_owned()], &[], here, &none)
                .unwrap_err()
                .contains("/nonexistent")
        );
        assert!(labels(&[], &["=x".to_owned()], here).is_err());
    }
}
