//! The picture of the cluster in a real browser: the right tasks on the right hosts, live, over a
//! restart of the daemon; and nothing more than it shows. Pictures of it stay in `target/visualizer`.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};
use tests::{
    Host, Lab, Options,
    browser::{Browser, output_folder},
    http::{self, Response},
    wait,
};

const ECHO: &str = "registry:5000/example/echo:latest";
const LIMIT: Duration = Duration::from_secs(60);
const ESCAPE: &str = "\u{e00c}";
const DOWN: &str = "\u{e015}";

#[test]
fn the_cluster_is_seen_live_in_a_browser() {
    let lab = Lab::up(Options::for_test("visualizer")).unwrap();
    let manager = lab.host("manager01");
    let network = ["network", "create", "-d", "overlay", "--attachable", "ch03"];
    manager.ctl(network).ok();
    on_loopback_first(&manager);
    let url = manager.ctl(["visualizer", "--listen", "0.0.0.0"]).ok();
    nothing_without_the_token(&lab, &url);
    nothing_more_than_it_shows(&lab, &url);

    let browser = Browser::start(Some(&lab.host("client")), (1440, 900), None).unwrap();
    browser.prefer("dark").unwrap();
    let page = Page(&browser);
    a_person_gets_in(&page, &url);
    the_right_tasks_on_the_right_hosts(&page, &manager);
    a_scale_is_followed(&page, &manager);
    a_services_page_has_everything(&page, &manager);
    an_update_is_followed(&page, &manager);
    the_keyboard_is_enough(&page);
    search_finds(&page);
    nothing_was_polled(&page);
    it_goes_on_after_a_restart(&page, &manager);
    a_drained_host_is_marked(&page, &manager);
    flows_are_shown(&page, &manager);
    pictures_of_it(&page);
    without_a_complaint(&page);
    it_ends_when_told(&lab, &manager);
    drop(browser);
    lab.down().unwrap();
}

/// Without a word nothing listens; then on the host itself only, and to no name but its own.
fn on_loopback_first(manager: &Host) {
    let here = "http://127.0.0.1:9080/";
    let curl = |args: &[&str]| manager.exec(["curl", "-s", "-m", "5"].iter().chain(args).copied());
    assert_eq!(curl(&[here]).status, 7, "something listens already");
    assert_eq!(manager.ctl(["visualizer"]).ok(), here);
    assert!(curl(&[here]).ok().contains("<title>Overnet</title>"));
    let nodes = curl(&["http://localhost:9080/nodes"]).ok();
    let nodes: Value = serde_json::from_str(&nodes).unwrap();
    assert_eq!(nodes.as_array().map(Vec::len), Some(4));
    let foreign = curl(&["-H", "Host: evil.example", "http://127.0.0.1:9080/nodes"]);
    assert!(foreign.ok().contains("this host only"));
}

/// A request of `client` to the page's port.
fn ask(lab: &Lab, url: &str, method: &str, path: &str, cookie: &str) -> Response {
    let at = url.trim_start_matches("http://").split('/').next().unwrap();
    let at: SocketAddr = at.parse().unwrap();
    let stream = lab.host("client").within(|| TcpStream::connect(at));
    let stream = stream.unwrap().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    http::request(stream, method, path, &[("Cookie", cookie)], b"").unwrap()
}

fn token(url: &str) -> &str {
    url.split_once("token=").unwrap().1
}

fn nothing_without_the_token(lab: &Lab, url: &str) {
    assert_eq!(token(url).len(), 32, "{url}");
    let door = ask(lab, url, "GET", "/", "");
    assert_eq!(door.status, 401);
    assert!(door.text().contains("name=\"token\""), "{}", door.text());
    for cookie in ["", "overnet-token=", "overnet-token=0123"] {
        let answer = ask(lab, url, "GET", "/tasks", cookie);
        assert_eq!(answer.status, 401, "{}", answer.text());
        assert!(
            answer.json()["message"]
                .as_str()
                .unwrap()
                .contains("ovnctl visualizer")
        );
    }
    let wrong = ask(lab, url, "GET", "/?token=wrong", "");
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    let right = ask(lab, url, "GET", &format!("/?token={}", token(url)), "");
    assert_eq!((right.status, right.header("location")), (303, Some("./")));
    assert!(right.header("set-cookie").unwrap().contains("HttpOnly"));
}

