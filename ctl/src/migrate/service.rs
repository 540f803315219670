//! A ServiceSpec as a service of a compose file: the way back of [`crate::compose::convert`].

use serde_json::Value as Json;

use super::{
    IMAGE, list,
    objects::{Kind, Objects, own_labels},
    shape::{
        Map, cpus, duration, flag, items, null, number, pairs, plain, quoted, size, word, words,
    },
    short, text,
};
use crate::compose::node::Node;

/// One service; notes what is lost.
pub fn service(spec: &Json, objects: &mut Objects<'_>, notes: &mut Vec<String>) -> Map {
    let task = &spec["TaskTemplate"];
    let container = &task["ContainerSpec"];
    let name = short(objects.stack(), text(spec, "/Name"));
    let mut body = Map::default();
    body.put("image", Some(quoted(image(spec, container, notes))));
    body.put("entrypoint", words(&container["Command"]));
    body.put("command", words(&container["Args"]));
    body.put("hostname", word(&container["Hostname"]));
    body.put("environment", words(&container["Env"]));
    body.put("working_dir", word(&container["Dir"]));
    body.put("user", word(&container["User"]));
    body.put("group_add", words(&container["Groups"]));
    body.put("init", container["Init"].as_bool().map(plain));
    body.put("stop_signal", word(&container["StopSignal"]));
    body.put("stop_grace_period", duration(&container["StopGracePeriod"]));
    body.put("tty", flag(&container["TTY"]));
    body.put("stdin_open", flag(&container["OpenStdin"]));
    body.put("read_only", flag(&container["ReadOnly"]));
    body.put("labels", own_labels(&container["Labels"]));
    body.put("extra_hosts", Some(hosts(container)));
    body.put("dns", words(&container["DNSConfig"]["Nameservers"]));
    body.put("dns_search", words(&container["DNSConfig"]["Search"]));
    body.put("dns_opt", words(&container["DNSConfig"]["Options"]));
    body.put("sysctls", pairs(&container["Sysctls"]));
    body.put("cap_add", words(&container["CapabilityAdd"]));
    body.put("cap_drop", words(&container["CapabilityDrop"]));
    body.put("ulimits", Some(ulimits(container)));
    body.put("oom_score_adj", number(&container["OomScoreAdj"]));
    body.put(
        "isolation",
        word(&container["Isolation"]).filter(|n| n.text() != Some("default")),
    );
    body.put("security_opt", Some(security(container, notes)));
    body.put("healthcheck", Some(healthcheck(&container["Healthcheck"])));
    body.put("volumes", Some(mounts(container, objects, notes)));
    body.put("secrets", Some(grants(container, Kind::Secret, objects)));
    body.put("configs", Some(grants(container, Kind::Config, objects)));
    body.put("networks", networks(spec, name, objects, notes));
    body.put("ports", Some(ports(spec)));
    body.put("logging", Some(logging(&task["LogDriver"])));
    body.put("deploy", Some(deploy(spec, notes).done()));
    if !container["Privileges"]["CredentialSpec"].is_null() {
        notes.push("its credential spec is left out: it is for Windows".to_owned());
    }
    body
}

/// As the user wrote it, else without the digest that a deploy has added to a tag.
fn image<'a>(spec: &'a Json, container: &'a Json, notes: &mut Vec<String>) -> &'a str {
    let written = spec["Labels"][IMAGE]
        .as_str()
        .filter(|image| !image.is_empty());
    let resolved = text(container, "/Image");
    let Some((tagged, digest)) = resolved.split_once('@') else {
        return written.unwrap_or(resolved);
    };
    let has_tag = tagged
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'));
    match written {
        Some(written) => written,
        None if has_tag => {
            notes.push(format!("ran {tagged} as {digest}"));
            tagged
        }
        None => resolved,
    }
}

fn hosts(container: &Json) -> Node {
    let entries = list(container, "/Hosts").iter().filter_map(Json::as_str);
    items(entries.flat_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().unwrap_or_default().to_owned();
        let named: Vec<_> = words
            .map(|name| quoted(&format!("{name}={address}")))
            .collect();
        named
    }))
}

fn ulimits(container: &Json) -> Node {
    let mut map = Map::default();
    for limit in list(container, "/Ulimits") {
        let mut both = Map::default();
        both.keep("soft", plain(&limit["Soft"]));
        both.keep("hard", plain(&limit["Hard"]));
        map.put(text(limit, "/Name"), Some(both.done()));
    }
    map.done()
}

fn security(container: &Json, notes: &mut Vec<String>) -> Node {
    let privileges = &container["Privileges"];
    let mut options = Vec::new();
    if privileges["NoNewPrivileges"] == true {
        options.push(quoted("no-new-privileges:true"));
    }
    match text(privileges, "/Seccomp/Mode") {
        "unconfined" => options.push(quoted("seccomp:unconfined")),
        "" | "default" => {}
        mode => notes.push(format!("its seccomp profile ({mode}) is left out")),
    }
    if text(privileges, "/AppArmor/Mode") == "disabled" {
        options.push(quoted("apparmor:unconfined"));
    }
    if !privileges["SELinuxContext"].is_null() {
        notes.push("its SELinux context is left out".to_owned());
    }
    items(options)
}

