//! tests
pub mod keeper;
