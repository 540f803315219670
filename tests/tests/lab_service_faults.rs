//! Services when things go wrong: hosts that are lost, managers that die in the middle of an
//! update, programs that never work, and no room anywhere.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{Host, Lab, Options, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn services_go_on_when_things_break() {
    let slots = ["card0", "card1"].map(|name| format!("--node-generic-resource=slot={name}"));
    let lab = Lab::up(Options {
        daemon_args: slots.to_vec(),
        ..Options::for_test("svcfaults")
    })
    .unwrap();
    let manager = lab.host("manager01");
    ctl(
        &manager,
        "network create -d overlay --attachable --subnet 10.81.0.0/24 ch03",
    );
    no_room_anywhere(&lab);
    each_task_has_cards_of_its_own(&lab);
    a_broken_version_is_rolled_back(&manager);
    a_program_that_never_gets_well(&manager);
    a_program_that_ends_at_once(&manager);
    create_echo(&manager);
    the_manager_dies_in_the_middle_of_an_update(&manager);
    a_host_cut_off_comes_back(&lab);
    a_lost_host_is_replaced(&lab);
    lab.down().unwrap();
}

fn ctl(host: &Host, words: &str) -> String {
    host.ctl(words.split_whitespace()).ok()
}

fn create_echo(manager: &Host) {
    ctl(
        manager,
        &format!(
            "service create --name echo --network ch03 --replicas 4 \
             --constraint node.role==worker --stop-grace-period 2s {ECHO}"
        ),
    );
}

/// Tasks that should and do run: the whole name of each, and its host.
fn running(manager: &Host, service: &str) -> Vec<(String, String)> {
    let format = "{{.ID}} {{.Node}} {{.CurrentState}}";
    let args = [
        "service",
        "ps",
        "--filter",
        "desired-state=running",
        "--format",
        format,
        service,
    ];
    let listed = manager.ctl(args).ok();
    listed
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (id, node, state) = (words.next()?, words.next()?, words.next()?);
            (state == "Running").then(|| (id.to_owned(), node.to_owned()))
        })
        .collect()
}

fn until_running(manager: &Host, what: &str, service: &str, count: usize) {
    wait::until(what, LIMIT, || {
        let there = running(manager, service);
        (there.len() == count).then_some(()).ok_or(there)
    });
}

fn inspect(manager: &Host, service: &str) -> Value {
    let text = manager.ctl(["service", "inspect", service]).ok();
    serde_json::from_str::<Value>(&text).unwrap()[0].take()
}

fn update_state(manager: &Host, service: &str) -> String {
    let state = &inspect(manager, service)["UpdateStatus"]["State"];
    state.as_str().unwrap_or_default().to_owned()
}

fn until_update(manager: &Host, service: &str, wanted: &str) {
    wait::until(&format!("{service}: {wanted}"), LIMIT, || {
        let state = update_state(manager, service);
        (state == wanted).then_some(()).ok_or(state)
    });
}

/// What the tasks of a service say is wrong with them, one a line.
fn errors(manager: &Host, service: &str) -> String {
    let format = "{{.DesiredState}} {{.CurrentState}} {{.Error}}";
    let args = ["service", "ps", "--no-trunc", "--format", format, service];
    manager.ctl(args).ok()
}

fn no_room_anywhere(lab: &Lab) {
    let manager = lab.host("manager01");
    ctl(
        &manager,
        &format!("service create -d --name picky --constraint node.labels.disk==ssd {ECHO}"),
    );
    ctl(
        &manager,
        &format!("service create -d --name large --reserve-memory 900g {ECHO}"),
    );
    for (service, reason) in [
        ("picky", "scheduling constraints not satisfied on 4 nodes"),
        ("large", "insufficient resources on 4 nodes"),
    ] {
        wait::until(&format!("{service} says why it waits"), LIMIT, || {
            let said = errors(&manager, service);
            said.contains(reason).then_some(()).ok_or(said)
        });
    }
    ctl(&manager, "node update --label-add disk=ssd worker02");
    until_running(&manager, "a host with the label came", "picky", 1);
    assert_eq!(running(&manager, "picky")[0].1, "worker02");
    ctl(&manager, "service update -d --reserve-memory 8m large");
    until_running(&manager, "there is room now", "large", 1);
    // The label goes, and with it the task.
    ctl(&manager, "node update --label-rm disk worker02");
    until_running(
        &manager,
        "a task leaves a host that fits no more",
        "picky",
        0,
    );
    ctl(&manager, "service rm picky large");
}

