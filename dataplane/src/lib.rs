//! The networks of one host: wish, sight, deed.

pub mod desired;
pub mod dns;

pub use desired::{Change, Desired};
