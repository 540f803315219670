//! Subnets, network identifiers and addresses: pure choices over the tables.

mod address;
mod subnet;

pub use address::{Choice, Next, Walk, choose};
pub use subnet::{choose_vni, resolve_subnets};
