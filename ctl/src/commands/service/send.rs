//! Sending services to the daemon: images pinned, credentials added, warnings printed.

use serde_json::{Map, Value, json};

use crate::commands::text;
use crate::credentials::{Credentials, encode};
use crate::failure::Failure;
use crate::flags::service::edit::put;
use crate::reference::Reference;
use crate::session::Session;

/// Where the daemon takes the credentials of an update from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// This header.
    Header(String),
    /// The specification before this update.
    FromSpec,
    /// Nothing is said.
    Unsaid,
}

/// Makes a service and returns its id.
pub async fn create(
    session: &Session,
    spec: &Value,
    auth: Option<&str>,
) -> Result<String, Failure> {
    let call = session.client().await?.post("/services/create").json(spec);
    let call = match auth {
        Some(header) => call.header("x-registry-auth", header),
        None => call,
    };
    let answer = call.value().await?;
    warn(session, &answer);
    Ok(text(&answer, "/ID").to_owned())
}

/// Sends the complete specification of a service that was read before; `service` is the object as read.
pub async fn update(
    session: &Session,
    service: &Value,
    spec: &Value,
    auth: &Auth,
    rollback: bool,
) -> Result<(), Failure> {
    let version = service
        .pointer("/Version/Index")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    let call = session
        .client()
        .await?
        .post(format!("/services/{}/update", text(service, "/ID")))
        .json(spec);
    let call = match auth {
        Auth::Header(header) => call.header("x-registry-auth", header.clone()),
        Auth::FromSpec => call.query("registryAuthFrom", "spec"),
        Auth::Unsaid => call,
    };
    let answer = call
        .maybe("rollback", rollback.then_some("previous"))
        .query("version", version)
        .value()
        .await?;
    warn(session, &answer);
    Ok(())
}

/// Reads a service as it was written, without defaults filled in.
pub async fn read(session: &Session, name: &str) -> Result<Value, Failure> {
    let client = session.client().await?;
    Ok(client
        .get(format!("/services/{name}"))
        .query("insertDefaults", "false")
        .value()
        .await?)
}

/// The stored credentials for an image's registry; without any an empty set, as Docker sends it.
pub fn credentials(session: &Session, image: &str) -> Result<String, Failure> {
    let credentials = Credentials::read(&session.surroundings.docker_folder())?;
    let known = Reference::parse(image)
        .ok()
        .and_then(|reference| credentials.header(reference.credential_key()));
    Ok(known.unwrap_or_else(|| encode(&json!({}))))
}

/// Writes the image with its digest, and the platforms it is made for, into a specification.
///
/// Asks the daemon, which asks the registry. When that fails the image stays by its tag and a
/// warning is printed: the hosts then pull it each for itself.
pub async fn pin(session: &Session, spec: &mut Value, auth: Option<&str>) -> Result<(), Failure> {
    let image = text(spec, "/TaskTemplate/ContainerSpec/Image").to_owned();
    let client = session.client().await?;
    let call = client.get(format!("/distribution/{image}/json"));
    let call = match auth {
        Some(header) => call.header("x-registry-auth", header),
        None => call,
    };
    let Ok(answer) = call.value().await else {
        session.note(&format!(
            "image {image} could not be accessed on a registry to record\nits digest. Each node will access {image} independently,\npossibly leading to different nodes running different\nversions of the image.\n"
        ));
        return Ok(());
    };
    let pinned = with_digest(&image, text(&answer, "/Descriptor/digest"));
    put(
        spec,
        &["TaskTemplate", "ContainerSpec", "Image"],
        json!(pinned),
    );
    let platforms = platforms(&answer);
    if !platforms.is_empty() {
        put(
            spec,
            &["TaskTemplate", "Placement", "Platforms"],
            Value::Array(platforms),
        );
    }
    Ok(())
}

/// Gives an image its tag when none is written; what is no reference stays, for the daemon to refuse.
pub fn with_tag(image: &str) -> String {
    match Reference::parse(image) {
        Ok(reference) => full(&reference, reference.digest.as_deref()),
        Err(_) => image.to_owned(),
    }
}

/// Gives a specification's image its tag.
pub fn tag(spec: &mut Value) {
    let image = with_tag(text(spec, "/TaskTemplate/ContainerSpec/Image"));
    put(
        spec,
        &["TaskTemplate", "ContainerSpec", "Image"],
        json!(image),
    );
}

fn with_digest(image: &str, digest: &str) -> String {
    match Reference::parse(image) {
        Ok(reference) if reference.digest.is_none() && !digest.is_empty() => {
            full(&reference, Some(digest))
        }
        _ => image.to_owned(),
    }
}

/// `NAME:TAG@DIGEST`; a digest alone gets no tag.
fn full(reference: &Reference, digest: Option<&str>) -> String {
    let tag = match (&reference.tag, &reference.digest) {
        (Some(tag), _) => format!(":{tag}"),
        (None, Some(_)) => String::new(),
        (None, None) => ":latest".to_owned(),
    };
    let digest = digest.map(|d| format!("@{d}")).unwrap_or_default();
    format!("{}{tag}{digest}", reference.familiar())
}

fn platforms(answer: &Value) -> Vec<Value> {
    answer["Platforms"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|platform| {
            let mut entry = Map::new();
            let word = |field: &str| platform[field].as_str().unwrap_or_default();
            // Variants of ARM are not told apart by nodes.
            let architecture = Some(word("architecture")).filter(|a| !a.is_empty() && *a != "arm");
            if let Some(architecture) = architecture {
                entry.insert("Architecture".to_owned(), json!(architecture));
            }
            if !word("os").is_empty() {
                entry.insert("OS".to_owned(), json!(word("os")));
            }
            Value::Object(entry)
        })
        .collect()
}

fn warn(session: &Session, answer: &Value) {
    for warning in answer["Warnings"].as_array().into_iter().flatten() {
        session.note(warning.as_str().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_get_tag_and_digest() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let cases = [
            ("a", "a:latest", format!("a:latest@{digest}")),
            ("a:1", "a:1", format!("a:1@{digest}")),
            ("docker.io/library/a:1", "a:1", format!("a:1@{digest}")),
            (
                "registry:5000/x/y",
                "registry:5000/x/y:latest",
                format!("registry:5000/x/y:latest@{digest}"),
            ),
            ("UPPER", "UPPER", "UPPER".to_owned()),
        ];
        for (image, tagged, pinned) in cases {
            assert_eq!(with_tag(image), tagged);
            assert_eq!(with_digest(image, &digest), pinned);
        }
        let fixed = format!("a@{digest}");
        assert_eq!(with_tag(&fixed), fixed);
        assert_eq!(with_digest(&fixed, "sha256:other"), fixed);
        assert_eq!(with_digest("a:1", ""), "a:1");
    }
}
