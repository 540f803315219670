//! The API over TCP: the stock client and ovnctl of another host, with certificates and roles.

#![allow(clippy::unwrap_used)] // all of it is tests

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use tests::{Host, Lab, Options, Output, wait};

const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(60);

/// An authority with a folder for each certificate, as `DOCKER_CERT_PATH` has it.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            folder: folder.to_owned(),
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Writes `ca.pem`, `cert.pem` and `key.pem`, the certificate last.
    fn issue(&self, name: &str, unit: Option<&str>, addresses: &[&str]) -> PathBuf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(unit) = unit {
            params
                .distinguished_name
                .push(DnType::OrganizationalUnitName, unit);
        }
        let addresses = addresses
            .iter()
            .map(|text| SanType::IpAddress(text.parse().unwrap()));
        params.subject_alt_names = addresses.collect();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("ca.pem"), &self.pem).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        folder
    }
}

/// Where the manager is seen from, and by whom.
struct Seat<'a> {
    host: &'a Host,
    address: String,
}

impl Seat<'_> {
    fn environment(&self, folder: &Path, mut command: Command) -> Output {
        command
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", folder);
        self.host.run(command)
    }

    /// The stock client, told by flags.
    fn docker(&self, folder: &Path, words: &[&str]) -> Output {
        let file = |name: &str| folder.join(name).display().to_string();
        let address = format!("tcp://{}:2376", self.address);
        let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        let flags = [
            "-H",
            &address,
            "--tlsverify",
            "--tlscacert",
            &ca,
            "--tlscert",
            &cert,
            "--tlskey",
            &key,
        ];
        let command = self
            .host
            .docker_command([&flags[..], words].concat())
            .unwrap();
        self.host.run(command)
    }

    /// Ours, told by variables.
    fn ctl(&self, folder: &Path, words: &[&str]) -> Output {
        let address = format!("tcp://{}", self.address);
        let words = [&["-H", &address], words].concat();
        self.environment(folder, self.host.ctl_command(words).unwrap())
    }
}

