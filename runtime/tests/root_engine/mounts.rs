//! Volumes with file systems of their own, parts of volumes, and images as mounts.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use model::RefusalKind;
use nix::{
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, makedev, mknod},
};
use runtime::{engine::*, oci::mountinfo::at_or_below};

use super::host::*;

fn options(kind: &str, device: &str, o: &str) -> BTreeMap<String, String> {
    [("type", kind), ("device", device), ("o", o)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn volume(name: &str, subpath: &str) -> MountSpec {
    MountSpec {
        target: "/v".into(),
        read_only: false,
        kind: MountKind::Volume {
            name: Some(name.into()),
            no_copy: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            subpath: subpath.into(),
        },
    }
}

fn image(image: &str, subpath: &str) -> MountSpec {
    MountSpec {
        target: "/i".into(),
        read_only: false,
        kind: MountKind::Image {
            image: image.into(),
            subpath: subpath.into(),
        },
    }
}

fn with(script: &str, mount: MountSpec) -> ContainerSpec {
    let mut spec = sh(script);
    spec.host.mounts = vec![mount];
    spec
}

/// Where a volume's content is.
fn data(host: &Host, name: &str) -> PathBuf {
    let root = host.directory.path().join("root/volumes");
    root.join(name).join("_data")
}

fn mounted(place: &Path) -> bool {
    at_or_below(place).unwrap().contains(&place.to_owned())
}

async fn started(host: &Host, spec: ContainerSpec) -> String {
    let id = host.create(spec).await;
    host.engine().start_container(&id).await.unwrap();
    id
}

/// A container that waits for its end.
fn idle(mount: MountSpec) -> ContainerSpec {
    with("exec sleep 1000", mount)
}

fn at_once() -> StopOptions {
    StopOptions {
        signal: Some("SIGKILL".into()),
        timeout: None,
    }
}

async fn stop(host: &Host, id: &str) {
    assert!(host.engine().stop(id, at_once()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tmpfs_is_shared_and_gone_with_its_last_user() {
    let host = Host::new().await;
    let engine = host.engine();
    let wish = options("tmpfs", "tmpfs", "size=1m,uid=33,mode=0750");
    let made = engine
        .volume_create(Some("data"), BTreeMap::new(), wish.clone())
        .await
        .unwrap();
    assert_eq!(made.options, wish);
    let place = data(&host, "data");
    let first = started(&host, idle(volume("data", ""))).await;
    assert!(mounted(&place));
    fs::write(place.join("note"), "shared\n").unwrap();
    let script = "cat /v/note; ls -ld /v | head -c 10; id -u; \
                  dd if=/dev/zero of=/v/big bs=1M count=2 2>/dev/null || echo full";
    let (_, out, _) = host.run(with(script, volume("data", ""))).await;
    assert_eq!(out, "shared\ndrwxr-x---0\nfull\n");
    assert!(mounted(&place), "the first still runs");

    // Its monitor lives as long as the container and must keep nothing busy.
    let pid = host.directory.path().join("run/b").join(&first);
    let pid = runtime::oci::read_pid(&pid.join("monitor.pid")).unwrap();
    let held = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(!held.contains("_data"), "{held}");

    engine.restart(&first, at_once()).await.unwrap();
    assert!(place.join("note").exists(), "a restart is no rest");
    stop(&host, &first).await;
    assert!(!mounted(&place));
    assert_eq!(entries(&place), Vec::<String>::new());

    let refusal = engine
        .volume_create(Some("data"), BTreeMap::new(), options("tmpfs", "tmpfs", ""))
        .await
        .unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert!(refusal.message.contains("o is not the same"), "{refusal}");
    let taken = engine
        .volume_create(Some("data"), BTreeMap::new(), BTreeMap::new())
        .await;
    assert_eq!(taken.unwrap().options, wish);
    engine.prune(&BTreeMap::new()).await.unwrap();
    engine.volume_remove("data", false).await.unwrap();
    host.nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_devices_files_outlive_the_volume() {
    let host = Host::new().await;
    let engine = host.engine();
    let device = host.directory.path().join("device");
    fs::create_dir(&device).unwrap();
    fs::write(device.join("old"), "old\n").unwrap();
    // On hosts that share their mounts, an unmount of the volume could reach this one.
    let below = device.join("below");
    fs::create_dir(&below).unwrap();
    let (none, empty) = (None::<&str>, MsFlags::empty());
    mount(Some("tmpfs"), &below, Some("tmpfs"), empty, none).unwrap();
    let wish = options("none", &device.display().to_string(), "rbind");
    // By a mount's own options, as compose files and --mount give them.
    let mut mount_of_it = volume("disk", "");
    if let MountKind::Volume { options, .. } = &mut mount_of_it.kind {
        options.clone_from(&wish);
    }
    let (_, out, _) = host
        .run(with("cat /v/old; echo new >/v/new", mount_of_it.clone()))
        .await;
    assert_eq!(out, "old\n");
    let place = data(&host, "disk");
    until("unmounted", || !mounted(&place)).await;
    assert_eq!(fs::read_to_string(device.join("new")).unwrap(), "new\n");
    assert!(mounted(&below));
    nix::mount::umount(&below).unwrap();
    fs::remove_dir(&below).unwrap();
    engine.prune(&BTreeMap::new()).await.unwrap();

    // As a daemon leaves it that is killed before it could unmount.
    let bind = |from: &Path, to: &Path| {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    };
    bind(&device, &place);
    engine.volume_remove("disk", false).await.unwrap();
    assert!(!mounted(&place));
    assert_eq!(entries(&device).len(), 2);

    // As one leaves it that is killed between the bind and what makes it read-only.
    let wish = options("none", &device.display().to_string(), "bind,ro,noexec");
    let half = engine.volume_create(Some("half"), BTreeMap::new(), wish);
    bind(&device, &half.await.unwrap().mountpoint);
    let script = "cat /v/old; touch /v/no || echo refused";
    let (_, out, _) = host.run(with(script, volume("half", ""))).await;
    assert_eq!(out, "old\nrefused\n");
    let mut read_only = volume("half", "");
    read_only.read_only = true;
    let (_, out, _) = host
        .run(with("grep ' /v ' /proc/self/mounts", read_only))
        .await;
    assert!(out.contains("ro,noexec"), "{out}");
    until("unmounted", || !mounted(&data(&host, "half"))).await;

    // What somebody else has mounted in a plain volume is not ours to unmount.
    let plain = engine.volume_create(Some("plain"), BTreeMap::new(), BTreeMap::new());
    let deep = plain.await.unwrap().mountpoint.join("deep");
    fs::create_dir(&deep).unwrap();
    bind(&device, &deep);
    let refusal = engine.volume_remove("plain", false).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert!(refusal.message.contains("/deep"), "{refusal}");
    assert_eq!(entries(&device).len(), 2);
    nix::mount::umount(&deep).unwrap();
    engine.volume_remove("plain", false).await.unwrap();

    fs::remove_dir_all(&device).unwrap();
    let wish = options("none", &device.display().to_string(), "bind");
    for (name, wish, words) in [
        ("gone", wish, "does not exist on this host"),
        (
            "fs",
            options("nosuchfs", "x", ""),
            "no file system nosuchfs",
        ),
        (
            "word",
            options("tmpfs", "tmpfs", "nosuchoption"),
            "an option is not known to tmpfs",
        ),
    ] {
        engine
            .volume_create(Some(name), BTreeMap::new(), wish)
            .await
            .unwrap();
        let id = host.create(with("true", volume(name, ""))).await;
        let refusal = engine.start_container(&id).await.unwrap_err();
        let expected = format!("volume {name}: ");
        assert!(refusal.message.starts_with(&expected), "{refusal}");
        assert!(refusal.message.contains(words), "{refusal}");
    }
    engine.prune(&BTreeMap::new()).await.unwrap();
    host.nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_volumes() {
    let host = Host::new().await;
    let engine = host.engine();
    let made = engine.volume_create(Some("data"), BTreeMap::new(), BTreeMap::new());
    let place = made.await.unwrap().mountpoint;
    fs::create_dir_all(place.join("app/config")).unwrap();
    fs::write(place.join("app/config/file"), "in it\n").unwrap();
    fs::write(host.directory.path().join("secret"), "out\n").unwrap();
    symlink("app/config", place.join("inside")).unwrap();
    symlink("../../../../secret", place.join("up")).unwrap();
    symlink("/etc", place.join("etc")).unwrap();

    for (subpath, script, wanted) in [
        ("app", "cat /v/config/file; echo x >/v/made", "in it\n"),
        ("inside", "cat /v/file", "in it\n"),
        (
            "app/config/file",
            "cat /v; echo more >>/v; cat /v",
            "in it\nin it\nmore\n",
        ),
    ] {
        let (code, out, err) = host.run(with(script, volume("data", subpath))).await;
        assert_eq!((code, out.as_str()), (0, wanted), "{subpath}: {err}");
    }
    assert!(place.join("app/made").exists());

    for (subpath, words) in [
        ("none", "the subpath \"none\" of volume data does not exist"),
        ("up", "leads out of it by a symbolic link"),
        ("etc/passwd", "leads out of it by a symbolic link"),
    ] {
        let id = host.create(with("cat /v", volume("data", subpath))).await;
        let refusal = engine.start_container(&id).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Invalid, "{refusal}");
        assert!(refusal.message.contains(words), "{refusal}");
    }
    let refusal = engine.create(with("", volume("data", "../x"))).await;
    assert_eq!(refusal.unwrap_err().kind, RefusalKind::Invalid);

    let id = started(&host, idle(volume("data", "app"))).await;
    let pid = host.directory.path().join("run/b").join(&id);
    let pid = runtime::oci::read_pid(&pid.join("monitor.pid")).unwrap();
    let held = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(!held.contains(&format!("{id}/m/")), "{held}");
    stop(&host, &id).await;
    engine.prune(&BTreeMap::new()).await.unwrap();
    assert!(place.join("app/config/file").exists());
    engine.volume_remove("data", false).await.unwrap();
    host.nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_mounted_read_only() {
    let host = Host::new().await;
    let engine = host.engine();
    let (below, above) = (
        host.directory.path().join("below"),
        host.directory.path().join("above"),
    );
    fs::create_dir_all(below.join("usr/share")).unwrap();
    fs::create_dir_all(&above).unwrap();
    fs::write(below.join("usr/share/text"), "from below\n").unwrap();
    fs::write(below.join("deleted"), "").unwrap();
    fs::write(above.join("added"), "from above\n").unwrap();
    symlink("/usr/share", above.join("link")).unwrap();
    let mode = Mode::from_bits_truncate(0o600);
    mknod(&above.join("deleted"), SFlag::S_IFCHR, mode, makedev(0, 0)).unwrap();

    for (subpath, script, wanted) in [
        (
            "",
            "cat /i/added /i/usr/share/text; test -e /i/deleted || echo gone; touch /i/x || echo refused",
            "from above\nfrom below\ngone\nrefused\n",
        ),
        (
            "usr/share",
            "ls /i; touch /i/x || echo refused",
            "text\nrefused\n",
        ),
        ("link/text", "cat /i", "from below\n"),
    ] {
        let (_, out, err) = host.run(with(script, image("tools", subpath))).await;
        assert_eq!(out, wanted, "{subpath}: {err}");
    }
    let view = &engine
        .list(&ListOptions {
            all: true,
            ..ListOptions::default()
        })
        .unwrap()[0];
    let point = &view.mounts[0];
    let id = format!("sha256:{}", "b".repeat(64));
    assert_eq!(
        (point.kind.as_str(), point.image()),
        ("image", Some(id.as_str()))
    );
    assert!(!point.writable && view.uses_image(&id));
    assert!(engine.images_in_use().contains_key(&id));

    let id = host.create(with("", image("tools", "none"))).await;
    let refusal = engine.start_container(&id).await.unwrap_err();
    assert!(
        refusal.message.contains("of image tools does not exist"),
        "{refusal}"
    );
    let refusal = engine
        .create(with("", image("absent", "")))
        .await
        .unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotFound);
    assert!(
        refusal.message.starts_with("No such image: absent"),
        "{refusal}"
    );
    engine.prune(&BTreeMap::new()).await.unwrap();
    host.nothing_left();
}

/// Ends with the test, also when that fails.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const CHILD: &str = "OVERNET_TEST_ENGINE_IN";

/// This same test again is the engine that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_killed_is_followed_by_one_that_goes_on() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return be_killed(Path::new(&directory)).await;
    }
    let mut host = Host::new().await;
    host.engine.take().unwrap().shutdown().await;
    let directory = host.directory.path().to_owned();
    let device = directory.join("device");
    fs::create_dir(&device).unwrap();
    fs::write(directory.join("parent"), &host.parent).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "mounts::an_engine_that_is_killed_is_followed_by_one_that_goes_on",
        ])
        .env(CHILD, &directory)
        .spawn()
        .unwrap();
    let mut child = Daemon(child);
    until("it runs", || directory.join("ready").exists()).await;
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    // As if it had been killed between the last end and the unmount.
    let left = data(&host, "left");
    let none = None::<&str>;
    mount(Some("tmpfs"), &left, Some("tmpfs"), MsFlags::empty(), none).unwrap();

    host.boot().await;
    let engine = host.engine();
    until("what nobody uses is unmounted", || !mounted(&left)).await;
    let place = data(&host, "disk");
    assert!(mounted(&place));
    let refusal = engine.volume_remove("disk", true).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    let (_, out, _) = host.run(with("cat /v/word", volume("memory", ""))).await;
    assert_eq!(out, "kept\n", "both have the same file system");

    // A second tmpfs would hide the first one's files from those who come.
    let memory = data(&host, "memory");
    nix::mount::umount(&memory).unwrap();
    let id = host.create(with("true", volume("memory", ""))).await;
    let refusal = engine.start_container(&id).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert!(
        refusal.message.contains("stop that container first"),
        "{refusal}"
    );

    for name in ["disk", "memory"] {
        stop(&host, name).await;
    }
    assert!(!mounted(&place));
    engine.prune(&BTreeMap::new()).await.unwrap();
    for name in ["disk", "memory", "left"] {
        engine.volume_remove(name, false).await.unwrap();
    }
    assert_eq!(fs::read_to_string(device.join("word")).unwrap(), "kept\n");
    host.nothing_left();
}

async fn be_killed(directory: &Path) {
    let parent = fs::read_to_string(directory.join("parent")).unwrap();
    let engine = Engine::start(config_in(directory, &parent)).await.unwrap();
    let device = directory.join("device").display().to_string();
    for (name, wish) in [
        ("disk", options("none", &device, "bind")),
        ("memory", options("tmpfs", "tmpfs", "")),
        ("left", options("tmpfs", "tmpfs", "")),
    ] {
        let made = engine.volume_create(Some(name), BTreeMap::new(), wish);
        let made = made.await.unwrap();
        if name == "left" {
            continue;
        }
        let mut spec = idle(volume(name, ""));
        spec.name = Some(name.into());
        let id = engine.create(spec).await.unwrap().id;
        engine.start_container(id.as_str()).await.unwrap();
        fs::write(made.mountpoint.join("word"), "kept\n").unwrap();
    }
    fs::write(directory.join("ready"), "").unwrap();
    std::future::pending::<()>().await;
}
