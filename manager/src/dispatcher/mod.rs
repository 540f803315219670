//! What hosts are told and what they say back.

mod opening;
mod orphans;
mod paths;
mod report;
mod sessions;
mod sight;
mod step;
#[cfg(test)]
mod tests;

pub use opening::opens;
pub(crate) use orphans::OrphansLoop;
pub use orphans::orphans;
pub use paths::PathDesk;
pub use report::{lost, report, returned};
pub use sessions::{REST, Sessions};
pub use sight::assignments;
pub use step::increment;
