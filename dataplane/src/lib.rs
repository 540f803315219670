//! The networks of one host: wish, sight, deed.

pub mod addresses;
pub mod balance;
pub mod conntrack;
pub mod desired;
pub mod dns;
pub mod encryption;
pub mod firewall;
pub mod guests;
mod handle;
pub mod ingress;
pub mod kernel;
pub mod netlink;
mod orders;
pub mod parts;
pub mod paths;
pub mod plan;
pub mod report;
pub mod rows;
pub mod rules;
pub mod traffic;
pub mod view;
pub mod want;
pub mod wireguard;
mod worker;

pub use desired::{Change, Desired};
pub use handle::{Config, Dataplane};
pub use plan::{Plan, Step, plan};
pub use report::{Counted, Counters, Error, Failure, Report, Standing, Status, TUNNELS};
pub use view::Observed;
