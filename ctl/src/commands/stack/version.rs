//! Versions of secrets and configs: content cannot change, so changed content is a new object.
//!
//! The first version keeps the plain name; each later one is `NAME.<ten hex digits of its
//! content's digest>`. The digest is a label, so the same content is found again on every deploy,
//! also when it comes back. See docs/decisions/0008-versions-of-secrets-and-configs.md.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use ring::{digest, pbkdf2};
use serde_json::{Map, Value, json};

use crate::compose::convert::{Kind, Object};

/// The label with the digest of the content.
pub const CONTENT: &str = "overnet.content";
/// The label with the name of the first version.
pub const VERSION_OF: &str = "overnet.version-of";
/// Names of secrets and configs have at most so many bytes.
const LONGEST: usize = 64;
/// Slows down guessing a secret from its label; about 5 ms a secret.
const ROUNDS: NonZeroU32 = NonZeroU32::new(20_000).expect("not zero");

/// One wanted object with all that deciding needs.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// From the files.
    pub object: &'a Object,
    /// The value of [`CONTENT`].
    pub digest: String,
    /// Its name should the plain one be taken by other content.
    pub versioned: String,
}

/// An object of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `Version.Index`.
    pub version: u64,
    /// `Spec.Labels`.
    pub labels: Map<String, Value>,
    /// `Spec.Data` as it came, base64; never there for secrets.
    pub data: Option<String>,
}

/// What is to be done for one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make it under this name.
    Create(String),
    /// It is there; only its labels differ.
    Relabel(Found),
    /// It is there.
    Keep(Found),
}

impl<'a> Wanted<'a> {
    /// Works out digest and name.
    pub fn of(object: &'a Object) -> Self {
        let digest = digest_of(object);
        let short: String = digest
            .rsplit(':')
            .next()
            .unwrap_or_default()
            .chars()
            .take(10)
            .collect();
        let mut base = object.name.as_str();
        while base.len() + 1 + short.len() > LONGEST {
            let mut end = base.len() - 1;
            while !base.is_char_boundary(end) {
                end -= 1;
            }
            base = &base[..end];
        }
        Self {
            object,
            versioned: format!("{base}.{short}"),
            digest,
        }
    }

    /// All labels it shall have.
    pub fn labels(&self) -> Map<String, Value> {
        let mut labels = self.object.spec["Labels"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        labels.insert(CONTENT.to_owned(), json!(self.digest));
        labels.insert(VERSION_OF.to_owned(), json!(self.object.name));
        labels
    }

    /// Decides, given what has the plain name and what has the versioned one.
    pub fn decide(&self, plain: Option<&Found>, versioned: Option<&Found>) -> Step {
        match [plain, versioned]
            .into_iter()
            .flatten()
            .find(|found| self.is(found))
        {
            Some(found) if found.labels == self.labels() => Step::Keep(found.clone()),
            Some(found) => Step::Relabel(found.clone()),
            None if plain.is_none() => Step::Create(self.object.name.clone()),
            None => Step::Create(self.versioned.clone()),
        }
    }

    fn is(&self, found: &Found) -> bool {
        if let Some(digest) = found.labels.get(CONTENT) {
            return digest.as_str() == Some(&self.digest);
        }
        // Made by another client: a config can be read, a secret cannot.
        let fixed = self.object.spec.get("Templating").is_none();
        let wanted = self.object.content.as_deref().map(encode);
        fixed && found.data.is_some() && found.data == wanted
    }
}

/// Base64, as the API takes data.
pub fn encode(content: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(content)
}

fn digest_of(object: &Object) -> String {
    // Driver and template driver cannot change either.
    let around = format!(
        "{}\0{}\0{}\0",
        object.name, object.spec["Driver"], object.spec["Templating"]
    );
    let mut whole = around.into_bytes();
    whole.extend(object.content.as_deref().unwrap_or_default());
    let (kind, bytes) = match object.kind {
        Kind::Config => (
            "sha256",
            digest::digest(&digest::SHA256, &whole).as_ref().to_vec(),
        ),
        Kind::Secret => {
            let mut out = vec![0; 32];
            pbkdf2::derive(
                pbkdf2::PBKDF2_HMAC_SHA256,
                ROUNDS,
                object.name.as_bytes(),
                &whole,
                &mut out,
            );
            ("pbkdf2", out)
        }
    };
    let mut text = format!("{kind}:");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: Kind, content: &str) -> Object {
        Object {
            kind,
            name: "web_site".to_owned(),
            content: Some(content.as_bytes().to_vec()),
            spec: json!({"Labels": {"com.docker.stack.namespace": "web"}}),
        }
    }

    fn found(wanted: &Wanted<'_>, name: &str) -> Found {
        Found {
            id: "id".to_owned(),
            name: name.to_owned(),
            version: 7,
            labels: wanted.labels(),
            data: None,
        }
    }

    #[test]
    fn the_first_version_has_the_plain_name_and_old_content_is_found_again() {
        for kind in [Kind::Config, Kind::Secret] {
            let (one, two) = (object(kind, "one"), object(kind, "two"));
            let (one, two) = (Wanted::of(&one), Wanted::of(&two));
            assert_eq!(one.decide(None, None), Step::Create("web_site".to_owned()));
            let plain = found(&one, "web_site");
            assert_eq!(one.decide(Some(&plain), None), Step::Keep(plain.clone()));
            let Step::Create(name) = two.decide(Some(&plain), None) else {
                panic!("changed content must become a new object");
            };
            assert!(
                name.starts_with("web_site.") && name.len() == "web_site.".len() + 10,
                "{name}"
            );
            let second = found(&two, &name);
            assert_eq!(
                two.decide(Some(&plain), Some(&second)),
                Step::Keep(second.clone())
            );
            assert_eq!(one.decide(Some(&plain), Some(&second)), Step::Keep(plain));
        }
    }

    #[test]
    fn changed_labels_and_strangers() {
        let config = object(Kind::Config, "one");
        let wanted = Wanted::of(&config);
        let mut other = found(&wanted, "web_site");
        other.labels.insert("x".to_owned(), json!("y"));
        assert!(matches!(
            wanted.decide(Some(&other), None),
            Step::Relabel(_)
        ));
        // Made by Docker's client: no label of ours.
        other.labels.clear();
        other.data = Some(encode(b"one"));
        assert!(matches!(
            wanted.decide(Some(&other), None),
            Step::Relabel(_)
        ));
        other.data = Some(encode(b"else"));
        assert!(matches!(wanted.decide(Some(&other), None), Step::Create(_)));
        let secret = object(Kind::Secret, "one");
        let wanted = Wanted::of(&secret);
        other.data = None;
        assert!(matches!(wanted.decide(Some(&other), None), Step::Create(_)));
    }

    #[test]
    fn long_names_are_cut_to_fit() {
        let mut config = object(Kind::Config, "one");
        config.name = "n".repeat(64);
        assert_eq!(Wanted::of(&config).versioned.len(), 64);
    }

    #[test]
    fn a_digest_says_nothing_plain() {
        let secret = object(Kind::Secret, "hunter2");
        let wanted = Wanted::of(&secret);
        assert!(!format!("{:?} {:?}", wanted.object, wanted.labels()).contains("hunter2"));
        assert!(wanted.digest.starts_with("pbkdf2:"));
    }
}
