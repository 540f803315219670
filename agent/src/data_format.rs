//! The format of what lies in the data directory: an ovnd that would misread it does not start.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use model::FORMAT;
use serde::{Deserialize, Serialize};

/// This software's own version, for whoever reads the file or a refusal.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `ROOT/format.json` says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    format: u32,
    /// The version that wrote it.
    by: String,
}

/// Why this ovnd is not to touch what lies there.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error(
        "the data in {root} has format {format}, made by ovnd {by}; this is ovnd {VERSION}, which knows formats up to {FORMAT} and would lose some of it. Install ovnd {by} or later. Nothing was changed; containers go on"
    )]
    Newer {
        root: PathBuf,
        format: u32,
        by: String,
    },
    #[error(
        "{file} does not say which format the data has: {reason}. It should read {{\"format\":{FORMAT},\"by\":\"{VERSION}\"}} if no later ovnd than this one ever ran on this host"
    )]
    Unclear { file: PathBuf, reason: String },
    #[error("{file} cannot be written: {reason}")]
    Write { file: PathBuf, reason: io::Error },
}

/// Refuses data of a later format; changes nothing. A folder that says nothing is new, or of the
/// first format.
pub fn check(root: &Path) -> Result<(), FormatError> {
    read(root).map(drop)
}

/// Refuses data of a later format, and says that this ovnd has written here from now on.
pub fn take_over(root: &Path) -> Result<(), FormatError> {
    let own = Written {
        format: FORMAT,
        by: VERSION.to_owned(),
    };
    if read(root)?.as_ref() == Some(&own) {
        return Ok(());
    }
    let file = file(root);
    write(&file, &own).map_err(|reason| FormatError::Write { file, reason })
}

fn file(root: &Path) -> PathBuf {
    root.join("format.json")
}

fn read(root: &Path) -> Result<Option<Written>, FormatError> {
    let file = file(root);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let reason = error.to_string();
            return Err(FormatError::Unclear { file, reason });
        }
    };
    match serde_json::from_slice::<Written>(&text) {
        Ok(written) if written.format > FORMAT => Err(FormatError::Newer {
            root: root.to_owned(),
            format: written.format,
            by: written.by,
        }),
        Ok(written) => Ok(Some(written)),
        Err(error) => {
            let reason = error.to_string();
            Err(FormatError::Unclear { file, reason })
        }
    }
}

/// Whole or not at all, whenever the power fails.
fn write(file: &Path, written: &Written) -> io::Result<()> {
    let next = file.with_extension("json.next");
    let mut out = fs::File::create(&next)?;
    out.write_all(&serde_json::to_vec(written)?)?;
    out.sync_all()?;
    fs::rename(&next, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_a_later_format_is_refused_and_kept() {
        let root = tempfile::tempdir().unwrap();
        check(root.path()).unwrap();
        assert!(!file(root.path()).exists(), "looking changes nothing");
        take_over(root.path()).unwrap();
        check(root.path()).unwrap();
        let own = fs::read_to_string(file(root.path())).unwrap();
        assert_eq!(own, format!(r#"{{"format":{FORMAT},"by":"{VERSION}"}}"#));

        let later = format!(r#"{{"format":{},"by":"9.8.7","more":[]}}"#, FORMAT + 1);
        fs::write(file(root.path()), &later).unwrap();
        for refused in [check(root.path()), take_over(root.path())] {
            let words = refused.unwrap_err().to_string();
            assert!(words.contains("Install ovnd 9.8.7 or later"), "{words}");
        }
        assert_eq!(fs::read_to_string(file(root.path())).unwrap(), later);
    }

    #[test]
    fn what_an_older_build_wrote_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        fs::write(file(root.path()), r#"{"format":0,"by":"0.0.1"}"#).unwrap();
        take_over(root.path()).unwrap();
        let own = read(root.path()).unwrap().unwrap();
        assert_eq!((own.format, own.by.as_str()), (FORMAT, VERSION));
    }

    #[test]
    fn a_file_that_says_nothing_is_no_leave() {
        let root = tempfile::tempdir().unwrap();
        for text in ["", "{", r#"{"format":"new"}"#, r#"{"format":-1,"by":""}"#] {
            fs::write(file(root.path()), text).unwrap();
            let words = take_over(root.path()).unwrap_err().to_string();
            assert!(words.contains("format.json does not say"), "{words}");
            assert_eq!(fs::read_to_string(file(root.path())).unwrap(), text);
        }
    }
}
