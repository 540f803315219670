//! Which images there are and what they are called. Plain data; written to disk as one file,
//! so that a reader sees all of a change or nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use model::Refusal;
use serde::{Deserialize, Serialize};

use super::{
    digest::Digest,
    image::{Removed, Use},
    reference::{Reference, familiar},
};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// By image id.
    pub images: BTreeMap<Digest, Record>,
    /// Full names with tag (`docker.io/library/busybox:latest`) and the image they mean.
    pub tags: BTreeMap<String, Digest>,
    /// Full names with digest (`docker.io/library/busybox@sha256:...`) and the image.
    pub digests: BTreeMap<String, Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub manifest: Digest,
    pub manifest_type: String,
    /// Lowest first.
    pub layers: Vec<LayerRecord>,
    /// Bytes of the files of all layers.
    pub size: u64,
    /// Unix seconds.
    pub last_tagged: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    pub chain: Digest,
    /// The layer as the registry has it, compressed.
    pub blob: Digest,
    pub media_type: String,
    pub blob_size: u64,
}

/// How a text led to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// By id or a part of it.
    Id(Digest),
    /// By this full name with tag or digest.
    Name(String, Digest),
}

impl Found {
    pub fn id(&self) -> &Digest {
        match self {
            Self::Id(id) | Self::Name(_, id) => id,
        }
    }
}