fn nothing_more_than_it_shows(lab: &Lab, url: &str) {
    let cookie = format!("overnet-token={}", token(url));
    let page = ask(lab, url, "GET", "/", &cookie);
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(ask(lab, url, "GET", "/nodes", &cookie).status, 200);
    for path in [
        "/secrets",
        "/configs",
        "/swarm",
        "/containers/json",
        "/info",
        "/v1.53/nodes",
        "/overnet/dataplane",
        "/overnet/visualizer",
        "/../../etc/passwd",
    ] {
        assert_eq!(ask(lab, url, "GET", path, &cookie).status, 404, "{path}");
    }
    for (method, path) in [
        ("POST", "/services/create"),
        ("DELETE", "/overnet/visualizer"),
        ("POST", "/nodes/x/update"),
        ("PUT", "/"),
    ] {
        assert_eq!(ask(lab, url, method, path, &cookie).status, 403, "{path}");
    }
}

/// The page, as a person sees it.
struct Page<'a>(&'a Browser);

impl Page<'_> {
    fn run(&self, script: &str) -> Value {
        self.0.run(script).unwrap()
    }

    fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.textContent ?? ''");
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    fn picture(&self, name: &str) {
        let file = output_folder("visualizer").unwrap().join(name);
        self.0.picture(&file).unwrap();
        eprintln!("picture: {}", file.display());
    }

    /// Id of each running task, with its name and its host, as drawn.
    fn drawn(&self) -> BTreeMap<String, String> {
        let drawn = self.run(
            "return Object.fromEntries([...document.querySelectorAll('.tile[data-phase=running]:not([data-leaving])')]
               .map((tile) => [tile.dataset.task, `${tile.dataset.name} ${tile.closest('.host').dataset.name}`]))",
        );
        serde_json::from_value(drawn).unwrap()
    }

    fn until_text(&self, what: &str, selector: &str, wanted: impl Fn(&str) -> bool) {
        wait::until(what, LIMIT, || {
            let text = self.text(selector);
            if wanted(&text) { Ok(()) } else { Err(text) }
        });
    }

    /// Until as many tasks run as are wanted, and the page shows just those.
    fn until_true(&self, manager: &Host, what: &str, count: usize) {
        wait::until(what, LIMIT, || {
            let (truth, drawn) = (running(manager), self.drawn());
            if truth.len() == count && truth == drawn {
                Ok(())
            } else {
                Err((truth, drawn))
            }
        });
    }
}

/// The same as [`Page::drawn`], as the API tells it.
fn running(manager: &Host) -> BTreeMap<String, String> {
    let list = |path| manager.api("GET", path, b"").unwrap().json();
    let (tasks, nodes, services) = (list("/tasks"), list("/nodes"), list("/services"));
    let name = |list: &Value, id: &Value, pointer: &str| {
        let all = list.as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|one| one["ID"] == *id);
        found.and_then(|one| Some(one.pointer(pointer)?.as_str()?.to_owned()))
    };
    let mut running = BTreeMap::new();
    for task in tasks.as_array().into_iter().flatten() {
        if task["Status"]["State"] != "running" || task["DesiredState"] != "running" {
            continue;
        }
        let host = name(&nodes, &task["NodeID"], "/Description/Hostname").unwrap_or_default();
        let service = name(&services, &task["ServiceID"], "/Spec/Name").unwrap_or_default();
        let id = task["ID"].as_str().unwrap().to_owned();
        running.insert(id, format!("{service}.{} {host}", task["Slot"]));
    }
    running
}

