//! How things are printed: tables, units, times, listings.

pub mod listing;
pub mod table;
pub mod units;
pub mod when;

pub use listing::Listing;
