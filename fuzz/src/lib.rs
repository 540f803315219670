//! What the outside may send, and who reads it: one function for each parser. None of them may
//! panic, hang or take much memory, whatever the bytes.
//!
//! Two programs call them: libFuzzer (this package, on a nightly toolchain, see `scripts/fuzz`), and
//! the test that replays the kept corpus with mutations on the stable one (`tests/tests/fuzz.rs`
//! includes this file).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

use model::Refusal;
use serde_json::{Value, json};

/// A parser, and the words that make its inputs interesting.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub words: &'static [&'static str],
    /// Whether it works on files, which takes longer.
    pub slow: bool,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    fast(
        "container",
        container,
        &[
            "{",
            "}",
            "[",
            "null",
            "\"HostConfig\":",
            "\"Image\":\"a\"",
            "\"Mounts\":[{\"Type\":\"bind\"}]",
            "\"Binds\":[\"a:/b:ro\"]",
            "\"PortBindings\":{\"80-90/tcp\":[{\"HostPort\":\"1-65535\"}]}",
            "-1",
            "9223372036854775807",
            "1e999",
            "\\ud800",
            "\"NetworkMode\":\"container:a\"",
        ],
    ),
    fast(
        "body",
        body,
        &[
            "{",
            "[",
            "null",
            "\"TaskTemplate\":{",
            "\"ContainerSpec\":{",
            "\"IPAM\":{\"Config\":[{\"Subnet\":\"10.0.0.0/8\"}]}",
            "::/0",
            "0.0.0.0/0",
            "18446744073709551615",
            "-9223372036854775808",
            "\"EndpointSpec\":{\"Ports\":[{\"TargetPort\":4294967295}]}",
            "AAAA",
            "\"Mode\":{\"Replicated\":{\"Replicas\":1}}",
        ],
    ),
    fast(
        "query",
        query,
        &[
            "filters=",
            "%7B",
            "%22",
            "%00",
            "&",
            "=",
            "{\"label\":{\"a=b\":true}}",
            "{\"label\":[\"a\"]}",
            "until",
            "24h",
            "+",
            "%ff",
        ],
    ),
    fast(
        "words",
        words,
        &[
            "2006-01-02T15:04:05.999999999+14:00",
            "24h",
            "1.5",
            "ms",
            "k",
            "GiB",
            "@sha256:",
            "/",
            ":",
            "host_ip=",
            "nodes=",
            "ctrl-",
            "tcp://",
            "[::1]",
            "OU=",
            "=admin",
            "18446744073709551616",
        ],
    ),
    slow(
        "layer",
        layer,
        &[
            "../",
            "/",
            ".wh.",
            ".wh..wh..opq",
            "ustar",
            "30 mtime=1.5\n",
            "SCHILY.xattr.",
            "path=",
            "linkpath=",
            "size=18446744073709551615",
            "GNU.sparse.major=1",
        ],
    ),
    slow(
        "log",
        log,
        &[
            "2026-01-01T00:00:00.000000000Z stdout F ",
            " stderr P ",
            "\n",
            "9999-12-31T23:59:59.999999999+23:59",
            "\0",
        ],
    ),
    fast(
        "compose",
        compose,
        &[
            "services:\n",
            "  web:\n",
            "    image: a\n",
            "&a",
            "*a",
            "<<: ",
            "${A:-${B}}",
            "$$",
            "!reset",
            "!override",
            "extends:",
            "include:",
            "ports: [\"1-65535:1-65535\"]",
            "? ",
            "|\n",
            "- ",
            "\t",
            "{",
            "[",
        ],
    ),
    fast(
        "dotenv",
        dotenv,
        &[
            "A=", "export ", "'", "\"", "${", "}", ":-", "\\n", "#", "\n",
        ],
    ),
    fast(
        "frames",
        frames,
        &[
            "\0\0\0\0",
            "\u{1}\0\0\0\0\0\0\u{1}",
            "{\"a\":1}",
            "}{",
            "\n",
        ],
    ),
    fast(
        "dns",
        dns,
        &[
            "\u{3}web",
            "\u{4}ch03",
            "\0",
            "\0\u{1}\0\u{1}",
            "in-addr\u{4}arpa",
            "\0\u{29}",
            "\u{3f}",
        ],
    ),
    fast(
        "cni",
        cni,
        &[
            "{",
            "\"cniVersion\":\"1.1.0\"",
            "\"name\":\"a\"",
            "\"type\":\"overnet-cni\"",
            "\"network\":",
            "\"runtimeConfig\":{\"ips\":[\"10.0.0.1/24\"]}",
            "\"prevResult\":{",
            "\"cni.dev/valid-attachments\":[",
            "null",
            "K8S_POD_NAME=a;",
            "IgnoreUnknown=1",
        ],
    ),
    fast(
        "template",
        template,
        &[
            "{{",
            "}}",
            "{{range .}}",
            "{{end}}",
            "{{with $x := .A}}",
            "| json",
            "printf \"%s\"",
            "(",
            ")",
            "`",
            "{{- ",
            " -}}",
            "index . 0",
            "slice",
            "{{else if",
            "{{break}}",
            "%9999999d",
            "$",
        ],
    ),
    fast(
        "certificate",
        certificate,
        &[
            "\u{30}\u{2}",
            "\u{6}\u{3}\u{55}\u{4}\u{3}",
            "\u{c}\u{1}",
            "\u{30}\u{7f}",
        ],
    ),
];

