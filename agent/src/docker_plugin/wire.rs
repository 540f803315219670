//! What Docker says to a network plugin and hears from it: `docs/ipam.md` and `docs/remote.md` of
//! libnetwork.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub type Options = BTreeMap<String, Value>;

/// Of `NetworkDriver.CreateNetwork`; others name the network alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NetworkRequest {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "Options")]
    pub options: Options,
    #[serde(rename = "IPv4Data")]
    pub ipv4: Vec<PoolData>,
    #[serde(rename = "IPv6Data")]
    pub ipv6: Vec<PoolData>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PoolData {
    pub pool: String,
}

/// Of all that concern an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointRequest {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
    #[serde(rename = "Interface")]
    pub interface: Interface,
    #[serde(rename = "Options")]
    pub options: Options,
    #[serde(rename = "SandboxKey")]
    pub sandbox: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    #[serde(rename = "Address", skip_serializing_if = "String::is_empty")]
    pub address: String,
    #[serde(rename = "AddressIPv6", skip_serializing_if = "String::is_empty")]
    pub address_ipv6: String,
    #[serde(rename = "MacAddress", skip_serializing_if = "String::is_empty")]
    pub mac: String,
}

/// Of all that an address manager is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AddressRequest {
    pub pool: String,
    pub sub_pool: String,
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    pub address: String,
    pub options: BTreeMap<String, String>,
    #[serde(rename = "V6")]
    pub ipv6: bool,
}
