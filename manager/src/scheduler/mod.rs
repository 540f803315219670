//! Gives tasks their nodes.

pub mod constraint;
