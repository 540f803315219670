//! Registries as they are out there: TLS by a private authority, passwords, lists of platforms,
//! connections that break; and images that come as files.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tests::{Host, Lab, Options, images, wait};

const ECHO: &str = "registry:5000/example/echo:latest";
const LIMIT: Duration = Duration::from_secs(30);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// `me` and `let me in`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "me:$2b$05$nJiKCExniux1GIJVmHZY1uMarX90puEpAm0o4Q7O12hNED2l5R6Ty\n";

#[test]
fn registries_as_they_are_out_there() {
    let lab = Lab::up(Options {
        // The client's address, but not its name: one registry, trusted and not.
        daemon_args: ["192.168.77.3:5443", "client:5005"]
            .iter()
            .flat_map(|host| ["--insecure-registry".to_owned(), (*host).to_owned()])
            .collect(),
        cluster: false,
        ..Options::for_test("registry")
    })
    .unwrap();
    a_private_authority_and_passwords(&lab);
    lists_of_platforms(&lab);
    a_folder_of_the_oci(&lab);
    a_download_goes_on_where_it_broke(&lab);
    lab.down().unwrap();
}

/// A registry of its own on the host `client`: TLS with a certificate of a private authority,
/// and one user. Ends with the value.
struct Guarded(Child);

impl Guarded {
    fn start(client: &Host) -> Self {
        let folder = client.dir();
        let script = "set -e; cd \"$1\"
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=The lab' -keyout ca.key -out ca.crt
            openssl req -newkey rsa:2048 -nodes -subj /CN=client -keyout key.pem -out client.csr
            printf 'subjectAltName=DNS:client' >san
            openssl x509 -req -days 2 -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile san -out cert.pem";
        client
            .exec(["sh", "-c", script, "sh", folder.to_str().unwrap()])
            .ok();
        fs::write(folder.join("htpasswd"), HTPASSWD).unwrap();
        let at = folder.display();
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {at}/data}}\n\
             http:\n  addr: ':5443'\n  tls: {{certificate: {at}/cert.pem, key: {at}/key.pem}}\n\
             auth:\n  htpasswd: {{realm: lab, path: {at}/htpasswd}}\n"
        );
        fs::write(folder.join("registry.yml"), config).unwrap();
        let log = fs::File::create(folder.join("registry.log")).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(folder.join("registry.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = client.spawn(command).unwrap();
        wait::until("the guarded registry listens", LIMIT, || {
            client
                .within(|| TcpStream::connect(("127.0.0.1", 5443)))
                .unwrap()
                .map(drop)
        });
        Self(child)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said:?}");
    }
    assert_eq!(said.trim().lines().count(), 1, "not one sentence: {said}");
}

/// ovnctl with the credentials of this host alone: /root is the machine's own.
fn ctl(host: &Host, words: &[&str]) -> tests::Output {
    let mut command = host.ctl_command(words).unwrap();
    command.env("DOCKER_CONFIG", host.dir().join("credentials"));
    host.run(command)
}

fn log_in(host: &Host, registry: &str, password: &str) -> tests::Output {
    let script = "printf %s \"$1\" | \"$2\" login -u me --password-stdin \"$3\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh", password])
        .arg(tests::lab::binary("ovnctl").unwrap())
        .arg(registry)
        .env("DOCKER_CONFIG", host.dir().join("credentials"));
    host.run(command)
}

