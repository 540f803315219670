//! The lab: hosts as namespaces on one machine, each with a real `ovnd`.
//!
//! Tests use it as a library ([`Lab::up`]), people as the program `lab`. Nothing of a lab is
//! in the machine's own network namespace or mount table: the switch that joins the hosts has
//! a namespace of its own, so two labs differ only in their folder and their control group.

pub mod asker;
pub mod browser;
pub mod http;
pub mod images;
pub mod keeper;
pub mod lab;
pub mod load;
pub mod page;
pub mod recorded;
pub mod wait;
pub mod yardstick;

pub use lab::{Host, Lab, Options, Output};
