//! Keys of the networks that are encrypted.

use serde::{Deserialize, Serialize};

/// What encrypts on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryptor {
    /// The kernel's WireGuard.
    Kernel,
    /// The library's, in a process of its own.
    Process,
    /// Neither can be; why, for people.
    Nothing(String),
}

/// A host's key for one generation of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelKey {
    pub generation: u64,
    /// Of Curve25519.
    pub public: [u8; 32],
    /// UDP port of WireGuard.
    pub port: u16,
}

/// What a host says of its part in encrypted networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEncryption {
    pub by: Encryptor,
    pub keys: Vec<TunnelKey>,
    /// Up to this generation it receives with every key that it has been told of.
    pub receives: u64,
    /// It sends with this generation.
    pub sends: u64,
    /// Why its encrypted networks do not work at the moment.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// Which generations of keys there are. While keys are rotated hosts have two: first all receive
/// with the next one, then all send with it, then the one before goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPhase {
    pub newest: u64,
    pub sending: u64,
    pub oldest: u64,
    /// Nanoseconds since the Unix epoch.
    pub since: i64,
}

impl KeyPhase {
    pub fn is_rotating(&self) -> bool {
        self.oldest != self.newest
    }
}
