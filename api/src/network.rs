//! Networks: `/networks…`.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use model::{Endpoint, Network, NetworkSpec, Refusal, network};
use serde::{Deserialize, Serialize};

use crate::timestamp;

/// What `GET /networks/{x}` answers, and each entry of `GET /networks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkView {
    pub name: String,
    pub id: String,
    pub created: String,
    /// `local` or `swarm`.
    pub scope: String,
    pub driver: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_from: ConfigFrom,
    pub config_only: bool,
    /// The containers of this host by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<BTreeMap<String, ContainerOnNetwork>>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    /// Only when asked with `verbose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<BTreeMap<String, ServiceOnNetwork>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ipam {
    pub driver: String,
    pub options: Option<BTreeMap<String, String>>,
    pub config: Vec<IpamConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    #[serde(
        rename = "AuxiliaryAddresses",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub auxiliary_addresses: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigFrom {
    pub network: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerOnNetwork {
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub mac_address: String,
    /// With its prefix length.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Peer {
    pub name: String,
    #[serde(rename = "IP")]
    pub ip: String,
}

/// One entry of the verbose `Services`; attached containers stand under the empty name, as
/// Docker shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceOnNetwork {
    #[serde(rename = "VIP")]
    pub vip: String,
    pub ports: Vec<String>,
    #[serde(rename = "LocalLBIndex")]
    pub local_lb_index: u32,
    pub tasks: Vec<TaskOnNetwork>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskOnNetwork {
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    #[serde(rename = "EndpointIP")]
    pub endpoint_ip: String,
    pub info: BTreeMap<String, String>,
}

/// `POST /networks/create`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateRequest {
    pub name: String,
    pub check_duplicate: Option<bool>,
    pub driver: String,
    pub scope: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    pub ipam: Option<Ipam>,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_only: bool,
    pub config_from: Option<ConfigFrom>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    pub id: String,
    pub warning: String,
}

/// `POST /networks/{x}/connect`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConnectRequest {
    pub container: String,
    pub endpoint_config: Option<bollard_stubs::models::EndpointSettings>,
}

/// `POST /networks/{x}/disconnect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DisconnectRequest {
    pub container: String,
    pub force: bool,
}

impl CreateRequest {
    /// The driver that is meant: `bridge` when none is named.
    pub fn driver(&self) -> &str {
        if self.driver.is_empty() {
            "bridge"
        } else {
            &self.driver
        }
    }

    /// What is asked for, of the cluster (driver overlay) or of this host. Refused, naming the
    /// option: what no network has.
    pub fn to_spec(self) -> Result<NetworkSpec, Refusal> {
        let name = &self.name;
        let refuse = |what: &str| Err(Refusal::invalid(format!("network {name}: {what}")));
        let driver = self.driver().to_owned();
        let (own, other, instead) = if driver == "overlay" {
            ("swarm", "local", "bridge")
        } else {
            ("local", "swarm", "overlay")
        };
        match self.scope.as_str() {
            "" => {}
            scope if scope == own => {}
            scope if scope == other => {
                return refuse(&format!(
                    "driver {driver} makes networks of scope {own}; leave out scope {other}, or use the driver {instead}"
                ));
            }
            other => return refuse(&format!("scope {other:?} is neither local nor swarm")),
        }
        if self.config_only
            || self
                .config_from
                .as_ref()
                .is_some_and(|from| !from.network.is_empty())
        {
            return Err(Refusal::not_implemented(format!(
                "network {name}: --config-only and --config-from are not there yet; give the options directly"
            )));
        }
        if self.enable_ipv4 == Some(false) {
            return refuse("a network always has IPv4; leave out --ipv4=false");
        }
        let ipam = self.ipam.unwrap_or_default();
        let config = ipam
            .config
            .iter()
            .map(|entry| entry.to_model(name))
            .collect::<Result<_, _>>()?;
        Ok(NetworkSpec {
            driver,
            labels: self.labels,
            options: self.options,
            internal: self.internal,
            attachable: self.attachable,
            ingress: self.ingress,
            ipv6: self.enable_ipv6.unwrap_or(false),
            ipam_driver: if ipam.driver.is_empty() {
                "default".to_owned()
            } else {
                ipam.driver
            },
            ipam_options: ipam.options.unwrap_or_default(),
            ipam: config,
            name: self.name,
        })
    }
}