fn a_person_gets_in(page: &Page<'_>, url: &str) {
    let bare = url.split('?').next().unwrap();
    page.0.open(bare).unwrap();
    page.picture("door.png");
    page.0.click("#token").unwrap();
    page.0.press(token(url)).unwrap();
    page.0.click("button").unwrap();
    page.until_text("the page is live", "#link", |text| text == "live");
    assert_eq!(
        page.run("return location.href"),
        bare,
        "the token is in sight"
    );
    page.0.open(url).unwrap();
    page.until_text("it is live again", "#link", |text| text == "live");
    assert_eq!(page.run("return location.href"), bare);
    let paint = wait::until("the page has been painted", LIMIT, || {
        let first = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime";
        page.run(first).as_f64().ok_or("not yet")
    });
    eprintln!("first paint after {paint} ms");
    assert!((0.0..5000.0).contains(&paint), "{paint}");
}

fn the_right_tasks_on_the_right_hosts(page: &Page<'_>, manager: &Host) {
    let hosts = page.run(
        "return [...document.querySelectorAll('.host')].map((host) => [host.dataset.name, host.dataset.role])",
    );
    assert_eq!(
        hosts,
        json!([
            ["manager01", "leader"],
            ["worker01", "worker"],
            ["worker02", "worker"],
            ["worker03", "worker"]
        ])
    );
    let service = [
        "service",
        "create",
        "-d",
        "--name",
        "web",
        "--replicas",
        "3",
        "--network",
        "ch03",
        "--publish",
        "8000:8080",
        "--stop-grace-period",
        "1s",
        "--reserve-memory",
        "64m",
        ECHO,
    ];
    manager.ctl(service).ok();
    page.until_true(manager, "three tasks are where they are", 3);
    page.until_text(
        "the service is in the list",
        "[data-service] .count",
        |text| text == "3/3",
    );
    assert_eq!(page.text("[data-service] b"), "web");
    page.until_text("its port is", "[data-service] .ports", |text| {
        text == ":8000"
    });
    page.until_text("tasks are counted", "#total-tasks", |text| text == "3/3");
}

fn a_scale_is_followed(page: &Page<'_>, manager: &Host) {
    manager.ctl(["service", "scale", "-d", "web=8"]).ok();
    page.until_true(manager, "eight tasks are where they are", 8);
    manager.ctl(["service", "scale", "-d", "web=6"]).ok();
    page.until_true(manager, "two tasks are gone", 6);
    page.picture("hosts-dark.png");
}

fn a_services_page_has_everything(page: &Page<'_>, manager: &Host) {
    page.0.click("[data-service]").unwrap();
    page.until_text("its page opens", "#panel-title", |text| text == "web");
    assert_eq!(page.run("return document.activeElement.id"), "panel-title");
    let rows = "return document.querySelectorAll('.panel .row[data-phase=running]').length";
    wait::until("the tasks are listed", LIMIT, || {
        let count = page.run(rows);
        if count == 6 { Ok(()) } else { Err(count) }
    });
    page.until_text("logs are there", ".logs", |text| {
        text.contains("start server")
    });
    let facts = page.text(".facts");
    for words in ["8000→8080", "replicated", "ch03", ECHO] {
        assert!(facts.contains(words), "{facts}");
    }
    page.until_text("events are there", ".panel .activity", |text| {
        text.contains("runs on worker")
    });
    // Slot 9 never was before.
    let ninth =
        "return [...document.querySelectorAll('.logs b')].some((name) => name.textContent === '9')";
    assert_eq!(page.run(ninth), false);
    manager.ctl(["service", "scale", "-d", "web=9"]).ok();
    wait::until("the lines of a new task follow", LIMIT, || {
        let there = page.run(ninth);
        if there == true { Ok(()) } else { Err(there) }
    });
    page.until_true(manager, "nine tasks are where they are", 9);
}

