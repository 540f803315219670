//! One of each key that is honoured.

use crate::files::Files;

/// One of each; none has tasks, because some ask for what these hosts do not have.
const EVERYTHING: &str = r#"
services:
  all:
    image: registry:5000/example/toolbox
    entrypoint: [sh, -c]
    command: ["exec sleep 100000"]
    annotations: {a: b}
    cap_add: [NET_ADMIN]
    cap_drop: [CHOWN]
    configs: [{source: c, target: /etc/c, uid: "7", gid: "8", mode: 0400}]
    secrets: [s, {source: t, target: other, mode: 0440}]
    cpus: 0.5
    mem_limit: 64m
    pids_limit: 50
    depends_on: [small]
    dns: 192.0.2.1
    dns_opt: [ndots:2]
    dns_search: [example.org]
    environment: {A: "1", B: }
    extra_hosts: ["host1:192.0.2.2", "six=2001:db8::1"]
    group_add: [audio, "44"]
    healthcheck: {test: [CMD, "true"], interval: 1m30s, timeout: 3s, retries: 4, start_period: 10s, start_interval: 2s}
    hostname: "{{.Node.Hostname}}"
    init: true
    labels: [x=y]
    logging: {driver: json-file, options: {max-size: 1m}}
    networks: {front: {aliases: [www]}, back: }
    oom_score_adj: 100
    platform: linux/amd64
    ports:
      - 8201-8202:81-82
      - {target: 53, published: 8253, protocol: udp, mode: ingress, name: dns}
    read_only: true
    security_opt: [no-new-privileges, "seccomp:unconfined"]
    shm_size: 16m
    stdin_open: true
    stop_grace_period: 12s
    stop_signal: SIGINT
    sysctls: {net.core.somaxconn: 1024}
    tmpfs: /run
    tty: true
    ulimits: {nofile: {soft: 100, hard: 200}, nproc: 300}
    user: "7:8"
    working_dir: /tmp
    volumes:
      - data:/data:nocopy
      - /tmp:/host:ro,rslave
      - {type: tmpfs, target: /fast, tmpfs: {size: 1m, mode: 01777}}
      - {type: volume, source: labelled, target: /labelled, volume: {nocopy: true}}
      - {type: bind, source: /var, target: /var2, bind: {propagation: rprivate, create_host_path: true, recursive: disabled}}
    deploy:
      replicas: 0
      endpoint_mode: vip
      labels: {service: label}
      update_config: {parallelism: 0, delay: 1s, failure_action: rollback, monitor: 2s, max_failure_ratio: 0.3333333, order: start-first}
      rollback_config: {parallelism: 2, order: stop-first}
      resources:
        limits: {cpus: "1.5", memory: 128m, pids: 60}
        reservations:
          cpus: "0.25"
          memory: 32m
          generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]
      restart_policy: {condition: on-failure, delay: 3s, max_attempts: 4, window: 1m}
      placement:
        constraints: [node.role == worker, node.labels.zone != z]
        preferences: [{spread: node.labels.zone}]
        max_replicas_per_node: 3
  small:
    image: registry:5000/example/toolbox:latest
    restart: on-failure:3
    healthcheck: {disable: true}
    networks: [front]
    deploy: {replicas: 0, update_config: {delay: 0s}, rollback_config: {max_failure_ratio: 1}}
  rr:
    image: registry:5000/example/toolbox
    restart: "no"
    deploy: {replicas: 0, endpoint_mode: dnsrr, update_config: {order: stop-first}, restart_policy: {condition: any}}
  host:
    image: registry:5000/example/toolbox
    network_mode: host
    scale: 0
  job:
    image: registry:5000/example/toolbox
    command: "true"
    deploy: {mode: replicated-job, placement: {constraints: [node.labels.is == none]}}
  everywhere:
    image: registry:5000/example/toolbox
    deploy: {mode: global-job, placement: {constraints: [node.labels.is == none]}}
networks:
  front: {attachable: true, labels: {n: m}}
  back: {internal: true, driver_opts: {com.docker.network.driver.mtu: "1400"}, ipam: {config: [{subnet: 10.99.0.0/24}]}}
volumes: {data: , labelled: {labels: {v: w}}}
configs: {c: {content: some text, labels: {c: d}}}
secrets: {s: {file: key.txt}, t: {file: key.txt, labels: {t: u}}}
"#;

/// What the cluster stores is what the file asks for: a second deploy finds no difference.
pub fn every_key_that_is_honoured_stays(files: &Files) {
    let file = files.write("everything.yml", EVERYTHING);
    let done = files.stack("deploy", &file, "every");
    assert_eq!(
        done.clone().ok().matches("Creating service").count(),
        6,
        "{done:?}"
    );
    let warned = done.stderr.lines().collect::<Vec<_>>();
    assert!(
        warned.len() == 1 && warned[0].contains("services.all.annotations"),
        "{warned:?}"
    );
    let diff = files.stack("diff", &file, "every").ok();
    assert!(
        diff.lines()
            .all(|line| line.starts_with("= service every_")),
        "{diff}"
    );
    assert_eq!(diff.lines().count(), 6, "{diff}");
    files.remove("every");
}
