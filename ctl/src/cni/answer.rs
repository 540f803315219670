//! What a runtime is answered: results and errors as the specification has them.

use api::attachment::AttachmentView;
use serde_json::{Map, Value, json};

/// The versions of the specification whose requests are understood, the newest last.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", NEWEST];
pub const NEWEST: &str = "1.1.0";

/// Codes of the specification.
pub const VERSION: u32 = 1;
pub const FIELD: u32 = 2;
pub const NO_CONTAINER: u32 = 3;
pub const ENVIRONMENT: u32 = 4;
pub const IO: u32 = 5;
pub const NOT_READ: u32 = 6;
pub const CONFIGURATION: u32 = 7;
pub const LATER: u32 = 11;
pub const NOT_AVAILABLE: u32 = 50;
/// From here on codes are the plugin's.
pub const OTHER: u32 = 100;

/// Why a request is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: u32,
    pub message: String,
    pub details: String,
}

impl Refusal {
    pub fn new(code: u32, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: details.into(),
        }
    }
}

pub fn refusal(version: &str, refusal: &Refusal) -> String {
    let mut body = json!({
        "cniVersion": version,
        "code": refusal.code,
        "msg": refusal.message,
    });
    if !refusal.details.is_empty() {
        body["details"] = json!(refusal.details);
    }
    format!("{body}\n")
}

/// Of `VERSION`.
pub fn versions(asked: &str) -> String {
    format!(
        "{}\n",
        json!({"cniVersion": asked, "supportedVersions": VERSIONS})
    )
}

/// Of `ADD`. `own_dns` is what the configuration says of the resolver: it goes before ours but
/// for the servers.
pub fn result(
    version: &str,
    attached: &AttachmentView,
    netns: &str,
    own_dns: &Map<String, Value>,
) -> String {
    let mut interfaces = vec![interface(&attached.interface, &attached.mac_address, netns)];
    let mut ips: Vec<Value> = addresses(version, &attached.ip_addresses, 0, &[]);
    let mut routes = Vec::new();
    if let Some(way) = &attached.gateway {
        interfaces.push(interface(&way.interface, &way.mac_address, netns));
        ips.extend(addresses(version, &way.ip_addresses, 1, &way.via));
        let default = |via: &String| {
            if via.contains(':') {
                "::/0"
            } else {
                "0.0.0.0/0"
            }
        };
        let route = |via: &String| json!({"dst": default(via), "gw": via});
        routes.extend(way.via.iter().map(route));
    }
    let mut dns = json!({
        "nameservers": attached.dns.nameservers,
        "search": attached.dns.search,
        "options": attached.dns.options,
    });
    for key in ["domain", "search", "options"] {
        if let Some(value) = own_dns.get(key) {
            dns[key] = value.clone();
        }
    }
    let body = json!({
        "cniVersion": version,
        "interfaces": interfaces,
        "ips": ips,
        "routes": routes,
        "dns": dns,
    });
    format!("{body}\n")
}

fn interface(name: &str, mac: &str, netns: &str) -> Value {
    json!({"name": name, "mac": mac, "sandbox": netns})
}

fn addresses(version: &str, texts: &[String], place: usize, via: &[String]) -> Vec<Value> {
    let is_ipv6 = |text: &str| text.contains(':');
    let one = |text: &String| {
        let mut ip = json!({"address": text, "interface": place});
        if let Some(via) = via.iter().find(|via| is_ipv6(via) == is_ipv6(text)) {
            ip["gateway"] = json!(via);
        }
        // Until 1.0.0 it stood beside the address.
        if version.starts_with("0.") {
            ip["version"] = json!(if is_ipv6(text) { "6" } else { "4" });
        }
        ip
    };
    texts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use api::attachment::{Resolver, WayOut};

    use super::*;

    fn attached() -> AttachmentView {
        AttachmentView {
            interface: "eth0".into(),
            mac_address: "02:42:0a:00:01:05".into(),
            ip_addresses: vec!["10.0.1.5/24".into(), "fd00::5/64".into()],
            dns: Resolver {
                nameservers: vec!["127.0.0.11".into()],
                search: vec!["a.example".into()],
                options: vec!["ndots:0".into()],
            },
            ..AttachmentView::default()
        }
    }

    #[test]
    fn a_result_is_of_the_version_that_was_asked_for() {
        let read = |version: &str, attached: &AttachmentView| -> Value {
            let text = result(version, attached, "/run/netns/x", &Map::new());
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(
            read("1.0.0", &attached()),
            json!({
                "cniVersion": "1.0.0",
                "interfaces": [{"name": "eth0", "mac": "02:42:0a:00:01:05", "sandbox": "/run/netns/x"}],
                "ips": [{"address": "10.0.1.5/24", "interface": 0}, {"address": "fd00::5/64", "interface": 0}],
                "routes": [],
                "dns": {"nameservers": ["127.0.0.11"], "search": ["a.example"], "options": ["ndots:0"]},
            })
        );
        assert_eq!(
            read("0.4.0", &attached())["ips"],
            json!([
                {"address": "10.0.1.5/24", "interface": 0, "version": "4"},
                {"address": "fd00::5/64", "interface": 0, "version": "6"},
            ])
        );
    }

    #[test]
    fn a_way_out_is_a_second_interface_with_the_default_route() {
        let way = WayOut {
            interface: "eth1".into(),
            mac_address: "02:42:ac:12:00:02".into(),
            ip_addresses: vec!["172.18.0.2/16".into()],
            via: vec!["172.18.0.1".into()],
        };
        let attached = AttachmentView {
            gateway: Some(way),
            ..attached()
        };
        let own = json!({"search": ["b.example"], "nameservers": ["192.0.2.1"]});
        let text = result("1.1.0", &attached, "/x", own.as_object().unwrap());
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read["ips"][2],
            json!({"address": "172.18.0.2/16", "interface": 1, "gateway": "172.18.0.1"})
        );
        assert_eq!(
            read["routes"],
            json!([{"dst": "0.0.0.0/0", "gw": "172.18.0.1"}])
        );
        assert_eq!(read["interfaces"][1]["name"], "eth1");
        assert_eq!(read["dns"]["search"], json!(["b.example"]));
        assert_eq!(read["dns"]["nameservers"], json!(["127.0.0.11"]));
    }
}
