//! What hosts are told and what they say back.

mod sessions;
mod sight;

pub use sessions::Sessions;
pub use sight::{assignments, increment};