fn an_update_is_followed(page: &Page<'_>, manager: &Host) {
    let before = page.drawn();
    let update = [
        "service",
        "update",
        "-d",
        "--env-add",
        "A=b",
        "--update-parallelism",
        "2",
        "--update-monitor",
        "1s",
        "web",
    ];
    manager.ctl(update).ok();
    page.until_text("the update is seen going", ".progress", |text| {
        text.starts_with("updating")
    });
    page.picture("update.png");
    page.until_text("and seen done", ".progress", |text| {
        text.starts_with("completed")
    });
    page.until_true(manager, "nine new tasks are where they are", 9);
    let after = page.drawn();
    assert!(
        before.keys().all(|id| !after.contains_key(id)),
        "{before:?} {after:?}"
    );
    page.picture("service.png");
}

fn the_keyboard_is_enough(page: &Page<'_>) {
    page.0.press(ESCAPE).unwrap();
    assert_eq!(
        page.run("return document.querySelector('#panel').hidden"),
        true
    );
    page.run("document.querySelector('.host-name').focus()");
    page.0.press(DOWN).unwrap();
    let host = page.run("return document.activeElement.closest('.host').dataset.name");
    assert_eq!(host, "worker01");
    // Right: the first task of the host; Enter opens it.
    page.0.press("\u{e014}\u{e007}").unwrap();
    page.until_text("the task's page opens", "#panel-title", |text| {
        text.starts_with("web.")
    });
    let title = page.text("#panel-title");
    page.0.press(ESCAPE).unwrap();
    let back = page.run("return document.activeElement.dataset.name");
    assert_eq!(back, title, "the focus is not where it was");
    let unnamed = page.run(
        "return [...document.querySelectorAll('button, input')]
           .filter((one) => !one.textContent.trim() && !one.ariaLabel).map((one) => one.outerHTML)",
    );
    assert_eq!(unnamed, json!([]));
}

fn search_finds(page: &Page<'_>) {
    page.0.press("/worker02").unwrap();
    let shown = "return [...new Set([...document.querySelectorAll('.tile:not([data-miss])')].map((tile) => tile.closest('.host').dataset.name))]";
    wait::until("only its tasks are lit", LIMIT, || {
        let hosts = page.run(shown);
        if hosts == json!(["worker02"]) {
            Ok(())
        } else {
            Err(hosts)
        }
    });
    assert!(page.text("#found").ends_with("on 1 host"));
    page.0.press(ESCAPE).unwrap();
    page.until_text("and all are again", "#found", str::is_empty);
}

/// One list, one stream, and from then on single objects.
fn nothing_was_polled(page: &Page<'_>) {
    let asked = page.run(
        "return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname)",
    );
    let count = |path: &str| {
        let all = asked.as_array().into_iter().flatten();
        all.filter(|asked| *asked == path).count()
    };
    assert_eq!((count("/tasks"), count("/nodes")), (1, 1), "{asked}");
}

fn it_goes_on_after_a_restart(page: &Page<'_>, manager: &Host) {
    manager.kill().unwrap();
    page.until_text("the page notices", "#link", |text| text == "reconnecting");
    assert_eq!(page.drawn().len(), 9, "the last that was seen is gone");
    page.picture("away.png");
    manager.start().unwrap();
    page.until_text("it finds back by itself", "#link", |text| text == "live");
    wait::until("the cluster is there again", LIMIT, || {
        let scaled = manager.ctl(["service", "scale", "-d", "web=4"]);
        if scaled.success() {
            Ok(())
        } else {
            Err(scaled)
        }
    });
    page.until_true(manager, "four tasks are where they are", 4);
}