impl IpamConfig {
    fn of_subnet(subnet: &network::Subnet) -> Self {
        let reserved = subnet.aux_addresses.iter();
        Self {
            subnet: subnet.subnet.to_string(),
            ip_range: if subnet.range == subnet.subnet {
                String::new()
            } else {
                subnet.range.to_string()
            },
            gateway: subnet.gateway.to_string(),
            auxiliary_addresses: reserved
                .map(|(name, ip)| (name.clone(), ip.to_string()))
                .collect(),
        }
    }

    /// Reads the addresses, refusing the first one that is none.
    pub fn to_model(&self, network: &str) -> Result<network::IpamConfig, Refusal> {
        fn parse<T: std::str::FromStr>(
            network: &str,
            field: &str,
            example: &str,
            text: &str,
        ) -> Result<Option<T>, Refusal> {
            if text.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|_| {
                Refusal::invalid(format!(
                    "network {network}: {field} {text:?} is not understood; write it as {example}"
                ))
            })
        }
        // `IpNetwork` reads a bare address as a host prefix, which nobody means here.
        let prefix = |field: &str, text: &str| -> Result<Option<IpNetwork>, Refusal> {
            if !text.is_empty() && !text.contains('/') {
                return Err(Refusal::invalid(format!(
                    "network {network}: {field} {text:?} has no prefix length; write it as 10.1.0.0/24"
                )));
            }
            parse(network, field, "10.1.0.0/24", text)
        };
        let address = |field: &str, text: &str| -> Result<Option<IpAddr>, Refusal> {
            parse(network, field, "10.1.0.1", text)
        };
        Ok(network::IpamConfig {
            subnet: prefix("subnet", &self.subnet)?,
            ip_range: prefix("ip-range", &self.ip_range)?,
            gateway: address("gateway", &self.gateway)?,
            aux_addresses: self
                .auxiliary_addresses
                .iter()
                .map(|(host, text)| {
                    let found = address("aux-address", text)?.ok_or_else(|| {
                        Refusal::invalid(format!("network {network}: aux-address {host} is empty"))
                    })?;
                    Ok((host.clone(), found))
                })
                .collect::<Result<_, Refusal>>()?,
        })
    }
}

impl NetworkView {
    /// A cluster network without its containers.
    pub fn of_cluster(network: &Network) -> Self {
        let mut view = Self::of_spec(&network.spec, &network.subnets);
        view.id = network.id.to_string();
        view.created = timestamp::rfc3339(network.meta.created_at);
        "swarm".clone_into(&mut view.scope);
        // Docker shows the VNIs that were chosen where the user would have named them.
        view.options
            .entry(network::OPTION_VNI_LIST.to_owned())
            .or_insert_with(|| network.vni.to_string());
        view
    }

    /// A network that only one host knows, without its containers.
    pub fn of_local(
        id: &str,
        created_at: i64,
        spec: &NetworkSpec,
        subnets: &[network::Subnet],
    ) -> Self {
        let mut view = Self::of_spec(spec, subnets);
        id.clone_into(&mut view.id);
        view.created = timestamp::rfc3339(created_at);
        "local".clone_into(&mut view.scope);
        view
    }

    fn of_spec(spec: &NetworkSpec, subnets: &[network::Subnet]) -> Self {
        Self {
            name: spec.name.clone(),
            driver: spec.driver.clone(),
            enable_ipv4: true,
            enable_ipv6: spec.ipv6,
            ipam: Ipam {
                driver: if spec.ipam_driver.is_empty() {
                    "default".to_owned()
                } else {
                    spec.ipam_driver.clone()
                },
                options: (!spec.ipam_options.is_empty()).then(|| spec.ipam_options.clone()),
                config: subnets.iter().map(IpamConfig::of_subnet).collect(),
            },
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: spec.ingress,
            options: spec.options.clone(),
            labels: spec.labels.clone(),
            ..Self::default()
        }
    }
}

