use std::collections::BTreeSet;

use model::service::{
    EndpointSpec,
    PublishMode::{Host, Ingress},
};

use super::*;
use crate::example::{
    SECOND, apply, network, publish, service, set_network, set_service, set_task, tables, task,
};

/// Decides until nothing is left to do.
fn settle(tables: &mut Tables, now: i64, rested: bool) -> usize {
    for round in 0..10_000 {
        let decision = decide(tables, now, &|_| rested);
        if decision.changes.is_empty() {
            return round;
        }
        apply(tables, now, decision.changes);
    }
    panic!("it never settles");
}

fn vips(tables: &Tables, name: &str) -> Vec<String> {
    let service = tables.work().service(&name.into()).expect("the service");
    let vips = service.endpoint.vips.iter();
    vips.map(|vip| format!("{} {}", vip.network, vip.address))
        .collect()
}

fn published(tables: &Tables, name: &str) -> Vec<u16> {
    let service = tables.work().service(&name.into()).expect("the service");
    service
        .endpoint
        .ports
        .iter()
        .map(|port| port.published)
        .collect()
}

#[test]
fn a_service_and_its_tasks_get_addresses() {
    let mut web = service("web", 2, &["ch03"]);
    web.spec.task.networks[0].aliases = vec!["www".to_owned()];
    publish(&mut web, 80, 8080, Ingress);
    let mut state = tables(vec![
        set_network(network("ch03", &["10.0.1.0/24", "fd00:1::/64"])),
        set_network(network("ingress", &["10.0.0.0/24"])),
        set_task(task(&web, 1)),
        set_service(web),
    ]);
    settle(&mut state, SECOND, true);
    assert_eq!(
        vips(&state, "web"),
        [
            "ch03 10.0.1.2/24",
            "ch03 fd00:1::2/64",
            "ingress 10.0.0.2/24"
        ]
    );
    let one = state.work().task(&"webt1".into()).expect("the task");
    assert_eq!(one.status.state, TaskState::Pending);
    assert_eq!(one.ports[0].published, 8080);
    let endpoints: Vec<_> = one
        .endpoints
        .iter()
        .filter_map(|id| state.endpoint(id))
        .collect();
    assert_eq!(endpoints[0].addresses[0].to_string(), "10.0.1.3/24");
    assert_eq!(endpoints[0].addresses[1].to_string(), "fd00:1::3/64");
    assert_eq!(
        endpoints[0].names,
        ["web.1.webt1", "tasks.web", "tasks.www"]
    );
    assert!(endpoints[0].node.is_empty());
    assert_eq!(endpoints[1].network.as_str(), "ingress");
}

#[test]
fn dnsrr_has_no_virtual_address_and_more_names() {
    let mut web = service("web", 1, &["ch03", "host"]);
    web.spec.task.networks[0].aliases = vec!["www".to_owned()];
    web.spec.endpoint = Some(EndpointSpec {
        mode: EndpointMode::Dnsrr,
        ports: Vec::new(),
    });
    let mut state = tables(vec![
        set_network(network("ch03", &["10.0.1.0/24"])),
        set_task(task(&web, 1)),
        set_service(web),
    ]);
    settle(&mut state, SECOND, true);
    assert!(vips(&state, "web").is_empty());
    let names = &state.endpoints().next().expect("one endpoint").names;
    assert_eq!(
        names,
        &["web.1.webt1", "tasks.web", "web", "tasks.www", "www"]
    );
}

#[test]
fn what_a_service_has_stays_over_updates() {
    let mut web = service("web", 0, &["ch03"]);
    publish(&mut web, 80, 0, Ingress);
    publish(&mut web, 53, 0, Host);
    let mut other = service("other", 0, &["ch03"]);
    publish(&mut other, 80, 30_001, Ingress);
    let mut state = tables(vec![
        set_network(network("ch03", &["10.0.1.0/24"])),
        set_network(network("ch04", &["10.0.2.0/24"])),
        set_service(web),
        set_service(other),
    ]);
    settle(&mut state, SECOND, true);
    assert_eq!(published(&state, "web"), [30_000, 0]);
    let mut web = state
        .work()
        .service(&"web".into())
        .expect("the service")
        .clone();
    let before = vips(&state, "web");
    publish(&mut web, 81, 0, Ingress);
    web.spec
        .task
        .networks
        .extend(crate::example::attachments(&["ch04"]));
    apply(&mut state, SECOND, vec![set_service(web.clone())]);
    settle(&mut state, SECOND, true);
    assert_eq!(
        published(&state, "web"),
        [30_000, 0, 30_002],
        "30001 is another's"
    );
    assert_eq!(
        vips(&state, "web"),
        [before[0].clone(), "ch04 10.0.2.2/24".to_owned()]
    );
    web = state
        .work()
        .service(&"web".into())
        .expect("the service")
        .clone();
    web.spec.task.networks.remove(0);
    apply(&mut state, SECOND, vec![set_service(web)]);
    settle(&mut state, SECOND, true);
    assert_eq!(vips(&state, "web"), ["ch04 10.0.2.2/24"]);
}