fn a_private_authority_and_passwords(lab: &Lab) {
    let (client, one, two) = (
        lab.host("client"),
        lab.host("worker01"),
        lab.host("worker02"),
    );
    assert_eq!(client.member().address().to_string(), "192.168.77.3");
    let _guarded = Guarded::start(&client);
    let mine = "client:5443/mine/echo:1";
    let config = one.dir().join("stock-credentials");
    // Not trusted: the reason, and where the authority belongs.
    let said = ctl(&one, &["pull", mine]).failed();
    says(
        &said,
        &["client:5443", "certificate", "certs.d/client:5443/ca.crt"],
    );

    // Trusted by the setting, for this registry alone.
    let authority = client.dir().join("ca.crt");
    let authority = authority.to_str().unwrap();
    let trust = "mkdir -p /etc/overnet/certs.d/client:5443 && cp \"$1\" /etc/overnet/certs.d/client:5443/ca.crt";
    for host in [&one, &two] {
        host.exec(["sh", "-c", trust, "sh", authority]).ok();
    }
    says(
        &ctl(&one, &["pull", mine]).failed(),
        &["mine/echo", "login"],
    );

    // Passwords.
    let said = log_in(&one, "client:5443", "let me out").failed();
    says(&said, &["client:5443", "unauthorized"]);
    assert!(!said.contains("let me out"), "{said}");
    let said = log_in(&one, "client:5443", "let me in").ok();
    assert!(said.contains("Login Succeeded"), "{said}");
    ctl(&one, &["pull", ECHO]).ok();
    ctl(&one, &["tag", ECHO, mine]).ok();
    ctl(&one, &["push", mine]).ok();
    says(
        &ctl(&two, &["pull", mine]).failed(),
        &["mine/echo", "login"],
    );
    log_in(&two, "client:5443", "let me in").ok();
    ctl(&two, &["pull", mine]).ok();
    let id = |host: &Host, name: &str| {
        ctl(host, &["image", "inspect", "--format", "{{.Id}}", name]).ok()
    };
    assert_eq!(id(&two, mine), id(&one, ECHO));
    ctl(&two, &["image", "rm", mine]).ok();

    // The stock command line, with a credential of its own.
    let stock = |words: &[&str]| {
        let mut command = one.docker_command(words).unwrap();
        command.env("DOCKER_CONFIG", &config);
        one.run(command)
    };
    assert!(!stock(&["pull", mine]).success());
    stock(&["login", "-u", "me", "-p", "let me in", "client:5443"]).ok();
    stock(&["pull", mine]).ok();

    // TLS where an insecure registry is allowed: spoken, and not verified.
    let by_address = "192.168.77.3:5443/mine/echo:1";
    let three = lab.host("worker03");
    log_in(&three, "192.168.77.3:5443", "let me in").ok();
    ctl(&three, &["pull", by_address]).ok();
    assert_eq!(id(&three, by_address), id(&one, ECHO));

    // No password of anybody is in a log.
    for host in [&one, &two, &three] {
        let log = fs::read_to_string(host.log()).unwrap();
        assert!(
            !log.contains("let me"),
            "a password is in {}",
            host.log().display()
        );
    }
}

/// Where the registry keeps a blob.
fn blob(lab: &Lab, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    let root = lab
        .host("registry")
        .dir()
        .join("data/docker/registry/v2/blobs/sha256");
    root.join(&hex[..2]).join(hex).join("data")
}

fn manifest(lab: &Lab, name: &str) -> Value {
    let link =
        format!("data/docker/registry/v2/repositories/{name}/_manifests/tags/latest/current/link");
    let digest = fs::read_to_string(lab.host("registry").dir().join(link)).unwrap();
    serde_json::from_slice(&fs::read(blob(lab, digest.trim())).unwrap()).unwrap()
}

/// The manifest of the echo image with another label in its configuration.
fn labelled(lab: &Lab, label: &str) -> Value {
    let registry = lab.host("registry");
    let mut manifest = manifest(lab, "example/echo");
    let config = fs::read(blob(lab, manifest["config"]["digest"].as_str().unwrap())).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["config"]["Labels"] = json!({"which": label});
    let config = serde_json::to_vec(&config).unwrap();
    manifest["config"] = images::push_blob(&registry, "example/echo", CONFIG, &config).unwrap();
    manifest
}

