//! What a file becomes, and what its changes do.

use tests::wait;

use crate::{ECHO, LIMIT, TOOLBOX, files::Files};

const SHOP: &str = r#"
services:
  web:
    image: registry:5000/example/toolbox
    command: sh -c "cat /site /run/secrets/key; exec sleep 100000"
    stop_grace_period: 1s
    configs: [{source: site, target: /site}]
    secrets: [key]
    deploy: {replicas: 2, update_config: {order: start-first}}
  still:
    image: registry:5000/example/echo
    environment: {TOKEN: private}
    deploy: {placement: {constraints: [node.role == worker]}}
configs: {site: {file: site.conf}}
secrets: {key: {file: key.txt}}
"#;

pub fn what_a_file_becomes_is_told(files: &Files) {
    files.write("site.conf", "site one\n");
    files.write("key.txt", "key one\n");
    let file = files.write("shop.yml", SHOP);
    let before = files.inventory();
    let explain = ["stack", "config", "--explain", "-c", &file, "shop"];
    assert_eq!(
        files.ctl(&explain).ok(),
        "stack shop
  network shop_default: overlay
  secret shop_key: 8 bytes
  config shop_site: 9 bytes
  service shop_web
    image: registry:5000/example/toolbox
    tasks: 2
    arguments: sh, -c, cat /site /run/secrets/key; exec sleep 100000
    networks: shop_default (also as web)
    secrets: shop_key as key
    configs: shop_site as /site
  service shop_still
    image: registry:5000/example/echo
    tasks: 1
    where: node.role == worker
    variables: TOKEN
    networks: shop_default (also as still)
  created in this order: shop_web, shop_still"
    );
    assert_eq!(
        files.stack("diff", &file, "shop").ok(),
        "+ network shop_default
+ secret shop_key
+ config shop_site
+ service shop_web
+ service shop_still"
    );
    assert_eq!(files.inventory(), before, "nothing was created");
}

pub fn changed_content_rolls_the_services(files: &Files) {
    let file = files.folder.join("shop.yml").display().to_string();
    let deploy = ["stack", "deploy", "--detach=false", "-c", &file, "shop"];
    let printed = files.ctl(&deploy).ok();
    assert!(printed.contains("verify: Service"), "{printed}");
    let before = files.until_tasks("shop", 3);
    assert_eq!(
        files.stack("diff", &file, "shop").ok(),
        "= service shop_web\n= service shop_still"
    );
    let printed = files.stack("deploy", &file, "shop").ok();
    assert_eq!(printed.matches("nothing changed").count(), 2, "{printed}");
    assert_eq!(files.until_tasks("shop", 3), before);

    files.write("site.conf", "site two\n");
    files.write("key.txt", "key two\n");
    let diff = files.stack("diff", &file, "shop").ok();
    for line in [
        "+ secret shop_key.",
        "+ config shop_site.",
        "~ service shop_web",
        "= service shop_still",
    ] {
        assert!(diff.contains(line), "{line} is not in {diff}");
    }
    assert!(!diff.contains("private") && !diff.contains("two"), "{diff}");
    files.ctl(&deploy).ok();
    let after = files.until_tasks("shop", 3);
    let same = |name: &str| -> Vec<_> {
        before
            .intersection(&after)
            .filter(|task| task.contains(name))
            .collect()
    };
    assert_eq!((same("shop_web").len(), same("shop_still").len()), (0, 1));
    wait::until("the new tasks have the new content", LIMIT, || {
        let logs = files.ctl(&["service", "logs", "--raw", "shop_web"]).ok();
        match logs.matches("site two\nkey two").count() {
            2 => Ok(()),
            _ => Err(logs),
        }
    });
    // The versions before stay for a rollback, and go when nothing could need them.
    let names = |kind: &str| files.ctl(&[kind, "ls", "--format", "{{.Name}}"]).ok();
    assert_eq!(names("config").lines().count(), 2);
    files.write("site.conf", "site three\n");
    files
        .ctl(&[
            "stack",
            "deploy",
            "--prune",
            "--detach=false",
            "-c",
            &file,
            "shop",
        ])
        .ok();
    assert_eq!(names("config").lines().count(), 2, "{}", names("config"));
    assert!(!names("config").lines().any(|name| name == "shop_site"));
    // Content that comes back finds its object again.
    files.write("site.conf", "site two\n");
    files.stack("deploy", &file, "shop").ok();
    assert_eq!(names("config").lines().count(), 2, "{}", names("config"));
    files.until_tasks("shop", 3);
    files.remove("shop");
    assert_eq!(names("config") + &names("secret"), "");
}