#[track_caller]
fn refused(output: Output, words: &[&str]) {
    let said = output.failed();
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

#[test]
fn clients_of_other_hosts_have_the_role_of_their_certificate() {
    let folder = tempfile::Builder::new().tempdir_in("/var/tmp").unwrap();
    let authority = Authority::new(folder.path(), "the lab's clients");
    // At first the certificate is for nobody's address but this host's own.
    let own = authority.issue("daemon", None, &["127.0.0.1"]);
    let (ann, ci) = (
        authority.issue("ann", None, &[]),
        authority.issue("ci", Some("deploy"), &[]),
    );
    let (board, lost) = (
        authority.issue("board", None, &[]),
        authority.issue("lost", Some("deploy"), &[]),
    );
    let stranger =
        Authority::new(&folder.path().join("other"), "somebody else").issue("ann", None, &[]);
    fs::copy(ann.join("ca.pem"), stranger.join("ca.pem")).unwrap();
    let file = |name: &str| own.join(name).display().to_string();
    let flags = [
        "--host",
        "tcp://0.0.0.0:2376",
        "--tlsverify",
        "--tlscacert",
        &file("ca.pem"),
        "--tlscert",
        &file("cert.pem"),
        "--tlskey",
        &file("key.pem"),
        "--client",
        "ann=admin",
        "--client",
        "OU=deploy=operator",
        "--client",
        "lost=none",
    ];
    let lab = Lab::up(Options {
        workers: 1,
        daemon_args: flags.map(str::to_owned).to_vec(),
        ..Options::for_test("remote")
    })
    .unwrap();
    let manager = lab.host("manager01");
    let seat = Seat {
        host: &lab.host("worker01"),
        address: manager.member().address().to_string(),
    };

    refused(seat.docker(&ann, &["ps"]), &["certificate"]);
    refused(seat.ctl(&ann, &["ps"]), &["certificate"]);
    // A new one is taken without a restart.
    authority.issue("daemon", None, &["127.0.0.1", &seat.address]);
    wait::until("the new certificate is shown", LIMIT, || {
        let output = seat.docker(&ann, &["ps"]);
        if output.success() {
            Ok(())
        } else {
            Err(output.stderr)
        }
    });

    admins(&seat, &ann);
    readers(&seat, &board);
    operators(&seat, &ann, &ci);
    strangers(&seat, &lost, &stranger);
    lines(&manager);
    slow_ones(&manager);
    lab.down().unwrap();
}

fn admins(seat: &Seat<'_>, ann: &Path) {
    let ok = |output: Output| output.ok();
    assert!(ok(seat.docker(ann, &["node", "ls"])).contains("manager01"));
    assert!(ok(seat.ctl(ann, &["node", "ls"])).contains("manager01"));
    assert!(ok(seat.docker(ann, &["swarm", "join-token", "-q", "worker"])).starts_with("SWMTKN"));
    // The whole of a connection is theirs: streams that are taken over, too.
    let run = [
        "run",
        "-d",
        "--name",
        "strong",
        "--privileged",
        TOOLBOX,
        "sleep",
        "100000",
    ];
    ok(seat.docker(ann, &run));
    for words in [
        &["exec", "strong", "echo", "inside"][..],
        &["run", "--rm", "-v", "/:/host:ro", TOOLBOX, "echo", "inside"],
    ] {
        assert_eq!(ok(seat.docker(ann, words)), "inside");
        assert_eq!(ok(seat.ctl(ann, words)), "inside");
    }
}

fn readers(seat: &Seat<'_>, board: &Path) {
    for words in [
        &["ps"][..],
        &["service", "ls"],
        &["node", "ls"],
        &["inspect", "strong"],
        &["logs", "strong"],
        &["images"],
        &["info"],
    ] {
        seat.docker(board, words).ok();
        seat.ctl(board, words).ok();
    }
    // What is asked first is a HEAD, whose answer has no words.
    let copy = ["cp", "strong:/etc/passwd", "-"];
    refused(seat.docker(board, &copy), &[]);
    refused(seat.ctl(board, &copy), &[]);
    for words in [
        &["exec", "strong", "true"][..],
        &["rm", "-f", "strong"],
        &["run", "--rm", TOOLBOX, "true"],
        &[
            "service",
            "create",
            "--no-resolve-image",
            "--name",
            "web",
            TOOLBOX,
        ],
        &["swarm", "join-token", "worker"],
        &["network", "create", "x1"],
        &["pull", TOOLBOX],
    ] {
        refused(
            seat.docker(board, words),
            &["\"board\" has the role read-only"],
        );
        refused(
            seat.ctl(board, words),
            &["\"board\" has the role read-only"],
        );
    }
}

fn operators(seat: &Seat<'_>, ann: &Path, ci: &Path) {
    let sleep = ["sleep", "100000"];
    let create = ["service", "create", "-d", "--no-resolve-image", "--name"];
    seat.docker(ci, &[&create[..], &["web", TOOLBOX], &sleep].concat())
        .ok();
    seat.docker(ci, &["service", "scale", "-d", "web=2"]).ok();
    seat.ctl(ci, &["service", "rm", "web"]).ok();
    seat.docker(
        ci,
        &[&["run", "-d", "--name", "weak", TOOLBOX][..], &sleep].concat(),
    )
    .ok();
    assert_eq!(
        seat.docker(ci, &["exec", "weak", "echo", "inside"]).ok(),
        "inside"
    );
    assert_eq!(
        seat.ctl(ci, &["exec", "weak", "echo", "inside"]).ok(),
        "inside"
    );
    seat.docker(ci, &["cp", "weak:/etc/passwd", "-"]).ok();
    for (option, reason) in [
        (&["--privileged"][..], "is privileged"),
        (&["-v", "/:/host"], "mounts / of the host"),
        (&["-v", "/var/run/docker.sock:/s"], "of the host"),
        (&["--pid", "host"], "process namespace"),
        (&["--network", "host"], "the host's own network"),
        (
            &["--network", "container:strong"],
            "another container's network",
        ),
        (&["--cap-add", "SYS_ADMIN"], "SYS_ADMIN"),
        (&["--device", "/dev/null"], "/dev/null"),
        (&["--security-opt", "seccomp=unconfined"], "seccomp"),
    ] {
        let words = [&["run", "--rm"][..], option, &[TOOLBOX, "true"]].concat();
        refused(
            seat.docker(ci, &words),
            &["\"ci\" has the role operator", reason],
        );
    }
    let bound = ["--mount", "type=bind,source=/,target=/host"];
    let words = [&create[..], &["bad"], &bound, &[TOOLBOX]].concat();
    refused(
        seat.docker(ci, &words),
        &["ask for a service that mounts / of the host"],
    );
    let volume = [
        "volume",
        "create",
        "-o",
        "type=none",
        "-o",
        "o=bind",
        "-o",
        "device=/etc",
        "v1",
    ];
    refused(seat.docker(ci, &volume), &["mounts /etc in a volume"]);
    // What an admin has made is no way round.
    refused(seat.docker(ci, &["cp", "strong:/etc/passwd", "-"]), &[]);
    refused(seat.docker(ci, &["attach", "strong"]), &["403"]);
    for words in [
        &["exec", "strong", "true"][..],
        &["exec", "--privileged", "weak", "true"],
        &["export", "strong"],
        &["tag", TOOLBOX, "mine:1"],
        &["swarm", "join-token", "worker"],
        &["swarm", "leave", "--force"],
        &["node", "update", "--availability", "drain", "worker01"],
    ] {
        refused(seat.docker(ci, words), &["\"ci\" has the role operator"]);
    }
    seat.docker(ci, &["stop", "-t", "0", "weak"]).ok();
    seat.docker(ann, &["rm", "-f", "weak", "strong"]).ok();
}

fn strangers(seat: &Seat<'_>, lost: &Path, stranger: &Path) {
    refused(seat.docker(lost, &["ps"]), &["\"lost\" has the role none"]);
    refused(seat.docker(stranger, &["ps"]), &["tls"]);
    refused(seat.ctl(stranger, &["ps"]), &["alert"]);
    let address = format!("tcp://{}:2376", seat.address);
    // Without a certificate, and without TLS at all.
    let ca = stranger.join("ca.pem").display().to_string();
    let words = ["-H", &address, "--tlsverify", "--tlscacert", &ca, "ps"];
    let mut bare = seat.host.ctl_command(words).unwrap();
    bare.env("DOCKER_CERT_PATH", "/nonexistent");
    refused(seat.host.run(bare), &["alert"]);
    let plain = seat.host.ctl_command(["-H", &address, "ps"]).unwrap();
    refused(seat.host.run(plain), &["broke"]);
}

/// What was done and what was refused is in the log, by whom and from where.
fn lines(manager: &Host) {
    manager.ctl(["network", "create", "made-here"]).ok();
    let wanted = [
        &[
            "audit",
            "change",
            "who=ci",
            "role=\"operator\"",
            "path=\"/services/create\"",
            "code=201",
        ][..],
        &[
            "audit",
            "refused",
            "who=ci",
            "path=\"/containers/create\"",
            "code=403",
        ],
        &[
            "audit",
            "refused",
            "who=board",
            "method=DELETE",
            "object=\"strong\"",
            "code=403",
        ],
        &[
            "audit",
            "refused",
            "who=lost",
            "role=\"none\"",
            "method=HEAD",
        ],
        &[
            "audit",
            "change",
            "who=uid 0 pid ",
            "from=socket",
            "/networks/create",
            "code=201",
        ],
        &["audit", "handshake refused"],
    ];
    wait::until("the log tells it", LIMIT, || {
        let log = fs::read_to_string(manager.log()).unwrap();
        let has = |words: &&&[&str]| {
            log.lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
        };
        match wanted.iter().find(|words| !has(words)) {
            None => Ok(()),
            Some(words) => Err(format!("no line with {words:?}")),
        }
    });
    let log = fs::read_to_string(manager.log()).unwrap();
    let audit = log.lines().filter(|line| line.contains(" audit: "));
    for line in audit {
        assert!(
            !line.contains("SWMTKN") && !line.contains("/etc/passwd"),
            "{line}"
        );
        assert!(
            !line.contains("change") || !line.contains("path=\"/containers/json\""),
            "a look has a line: {line}"
        );
    }
}

/// Who says nothing in a handshake is let go.
fn slow_ones(manager: &Host) {
    let took = manager.within(|| {
        let begun = Instant::now();
        let mut stream = TcpStream::connect("127.0.0.1:2376").unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(&[0x16, 3, 1]).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap_or(0), 0);
        begun.elapsed()
    });
    let took = took.unwrap();
    assert!(took > Duration::from_secs(5) && took < LIMIT, "{took:?}");
}