const fn fast(name: &'static str, run: fn(&[u8]), words: &'static [&'static str]) -> Target {
    Target {
        name,
        run,
        words,
        slow: false,
    }
}

const fn slow(name: &'static str, run: fn(&[u8]), words: &'static [&'static str]) -> Target {
    Target {
        slow: true,
        ..fast(name, run, words)
    }
}

/// `POST /containers/create`.
pub fn container(data: &[u8]) {
    let known = |name: &str| Err(Refusal::not_found(format!("No such container: {name}")));
    if let Ok((spec, _)) = agent::http::wish_of(None, data, "crun", &known) {
        // What is kept on disk is read again after a restart.
        let kept = serde_json::to_vec(&spec).expect("a wish is written as JSON");
        let _: runtime::engine::ContainerSpec =
            serde_json::from_slice(&kept).expect("a wish is read as it was written");
    }
    let _ = api::read::<api::docker::ContainerUpdateBody>(data);
}

/// The other JSON bodies, each as every one of them.
pub fn body(data: &[u8]) {
    if let Ok(view) = api::read::<api::service::SpecView>(data)
        && let Ok(spec) = view.into_model()
    {
        let shown = serde_json::to_vec(&api::service::SpecView::from(&spec));
        let shown = shown.expect("a service is written as JSON");
        // Clients send back what they were shown.
        let again =
            api::read::<api::service::SpecView>(&shown).map(api::service::SpecView::into_model);
        assert!(matches!(again, Ok(Ok(_))), "shown and refused: {again:?}");
    }
    let _ = api::read::<api::network::CreateRequest>(data);
    let _ = api::read::<api::network::ConnectRequest>(data);
    let _ = api::read::<api::swarm::SpecView>(data);
    let _ = api::read::<api::swarm::InitRequest>(data);
    let _ = api::read::<api::swarm::JoinRequest>(data);
    let _ = api::read::<api::node::SpecView>(data);
    let _ = api::read::<api::payload::SpecView>(data);
    let _ = api::read::<api::attachment::AttachRequest>(data);
    let _ = agent::registry_auth::decode(data);
}

/// A query string, and filters alone.
pub fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let query = api::Query::parse(&text);
    let _ = query.any_filters();
    let _ = query.filters(&["label", "name"]);
    let _ = (query.flag("all"), query.number("limit"), query.version());
    if let Ok(filters) = api::Filters::parse_any(&text) {
        let _ = filters.exact("name", "web");
        let _ = filters.prefix("id", "abc");
        let _ = filters.labels("label", |key| (key == "a").then_some("b"));
    }
    let _ = api::version::split_path(&text);
}

/// Names, times, sizes and the like: texts of one line, each as every one of them.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(reference) = text.parse::<runtime::images::Reference>() {
        let written = reference.to_string();
        let again = written.parse::<runtime::images::Reference>();
        assert_eq!(
            again.as_ref(),
            Ok(&reference),
            "{text:?} is written as {written:?}"
        );
        let _ = reference.familiar();
    }
    let _ = ctl::reference::Reference::parse(&text);
    let _ = api::timestamp::parse(&text);
    let _ = api::timestamp::parse_ago(&text, 1_800_000_000_000_000_000);
    let _ = ctl::output::units::parse_memory(&text);
    let _ = ctl::output::units::parse_duration(&text);
    let _ = ctl::terminal::DetachKeys::parse(&text);
    let _ = ctl::client::Host::parse(&text);
    if let Ok(grant) = text.parse::<agent::role::Grant>() {
        assert_eq!(grant.to_string().parse(), Ok(grant));
    }
}

