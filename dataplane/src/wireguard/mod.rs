//! WireGuard in user space, for kernels without it: one process for each device, which outlives
//! the daemon, so that what travels goes on when the daemon is killed.
//!
//! [`device`] is the protocol (the library's) with our peers, without a socket; [`process`] has the
//! sockets; [`uapi`] is what the daemon and the process say to each other.

pub mod device;
pub mod keys;
pub mod process;
pub mod uapi;

pub use keys::{PrivateKey, PublicKey};