fn a_drained_host_is_marked(page: &Page<'_>, manager: &Host) {
    let drain = ["node", "update", "--availability", "drain", "worker01"];
    manager.ctl(drain).ok();
    page.until_text(
        "the badge is there",
        "[data-name=worker01] .badge",
        |text| text == "drain",
    );
    page.until_true(manager, "its tasks are elsewhere", 4);
    let left =
        "return document.querySelectorAll('[data-name=worker01] .tile:not([data-leaving])').length";
    wait::until("none is drawn there", LIMIT, || {
        let count = page.run(left);
        if count == 0 { Ok(()) } else { Err(count) }
    });
}

/// Counted while the page looks, and only then.
fn flows_are_shown(page: &Page<'_>, manager: &Host) {
    let table = || {
        let tables = manager.exec(["nft", "list", "tables"]).ok();
        tables.contains("overnet_traffic")
    };
    assert!(!table(), "packets are counted without anybody looking");
    let asker = [
        "run",
        "-d",
        "--name",
        "asker",
        "--network",
        "ch03",
        ECHO,
        "load",
        "web:8080",
        "600",
        "100",
    ];
    manager.ctl(asker).ok();
    page.0.click("[data-tab=networks]").unwrap();
    page.until_text("the network is listed", ".networks", |text| {
        text.contains("ch03")
    });
    wait::until("what flows is drawn", LIMIT, || {
        let flows = page.run("return document.querySelectorAll('.flows path').length");
        if flows.as_u64() > Some(0) {
            Ok(())
        } else {
            Err(flows)
        }
    });
    assert!(table());
    let rows = page.text(".tunnels");
    assert!(rows.contains("worker0") && rows.contains("B/s"), "{rows}");
    // Not only of the host that serves the page.
    page.until_text(
        "tunnels between other hosts are there",
        ".tunnels",
        |text| text.contains("worker01 ⇄ worker02") || text.contains("worker02 ⇄ worker01"),
    );
    page.until_text("losses and round trips are shown", ".tunnels", |text| {
        text.contains(" ms round trip · no losses")
    });
    page.picture("networks-dark.png");
    page.0.click("[data-tab=hosts]").unwrap();
    manager.ctl(["rm", "-f", "asker"]).ok();
    wait::until("nothing is counted any more", LIMIT, || {
        if table() { Err(()) } else { Ok(()) }
    });
}

fn pictures_of_it(page: &Page<'_>) {
    page.0.prefer("light").unwrap();
    page.picture("hosts-light.png");
    page.0.click("[data-tab=networks]").unwrap();
    page.until_text("the network is listed", ".networks", |text| {
        text.contains("ch03")
    });
    page.picture("networks-light.png");
    page.0.click("[data-tab=hosts]").unwrap();
    page.0.resize(390, 844).unwrap();
    let wide = page.run("return document.documentElement.scrollWidth");
    assert!(
        wide.as_u64().unwrap() <= 390,
        "a phone has to scroll aside: {wide}"
    );
    page.picture("phone-light.png");
    page.0.prefer("dark").unwrap();
    page.picture("phone-dark.png");
    page.0.resize(1440, 900).unwrap();
}

/// What failed while the daemon was away is no fault of the page.
fn without_a_complaint(page: &Page<'_>) {
    let lines = page.0.console().unwrap();
    let faults: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("SEVERE"))
        .filter(|line| !line.contains("ERR_") && !line.contains("503") && !line.contains("401"))
        .collect();
    assert!(faults.is_empty(), "{faults:?}");
}

fn it_ends_when_told(lab: &Lab, manager: &Host) {
    let again = manager.ctl(["visualizer"]).ok();
    assert!(again.contains("token="), "a restart forgot where: {again}");
    manager.ctl(["visualizer", "--stop"]).ok();
    let at = again.split('?').next().unwrap().to_owned();
    let refused = lab.host("client").exec(["curl", "-s", "-m", "5", &at]);
    assert_eq!(refused.status, 7, "{refused:?}");
}