/// A layer of an image: nothing outside of its folder changes.
pub fn layer(data: &[u8]) {
    unpack(data);
    unpack(&with_checksums(data));
}

fn unpack(data: &[u8]) {
    let folder = scratch();
    let (into, below, outside) = (
        folder.path().join("into"),
        folder.path().join("below"),
        folder.path().join("outside"),
    );
    for made in [&into, &below, &outside] {
        fs::create_dir(made).expect("a scratch folder can be made");
    }
    fs::write(outside.join("file"), "mine").expect("a file can be written");
    fs::write(below.join("file"), "below").expect("a file can be written");
    let unpacked = runtime::images::unpack::unpack(data, &into, std::slice::from_ref(&below));
    drop(unpacked);
    let names = |folder: &Path| -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(folder).expect("the scratch folder is there");
        entries.flatten().map(|entry| entry.path()).collect()
    };
    assert_eq!(
        names(folder.path()),
        BTreeSet::from([into, below.clone(), outside.clone()])
    );
    assert_eq!(names(&outside), BTreeSet::from([outside.join("file")]));
    assert_eq!(names(&below), BTreeSet::from([below.join("file")]));
    assert_eq!(
        fs::read(outside.join("file")).ok().as_deref(),
        Some(&b"mine"[..])
    );
    assert_eq!(
        fs::read(below.join("file")).ok().as_deref(),
        Some(&b"below"[..])
    );
}

/// A header that was changed would be refused for its sum alone.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut fixed = data.to_vec();
    let mut at = 0;
    while let Some(header) = fixed.get_mut(at..at + 512) {
        if header.iter().any(|byte| *byte != 0) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let size = std::str::from_utf8(&header[124..135]).ok();
        let size =
            size.and_then(|text| usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok());
        at += 512 + size.unwrap_or(0).min(data.len()).next_multiple_of(512);
    }
    fixed
}

/// A container's log, from its beginning and from its end.
pub fn log(data: &[u8]) {
    let folder = scratch();
    let path = folder.path().join("container.log");
    fs::write(&path, data).expect("a file can be written");
    let all = runtime::engine::lines_of(&path, None).expect("a file can be read");
    for tail in [0, 1, 3] {
        let last = runtime::engine::lines_of(&path, Some(tail)).expect("a file can be read");
        assert!(last.len() <= all.len());
    }
}

fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    folder.expect("a scratch folder can be made")
}

/// A compose file, up to the requests that it comes to.
pub fn compose(data: &[u8]) {
    use ctl::compose::{
        convert::{Surround, convert},
        load::{Input, Request, load},
        problem::Sources,
    };
    let reader = |path: &Path| -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("/p/a.yml") => Ok(data.to_vec()),
            Some("/p/.env" | "/p/e.env") => Ok(b"A=1\nB=${A}\n".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    };
    let variables = BTreeMap::from([("X".to_owned(), "y".to_owned())]);
    let profiles = BTreeSet::from(["*".to_owned()]);
    let files = [Input {
        name: "a.yml".to_owned(),
        text: None,
    }];
    let mut sources = Sources::default();
    let request = Request {
        files: &files,
        directory: Path::new("/p"),
        variables: &variables,
        profiles: &profiles,
        raw: false,
        reader: &reader,
    };
    let loaded = match load(&request, &mut sources) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let _ = problems.render(&sources);
            return;
        }
    };
    let around = Surround {
        stack: "fuzz",
        sources: &sources,
        reader: &reader,
        variables: &loaded.variables,
    };
    let mut warnings = Vec::new();
    if let Err(problems) = convert(&loaded, &around, &mut warnings) {
        let _ = problems.render(&sources);
    }
    let _ = ctl::compose::write::yaml(&loaded.root);
}

