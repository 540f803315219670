//! Compose files: from text to what a stack asks of the cluster, as pure functions.
//!
//! Reading order: [`read`] (YAML to a tree with places), [`interpolate`] (`${X}`), [`check`]
//! (every key against the table of [`keys`]), [`merge`] (several files, extends), [`load`] (all of
//! these in order), [`convert`] (the Engine API's requests). [`problem`] shows what is wrong.

pub mod check;
pub mod convert;
pub mod dotenv;
pub mod interpolate;
pub mod keys;
pub mod load;
pub mod merge;
pub mod node;
pub mod problem;
pub mod read;
pub mod suggest;
pub mod value;
pub mod write;
