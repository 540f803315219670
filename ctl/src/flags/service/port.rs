//! `--publish` of services, short and long, and `--publish-rm`.

use serde_json::{Map, Value, json};

use crate::flags::comma_fields;

/// Where a port carries its options until they become a label.
const OPTIONS: &str = "overnet";

/// What one `--publish` asks for: the API's port configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published(pub Vec<Value>);

/// Reads `[PUBLISHED:]TARGET[/PROTOCOL]`, ranges allowed, or
/// `published=…,target=…,protocol=…,mode=…,policy=…,host_ip=…,nodes=…`.
pub fn published(text: &str) -> Result<Published, String> {
    if text.contains('=') {
        long(text).map(|port| Published(vec![port]))
    } else {
        short(text).map(Published)
    }
}

fn long(text: &str) -> Result<Value, String> {
    let (mut protocol, mut mode) = ("tcp".to_owned(), "ingress".to_owned());
    let (mut target, mut public) = (None, None);
    let mut options = Vec::new();
    for field in comma_fields(text)? {
        let Some((key, value)) = field.split_once('=').filter(|(_, value)| !value.is_empty())
        else {
            return Err(format!("invalid field: {field}: write KEY=VALUE"));
        };
        let number = |what: &str| {
            value
                .parse::<u16>()
                .map_err(|_| format!("invalid {what} port ({value}): value must be an integer"))
        };
        match key.trim().to_lowercase().as_str() {
            "protocol" => protocol = known(value, &["tcp", "udp", "sctp"], "protocol")?,
            "mode" => mode = known(value, &["ingress", "host"], "publish mode")?,
            "target" => target = Some(number("target")?),
            "published" => public = Some(number("published")?),
            "policy" => {
                let policy = known(value, &["all", "local-first", "local"], "publish policy")?;
                options.push(format!("policy={policy}"));
            }
            "host_ip" => {
                // What is no address is an interface's name, which the manager judges.
                let address = value.parse::<std::net::IpAddr>();
                let word = address.map_or_else(|_| value.to_owned(), |one| one.to_string());
                options.push(format!("host_ip={word}"));
            }
            "nodes" => options.push(format!("nodes={value}")),
            other => {
                return Err(format!(
                    "invalid field key: {other}: there are published, target, protocol, mode, policy, \
                     host_ip and nodes"
                ));
            }
        }
    }
    let target = target
        .filter(|port| *port > 0)
        .ok_or("missing mandatory field \"target\"")?;
    let mut port = entry(&protocol, target, public.unwrap_or(0), &mode);
    if !options.is_empty() {
        port[OPTIONS] = json!(options.join(","));
    }
    Ok(port)
}

fn known(value: &str, allowed: &[&str], what: &str) -> Result<String, String> {
    let value = value.to_lowercase();
    if allowed.contains(&value.as_str()) {
        Ok(value)
    } else {
        Err(format!(
            "invalid {what} value '{value}': use {}",
            allowed.join(", ")
        ))
    }
}

fn short(text: &str) -> Result<Vec<Value>, String> {
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = known(protocol, &["tcp", "udp", "sctp"], "protocol")?;
    let (outside, inside) = rest
        .rsplit_once(':')
        .map_or((None, rest), |(o, i)| (Some(o), i));
    if outside.is_some_and(|o| o.contains([':', '.'])) {
        return Err(
            "hostip is not supported in the short form: write published=…,target=…,host_ip=…"
                .to_owned(),
        );
    }
    let bad = || format!("{text:?} is no port: write [PUBLISHED:]TARGET[/tcp|udp|sctp]");
    let (first, last) = range(inside).ok_or_else(bad)?;
    let public = match outside.filter(|o| !o.is_empty()) {
        None => None,
        Some(outside) => Some(range(outside).ok_or_else(bad)?),
    };
    match public {
        // One target behind several published ports.
        Some((low, high)) if first == last => Ok((low..=high)
            .map(|port| entry(&protocol, first, port, "ingress"))
            .collect()),
        Some((low, high)) if high - low != last - first => {
            Err(format!("{text:?}: the two ranges differ in length"))
        }
        public => Ok((first..=last)
            .map(|port| {
                let outside = public.map_or(0, |(low, _)| low + (port - first));
                entry(&protocol, port, outside, "ingress")
            })
            .collect()),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high): (u16, u16) = (low.parse().ok()?, high.parse().ok()?);
    (0 < low && low <= high).then_some((low, high))
}

fn entry(protocol: &str, target: u16, published: u16, mode: &str) -> Value {
    let mut port = Map::new();
    port.insert("Protocol".to_owned(), json!(protocol));
    port.insert("TargetPort".to_owned(), json!(target));
    if published != 0 {
        port.insert("PublishedPort".to_owned(), json!(published));
    }
    port.insert("PublishMode".to_owned(), json!(mode));
    Value::Object(port)
}

