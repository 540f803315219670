//! Raw streams.
