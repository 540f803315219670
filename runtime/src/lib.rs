//! Images and containers of one host.

pub mod engine;
pub mod images;
pub mod network;
pub mod oci;