/// What Docker's specification has no field for, taken out of ports: labels of the service.
pub fn labels(ports: &mut [Value]) -> Vec<(String, String)> {
    let taken = ports.iter_mut().filter_map(|port| {
        let options = port.as_object_mut()?.remove(OPTIONS)?;
        let (target, protocol) = (port["TargetPort"].as_u64()?, port["Protocol"].as_str()?);
        let label = format!("overnet.publish.{target}/{protocol}");
        Some((label, options.as_str()?.to_owned()))
    });
    taken.collect()
}

/// The ports after an edit; a removal goes by target port, protocol and mode.
pub fn edited(now: &[Value], add: &[Published], remove: &[Published]) -> Vec<Value> {
    let word = |port: &Value, field: &str, default: &str| {
        port[field]
            .as_str()
            .filter(|text| !text.is_empty())
            .unwrap_or(default)
            .to_owned()
    };
    let inside = |port: &Value| {
        (
            port["TargetPort"].as_u64(),
            word(port, "Protocol", "tcp"),
            word(port, "PublishMode", "ingress"),
        )
    };
    let whole = |port: &Value| (port["PublishedPort"].as_u64().unwrap_or(0), inside(port));
    let gone: Vec<_> = remove.iter().flat_map(|r| &r.0).map(inside).collect();
    let mut ports: Vec<Value> = now
        .iter()
        .filter(|port| !gone.contains(&inside(port)))
        .cloned()
        .collect();
    for port in add.iter().flat_map(|a| &a.0) {
        if !ports.iter().any(|have| whole(have) == whole(port)) {
            ports.push(port.clone());
        }
    }
    ports.sort_by_key(whole);
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long() {
        let port = |protocol: &str, target: u16, public: u16, mode: &str| {
            entry(protocol, target, public, mode)
        };
        let cases = [
            ("80", Some(vec![port("tcp", 80, 0, "ingress")])),
            ("8000:8080", Some(vec![port("tcp", 8080, 8000, "ingress")])),
            (
                "81-82:91-92/udp",
                Some(vec![
                    port("udp", 91, 81, "ingress"),
                    port("udp", 92, 82, "ingress"),
                ]),
            ),
            (
                "81-82:80",
                Some(vec![
                    port("tcp", 80, 81, "ingress"),
                    port("tcp", 80, 82, "ingress"),
                ]),
            ),
            (
                "published=5,target=6,protocol=sctp",
                Some(vec![port("sctp", 6, 5, "ingress")]),
            ),
            (
                "mode=host,target=80",
                Some(vec![port("tcp", 80, 0, "host")]),
            ),
            ("127.0.0.1:80:80", None),
            ("[::1]:80:80", None),
            ("1-3:1-2", None),
            ("0", None),
            ("70000", None),
            ("80/icmp", None),
            ("published=1", None),
            ("published=1,target=x", None),
            ("target=1,bogus=2", None),
            ("target=1,mode=bridge", None),
            ("", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(published(text).ok(), wanted.map(Published), "{text}");
        }
    }

    #[test]
    fn options_become_labels() {
        let text = "published=80,target=8080,policy=local-first,host_ip=192.0.2.1";
        let mut ports = published(text).unwrap().0;
        let label = "overnet.publish.8080/tcp".to_owned();
        let options = "policy=local-first,host_ip=192.0.2.1".to_owned();
        assert_eq!(labels(&mut ports), [(label, options)]);
        assert_eq!(ports, [entry("tcp", 8080, 80, "ingress")]);
        assert!(labels(&mut ports).is_empty());
        let text = "target=80,host_ip=eth1,nodes=node.labels.edge==true,nodes=node.role!=manager";
        let (_, options) = labels(&mut published(text).unwrap().0).remove(0);
        assert_eq!(
            options,
            "host_ip=eth1,nodes=node.labels.edge==true,nodes=node.role!=manager"
        );
        for bad in ["target=1,policy=near", "target=1,nodes="] {
            assert!(published(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn edits() {
        let ports = |texts: &str| -> Vec<Published> {
            texts
                .split_whitespace()
                .map(|t| published(t).unwrap())
                .collect()
        };
        let flat =
            |texts: &str| -> Vec<Value> { ports(texts).into_iter().flat_map(|p| p.0).collect() };
        // Now published, --publish-add, --publish-rm, then published.
        let cases = [
            ("8080:80", "9000:90", "80", "9000:90"),
            ("8080:80", "8080:80", "", "8080:80"),
            ("8080:80", "8081:80", "", "8080:80 8081:80"),
            ("8080:80 53:53/udp", "", "53", "53:53/udp 8080:80"),
            ("8080:80", "8081:80", "80", "8081:80"),
        ];
        for (now, add, remove, wanted) in cases {
            assert_eq!(
                edited(&flat(now), &ports(add), &ports(remove)),
                flat(wanted),
                "{now}|{add}|{remove}"
            );
        }
    }
}
