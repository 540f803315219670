//! What hosts are told and what they say back.

mod concerns;
mod opening;
mod orphans;
mod paths;
mod post;
mod report;
mod sessions;
mod sight;
mod step;
#[cfg(test)]
mod tests;

pub use concerns::Concerns;
pub use opening::opens;
pub(crate) use orphans::OrphansLoop;
pub use orphans::orphans;
pub use paths::PathDesk;
pub use post::{Letter, Mailbox, Post};
pub use report::{lost, report, returned};
pub use sessions::{REST, Sessions};
pub use sight::assignments;
pub use step::increment;
