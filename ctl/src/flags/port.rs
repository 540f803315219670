//! `--publish` and `--expose`, and how published ports are shown.

use serde_json::{Map, Value, json};

/// Adds one `--publish [[IP:]HOST:]CONTAINER[/PROTOCOL]`, ranges allowed, to the two maps of a create request.
pub fn publish(
    text: &str,
    exposed: &mut Map<String, Value>,
    bindings: &mut Map<String, Value>,
) -> Result<(), String> {
    let bad = |why: &str| {
        format!("--publish {text:?}: {why}; write [[IP:]HOST-PORT:]PORT[/tcp|udp|sctp]")
    };
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(bad("the protocol is none of tcp, udp, sctp"));
    }
    let (outside, inside) = rest
        .rsplit_once(':')
        .map_or((None, rest), |(o, i)| (Some(o), i));
    let (ip, host) = match outside {
        None => ("", ""),
        Some(outside) => match outside.rsplit_once(':') {
            Some((ip, host)) => (ip.trim_start_matches('[').trim_end_matches(']'), host),
            None => ("", outside),
        },
    };
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(bad("the address is no IP address"));
    }
    let (first, last) = range(inside).ok_or_else(|| bad("the container port is no port"))?;
    let host_range = if host.is_empty() {
        None
    } else {
        Some(range(host).ok_or_else(|| bad("the host port is no port"))?)
    };
    let one_inside = first == last;
    if let Some((low, high)) = host_range
        && high - low != last - first
        && !one_inside
    {
        return Err(bad("the two ranges differ in length"));
    }
    for offset in 0..=(last - first) {
        let key = format!("{}/{protocol}", first + offset);
        let host_port = match host_range {
            None => String::new(),
            Some((low, high)) if one_inside && low != high => format!("{low}-{high}"),
            Some((low, _)) => (low + offset).to_string(),
        };
        exposed.insert(key.clone(), json!({}));
        let list = bindings.entry(key).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(json!({"HostIp": ip, "HostPort": host_port}));
        }
    }
    Ok(())
}

/// Adds one `--expose PORT[-PORT][/PROTOCOL]`.
pub fn expose(text: &str, exposed: &mut Map<String, Value>) -> Result<(), String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range(ports).ok_or_else(|| format!("--expose {text:?} is no port"))?;
    for port in first..=last {
        exposed.insert(format!("{port}/{protocol}"), json!({}));
    }
    Ok(())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    (low <= high).then_some((low, high))
}

/// The PORTS column: `0.0.0.0:8080->80/tcp, 9000-9001/tcp`.
pub fn shown(ports: &Value) -> String {
    #[derive(PartialEq, PartialOrd, Eq, Ord)]
    struct Port {
        ip: String,
        protocol: String,
        private: u64,
        public: u64,
    }
    let mut list: Vec<Port> = ports
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| Port {
            ip: p["IP"].as_str().unwrap_or_default().to_owned(),
            protocol: p["Type"].as_str().unwrap_or("tcp").to_owned(),
            private: p["PrivatePort"].as_u64().unwrap_or(0),
            public: p["PublicPort"].as_u64().unwrap_or(0),
        })
        .collect();
    list.sort();
    list.dedup();
    let mut texts: Vec<String> = Vec::new();
    let mut position = 0;
    while position < list.len() {
        let begin = &list[position];
        let mut end = begin;
        while let Some(next) = list.get(position + 1)
            && next.ip == begin.ip
            && next.protocol == begin.protocol
            && next.private == end.private + 1
            && (if begin.public == 0 {
                next.public == 0
            } else {
                next.public == end.public + 1
            })
        {
            end = next;
            position += 1;
        }
        position += 1;
        let span = |low: u64, high: u64| {
            if low == high {
                low.to_string()
            } else {
                format!("{low}-{high}")
            }
        };
        let inside = span(begin.private, end.private);
        texts.push(if begin.public == 0 {
            format!("{inside}/{}", begin.protocol)
        } else {
            let ip = if begin.ip.contains(':') {
                format!("[{}]", begin.ip)
            } else {
                begin.ip.clone()
            };
            format!(
                "{ip}:{}->{inside}/{}",
                span(begin.public, end.public),
                begin.protocol
            )
        });
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing() {
        let cases = [
            ("80", json!({"80/tcp": [{"HostIp": "", "HostPort": ""}]})),
            (
                "8080:80",
                json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
            ),
            (
                "127.0.0.1:8080:80/udp",
                json!({"80/udp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
            ),
            (
                "[::1]:8080:80",
                json!({"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}),
            ),
            (
                "81-82:1-2",
                json!({"1/tcp": [{"HostIp": "", "HostPort": "81"}], "2/tcp": [{"HostIp": "", "HostPort": "82"}]}),
            ),
            (
                "8000-9000:80",
                json!({"80/tcp": [{"HostIp": "", "HostPort": "8000-9000"}]}),
            ),
        ];
        for (text, wanted) in cases {
            let (mut exposed, mut bindings) = (Map::new(), Map::new());
            publish(text, &mut exposed, &mut bindings).expect(text);
            assert_eq!(Value::Object(bindings), wanted, "{text}");
        }
        for bad in ["x", "80/icmp", "1-2:1-3", "2-1", "999999:80", "a.b:80:80"] {
            assert!(
                publish(bad, &mut Map::new(), &mut Map::new()).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_ports_column() {
        let ports = json!([
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 9001, "Type": "tcp"}, {"PrivatePort": 9000, "Type": "tcp"},
            {"PrivatePort": 53, "Type": "udp"},
        ]);
        assert_eq!(
            shown(&ports),
            "9000-9001/tcp, 53/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(shown(&Value::Null), "");
    }
}
