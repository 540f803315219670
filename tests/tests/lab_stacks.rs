//! The users' own session with their three compose files, byte for byte, as typed: once with
//! ovnctl, once with the stock docker command line, each in a cluster of four hosts.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{collections::BTreeSet, fs, time::Duration};

use tests::{Host, Lab, Options, Output, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(60);
const HOSTS: [&str; 4] = ["manager01", "worker01", "worker02", "worker03"];

/// One of the two command lines.
type Cli = fn(&Host, &[&str]) -> Output;

fn ovnctl(host: &Host, args: &[&str]) -> Output {
    host.ctl(args)
}

fn docker(host: &Host, args: &[&str]) -> Output {
    host.docker(args)
}

/// What the session is run with.
struct Session {
    lab: Lab,
    cli: Cli,
    /// Whether a deploy without changes must say so.
    says_what_stays: bool,
    /// The proxy's file, as this command line takes it.
    ingress: String,
}

#[test]
fn with_ovnctl() {
    let lab = Lab::up(Options::for_test("stacks-ovnctl")).unwrap();
    session(Session {
        lab,
        cli: ovnctl,
        says_what_stays: true,
        ingress: "/stack/ch03-ingress.yml".to_owned(),
    });
}

#[test]
fn with_the_stock_docker_cli() {
    let lab = Lab::up(Options::for_test("stacks-docker")).unwrap();
    // Its reader refuses a key that is written twice, before any daemon hears of it.
    let refused = docker(
        &lab.host("manager01"),
        &[
            "stack",
            "deploy",
            "-c",
            "/stack/ch03-ingress.yml",
            "ingress",
        ],
    );
    assert!(refused.failed().contains("networks"));
    let text = include_str!("../stack/ch03-ingress.yml");
    let (before, after) = text
        .rsplit_once("        networks:\n            - ch03\n")
        .unwrap();
    let file = lab.dir().join("ch03-ingress.yml");
    fs::write(&file, format!("{before}{after}")).unwrap();
    session(Session {
        lab,
        cli: docker,
        says_what_stays: false,
        ingress: file.display().to_string(),
    });
}

fn session(session: Session) {
    session.a_service_by_hand();
    session.the_network();
    session.the_web_tier();
    session.the_visualizer();
    session.the_proxy();
    session.what_the_lists_say();
    session.a_second_deploy_restarts_nothing();
    session.the_proxy_follows();
    session.all_is_removed();
    session.lab.down().unwrap();
}

impl Session {
    fn cli(&self, args: &[&str]) -> String {
        (self.cli)(&self.manager(), args).ok()
    }

    fn manager(&self) -> Host {
        self.lab.host("manager01")
    }

    /// What the client gets from every host; fails with the first that gives something else.
    fn through_every_host(&self, rest: &str, wanted: &str) -> Result<(), String> {
        for host in HOSTS {
            let answer = self.fetch(&format!("http://{}{rest}", self.address(host)));
            if !answer.contains(wanted) {
                return Err(format!("{host}: {answer}"));
            }
        }
        Ok(())
    }

    fn address(&self, host: &str) -> String {
        self.lab.host(host).member().address().to_string()
    }

    /// An answer's text, or what went wrong.
    fn fetch(&self, url: &str) -> String {
        let client = self.lab.host("client");
        let got = client.exec(["curl", "-sS", "--max-time", "5", "-u", "stats:stats", url]);
        got.stdout + &got.stderr
    }

    /// Tasks that shall run, as `ID NAME NODE`; fails while one of them does not.
    fn tasks(&self, stack: &str) -> Result<BTreeSet<String>, String> {
        let format = "{{.ID}} {{.Name}} {{.Node}} {{.CurrentState}}";
        let filter = "desired-state=running";
        let listed = self.cli(&[
            "stack",
            "ps",
            "--no-trunc",
            "--filter",
            filter,
            "--format",
            format,
            stack,
        ]);
        if listed.is_empty() || !listed.lines().all(|line| line.contains(" Running ")) {
            return Err(listed);
        }
        let first = |line: &str| line.split(' ').take(3).collect::<Vec<_>>().join(" ");
        Ok(listed.lines().map(first).collect())
    }

    fn until_tasks(&self, stack: &str, count: usize) -> BTreeSet<String> {
        wait::until(&format!("{count} tasks of {stack} run"), LIMIT, || {
            let tasks = self.tasks(stack)?;
            if tasks.len() == count {
                Ok(tasks)
            } else {
                Err(format!("{tasks:?}"))
            }
        })
    }

    fn toolbox(&self, host: &str, script: &str) -> String {
        let run = ["run", "--rm", "--network", "ch03", TOOLBOX, "sh", "-c"];
        let mut args = run.to_vec();
        args.push(script);
        (self.cli)(&self.lab.host(host), &args).ok()
    }

    fn a_service_by_hand(&self) {
        let printed = self.cli(&[
            "service",
            "create",
            "--replicas",
            "1",
            "--publish",
            "8000:8080",
            "--name",
            "echo",
            ECHO,
        ]);
        let id = printed.lines().next().unwrap_or_default();
        assert!(
            id.len() == 25 && id.bytes().all(|b| b.is_ascii_alphanumeric()),
            "{printed}"
        );
        for words in [
            "overall progress: 1 out of 1 tasks",
            "verify: Service ",
            "converged",
        ] {
            assert!(printed.contains(words), "{words} is not in {printed}");
        }
        wait::until("the client is answered by every host", LIMIT, || {
            self.through_every_host(":8000/", "Hello Docker!!")
        });
        let service = self.cli(&["service", "ls"]);
        let words: Vec<&str> = service.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            words[1..],
            ["echo", "replicated", "1/1", ECHO, "*:8000->8080/tcp"]
        );
        self.cli(&["service", "scale", "echo=6"]);
        let format = "{{.Name}} {{.Replicas}}";
        assert_eq!(self.cli(&["service", "ls", "--format", format]), "echo 6/6");
        let names = self.cli(&["service", "ps", "--format", "{{.Name}}", "echo"]);
        let mut names: Vec<&str> = names.lines().collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["echo.1", "echo.2", "echo.3", "echo.4", "echo.5", "echo.6"]
        );
        assert_eq!(self.cli(&["service", "rm", "echo"]), "echo");
    }

    fn the_network(&self) {
        let id = self.cli(&[
            "network",
            "create",
            "--driver=overlay",
            "--attachable",
            "ch03",
        ]);
        assert_eq!(id.len(), 25, "{id}");
        let format = "{{.Name}} {{.Driver}} {{.Scope}}";
        let listed = self.cli(&["network", "ls", "--format", format]);
        for line in ["ch03 overlay swarm", "ingress overlay swarm"] {
            assert!(listed.lines().any(|found| found == line), "{listed}");
        }
    }

    fn the_web_tier(&self) {
        let file = "/stack/ch03-webapi.yml";
        let printed = self.cli(&["stack", "deploy", "-c", file, "echo"]);
        for service in ["echo_api", "echo_nginx"] {
            assert!(
                printed.contains(&format!("Creating service {service}")),
                "{printed}"
            );
        }
        let tasks = self.until_tasks("echo", 6);
        for task in &tasks {
            assert!(!task.ends_with(" manager01"), "on a manager: {task}");
        }
        // The name of the api is of its three replicas, and nginx brings their answers.
        wait::until("all replicas answer by the service's name", LIMIT, || {
            let script = "for n in $(seq 30); do wget -qO- http://echo_api:8080/whoami; done";
            let answers = self.toolbox("worker01", script);
            let who: BTreeSet<&str> = answers
                .lines()
                .filter_map(|l| l.rsplit(' ').next())
                .collect();
            if who.len() == 3 {
                Ok(())
            } else {
                Err(answers.clone())
            }
        });
        for host in HOSTS {
            let answer = self.toolbox(host, "wget -qO- http://echo_nginx");
            assert_eq!(answer, "Hello Docker!!", "from {host}");
        }
    }

    fn the_visualizer(&self) {
        let printed = self.cli(&[
            "stack",
            "deploy",
            "-c",
            "/stack/visualizer.yml",
            "visualizer",
        ]);
        for line in [
            "Creating network visualizer_default",
            "Creating service visualizer_app",
        ] {
            assert!(printed.contains(line), "{printed}");
        }
        let tasks = self.until_tasks("visualizer", 1);
        assert!(tasks.first().unwrap().ends_with(" manager01"), "{tasks:?}");
        for wanted in ["<h2>worker03</h2>", "echo_nginx.3 running"] {
            wait::until("the cluster is drawn", LIMIT, || {
                self.through_every_host(":9000/", wanted)
            });
        }
    }

    fn the_proxy(&self) {
        let printed = self.cli(&["stack", "deploy", "-c", &self.ingress, "ingress"]);
        assert!(
            printed.contains("Creating service ingress_haproxy"),
            "{printed}"
        );
        self.until_tasks("ingress", 1);
        wait::until("the proxy answers with the api's words", LIMIT, || {
            self.through_every_host("/", "Hello Docker!!")
        });
        wait::until("its statistics show the web tier", LIMIT, || {
            self.through_every_host(":1936/", "echo_nginx.3")
        });
        let client = self.lab.host("client");
        let url = format!("http://{}:1936/", self.address("worker02"));
        let code = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", &url];
        assert_eq!(client.exec(code).ok(), "401");
    }

    fn what_the_lists_say(&self) {
        let format = "{{.Name}} {{.Services}}";
        let listed = self.cli(&["stack", "ls", "--format", format]);
        assert_eq!(listed, "echo 2\ningress 1\nvisualizer 1");
        let format = "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} [{{.Ports}}]";
        let services = self.cli(&["stack", "services", "--format", format, "echo"]);
        let mut services: Vec<&str> = services.lines().collect();
        services.sort_unstable();
        assert_eq!(
            services,
            [
                format!("echo_api replicated 3/3 {ECHO} []"),
                "echo_nginx replicated 3/3 gihyodocker/nginx-proxy:latest []".to_owned(),
            ]
        );
        let services = self.cli(&["stack", "services", "--format", format, "ingress"]);
        assert_eq!(
            services,
            "ingress_haproxy global 1/1 dockercloud/haproxy:latest [*:80->80/tcp, *:1936->1936/tcp]"
        );
    }

    fn a_second_deploy_restarts_nothing(&self) {
        let stacks = [
            ("/stack/ch03-webapi.yml", "echo", 6),
            ("/stack/visualizer.yml", "visualizer", 1),
            (&*self.ingress, "ingress", 1),
        ];
        for (file, stack, count) in stacks {
            let before = self.until_tasks(stack, count);
            let printed = self.cli(&["stack", "deploy", "-c", file, stack]);
            let updating = format!("Updating service {stack}_");
            for line in printed.lines().filter(|line| line.contains("service")) {
                assert!(line.starts_with(&updating), "{printed}");
                if self.says_what_stays {
                    assert!(line.ends_with(": nothing changed"), "{printed}");
                }
            }
            assert!(printed.contains(&updating), "{printed}");
            let everything = ["stack", "ps", "--no-trunc", "--format", "{{.ID}}", stack];
            assert_eq!(self.cli(&everything).lines().count(), count);
            assert_eq!(self.until_tasks(stack, count), before);
        }
    }

    /// Its backends are the cluster's tasks, also after the daemon it asks was killed.
    fn the_proxy_follows(&self) {
        let shown = |wanted: &str| self.through_every_host(":1936/", wanted);
        self.cli(&["service", "scale", "-d", "echo_nginx=4"]);
        wait::until("the proxy knows a fourth task", LIMIT, || {
            shown("echo_nginx.4.")
        });
        let manager = self.manager();
        manager.kill().unwrap();
        manager.start().unwrap();
        self.cli(&["service", "scale", "-d", "echo_nginx=5"]);
        wait::until("the proxy knows a fifth task", LIMIT, || {
            shown("echo_nginx.5.")
        });
        // The file's number holds again.
        self.cli(&["stack", "deploy", "-c", "/stack/ch03-webapi.yml", "echo"]);
        self.until_tasks("echo", 6);
        wait::until("the proxy has forgotten them", LIMIT, || {
            match shown("echo_nginx.4.") {
                Ok(()) => Err("still there"),
                Err(_) => Ok(()),
            }
        });
        wait::until("it still answers", LIMIT, || {
            self.through_every_host("/", "Hello Docker!!")
        });
    }

    fn all_is_removed(&self) {
        let printed = self.cli(&["stack", "rm", "ingress", "visualizer", "echo"]);
        for line in [
            "Removing service ingress_haproxy",
            "Removing service visualizer_app",
            "Removing network visualizer_default",
            "Removing service echo_api",
            "Removing service echo_nginx",
        ] {
            assert!(printed.contains(line), "{line} is not in {printed}");
        }
        assert_eq!(self.cli(&["stack", "ls", "--format", "{{.Name}}"]), "");
        for host in HOSTS {
            wait::until(&format!("{host} has no container"), LIMIT, || {
                let left = (self.cli)(&self.lab.host(host), &["ps", "-aq"]).ok();
                if left.is_empty() { Ok(()) } else { Err(left) }
            });
        }
        wait::until("the network is free", LIMIT, || {
            let removed = (self.cli)(&self.manager(), &["network", "rm", "ch03"]);
            if removed.success() {
                Ok(())
            } else {
                Err(removed.stderr)
            }
        });
    }
}
