//! Images and containers of one host.

pub mod images;
pub mod engine;
pub mod network;
pub mod oci;