fn healthcheck(check: &Json) -> Node {
    let mut map = Map::default();
    map.put("test", words(&check["Test"]));
    for (key, field) in [
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ] {
        map.put(key, duration(&check[field]).filter(|_| check[field] != 0));
    }
    map.put("retries", number(&check["Retries"]));
    map.done()
}

fn mounts(container: &Json, objects: &mut Objects<'_>, notes: &mut Vec<String>) -> Node {
    let mut all = Vec::new();
    for mount in list(container, "/Mounts") {
        let (kind, source) = (text(mount, "/Type"), text(mount, "/Source"));
        let target = text(mount, "/Target");
        let mut map = Map::default();
        map.keep("type", quoted(kind));
        match kind {
            "volume" | "cluster" if !source.is_empty() => {
                let key = objects.volume(source, &mount["VolumeOptions"]);
                map.keep("source", quoted(&key));
            }
            _ => {
                map.put("source", word(&mount["Source"]));
            }
        }
        map.keep("target", quoted(target));
        map.put("read_only", flag(&mount["ReadOnly"]));
        map.put("consistency", word(&mount["Consistency"]));
        let options = &mount["BindOptions"];
        let mut bind = Map::default();
        bind.put("propagation", word(&options["Propagation"]));
        bind.put("create_host_path", flag(&options["CreateMountpoint"]));
        let recursive = [
            ("NonRecursive", "disabled"),
            ("ReadOnlyNonRecursive", "writable"),
            ("ReadOnlyForceRecursive", "readonly"),
        ];
        let recursive = recursive.iter().find(|(field, _)| options[*field] == true);
        bind.put("recursive", recursive.map(|(_, word)| quoted(word)));
        map.put("bind", Some(bind.done()));
        let options = &mount["VolumeOptions"];
        let mut volume = Map::default();
        volume.put("nocopy", flag(&options["NoCopy"]));
        volume.put("subpath", word(&options["Subpath"]));
        map.put("volume", Some(volume.done()));
        let options = &mount["TmpfsOptions"];
        let mut tmpfs = Map::default();
        tmpfs.put("size", size(&options["SizeBytes"]));
        tmpfs.put(
            "mode",
            options["Mode"].as_u64().filter(|m| *m != 0).map(octal),
        );
        map.put("tmpfs", Some(tmpfs.done()));
        if !list(mount, "/TmpfsOptions/Options").is_empty() {
            notes.push(format!(
                "further options of the tmpfs {target} are left out"
            ));
        }
        let mut image = Map::default();
        image.put("subpath", word(&mount["ImageOptions"]["Subpath"]));
        map.put("image", Some(image.done()));
        all.push(map.done());
    }
    items(all)
}

fn octal(mode: u64) -> Node {
    plain(format!("0{mode:o}"))
}

fn grants(container: &Json, kind: Kind, objects: &mut Objects<'_>) -> Node {
    let (pointer, field) = match kind {
        Kind::Secret => ("/Secrets", "/SecretName"),
        _ => ("/Configs", "/ConfigName"),
    };
    let mut all = Vec::new();
    for grant in list(container, pointer) {
        // One that is no file is for the runtime, as a credential spec is.
        let Some(file) = grant["File"].as_object() else {
            continue;
        };
        let mut map = Map::default();
        let key = objects.key(kind, text(grant, field));
        map.keep("source", quoted(&key));
        map.put("target", file.get("Name").and_then(word));
        let others = |name: &str| {
            file.get(name)
                .and_then(word)
                .filter(|n| n.text() != Some("0"))
        };
        map.put("uid", others("UID"));
        map.put("gid", others("GID"));
        let mode = file.get("Mode").and_then(Json::as_u64);
        map.put("mode", mode.filter(|mode| *mode != 0o444).map(octal));
        all.push(map.done());
    }
    items(all)
}

fn networks(
    spec: &Json,
    name: &str,
    objects: &mut Objects<'_>,
    notes: &mut Vec<String>,
) -> Option<Node> {
    let task = list(spec, "/TaskTemplate/Networks");
    // Where daemons before 1.25 had them.
    let given = if task.is_empty() {
        list(spec, "/Networks")
    } else {
        task
    };
    let mut map = Map::default();
    for attachment in given {
        let target = text(attachment, "/Target");
        let Some(key) = objects.network(target) else {
            notes.push(format!("its network {target} is not there any more"));
            continue;
        };
        let mut body = Map::default();
        // A deploy adds the short name by itself.
        let aliases = list(attachment, "/Aliases").iter().filter_map(Json::as_str);
        body.put(
            "aliases",
            Some(items(aliases.filter(|alias| *alias != name).map(quoted))),
        );
        body.put("driver_opts", pairs(&attachment["DriverOpts"]));
        map.keep(&key, if body.is_empty() { null() } else { body.done() });
    }
    if map.is_empty() {
        if given.is_empty() {
            notes.push(
                "it was on no network; in a stack it is on the stack's default one".to_owned(),
            );
        }
        return None;
    }
    Some(map.done())
}

