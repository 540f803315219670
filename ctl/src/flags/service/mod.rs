//! The flags of `service create` and `service update`, and the specification they become.
//!
//! Reading a flag is in [`value`], [`port`] and [`mod@file`]; what the two commands share is in
//! [`container`] and [`policy`], which edit a specification; [`create`] begins with Docker's
//! skeleton, [`update`] with what the daemon has. All of it is pure: names of networks, secrets
//! and configs come resolved in [`References`].

pub mod container;
pub mod create;
pub mod edit;
pub mod file;
pub mod policy;
pub mod port;
pub mod update;
pub mod value;

use std::collections::BTreeMap;

pub use create::CreateFlags;
pub use update::UpdateFlags;

/// Ids of what the flags name, from name to id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Networks.
    pub networks: BTreeMap<String, String>,
    /// Secrets.
    pub secrets: BTreeMap<String, String>,
    /// Configs.
    pub configs: BTreeMap<String, String>,
}