fn lists_of_platforms(lab: &Lab) {
    let (registry, one) = (lab.host("registry"), lab.host("worker01"));
    let here = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    let there = if here == "amd64" { "arm64" } else { "amd64" };
    let entry = |label: &str, architecture: &str| {
        let manifest = labelled(lab, label);
        let mut entry =
            images::push_manifest(&registry, ("example/echo", label), &manifest).unwrap();
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    };
    let (foreign, own) = (entry("foreign", there), entry("own", here));
    let mut attestation = entry("attestation", "unknown");
    attestation["platform"]["os"] = "unknown".into();
    let list =
        |entries: Vec<Value>| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let all = list(vec![foreign.clone(), attestation, own]);
    images::push_manifest(&registry, ("example/echo", "many"), &all).unwrap();
    images::push_manifest(&registry, ("example/echo", "others"), &list(vec![foreign])).unwrap();

    let many = "registry:5000/example/echo:many";
    one.ctl(["pull", many]).ok();
    let which = [
        "image",
        "inspect",
        "--format",
        "{{.Config.Labels.which}}",
        many,
    ];
    assert_eq!(one.ctl(which).ok(), "own");
    let said = one
        .ctl(["pull", "registry:5000/example/echo:others"])
        .failed();
    says(
        &said,
        &["no matching manifest", here, "example/echo:others"],
    );
    assert!(!one.ctl(["image", "ls"]).ok().contains("others"));
}

/// A layout of the OCI (image-spec, image-layout.md) with a zstd layer, as tar: loaded and run.
fn a_folder_of_the_oci(lab: &Lab) {
    let two = lab.host("worker02");
    let mut manifest = labelled(lab, "from a file");
    let work = tempfile::tempdir_in(two.dir()).unwrap();
    let blobs = work.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let keep = |bytes: &[u8], kind: &str| -> Value {
        use sha2::Digest;
        let hex = hex::encode(sha2::Sha256::digest(bytes));
        fs::write(blobs.join(&hex), bytes).unwrap();
        json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    };
    let read =
        |descriptor: &Value| fs::read(blob(lab, descriptor["digest"].as_str().unwrap())).unwrap();
    manifest["config"] = keep(&read(&manifest["config"]), CONFIG);
    let layers = manifest["layers"].as_array_mut().unwrap();
    for (place, layer) in layers.iter_mut().enumerate() {
        let packed = read(layer);
        *layer = if place == 0 {
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(&packed[..])
                .read_to_end(&mut tar)
                .unwrap();
            let packed = zstd::encode_all(&tar[..], 3).unwrap();
            keep(&packed, "application/vnd.oci.image.layer.v1.tar+zstd")
        } else {
            keep(&packed, "application/vnd.oci.image.layer.v1.tar+gzip")
        };
    }
    let mut entry = keep(&serde_json::to_vec(&manifest).unwrap(), MANIFEST);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "example/layout:1"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    fs::write(work.path().join("index.json"), index.to_string()).unwrap();
    fs::write(
        work.path().join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let file = two.dir().join("layout.tar");
    tar_of(work.path(), &file);
    let file = file.to_str().unwrap();
    let said = two.ctl(["load", "-i", file]).ok();
    assert!(said.contains("example/layout:1"), "{said}");
    let which = [
        "image",
        "inspect",
        "--format",
        "{{.Config.Labels.which}}",
        "example/layout:1",
    ];
    assert_eq!(two.ctl(which).ok(), "from a file");
    two.ctl(["run", "--rm", "--entrypoint", "true", "example/layout:1"])
        .ok();

    // One byte of a layer is another: refused, and nothing is listed.
    two.ctl(["image", "rm", "example/layout:1"]).ok();
    let layer = manifest["layers"][1]["digest"].as_str().unwrap();
    let layer = blobs.join(layer.strip_prefix("sha256:").unwrap());
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&layer, bytes).unwrap();
    tar_of(work.path(), Path::new(file));
    let said = two.ctl(["load", "-i", file]).failed();
    assert!(said.contains("sha256:"), "{said}");
    assert!(!two.ctl(["image", "ls"]).ok().contains("layout"));
}

