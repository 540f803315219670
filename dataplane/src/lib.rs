//! The networks of one host: wish, sight, deed.

pub mod desired;

pub use desired::{Change, Desired};