impl ContainerOnNetwork {
    /// An endpoint as `Containers` shows it, under its container's id.
    pub fn of_endpoint(endpoint: &Endpoint) -> (String, Self) {
        let find = |v4: bool| {
            endpoint
                .addresses
                .iter()
                .find(|address| address.is_ipv4() == v4)
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        (
            endpoint.owner.id().to_owned(),
            Self {
                name: endpoint.owner.name().to_owned(),
                endpoint_id: endpoint.id.to_string(),
                mac_address: endpoint.mac.to_string(),
                ipv4_address: find(true),
                ipv6_address: find(false),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;

    fn network() -> Network {
        Network {
            id: "netnetnetnetnetnetnetnetn".into(),
            meta: model::Meta {
                version: 7,
                created_at: 1_700_000_000_000_000_000,
                updated_at: 0,
                trace: None,
            },
            spec: NetworkSpec {
                name: "ch03".into(),
                driver: "overlay".into(),
                attachable: true,
                ..NetworkSpec::default()
            },
            vni: 4097,
            subnets: vec![network::Subnet {
                subnet: "10.0.1.0/24".parse().unwrap(),
                range: "10.0.1.0/24".parse().unwrap(),
                gateway: "10.0.1.1".parse().unwrap(),
                aux_addresses: BTreeMap::new(),
            }],
        }
    }

    #[test]
    fn a_cluster_network_as_docker_shows_it() {
        insta::assert_json_snapshot!(NetworkView::of_cluster(&network()), @r#"
        {
          "Name": "ch03",
          "Id": "netnetnetnetnetnetnetnetn",
          "Created": "2023-11-14T22:13:20Z",
          "Scope": "swarm",
          "Driver": "overlay",
          "EnableIPv4": true,
          "EnableIPv6": false,
          "IPAM": {
            "Driver": "default",
            "Options": null,
            "Config": [
              {
                "Subnet": "10.0.1.0/24",
                "Gateway": "10.0.1.1"
              }
            ]
          },
          "Internal": false,
          "Attachable": true,
          "Ingress": false,
          "ConfigFrom": {
            "Network": ""
          },
          "ConfigOnly": false,
          "Options": {
            "com.docker.network.driver.overlay.vxlanid_list": "4097"
          },
          "Labels": {}
        }
        "#);
    }

    #[test]
    fn the_clients_request_becomes_a_spec() {
        let body = r#"{"Name":"ch03","Driver":"overlay","Scope":"","IPAM":{"Driver":"default","Options":{},
            "Config":[{"Subnet":"10.9.0.0/24","IPRange":"10.9.0.128/25","Gateway":"10.9.0.1",
            "AuxiliaryAddresses":{"router":"10.9.0.2"}}]},"Internal":false,"Attachable":true,"Ingress":false,
            "ConfigOnly":false,"ConfigFrom":null,"Options":{},"Labels":{"a":"b"},"EnableIPv6":true}"#;
        let spec = body::read::<CreateRequest>(body.as_bytes())
            .unwrap()
            .to_spec()
            .unwrap();
        assert!(spec.attachable && spec.ipv6);
        assert_eq!(
            spec.ipam[0].ip_range,
            Some("10.9.0.128/25".parse().unwrap())
        );
        assert_eq!(
            spec.ipam[0].aux_addresses["router"],
            "10.9.0.2".parse::<IpAddr>().unwrap()
        );
        assert_eq!(spec.labels["a"], "b");
    }

    #[test]
    fn wrong_requests_are_refused_by_name() {
        for (body, status, words) in [
            (
                r#"{"Name":"n","Scope":"local","Driver":"overlay"}"#,
                400,
                "scope",
            ),
            (
                r#"{"Name":"n","Scope":"swarm","Driver":"bridge"}"#,
                400,
                "use the driver overlay",
            ),
            (r#"{"Name":"n","ConfigOnly":true}"#, 501, "config-only"),
            (
                r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.0"}]}}"#,
                400,
                "no prefix length",
            ),
            (
                r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.0/33"}]}}"#,
                400,
                "subnet \"10.0.0.0/33\"",
            ),
            (
                r#"{"Name":"n","IPAM":{"Config":[{"Gateway":"gate"}]}}"#,
                400,
                "gateway \"gate\"",
            ),
            (r#"{"Name":"n","EnableIPv4":false}"#, 400, "always has IPv4"),
        ] {
            let refusal = body::read::<CreateRequest>(body.as_bytes())
                .unwrap()
                .to_spec()
                .unwrap_err();
            assert_eq!(refusal.kind.status(), status, "{body}");
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
    }

    #[test]
    fn the_shape_reads_back() {
        let view = NetworkView::of_cluster(&network());
        let text = serde_json::to_vec(&view).unwrap();
        assert_eq!(body::read::<NetworkView>(&text).unwrap(), view);
    }
}