/// Three hosts with two cards each hold three tasks that ask for two; a fourth one waits.
fn each_task_has_cards_of_its_own(lab: &Lab) {
    let manager = lab.host("manager01");
    ctl(
        &manager,
        &format!(
            "service create -d --name cards --replicas 4 --constraint node.role==worker \
             --generic-resource slot=2 --stop-signal KILL {TOOLBOX} sleep 1000000"
        ),
    );
    until_running(&manager, "three hosts have two cards", "cards", 3);
    wait::until("the fourth says why it waits", LIMIT, || {
        let said = errors(&manager, "cards");
        let reason = "insufficient resources on 3 nodes";
        said.contains(reason).then_some(()).ok_or(said)
    });
    let hosts = running(&manager, "cards").into_iter().map(|(_, host)| host);
    for host in hosts.collect::<BTreeSet<_>>() {
        let there = lab.host(&host);
        let container = ctl(&there, "ps -q --filter name=cards");
        let given = ctl(
            &there,
            &format!("exec {container} printenv DOCKER_RESOURCE_SLOT"),
        );
        assert_eq!(given.trim(), "card0,card1", "on {host}");
    }
    let facts = ctl(&manager, "node inspect worker01");
    let facts: Value = serde_json::from_str(&facts).unwrap();
    let first = "/0/Description/Resources/GenericResources/0/NamedResourceSpec/Value";
    assert_eq!(facts.pointer(first).unwrap(), "card0");
    ctl(&manager, "service rm cards");
}

/// A version that ends at once goes back to the one before by itself, and by hand again.
fn a_broken_version_is_rolled_back(manager: &Host) {
    ctl(
        manager,
        &format!(
            "service create --name web --replicas 2 --update-failure-action rollback \
             --update-monitor 3s --restart-delay 0s --env VERSION=1 {ECHO}"
        ),
    );
    let update = format!("service update -d --image {TOOLBOX} --args false web");
    ctl(manager, &update);
    until_update(manager, "web", "rollback_completed");
    until_running(manager, "the version before runs", "web", 2);
    let spec = inspect(manager, "web");
    let image = &spec["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"];
    assert!(image.as_str().unwrap().contains("example/echo"), "{image}");
    ctl(manager, "service update --env-add VERSION=2 web");
    ctl(manager, "service rollback web");
    let env = inspect(manager, "web")["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"].clone();
    assert_eq!(env, serde_json::json!(["VERSION=1"]));
    ctl(manager, "service rm web");
}

/// An update whose tasks never become healthy fails by its policy, and what ran goes on.
fn a_program_that_never_gets_well(manager: &Host) {
    ctl(
        manager,
        &format!(
            "service create --name sick --network ch03 --replicas 2 --update-order start-first \
             --update-failure-action pause --update-progress-deadline 4s {ECHO}"
        ),
    );
    let before: BTreeSet<_> = running(manager, "sick").into_iter().collect();
    manager
        .ctl([
            "service",
            "update",
            "-d",
            "--health-cmd",
            "exit 1",
            "--health-interval",
            "200ms",
            "--health-start-period",
            "10m",
            "sick",
        ])
        .ok();
    until_update(manager, "sick", "paused");
    let now: BTreeSet<_> = running(manager, "sick").into_iter().collect();
    assert!(before.is_subset(&now), "{before:?} ran, {now:?} runs");
    let answer = asked(manager, "sick", 6);
    assert!(answer.len() <= 2 && !answer.is_empty(), "{answer:?}");
    ctl(manager, "service rm sick");
}