fn tar_of(folder: &Path, file: &Path) {
    let mut builder = tar::Builder::new(fs::File::create(file).unwrap());
    builder.append_dir_all(".", folder).unwrap();
    builder.finish().unwrap();
}

/// What the breaking road between a host and the registry saw: the Range of each request for the
/// largest blob, and how many of its bytes went through.
#[derive(Debug, Default)]
struct Seen {
    ranges: Vec<Option<String>>,
    bytes: usize,
}

/// Passes requests on to the registry, and cuts each first answer about `watched` after `cut` bytes.
fn breaking_road(client: &Host, watched: String, cut: usize) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let listener = client
        .within(|| TcpListener::bind(("0.0.0.0", 5005)))
        .unwrap()
        .unwrap();
    let (client, shared) = (client.clone(), Arc::clone(&seen));
    // The thread lives as long as the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (client, watched, seen) = (client.clone(), watched.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                // Either side may go away at any time: that is what this is for.
                let _ = pass_on(&client, stream, &watched, cut, &seen);
            });
        }
    });
    seen
}

fn pass_on(
    client: &Host,
    mut stream: TcpStream,
    watched: &str,
    cut: usize,
    seen: &Mutex<Seen>,
) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut range = None;
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
        let line = head[start..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("range:") {
            range = Some(value.trim().to_owned());
        }
        if line.starts_with("connection:") {
            head.truncate(start);
        }
    }
    // One request a connection keeps this simple.
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let is_watched = head.starts_with("GET") && head.contains(watched);
    let first = is_watched && {
        let mut seen = seen.lock().unwrap();
        seen.ranges.push(range);
        seen.ranges.len() == 1
    };
    let mut upstream = client
        .within(|| TcpStream::connect(("192.168.77.2", 5000)))
        .map_err(std::io::Error::other)??;
    upstream.write_all(head.as_bytes())?;
    let (mut buffer, mut passed) = ([0; 16 << 10], 0);
    loop {
        let read = upstream.read(&mut buffer)?;
        if read == 0 || (first && passed > cut) {
            return stream.shutdown(std::net::Shutdown::Both);
        }
        stream.write_all(&buffer[..read])?;
        passed += read;
        if is_watched {
            seen.lock().unwrap().bytes += read;
        }
    }
}

fn a_download_goes_on_where_it_broke(lab: &Lab) {
    let (client, three) = (lab.host("client"), lab.host("worker03"));
    assert_eq!(
        lab.host("registry").member().address().to_string(),
        "192.168.77.2"
    );
    let toolbox = manifest(lab, "example/toolbox");
    let layers = toolbox["layers"].as_array().unwrap();
    let largest = layers
        .iter()
        .max_by_key(|layer| layer["size"].as_u64())
        .unwrap();
    let size = usize::try_from(largest["size"].as_u64().unwrap()).unwrap();
    let digest = largest["digest"].as_str().unwrap().to_owned();
    let seen = breaking_road(&client, digest, size / 2);
    three.ctl(["pull", "client:5005/example/toolbox"]).ok();
    let seen = seen.lock().unwrap();
    eprintln!("the layer has {size} bytes: {seen:?}");
    assert_eq!(seen.ranges.len(), 2, "{seen:?}");
    let begun = seen.ranges[1]
        .as_deref()
        .and_then(|range| range.strip_prefix("bytes="));
    let begun: usize = begun
        .and_then(|range| range.split('-').next()?.parse().ok())
        .unwrap();
    assert!(begun >= size / 4, "begun at {begun} of {size}");
    assert!(seen.bytes < size + size / 4, "{seen:?}");
    three
        .ctl(["run", "--rm", "client:5005/example/toolbox", "true"])
        .ok();
}
