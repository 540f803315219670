//! Images and containers of one host.

pub mod network;
