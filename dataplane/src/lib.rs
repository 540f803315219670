//! The networks of one host: wish, sight, deed.

pub mod desired;
pub mod dns;
pub mod firewall;
pub mod kernel;
pub mod netlink;
pub mod plan;
pub mod report;
pub mod rules;
pub mod view;
pub mod want;

pub use desired::{Change, Desired};
pub use plan::{Plan, Step, plan};
pub use report::{Error, Failure, Report, Standing, Status};
pub use view::Observed;
