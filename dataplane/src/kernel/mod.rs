//! The kernel of this host: namespaces, rtnetlink messages and how they are read back.

pub mod links;
pub mod place;
pub mod sight;