impl Catalog {
    /// Docker's order: a whole id, a name, the beginning of an id.
    pub fn find(&self, text: &str) -> Result<Found, Refusal> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(id) = format!("sha256:{hex}").parse::<Digest>()
            && self.images.contains_key(&id)
        {
            return Ok(Found::Id(id));
        }
        let name = text.parse::<Reference>().map(Reference::or_latest);
        if let Ok(name) = &name {
            let key = key(name);
            let table = if name.digest().is_some() {
                &self.digests
            } else {
                &self.tags
            };
            if let Some(id) = table.get(&key) {
                return Ok(Found::Name(key, id.clone()));
            }
        }
        if !hex.is_empty()
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            let mut fitting = self.images.keys().filter(|id| id.hex().starts_with(hex));
            match (fitting.next(), fitting.next()) {
                (Some(id), None) => return Ok(Found::Id(id.clone())),
                (Some(_), Some(_)) => {
                    return Err(Refusal::invalid(format!(
                        "{text} is ambiguous: more than one image id begins so; give more digits"
                    )));
                }
                _ => {}
            }
        }
        Err(Refusal::not_found(format!(
            "No such image: {}",
            name.map_or_else(|_| text.to_owned(), |name| name.familiar())
        )))
    }

    /// Points a name at an image that is there.
    pub fn name(&mut self, name: &Reference, id: &Digest) {
        let table = if name.digest().is_some() {
            &mut self.digests
        } else {
            &mut self.tags
        };
        table.insert(key(name), id.clone());
    }

    /// Full names with tag, sorted.
    pub fn tags_of(&self, id: &Digest) -> Vec<&str> {
        names_of(&self.tags, id)
    }

    /// Full names with digest, sorted.
    pub fn digests_of(&self, id: &Digest) -> Vec<&str> {
        names_of(&self.digests, id)
    }

    /// Docker's `rmi`: gives the lines of the answer and changes the catalogue, or tells why
    /// not and changes nothing.
    pub fn remove(
        &mut self,
        text: &str,
        force: bool,
        uses: &dyn Fn(&Digest) -> Vec<Use>,
    ) -> Result<Vec<Removed>, Refusal> {
        let found = self.find(text)?;
        let id = found.id().clone();
        let uses = uses(&id);
        let running = uses.iter().find(|user| user.running);
        let user = running.or(uses.first());
        match found {
            Found::Name(name, _) => {
                let last = self.tags_of(&id).len() + self.digests_of(&id).len() == 1
                    || (self.tags_of(&id) == [name.as_str()]
                        && self
                            .digests_of(&id)
                            .iter()
                            .all(|d| repository(d) == repository(&name)));
                if let (true, false, Some(user)) = (last, force, user) {
                    return Err(Refusal::conflict(format!(
                        "conflict: unable to remove repository reference {text:?} (must force) - \
                         container {} is using its referenced image {}",
                        user.container,
                        id.short()
                    )));
                }
                let mut lines: Vec<_> = self.untag(&name).into_iter().collect();
                if self.tags_of(&id).is_empty() {
                    let left: Vec<_> = self
                        .digests_of(&id)
                        .iter()
                        .map(|d| (*d).to_owned())
                        .collect();
                    let orphaned = left.iter().filter(|d| repository(d) == repository(&name));
                    for digest in orphaned {
                        lines.extend(self.untag(digest));
                    }
                }
                // A used image stays under its id, as Docker keeps it for the container.
                if self.nameless(&id) && uses.is_empty() {
                    lines.extend(self.drop_image(&id));
                }
                Ok(lines)
            }
            Found::Id(_) => {
                if let Some(user) = running {
                    return Err(Refusal::conflict(format!(
                        "conflict: unable to delete {} (cannot be forced) - image is being used \
                         by running container {}",
                        id.short(),
                        user.container
                    )));
                }
                let repositories: BTreeSet<_> = self
                    .tags_of(&id)
                    .into_iter()
                    .chain(self.digests_of(&id))
                    .map(repository)
                    .collect();
                if repositories.len() > 1 && !force {
                    return Err(Refusal::conflict(format!(
                        "conflict: unable to delete {} (must be forced) - image is referenced in \
                         multiple repositories",
                        id.short()
                    )));
                }
                if let (false, Some(user)) = (force, user) {
                    return Err(Refusal::conflict(format!(
                        "conflict: unable to delete {} (must be forced) - image is being used by \
                         stopped container {}",
                        id.short(),
                        user.container
                    )));
                }
                let names: Vec<_> = self
                    .tags_of(&id)
                    .into_iter()
                    .chain(self.digests_of(&id))
                    .collect();
                let names: Vec<_> = names.into_iter().map(ToOwned::to_owned).collect();
                let mut lines: Vec<_> = names.iter().filter_map(|name| self.untag(name)).collect();
                lines.extend(self.drop_image(&id));
                Ok(lines)
            }
        }
    }

    /// Whether only its id leads to an image.
    pub fn nameless(&self, id: &Digest) -> bool {
        self.tags_of(id).is_empty() && self.digests_of(id).is_empty()
    }

    pub fn drop_image(&mut self, id: &Digest) -> Option<Removed> {
        self.images
            .remove(id)
            .map(|_| Removed::Deleted(id.to_string()))
    }

    /// Takes one full name away.
    pub fn untag(&mut self, name: &str) -> Option<Removed> {
        self.tags
            .remove(name)
            .or_else(|| self.digests.remove(name))
            .map(|_| Removed::Untagged(familiar(name).to_owned()))
    }

    /// Everything on disk that the images need.
    pub fn wanted(&self) -> (BTreeSet<Digest>, BTreeSet<Digest>) {
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for (id, record) in &self.images {
            blobs.insert(id.clone());
            blobs.insert(record.manifest.clone());
            for layer in &record.layers {
                blobs.insert(layer.blob.clone());
                layers.insert(layer.chain.clone());
            }
        }
        (blobs, layers)
    }
}

fn key(name: &Reference) -> String {
    match name.digest() {
        Some(digest) => format!("{}@{digest}", name.name()),
        None => name.to_string(),
    }
}

/// Without tag or digest.
fn repository(full: &str) -> &str {
    if let Some((name, _)) = full.split_once('@') {
        return name;
    }
    full.rsplit_once(':').map_or(full, |(name, _)| name)
}

fn names_of<'a>(table: &'a BTreeMap<String, Digest>, id: &Digest) -> Vec<&'a str> {
    table
        .iter()
        .filter(|(_, to)| *to == id)
        .map(|(name, _)| name.as_str())
        .collect()
}

#[cfg(test)]
mod tests;
