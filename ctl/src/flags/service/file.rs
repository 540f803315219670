//! `--secret` and `--config`: what a task gets as a file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::flags::comma_fields;

/// Which of the two a reference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A secret.
    Secret,
    /// A configuration file.
    Config,
}

impl Kind {
    /// `secret` or `config`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    /// The field of a reference that holds the name.
    pub fn name_field(self) -> &'static str {
        match self {
            Self::Secret => "SecretName",
            Self::Config => "ConfigName",
        }
    }

    /// The field of a reference that holds the id.
    pub fn id_field(self) -> &'static str {
        match self {
            Self::Secret => "SecretID",
            Self::Config => "ConfigID",
        }
    }

    /// The field of a container's specification that holds the references.
    pub fn list_field(self) -> &'static str {
        match self {
            Self::Secret => "Secrets",
            Self::Config => "Configs",
        }
    }
}

/// One `--secret` or `--config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRequest {
    /// Name of the secret or config.
    pub source: String,
    /// File name in the container.
    pub target: String,
    /// Owner.
    pub uid: String,
    /// Group.
    pub gid: String,
    /// Permission bits.
    pub mode: u32,
}

/// Reads `NAME` or `source=…,target=…,uid=…,gid=…,mode=…`.
pub fn request(text: &str) -> Result<FileRequest, String> {
    let mut request = FileRequest {
        source: String::new(),
        target: String::new(),
        uid: "0".to_owned(),
        gid: "0".to_owned(),
        mode: 0o444,
    };
    let fields = comma_fields(text)?;
    match fields.as_slice() {
        [name] if !name.contains('=') => {
            name.clone_into(&mut request.source);
        }
        fields => {
            for field in fields {
                let Some((key, value)) = field.split_once('=') else {
                    return Err(format!("invalid field '{field}' must be a key=value pair"));
                };
                match key.trim().to_lowercase().as_str() {
                    "source" | "src" => value.clone_into(&mut request.source),
                    "target" => value.clone_into(&mut request.target),
                    "uid" => value.clone_into(&mut request.uid),
                    "gid" => value.clone_into(&mut request.gid),
                    "mode" => {
                        request.mode = mode(value).ok_or_else(|| {
                            format!(
                                "invalid mode specified: {value:?}: write it in octal, as in 0440"
                            )
                        })?;
                    }
                    other => {
                        return Err(format!(
                            "invalid field: {other}: there are source, target, uid, gid and mode"
                        ));
                    }
                }
            }
        }
    }
    if request.source.is_empty() {
        return Err("source is required".to_owned());
    }
    if request.target.is_empty() {
        request.target.clone_from(&request.source);
    }
    Ok(request)
}

/// Go's way with whole numbers: `0440` and `0o440` are octal, `0x120` is hexadecimal, `288` is decimal.
fn mode(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.strip_prefix('0') {
        None | Some("") => text.parse().ok(),
        Some(rest) => match rest.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => u32::from_str_radix(rest.trim_start_matches(['o', 'O']), 8).ok(),
        },
    }
}

/// The API's references; `ids` is from name to id. A name without an id is refused, so is a target twice.
pub fn references(
    kind: Kind,
    requests: &[FileRequest],
    ids: &BTreeMap<String, String>,
) -> Result<Vec<Value>, String> {
    let mut list: Vec<Value> = Vec::new();
    for (position, request) in requests.iter().enumerate() {
        let word = kind.word();
        if requests[..position]
            .iter()
            .any(|other| other.target == request.target)
        {
            return Err(format!(
                "duplicate {word} target for {} not allowed",
                request.source
            ));
        }
        let Some(id) = ids.get(&request.source) else {
            return Err(format!(
                "{word} not found: {}: make it with ovnctl {word} create",
                request.source
            ));
        };
        list.push(json!({
            "File": {"Name": request.target, "UID": request.uid, "GID": request.gid, "Mode": request.mode},
            kind.id_field(): id,
            kind.name_field(): request.source,
        }));
    }
    Ok(list)
}

/// The references after an update; a removal goes by the name of the secret or config.
pub fn edited(kind: Kind, now: &[Value], add: Vec<Value>, remove: &[String]) -> Vec<Value> {
    let mut list: Vec<Value> = now
        .iter()
        .filter(|reference| {
            let name = reference[kind.name_field()].as_str().unwrap_or_default();
            !remove.iter().any(|gone| gone == name)
        })
        .cloned()
        .collect();
    list.extend(add);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long() {
        let made = |source: &str, target: &str, uid: &str, mode: u32| FileRequest {
            source: source.to_owned(),
            target: target.to_owned(),
            uid: uid.to_owned(),
            gid: "0".to_owned(),
            mode,
        };
        let cases = [
            ("pw", Some(made("pw", "pw", "0", 0o444))),
            (
                "source=pw,target=/x/y,uid=5,mode=0400",
                Some(made("pw", "/x/y", "5", 0o400)),
            ),
            ("src=pw", Some(made("pw", "pw", "0", 0o444))),
            ("source=pw,mode=288", Some(made("pw", "pw", "0", 0o440))),
            ("source=pw,mode=0o440", Some(made("pw", "pw", "0", 0o440))),
            ("source=pw,mode=rw", None),
            ("source=pw,mode=0999", None),
            ("target=x", None),
            ("source=pw,x", None),
            ("source=pw,bogus=1", None),
            ("", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(request(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn names_become_ids() {
        let ids = BTreeMap::from([("pw".to_owned(), "s1".to_owned())]);
        let read = |texts: &[&str]| {
            let requests: Vec<_> = texts.iter().map(|t| request(t).unwrap()).collect();
            references(Kind::Secret, &requests, &ids)
        };
        assert_eq!(
            read(&["pw"]).unwrap(),
            [
                json!({"File": {"Name": "pw", "UID": "0", "GID": "0", "Mode": 0o444}, "SecretID": "s1", "SecretName": "pw"})
            ]
        );
        assert!(
            read(&["nope"])
                .unwrap_err()
                .starts_with("secret not found: nope")
        );
        assert_eq!(
            read(&["pw", "pw"]).unwrap_err(),
            "duplicate secret target for pw not allowed"
        );
        let now = read(&["pw"]).unwrap();
        assert!(edited(Kind::Secret, &now, Vec::new(), &["pw".to_owned()]).is_empty());
    }
}