pub fn services_that_left_the_file_are_pruned(files: &Files) {
    let service = |name: &str| format!("  {name}: {{image: '{ECHO}', stop_grace_period: 1s}}\n");
    let two = files.write(
        "two.yml",
        &format!("services:\n{}{}", service("a"), service("b")),
    );
    let one = files.write("one.yml", &format!("services:\n{}", service("a")));
    files.stack("deploy", &two, "p").ok();
    let before = files.until_tasks("p", 2);
    assert_eq!(
        files.stack("diff", &one, "p").ok(),
        "= service p_a\n- service p_b"
    );
    // Without being asked nothing goes.
    files.stack("deploy", &one, "p").ok();
    assert_eq!(files.until_tasks("p", 2), before);
    let printed = files
        .ctl(&["stack", "deploy", "--prune", "-c", &one, "p"])
        .ok();
    assert!(printed.contains("Removing service p_b"), "{printed}");
    let after = files.until_tasks("p", 1);
    assert!(before.is_superset(&after));
    files.remove("p");
}

pub fn services_wait_for_what_they_depend_on(files: &Files) {
    let file = files.write(
        "order.yml",
        &format!(
            "services:
  web:
    image: {ECHO}
    depends_on:
      prepare: {{condition: service_completed_successfully}}
      db: {{condition: service_healthy}}
  db:
    image: {TOOLBOX}
    command: sh -c 'sleep 2; touch /tmp/up; exec sleep 100000'
    stop_grace_period: 1s
    healthcheck: {{test: test -e /tmp/up, interval: 200ms, retries: 100}}
  prepare:
    image: {TOOLBOX}
    command: sleep 1
    deploy: {{mode: replicated-job}}
"
        ),
    );
    files.stack("deploy", &file, "o").ok();
    // Once the web tier runs, what it waits for is there.
    wait::until("the last service runs", LIMIT, || {
        let format = "{{.Name}} {{.Replicas}}";
        let listed = files
            .ctl(&["stack", "services", "--format", format, "o"])
            .ok();
        let shown = |line: &str| listed.lines().any(|found| found.starts_with(line));
        if !shown("o_web 1/1") {
            return Err(listed);
        }
        assert!(
            shown("o_db 1/1") && shown("o_prepare 0/0 (1/1 completed)"),
            "{listed}"
        );
        Ok(())
    });
    files.remove("o");
}

/// Services written by `migrate` are the services that run.
pub fn what_runs_is_written_and_changes_nothing(files: &Files) {
    let text = format!(
        r#"
services:
  web:
    image: '{ECHO}'
    environment: {{PRICE: "5$$"}}
    networks: [front, default]
    ports: ["8400:8080"]
    volumes: ["data:/data", {{type: tmpfs, target: /tmp, tmpfs: {{size: 1m}}}}]
    healthcheck: {{disable: true}}
    deploy:
      replicas: 2
      placement: {{constraints: [node.platform.os == linux]}}
      resources: {{limits: {{cpus: "0.5", memory: 64m}}}}
      update_config: {{delay: 1s, order: start-first}}
  agent:
    image: '{ECHO}'
    deploy: {{mode: global}}
networks: {{front: {{attachable: true, labels: {{a: b}}}}}}
volumes: {{data: {{labels: {{c: d}}}}}}
"#
    );
    let file = files.write("moving.yml", &text);
    files.stack("deploy", &file, "moving").ok();
    let before = files.until_tasks("moving", 4);
    let folder = files.folder.join("moved").display().to_string();
    let printed = files.ctl(&["migrate", "--output", &folder]).ok();
    let written = format!("{folder}/moving.yml");
    assert!(
        printed.contains(&format!("ovnctl stack deploy -c {written} moving")),
        "{printed}"
    );
    let again = files.stack("deploy", &written, "moving").ok();
    assert_eq!(again.matches("nothing changed").count(), 2, "{again}");
    assert_eq!(files.tasks("moving").unwrap(), before);
    let refused = files.ctl(&["migrate", "--output", &folder]).failed();
    assert!(refused.contains("name another with --output"), "{refused}");
    files.remove("moving");
}
