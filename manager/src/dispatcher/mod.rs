//! What hosts are told and what they say back.

mod report;
mod sessions;
mod sight;

pub use report::report;
pub use sessions::Sessions;
pub use sight::{assignments, increment};
