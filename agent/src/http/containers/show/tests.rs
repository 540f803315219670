use std::path::PathBuf;

use model::ContainerId;
use runtime::{
    engine::{ContainerSpec, Effective, HealthView},
    network::Connected,
};

use super::*;

const SECOND: i64 = 1_000_000_000;

fn view() -> ContainerView {
    ContainerView {
        id: ContainerId::new("ab".repeat(32)),
        name: "api".into(),
        created_at: SECOND,
        spec: ContainerSpec {
            network: NetworkMode::Networks(vec![NetworkWish {
                network: "ch03".into(),
                aliases: vec!["web".into()],
                addresses: vec!["10.0.1.9".parse().unwrap()],
                interface: None,
                endpoint: None,
            }]),
            ..ContainerSpec::new("echo:latest")
        },
        image_id: "sha256:1".into(),
        effective: Effective {
            argv: vec!["/echo".into(), "--name".into(), "a b".into()],
            exposed_ports: ["8080/tcp".to_owned()].into(),
            ..Effective::default()
        },
        state: StateView::default(),
        restart_count: 0,
        mounts: Vec::new(),
        network: Connected::default(),
        exec_ids: Vec::new(),
        log_path: PathBuf::new(),
        resolv_conf_path: PathBuf::new(),
        hostname_path: PathBuf::new(),
        hosts_path: PathBuf::new(),
        upper_dir: PathBuf::new(),
        lower_dirs: Vec::new(),
    }
}

#[test]
fn sentences_about_states() {
    let now = 1000 * SECOND;
    let health = |status| {
        Some(HealthView {
            status,
            failing_streak: 0,
            log: Vec::new(),
        })
    };
    for (status_of, exit_code, health, words) in [
        (Status::Created, 0, None, "Created"),
        (Status::Running, 0, None, "Up 5 minutes"),
        (
            Status::Running,
            0,
            health(HealthStatus::Starting),
            "Up 5 minutes (health: starting)",
        ),
        (
            Status::Running,
            0,
            health(HealthStatus::Healthy),
            "Up 5 minutes (healthy)",
        ),
        (Status::Paused, 0, None, "Up 5 minutes (Paused)"),
        (Status::Exited, 137, None, "Exited (137) About a minute ago"),
        (
            Status::Restarting,
            1,
            None,
            "Restarting (1) About a minute ago",
        ),
        (Status::Dead, 0, None, "Dead"),
    ] {
        let state = StateView {
            status: status_of,
            exit_code,
            health,
            started_at: 700 * SECOND,
            finished_at: 920 * SECOND,
            ..StateView::default()
        };
        assert_eq!(status(&state, now), words);
    }
}

#[test]
fn what_does_not_run_shows_what_it_asked_for() {
    let shown = inspect(&view(), ApiVersion::default());
    let network = &shown.network_settings.networks["ch03"];
    assert_eq!(network.aliases, ["web"]);
    assert_eq!(
        network.ipam_config.as_ref().unwrap().ipv4_address,
        "10.0.1.9"
    );
    assert_eq!(shown.host_config["NetworkMode"], "ch03");
    assert_eq!(
        (shown.name.as_str(), shown.path.as_str()),
        ("/api", "/echo")
    );
    assert_eq!(summary(&view(), SECOND).command, "/echo --name 'a b'");
}

#[test]
fn a_summary_as_docker_shows_it() {
    let mut view = view();
    view.state = StateView {
        status: Status::Running,
        pid: 5,
        started_at: 10 * SECOND,
        ..StateView::default()
    };
    view.network.late = vec!["worker02".into()];
    insta::assert_json_snapshot!(summary(&view, 40 * SECOND), @r#"
    {
      "Id": "abababababababababababababababababababababababababababababababab",
      "Names": [
        "/api"
      ],
      "Image": "echo:latest",
      "ImageID": "sha256:1",
      "Command": "/echo --name 'a b'",
      "Created": 1,
      "Ports": [
        {
          "PrivatePort": 8080,
          "Type": "tcp"
        }
      ],
      "Labels": {
        "overnet.late-hosts": "worker02"
      },
      "State": "running",
      "Status": "Up 30 seconds",
      "HostConfig": {
        "NetworkMode": "ch03"
      },
      "NetworkSettings": {
        "Networks": {
          "ch03": {
            "IPAMConfig": {
              "IPv4Address": "10.0.1.9"
            },
            "Links": null,
            "Aliases": [
              "web"
            ],
            "MacAddress": "",
            "DriverOpts": null,
            "GwPriority": 0,
            "NetworkID": "",
            "EndpointID": "",
            "Gateway": "",
            "IPAddress": "",
            "IPPrefixLen": 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": []
          }
        }
      },
      "Mounts": []
    }
    "#);
}

#[test]
fn what_runs_shows_what_it_was_given() {
    let mut view = view();
    view.state.pid = 5;
    view.network.endpoints = vec![ConnectedEndpoint {
        network_name: "ch03".into(),
        network_id: "net".into(),
        endpoint_id: "end".into(),
        addresses: vec![
            ("10.0.1.9".parse().unwrap(), 24),
            ("fd00::9".parse().unwrap(), 64),
        ],
        gateways: vec!["10.0.1.1".parse().unwrap()],
        mac: "02:42:0a:00:01:09".into(),
        aliases: vec!["web".into()],
        dns_names: vec!["api".into()],
    }];
    let of = |minor| {
        inspect(&view, ApiVersion::new(1, minor))
            .network_settings
            .networks["ch03"]
            .clone()
    };
    assert_eq!(
        (of(50).ip_address.as_str(), of(50).ip_prefix_len),
        ("10.0.1.9", 24)
    );
    assert_eq!(of(50).global_ipv6_address, "fd00::9");
    assert_eq!(of(50).gateway, "10.0.1.1");
    assert_eq!(of(50).aliases, ["web"]);
    assert_eq!(of(44).aliases, ["web", "abababababab"]);
    assert!(
        inspect(&view, ApiVersion::default())
            .network_settings
            .ports
            .contains_key("8080/tcp")
    );
}

#[test]
fn ports_are_read() {
    assert_eq!(
        read_port("53/udp").unwrap(),
        Port {
            private_port: 53,
            protocol: "udp".into(),
            ..Port::default()
        }
    );
    assert_eq!(read_port("80").unwrap().protocol, "tcp");
    assert_eq!(read_port("many/tcp"), None);
}