fn ports(spec: &Json) -> Node {
    items(list(spec, "/EndpointSpec/Ports").iter().map(|port| {
        let mut map = Map::default();
        map.keep("target", plain(&port["TargetPort"]));
        map.put("published", number(&port["PublishedPort"]));
        map.put(
            "protocol",
            word(&port["Protocol"]).filter(|n| n.text() != Some("tcp")),
        );
        map.put(
            "mode",
            word(&port["PublishMode"]).filter(|n| n.text() != Some("ingress")),
        );
        map.done()
    }))
}

fn logging(driver: &Json) -> Node {
    let mut map = Map::default();
    map.put("driver", word(&driver["Name"]));
    map.put("options", pairs(&driver["Options"]));
    map.done()
}

fn deploy(spec: &Json, notes: &mut Vec<String>) -> Map {
    let task = &spec["TaskTemplate"];
    let mut deploy = Map::default();
    let mode = &spec["Mode"];
    if let Some(replicated) = mode.get("Replicated") {
        deploy.put("replicas", replicated["Replicas"].as_u64().map(plain));
    } else if mode.get("Global").is_some() {
        deploy.put("mode", Some(quoted("global")));
    } else if let Some(job) = mode.get("ReplicatedJob") {
        deploy.put("mode", Some(quoted("replicated-job")));
        let total = job["TotalCompletions"].as_u64().unwrap_or(1);
        deploy.put("replicas", Some(plain(total)));
        if job["MaxConcurrent"]
            .as_u64()
            .is_some_and(|most| most != total)
        {
            notes.push(format!(
                "{} of its tasks ran at once; a stack's job runs all",
                job["MaxConcurrent"]
            ));
        }
        notes.push("it is a job: a deploy runs it again".to_owned());
    } else if mode.get("GlobalJob").is_some() {
        deploy.put("mode", Some(quoted("global-job")));
        notes.push("it is a job: a deploy runs it again".to_owned());
    }
    let endpoint = word(&spec["EndpointSpec"]["Mode"]).filter(|n| n.text() != Some("vip"));
    deploy.put("endpoint_mode", endpoint);
    deploy.put("labels", own_labels(&spec["Labels"]));
    deploy.put("resources", Some(resources(&task["Resources"]).done()));
    let policy = &task["RestartPolicy"];
    let mut restart = Map::default();
    restart.put("condition", word(&policy["Condition"]));
    restart.put("delay", duration(&policy["Delay"]));
    restart.put("max_attempts", policy["MaxAttempts"].as_u64().map(plain));
    restart.put(
        "window",
        duration(&policy["Window"]).filter(|_| policy["Window"] != 0),
    );
    deploy.put("restart_policy", Some(restart.done()));
    let place = &task["Placement"];
    let mut placement = Map::default();
    placement.put("constraints", words(&place["Constraints"]));
    let spread = list(place, "/Preferences").iter().filter_map(|preference| {
        let mut map = Map::default();
        map.put("spread", word(&preference["Spread"]["SpreadDescriptor"]));
        (!map.is_empty()).then(|| map.done())
    });
    placement.put("preferences", Some(items(spread)));
    placement.put("max_replicas_per_node", number(&place["MaxReplicas"]));
    deploy.put("placement", Some(placement.done()));
    deploy.put("update_config", Some(update(&spec["UpdateConfig"])));
    deploy.put("rollback_config", Some(update(&spec["RollbackConfig"])));
    deploy
}

fn resources(all: &Json) -> Map {
    let mut resources = Map::default();
    for (key, field) in [("limits", "Limits"), ("reservations", "Reservations")] {
        let given = &all[field];
        let mut map = Map::default();
        map.put("cpus", cpus(&given["NanoCPUs"]));
        map.put("memory", size(&given["MemoryBytes"]));
        map.put("pids", number(&given["Pids"]));
        let generic = list(given, "/GenericResources")
            .iter()
            .filter_map(|resource| {
                let discrete = resource.get("DiscreteResourceSpec")?;
                let mut spec = Map::default();
                spec.put("kind", word(&discrete["Kind"]));
                spec.put("value", Some(plain(&discrete["Value"])));
                let mut map = Map::default();
                map.put("discrete_resource_spec", Some(spec.done()));
                Some(map.done())
            });
        map.put("generic_resources", Some(items(generic)));
        resources.put(key, Some(map.done()));
    }
    resources
}

fn update(config: &Json) -> Node {
    let mut map = Map::default();
    map.put("parallelism", config["Parallelism"].as_u64().map(plain));
    map.put(
        "delay",
        duration(&config["Delay"]).filter(|_| config["Delay"] != 0),
    );
    map.put("failure_action", word(&config["FailureAction"]));
    map.put(
        "monitor",
        duration(&config["Monitor"]).filter(|_| config["Monitor"] != 0),
    );
    map.put("max_failure_ratio", number(&config["MaxFailureRatio"]));
    map.put("order", word(&config["Order"]));
    map.done()
}
