//! What is in which image.

use serde_json::{Value, json};

/// One thing in a layer; paths are without the leading slash.
#[derive(Debug)]
pub enum Part {
    /// A program of this workspace.
    Own {
        name: &'static str,
        at: &'static str,
    },
    /// A program of this machine with its libraries, found by the last part of its path.
    Program(&'static str),
    Script {
        at: &'static str,
        text: &'static str,
    },
    Text {
        at: &'static str,
        text: &'static str,
    },
    Folder(&'static str),
}

/// The layers above the base, which has busybox.
pub const LAYERS: &[(&str, &[Part])] = &[
    (
        "echo",
        &[Part::Own {
            name: "echo",
            at: "usr/bin/echo-server",
        }],
    ),
    (
        "tools",
        &[
            Part::Program("usr/bin/curl"),
            Part::Program("usr/bin/wget"),
            Part::Program("usr/bin/iperf3"),
            Part::Program("usr/bin/dig"),
        ],
    ),
    (
        "api",
        &[Part::Program("usr/bin/curl"), Part::Program("usr/bin/jq")],
    ),
    (
        "nginx",
        &[
            Part::Program("usr/sbin/nginx"),
            Part::Folder("etc/nginx"),
            Part::Folder("var/lib/nginx"),
            Part::Folder("var/log/nginx"),
            Part::Script {
                at: "start",
                text: include_str!("../../images/nginx-proxy/start"),
            },
        ],
    ),
    (
        "haproxy",
        &[
            Part::Program("usr/sbin/haproxy"),
            Part::Text {
                at: "etc/haproxy/servers.jq",
                text: include_str!("../../images/haproxy/servers.jq"),
            },
            Part::Script {
                at: "start",
                text: include_str!("../../images/haproxy/start"),
            },
        ],
    ),
    (
        "visualizer",
        &[
            Part::Script {
                at: "start",
                text: include_str!("../../images/visualizer/start"),
            },
            Part::Script {
                at: "srv/cgi-bin/index.cgi",
                text: include_str!("../../images/visualizer/index.cgi"),
            },
            Part::Text {
                at: "srv/page.jq",
                text: include_str!("../../images/visualizer/page.jq"),
            },
        ],
    ),
];

/// An image: its name in the registry, its layers above the base, its configuration.
#[derive(Debug)]
pub struct Image {
    pub name: &'static str,
    pub layers: &'static [&'static str],
    pub config: Value,
}

/// All images. The last three have the names of what the users' own files ask for.
pub fn images() -> Vec<Image> {
    vec![
        Image {
            name: "example/echo",
            layers: &["echo"],
            config: json!({
                "Entrypoint": ["/usr/bin/echo-server"],
                "ExposedPorts": {"8080/tcp": {}, "8080/udp": {}},
            }),
        },
        Image {
            name: "example/toolbox",
            layers: &["tools"],
            config: json!({"Cmd": ["sh"]}),
        },
        Image {
            name: "gihyodocker/nginx-proxy",
            layers: &["nginx"],
            config: json!({"Entrypoint": ["/start"], "ExposedPorts": {"80/tcp": {}}}),
        },
        Image {
            name: "dockercloud/haproxy",
            layers: &["api", "haproxy"],
            config: json!({
                "Entrypoint": ["/start"],
                "ExposedPorts": {"80/tcp": {}, "1936/tcp": {}},
            }),
        },
        Image {
            name: "dockersamples/visualizer",
            layers: &["api", "visualizer"],
            config: json!({"Entrypoint": ["/start"], "ExposedPorts": {"8080/tcp": {}}}),
        },
    ]
}