fn a_program_that_ends_at_once(manager: &Host) {
    ctl(
        manager,
        &format!(
            "service create -d --name brief --network ch03 --restart-delay 0s \
             --restart-max-attempts 2 {TOOLBOX} false"
        ),
    );
    wait::until("it is tried three times and no more", LIMIT, || {
        let said = errors(manager, "brief");
        let failed = said.lines().filter(|line| line.contains("Failed")).count();
        let ended = !said.lines().any(|line| line.starts_with("Running"));
        (failed == 3 && ended).then_some(()).ok_or(said)
    });
    assert!(errors(manager, "brief").contains("non-zero exit (1)"));
    // A virtual address with nobody behind it refuses at once.
    let begun = Instant::now();
    let toolbox = ["run", "--rm", "--network", "ch03", TOOLBOX];
    let ask = ["curl", "-m", "20", "-sS", "http://brief:8080"];
    let refused = manager.ctl(toolbox.iter().chain(&ask)).failed();
    assert!(refused.contains("Failed to connect"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    ctl(manager, "service rm brief");
}

fn the_manager_dies_in_the_middle_of_an_update(manager: &Host) {
    until_running(manager, "four replicas run", "echo", 4);
    let before: BTreeSet<_> = running(manager, "echo").into_iter().collect();
    ctl(
        manager,
        "service update -d --env-add NEW=1 --update-delay 500ms --update-monitor 1s echo",
    );
    wait::until("the update has begun", LIMIT, || {
        let now: BTreeSet<_> = running(manager, "echo").into_iter().collect();
        let new = now.difference(&before).count();
        (new >= 1).then_some(()).ok_or(now)
    });
    assert_eq!(update_state(manager, "echo"), "updating");
    manager.kill().unwrap();
    manager.start().unwrap();
    until_update(manager, "echo", "completed");
    until_running(manager, "all four run", "echo", 4);
    let now: BTreeSet<_> = running(manager, "echo").into_iter().collect();
    assert!(now.is_disjoint(&before), "{before:?} ran, {now:?} runs");
}

/// The host names that answer some connections, from a container on the host. A connection
/// that fails is an error.
fn asked(host: &Host, service: &str, connections: u32) -> BTreeSet<String> {
    let script = format!(
        "for n in $(seq {connections}); do curl -m 3 -sS http://{service}:8080/whoami || echo failed; echo; done"
    );
    let toolbox = ["run", "--rm", "--network", "ch03", TOOLBOX, "sh", "-c"];
    let answers = host.ctl(toolbox.into_iter().chain([script.as_str()])).ok();
    assert!(!answers.contains("failed"), "{answers}");
    answers
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn on_host<'a>(tasks: &'a [(String, String)], host: &str) -> Vec<&'a str> {
    let there = tasks.iter().filter(|(_, node)| node == host);
    there.map(|(id, _)| id.as_str()).collect()
}

/// A host that nobody hears of loses its tasks to others, and when it is back it stops its own.
fn a_host_cut_off_comes_back(lab: &Lab) {
    let manager = lab.host("manager01");
    let others = ["manager01", "worker02", "worker03"];
    for other in others {
        lab.partition("worker01", other).unwrap();
    }
    wait::until("four run on the hosts that are left", LIMIT, || {
        let now = running(&manager, "echo");
        (now.len() == 4 && on_host(&now, "worker01").is_empty())
            .then_some(())
            .ok_or(now)
    });
    let answered = asked(&manager, "echo", 40);
    assert_eq!(answered.len(), 4, "{answered:?}");
    lab.heal().unwrap();
    let one = lab.host("worker01");
    wait::until("the host that was cut off stops its own", LIMIT, || {
        let left = one.ctl(["ps", "-q", "--filter", "name=echo."]).ok();
        left.is_empty().then_some(()).ok_or(left)
    });
    for host in [&one, &manager] {
        let answered = asked(host, "echo", 40);
        assert_eq!(answered.len(), 4, "{answered:?}");
    }
}

fn a_lost_host_is_replaced(lab: &Lab) {
    let manager = lab.host("manager01");
    let two = lab.host("worker02");
    let begun = Instant::now();
    two.crash().unwrap();
    wait::until("its tasks run elsewhere", LIMIT, || {
        let now = running(&manager, "echo");
        (now.len() == 4 && on_host(&now, "worker02").is_empty())
            .then_some(())
            .ok_or(now)
    });
    eprintln!("lost to replaced: {:.1} s", begun.elapsed().as_secs_f64());
    let answered = asked(&manager, "echo", 40);
    assert_eq!(answered.len(), 4, "{answered:?}");
    two.start().unwrap();
    wait::until("the host is back", LIMIT, || {
        let nodes = manager.ctl(["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
        let nodes = nodes.ok();
        nodes.contains("worker02 Ready").then_some(()).ok_or(nodes)
    });
    until_running(&manager, "still four", "echo", 4);
    ctl(&manager, "service rm echo");
}