/// `.env` files, and files of variables.
pub fn dotenv(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
    let _ = ctl::compose::dotenv::parse(&text, &lookup);
    let _ = ctl::compose::dotenv::parse_raw(&text);
}

/// Streams of a daemon in pieces: frames, and JSON texts one after the other.
pub fn frames(data: &[u8]) {
    let step = usize::from(data.first().copied().unwrap_or(1)).max(1);
    let mut frames = ctl::client::Frames::default();
    let mut taken = 0;
    for part in data.chunks(step) {
        frames.push(part);
        loop {
            match frames.next_piece() {
                Ok(Some((_, piece))) => taken += piece.len(),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert!(taken <= data.len());
    let mut cutter = ctl::client::JsonCutter::default();
    for part in data.chunks(step) {
        cutter.push(part);
        while let Ok(Some(_)) = cutter.next_value() {}
    }
}

/// A packet to the containers' name server.
pub fn dns(data: &[u8]) {
    static RESPONDER: LazyLock<Mutex<dataplane::dns::Responder>> = LazyLock::new(|| {
        let members: Vec<String> = (1..=40).map(|last| format!("10.0.0.{last}")).collect();
        let remote = |(place, address): (usize, &String)| {
            let names = if place < 30 {
                json!(["web", "a.b.c"])
            } else {
                json!(["one"])
            };
            let remote = json!({"network": "n1", "addresses": [address, format!("fd00::{place}")],
                "mac": [2, 0, 0, 0, 0, place], "vtep": "192.0.2.1", "names": names});
            (format!("e{place}"), remote)
        };
        let remotes: serde_json::Map<String, Value> =
            members.iter().enumerate().map(remote).collect();
        let desired = json!({
            "underlay": null,
            "networks": {"n1": {"kind": {"overlay": {"vni": 4097}}, "name": "ch03",
                "subnets": [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.254"}, {"subnet": "fd00::/64", "gateway": "fd00::ffff"}]}},
            "sandboxes": {"s1": {"netns": "/x", "dns": {"upstreams": ["192.0.2.53:53"]}, "interfaces": [
                {"endpoint": "e99", "network": "n1", "name": "eth0", "addresses": ["10.0.0.99/24"], "mac": [2, 0, 0, 0, 0, 99], "names": ["me"]}]}},
            "remotes": remotes, "vips": {"v1": {"network": "n1", "addresses": ["10.0.0.100"], "names": ["api"]}}, "published": {},
        });
        let desired = serde_json::from_value(desired).expect("the wish is written as it is read");
        Mutex::new(dataplane::dns::Responder::new(&desired))
    });
    let mut responder = RESPONDER.lock().unwrap_or_else(PoisonError::into_inner);
    for room in [None, Some(65_535)] {
        if let Some(answer) = responder.reply("s1", data, room) {
            assert!(answer.len() >= 12, "shorter than a header");
            assert_eq!(answer[..2], data[..2], "an answer to another question");
            assert!(answer[2] & 0x80 != 0, "an answer that is a question");
        }
    }
    let _ = responder.reply("nobody", data, None);
}

/// What a container runtime says to the CNI plugin: variables, a line each, then the configuration.
pub fn cni(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (head, input) = text.split_once("\n\n").unwrap_or(("", &text));
    let mut variables: BTreeMap<String, String> = head
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
        variables.insert("CNI_COMMAND".to_owned(), command.to_owned());
        let _ = ctl::cni::Request::read(&variables, input.as_bytes());
    }
}

/// `--format`.
pub fn template(data: &[u8]) {
    static SHOWN: LazyLock<Value> = LazyLock::new(|| {
        json!({"Id": "4f1e", "Names": ["a", "b"], "Labels": {"z": "26", "a": "1"}, "Size": 17, "Share": 1.5,
            "None": null, "Yes": true, "Deep": {"Er": {"List": [1, 2, {"x": "y"}]}}})
    });
    let text = String::from_utf8_lossy(data);
    if let Ok(template) = ctl::template::Template::new(&text) {
        let _ = template.render(&SHOWN);
        let _ = template.render_headings(&SHOWN);
    }
}

/// The certificate that a client shows, after its signature has been checked.
pub fn certificate(data: &[u8]) {
    let _ = agent::http::subject(&rustls::pki_types::CertificateDer::from(data));
}
