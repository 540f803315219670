//! Network namespaces of others on overlay networks: `/overnet/attachments`.

use serde::{Deserialize, Serialize};

/// `POST /overnet/attachments`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AttachRequest {
    /// A file that the namespace is bound at, or `/proc/PID/ns/net`; as the daemon sees it.
    pub netns: String,
    /// Name or id of an attachable overlay network.
    pub network: String,
    /// In DNS; empty: made of the path.
    pub name: String,
    pub aliases: Vec<String>,
    /// Fixed ones, at most one of each family.
    #[serde(rename = "IPAddresses")]
    pub ip_addresses: Vec<String>,
    /// Name of the interface; empty: the next free one of `eth0`, `eth1`, ….
    pub interface: String,
    /// Give it a way out of the network and a default route.
    pub gateway: bool,
    /// What the caller calls the attachment, to find it again.
    pub owner: String,
}

/// One attachment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AttachmentView {
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub netns: String,
    pub owner: String,
    pub network: String,
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    pub interface: String,
    pub mac_address: String,
    /// With their prefix lengths, IPv4 first.
    #[serde(rename = "IPAddresses")]
    pub ip_addresses: Vec<String>,
    /// That DNS answers with the addresses, the canonical one first.
    pub names: Vec<String>,
    /// Absent where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<WayOut>,
    /// For the resolv.conf of the namespace.
    #[serde(rename = "DNS")]
    pub dns: Resolver,
    /// Hosts that had not confirmed in time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<String>,
    /// What the kernel has otherwise than it should; looked at only when asked with `check`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fault: String,
}

/// The interface over which a namespace reaches the outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WayOut {
    pub interface: String,
    pub mac_address: String,
    #[serde(rename = "IPAddresses")]
    pub ip_addresses: Vec<String>,
    /// Next hops of the default routes.
    pub via: Vec<String>,
}

/// What the lines of a resolv.conf should say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Resolver {
    pub nameservers: Vec<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}
