//! `--network`, short (`ch03`) and long (`name=ch03,alias=web,ip=10.0.1.9`).

use serde_json::{Map, Value, json};

use super::comma_fields;

/// One attachment asked for on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Network name, id or mode (`host`, `none`, `container:x`).
    pub network: String,
    /// Extra names on it.
    pub aliases: Vec<String>,
    /// `ip=` or `--ip`.
    pub ip: Option<String>,
    /// `ip6=` or `--ip6`.
    pub ip6: Option<String>,
    /// `link-local-ip=`.
    pub link_local: Vec<String>,
    /// `mac-address=` or `--mac-address`.
    pub mac: Option<String>,
    /// `driver-opt=k=v`.
    pub driver_options: Map<String, Value>,
    /// `gw-priority=`.
    pub gateway_priority: Option<i64>,
    /// `--link`.
    pub links: Vec<String>,
}

impl Attachment {
    /// Reads one `--network`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut attachment = Self::default();
        if !text.contains('=') {
            text.clone_into(&mut attachment.network);
            return if text.is_empty() {
                Err("--network: a name is missing".to_owned())
            } else {
                Ok(attachment)
            };
        }
        for field in comma_fields(text)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(format!(
                    "--network {text:?}: {field:?} is not of the form KEY=VALUE"
                ));
            };
            let value = value.trim().to_owned();
            match key.trim().to_lowercase().as_str() {
                "name" => attachment.network = value,
                "alias" => attachment.aliases.push(value),
                "ip" => attachment.ip = Some(value),
                "ip6" => attachment.ip6 = Some(value),
                "link-local-ip" => attachment.link_local.push(value),
                "mac-address" => attachment.mac = Some(value),
                "gw-priority" => {
                    let number = value.parse().map_err(|_| {
                        format!("--network {text:?}: gw-priority must be a whole number")
                    })?;
                    attachment.gateway_priority = Some(number);
                }
                "driver-opt" => {
                    let (k, v) = value.split_once('=').unwrap_or((&value, ""));
                    attachment
                        .driver_options
                        .insert(k.to_owned(), Value::from(v));
                }
                other => {
                    return Err(format!(
                        "--network {text:?}: there is no key {other:?}; there are name, alias, ip, ip6, \
                         link-local-ip, mac-address, driver-opt, gw-priority"
                    ));
                }
            }
        }
        if attachment.network.is_empty() {
            return Err(format!("--network {text:?}: name= is missing"));
        }
        Ok(attachment)
    }

    /// False for the modes that are no network of the user's.
    pub fn is_users(&self) -> bool {
        !matches!(
            self.network.as_str(),
            "default" | "bridge" | "host" | "none"
        ) && !self.network.starts_with("container:")
    }

    /// The API's EndpointSettings; `None` when nothing but the name was asked.
    pub fn endpoint(&self) -> Option<Value> {
        let mut endpoint = Map::new();
        let mut ipam = Map::new();
        if let Some(ip) = &self.ip {
            ipam.insert("IPv4Address".to_owned(), json!(ip));
        }
        if let Some(ip6) = &self.ip6 {
            ipam.insert("IPv6Address".to_owned(), json!(ip6));
        }
        if !self.link_local.is_empty() {
            ipam.insert("LinkLocalIPs".to_owned(), json!(self.link_local));
        }
        if !ipam.is_empty() {
            endpoint.insert("IPAMConfig".to_owned(), Value::Object(ipam));
        }
        if !self.links.is_empty() {
            endpoint.insert("Links".to_owned(), json!(self.links));
        }
        if !self.aliases.is_empty() {
            endpoint.insert("Aliases".to_owned(), json!(self.aliases));
        }
        if let Some(mac) = &self.mac {
            endpoint.insert("MacAddress".to_owned(), json!(mac));
        }
        if !self.driver_options.is_empty() {
            endpoint.insert(
                "DriverOpts".to_owned(),
                Value::Object(self.driver_options.clone()),
            );
        }
        if let Some(priority) = self.gateway_priority {
            endpoint.insert("GwPriority".to_owned(), json!(priority));
        }
        (!endpoint.is_empty()).then_some(Value::Object(endpoint))
    }
}

/// The HostConfig.NetworkMode and the EndpointsConfig for all attachments of a container.
///
/// One network with nothing but a name leaves the second empty, as Docker's client does.
pub fn settings(attachments: &[Attachment]) -> Result<(String, Value), String> {
    let Some(first) = attachments.first() else {
        return Ok(("default".to_owned(), json!({})));
    };
    if attachments.len() > 1 && attachments.iter().any(|a| !a.is_users()) {
        return Err(
            "--network: bridge, host, none and container: cannot be combined with other networks"
                .to_owned(),
        );
    }
    let mut endpoints = Map::new();
    for attachment in attachments {
        let endpoint = attachment.endpoint();
        if attachments.len() == 1 && endpoint.is_none() {
            continue;
        }
        if endpoints
            .insert(
                attachment.network.clone(),
                endpoint.unwrap_or_else(|| json!({})),
            )
            .is_some()
        {
            return Err(format!(
                "--network: {:?} is named twice",
                attachment.network
            ));
        }
    }
    Ok((first.network.clone(), Value::Object(endpoints)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long() {
        let parse = |text: &str| Attachment::parse(text).map(|a| (a.network.clone(), a.endpoint()));
        let cases = [
            ("ch03", Some(("ch03", None))),
            (
                "name=ch03,alias=a,alias=b,ip=10.0.1.9",
                Some((
                    "ch03",
                    Some(json!({"IPAMConfig":{"IPv4Address":"10.0.1.9"},"Aliases":["a","b"]})),
                )),
            ),
            (
                "name=n,driver-opt=x=1,gw-priority=5,mac-address=02:42:0a:00:00:01",
                Some((
                    "n",
                    Some(
                        json!({"MacAddress":"02:42:0a:00:00:01","DriverOpts":{"x":"1"},"GwPriority":5}),
                    ),
                )),
            ),
            ("alias=a", None),
            ("name=x,bogus=1", None),
            ("", None),
            ("name=x,alias", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(
                parse(text).ok(),
                wanted.map(|(n, e)| (n.to_owned(), e)),
                "{text}"
            );
        }
    }

    #[test]
    fn settings_for_a_container() {
        let all = |texts: &[&str]| {
            let list: Vec<_> = texts
                .iter()
                .map(|t| Attachment::parse(t).unwrap())
                .collect();
            settings(&list).ok()
        };
        let cases: [(&[&str], _); 7] = [
            (&[], Some(("default", json!({})))),
            (&["ch03"], Some(("ch03", json!({})))),
            (&["host"], Some(("host", json!({})))),
            (
                &["a", "name=b,alias=x"],
                Some(("a", json!({"a": {}, "b": {"Aliases": ["x"]}}))),
            ),
            (
                &["name=a,ip=1.2.3.4"],
                Some((
                    "a",
                    json!({"a": {"IPAMConfig": {"IPv4Address": "1.2.3.4"}}}),
                )),
            ),
            (&["a", "a"], None),
            (&["a", "host"], None),
        ];
        for (texts, wanted) in cases {
            assert_eq!(
                all(texts),
                wanted.map(|(mode, e)| (mode.to_owned(), e)),
                "{texts:?}"
            );
        }
    }
}
