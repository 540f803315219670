//! Docker's client settings, `~/.docker/config.json`: the credentials and the formats of lists in it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Map, Value, json};

/// The file, read whole so that what we do not know survives a write.
#[derive(Debug)]
pub struct Credentials {
    path: PathBuf,
    content: Map<String, Value>,
}

impl Credentials {
    /// Reads `FOLDER/config.json`; no file is an empty one.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("config.json");
        let content = match fs::read_to_string(&path) {
            Ok(text) => match serde_json::from_str(&text) {
                Ok(Value::Object(content)) => content,
                Ok(_) => return Err(format!("{} holds no JSON object", path.display())),
                Err(error) => return Err(format!("{} is not valid JSON: {error}", path.display())),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        Ok(Self { path, content })
    }

    /// The file's name, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A setting that is a text, such as `servicesFormat`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.content
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    /// The name of a credential helper that is set for this registry; we do not run them.
    pub fn helper(&self, key: &str) -> Option<&str> {
        self.content
            .get("credHelpers")
            .and_then(|h| h.get(key))
            .or_else(|| self.content.get("credsStore"))
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
    }

    /// The value of X-Registry-Auth for a registry; `None` without stored credentials.
    pub fn header(&self, key: &str) -> Option<String> {
        let auths = self.content.get("auths")?.as_object()?;
        let bare = |text: &str| {
            let text = text
                .trim_start_matches("https://")
                .trim_start_matches("http://");
            text.split('/').next().unwrap_or(text).to_owned()
        };
        let entry = auths.get(key).or_else(|| {
            auths
                .iter()
                .find(|(k, _)| bare(k) == bare(key))
                .map(|(_, v)| v)
        })?;
        let mut answer = Map::new();
        if let Some(pair) = entry
            .get("auth")
            .and_then(Value::as_str)
            .filter(|a| !a.is_empty())
        {
            let text = String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()?;
            let (user, password) = text.split_once(':')?;
            answer.insert("username".to_owned(), json!(user));
            answer.insert(
                "password".to_owned(),
                json!(password.trim_end_matches('\0')),
            );
        }
        if let Some(token) = entry
            .get("identitytoken")
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
        {
            answer.insert("identitytoken".to_owned(), json!(token));
        }
        if answer.is_empty() {
            return None;
        }
        answer.insert("serveraddress".to_owned(), json!(key));
        Some(encode(&Value::Object(answer)))
    }

    /// Stores a user and password, or an identity token.
    pub fn store(
        &mut self,
        key: &str,
        user: &str,
        password: &str,
        token: Option<&str>,
    ) -> Result<(), String> {
        let mut entry = Map::new();
        match token.filter(|t| !t.is_empty()) {
            Some(token) => {
                entry.insert(
                    "auth".to_owned(),
                    json!(STANDARD.encode(format!("{user}:"))),
                );
                entry.insert("identitytoken".to_owned(), json!(token));
            }
            None => drop(entry.insert(
                "auth".to_owned(),
                json!(STANDARD.encode(format!("{user}:{password}"))),
            )),
        }
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        match auths {
            Value::Object(auths) => drop(auths.insert(key.to_owned(), Value::Object(entry))),
            other => *other = json!({key: entry}),
        }
        self.write()
    }

    /// Forgets a registry; false when nothing was stored.
    pub fn forget(&mut self, key: &str) -> Result<bool, String> {
        let removed = self
            .content
            .get_mut("auths")
            .and_then(Value::as_object_mut)
            .and_then(|auths| auths.remove(key))
            .is_some();
        if removed {
            self.write()?;
        }
        Ok(removed)
    }

    /// Writes beside and renames, readable by the owner only.
    fn write(&self) -> Result<(), String> {
        let failed =
            |error: std::io::Error| format!("cannot write {}: {error}", self.path.display());
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(failed)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let beside = self
            .path
            .with_extension(format!("json.{}", std::process::id()));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(failed)?;
        let text = serde_json::to_string_pretty(&self.content).map_err(|e| e.to_string())?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        fs::rename(&beside, &self.path).map_err(failed)
    }
}

/// JSON in URL-safe base64, the form of X-Registry-Auth.
pub fn encode(value: &Value) -> String {
    URL_SAFE.encode(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(header: &str) -> Value {
        serde_json::from_slice(&URL_SAFE.decode(header).unwrap()).unwrap()
    }

    #[test]
    fn stored_credentials_come_back_and_strangers_survive() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("config.json"),
            r#"{"psFormat":"x","auths":{"a.example":{}}}"#,
        )
        .unwrap();
        let mut credentials = Credentials::read(folder.path()).unwrap();
        credentials
            .store("registry:5000", "me", "s:ecret", None)
            .unwrap();
        let mut again = Credentials::read(folder.path()).unwrap();
        assert_eq!(
            decoded(&again.header("registry:5000").unwrap()),
            json!({"username": "me", "password": "s:ecret", "serveraddress": "registry:5000"})
        );
        assert_eq!(again.header("a.example"), None);
        assert_eq!(again.content["psFormat"], "x");
        let mode = fs::metadata(again.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(again.forget("registry:5000").unwrap());
        assert!(!again.forget("registry:5000").unwrap());
        assert_eq!(
            Credentials::read(folder.path())
                .unwrap()
                .header("registry:5000"),
            None
        );
    }

    #[test]
    fn a_url_as_key_is_found_by_its_host() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("config.json"),
            r#"{"auths":{"https://r.example/v2/":{"auth":"bWU6cHc="}},"credsStore":"pass"}"#,
        )
        .unwrap();
        let credentials = Credentials::read(folder.path()).unwrap();
        assert_eq!(
            decoded(&credentials.header("r.example").unwrap())["username"],
            "me"
        );
        assert_eq!(credentials.helper("r.example"), Some("pass"));
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), "{").unwrap();
        assert!(
            Credentials::read(folder.path())
                .unwrap_err()
                .contains("config.json")
        );
    }
}
