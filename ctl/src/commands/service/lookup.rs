//! Ids of the networks, secrets and configs that flags name.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::commands::text;
use crate::failure::Failure;
use crate::flags::Filters;
use crate::flags::service::References;
use crate::session::Session;

/// Names to look up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Networks, by name or id.
    pub networks: Vec<String>,
    /// Secrets, by name.
    pub secrets: Vec<String>,
    /// Configs, by name.
    pub configs: Vec<String>,
}

/// Asks for all of them; a network that is not there is an error, a secret or config is left out.
pub async fn look_up(session: &Session, wanted: &Wanted) -> Result<References, Failure> {
    let client = session.client().await?;
    let mut found = References::default();
    for name in &wanted.networks {
        if found.networks.contains_key(name) {
            continue;
        }
        let network = client
            .get(format!("/networks/{name}"))
            .query("scope", "swarm")
            .value()
            .await?;
        found
            .networks
            .insert(name.clone(), text(&network, "/Id").to_owned());
    }
    found.secrets = by_name(session, "/secrets", &wanted.secrets).await?;
    found.configs = by_name(session, "/configs", &wanted.configs).await?;
    Ok(found)
}

async fn by_name(
    session: &Session,
    path: &str,
    names: &[String],
) -> Result<BTreeMap<String, String>, Failure> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut filters = Filters::default();
    for name in names {
        filters.add("name", name);
    }
    let answer = session
        .client()
        .await?
        .get(path)
        .filters(&filters)
        .value()
        .await?;
    // The filter goes by prefix; the map keeps whole names apart.
    Ok(answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|object: &Value| {
            (
                text(object, "/Spec/Name").to_owned(),
                text(object, "/ID").to_owned(),
            )
        })
        .collect())
}