#[test]
fn a_port_of_another_service_is_not_given() {
    let mut services = Vec::new();
    for name in ["a", "b"] {
        let mut one = service(name, 1, &[]);
        publish(&mut one, 80, 8080, Ingress);
        services.push(set_task(task(&one, 1)));
        services.push(set_service(one));
    }
    let mut state = tables(services);
    settle(&mut state, SECOND, true);
    assert_eq!(published(&state, "a"), [8080]);
    let late = state.work().task(&"bt1".into()).expect("the task");
    assert_eq!(late.status.state, TaskState::New);
    assert!(
        late.status
            .error
            .contains("8080/tcp is in use by service a"),
        "{}",
        late.status.error
    );
    apply(
        &mut state,
        SECOND,
        vec![StoreChange::RemoveService("a".into())],
    );
    settle(&mut state, SECOND, true);
    assert_eq!(published(&state, "b"), [8080]);
    assert_eq!(
        state
            .work()
            .task(&"bt1".into())
            .expect("the task")
            .status
            .error,
        ""
    );
}

#[test]
fn a_full_network_is_named_and_goes_on_when_there_is_room() {
    let web = service("web", 9, &["small"]);
    let mut changes = vec![set_network(network("small", &["10.0.1.0/29"]))];
    changes.extend((1..=9).map(|slot| set_task(task(&web, slot))));
    changes.push(set_service(web));
    let mut state = tables(changes);
    settle(&mut state, SECOND, false);
    let waiting: Vec<String> = state
        .work()
        .tasks_in(Stage::New)
        .map(|task| task.status.error.clone())
        .collect();
    // Of six addresses the gateway has one and the service one.
    assert_eq!(waiting.len(), 5);
    assert!(waiting[0].starts_with("network small has no free address left in 10.0.1.0/29"));
    let mut over = state
        .work()
        .task(&"webt1".into())
        .expect("the task")
        .clone();
    assert_eq!(over.status.state, TaskState::Pending);
    over.status.state = TaskState::Failed;
    apply(&mut state, SECOND, vec![set_task(over)]);
    settle(&mut state, SECOND, false);
    assert_eq!(
        state.work().tasks_in(Stage::New).count(),
        5,
        "the address rests"
    );
    let error = &state
        .work()
        .tasks_in(Stage::New)
        .next()
        .expect("one waits")
        .status
        .error;
    assert!(error.contains("rest after their last use"), "{error}");
    assert_eq!(
        decide(&state, SECOND, &|_| false).again,
        Some(SECOND + LOOK)
    );
    settle(&mut state, 2 * SECOND, true);
    assert_eq!(state.work().tasks_in(Stage::New).count(), 4);
}

#[test]
fn many_tasks_are_quick_and_no_address_comes_twice() {
    let web = service("web", 10_000, &["big"]);
    let mut changes = vec![set_network(network("big", &["10.0.0.0/16"]))];
    changes.extend((1..=10_000).map(|slot| set_task(task(&web, slot))));
    changes.push(set_service(web));
    let mut state = tables(changes);
    let (begun, mut spent) = (std::time::Instant::now(), std::time::Duration::ZERO);
    loop {
        let look = std::time::Instant::now();
        let decision = decide(&state, SECOND, &|_| true);
        spent += look.elapsed();
        if decision.changes.is_empty() {
            break;
        }
        apply(&mut state, SECOND, decision.changes);
    }
    println!(
        "10,000 tasks: {spent:?} of deciding, {:?} with the store",
        begun.elapsed()
    );
    let addresses: BTreeSet<_> = state.endpoints().map(|one| one.addresses[0]).collect();
    assert_eq!(addresses.len(), 10_000);
    assert!(spent < std::time::Duration::from_secs(2), "{spent:?}");
}
