//! Images against a real registry (Debian's docker-registry) and malicious layers.
//! Needs root: ownership, device nodes and trusted attributes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use model::RefusalKind;
use proptest::prelude::*;
use runtime::images::{
    Compression, Config, Image, ImageBuilder, ImageStore, LayerFile, Progress, PullEvent,
    Reference, Removed, Use,
    unpack::{UnpackError, unpack},
};
use tempfile::TempDir;

struct Registry {
    child: Child,
    address: String,
    data: TempDir,
}

impl Registry {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let file = data.path().join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http: {{addr: '{address}'}}\n",
            data.path().join("data").display()
        );
        fs::write(&file, text).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", file.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            child,
            address,
            data,
        };
        let begun = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "the registry does not listen"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        println!("registry up after {:?}", begun.elapsed());
        registry
    }

    fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let folder = format!(
            "data/docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        );
        self.data.path().join(folder)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn store() -> (TempDir, ImageStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ImageStore::open(Config::new(folder.path().join("images"))).unwrap();
    (folder, store)
}

fn file(path: &str, text: &str, mode: u32) -> LayerFile {
    LayerFile {
        path: path.into(),
        bytes: text.as_bytes().to_vec(),
        mode,
    }
}

fn small() -> ImageBuilder {
    ImageBuilder::new(oci_spec::image::ImageConfiguration::default())
        .layer_from_files([file("bin/app", "one", 0o4755), file("etc/x", "x", 0o644)])
        .unwrap()
        .compression(Compression::Zstd)
        .layer_from_files([file("etc/.wh.x", "", 0o644), file("etc/y", "y", 0o600)])
        .unwrap()
}

fn none(_: &runtime::images::Digest) -> Vec<Use> {
    Vec::new()
}

fn count(path: PathBuf) -> usize {
    fs::read_dir(path).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn push_pull_save_load_remove() {
    let registry = Registry::start();
    let name = registry.name("team/app:v1");
    let digest = small().push(&name, None, true).await.unwrap();
    let (folder, store) = store();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let progress = Progress::new(move |event: PullEvent| sink.lock().unwrap().push(event.status));
    let image = store.pull(&name, None, &progress).await.unwrap();
    assert_eq!(image.manifest, digest);
    assert_eq!(
        image.repo_digests,
        [format!("{}@{digest}", name.familiar_name())]
    );
    let last = lines.lock().unwrap().last().unwrap().clone();
    assert_eq!(
        last,
        format!("Status: Downloaded newer image for {}", name.familiar())
    );
    let [low, high]: &[PathBuf; 2] = image.layers.as_slice().try_into().unwrap();
    let app = fs::metadata(low.join("bin/app")).unwrap();
    assert_eq!((app.permissions().mode() & 0o7777, app.uid()), (0o4755, 0));
    let gone = fs::symlink_metadata(high.join("etc/x")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    // Pulling again changes nothing.
    assert_eq!(
        store.pull(&name, None, &progress).await.unwrap().id,
        image.id
    );
    let last = lines.lock().unwrap().last().unwrap().clone();
    assert_eq!(
        last,
        format!("Status: Image is up to date for {}", name.familiar())
    );
    // Under another name, to the registry and to another store.
    let copy = registry.name("other/copy:v2");
    store.tag(image.id.short(), &copy).unwrap();
    assert_eq!(
        store.push(&copy, None, &Progress::none()).await.unwrap(),
        digest
    );
    let distribution = store.distribution(&copy, None).await.unwrap();
    assert_eq!(distribution.descriptor.digest, digest);
    assert_eq!(distribution.platforms[0].os, "linux");
    let tar: Vec<_> = store
        .save(&[copy.familiar()])
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let (_other_folder, other) = self::store();
    let body = futures_util::stream::iter(tar.into_iter().map(Ok));
    let loaded = other.load(Box::pin(body), &Progress::none()).await.unwrap();
    assert_eq!(
        (loaded[0].id.clone(), &loaded[0].names[0]),
        (image.id.clone(), &copy)
    );
    assert_eq!(other.resolve(&copy.familiar()).unwrap().layers.len(), 2);
    // A pinned image's layers survive its removal, then go with the next.
    let pin = store.pin(&image.layers).unwrap();
    let removed = store.remove(image.id.as_str(), true, &none).await.unwrap();
    assert!(
        removed.contains(&Removed::Deleted(image.id.to_string())),
        "{removed:?}"
    );
    assert!(low.join("bin/app").exists());
    drop(pin);
    store.prune(false, &|_| false, &none).await.unwrap();
    assert_eq!(count(folder.path().join("images/layers")), 0);
    assert_eq!(count(folder.path().join("images/blobs/sha256")), 0);
    let refusal = store.resolve(&name.familiar()).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NotFound);
    assert_eq!(
        refusal.message,
        format!("No such image: {}", name.familiar())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_layers_are_refused_and_begun_ones_resumed() {
    let registry = Registry::start();
    let name = registry.name("app:v1");
    let noise: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes())
        .collect();
    let builder = ImageBuilder::new(oci_spec::image::ImageConfiguration::default())
        .compression(Compression::None)
        .layer_from_files([LayerFile {
            path: "noise".into(),
            bytes: noise,
            mode: 0o644,
        }])
        .unwrap();
    builder.push(&name, None, true).await.unwrap();
    let (folder, store) = store();
    let root = folder.path().join("images");
    let image = store.pull(&name, None, &Progress::none()).await.unwrap();
    let layer = image.config.rootfs().diff_ids()[0].clone();
    let hex = layer.trim_start_matches("sha256:").to_owned();
    let good = fs::read(root.join("blobs/sha256").join(&hex)).unwrap();
    store.remove(image.id.as_str(), true, &none).await.unwrap();
    // Half of it is there from an earlier attempt.
    fs::write(root.join("partial").join(&hex), &good[..5_000_000]).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let progress = Progress::new(move |event: PullEvent| {
        if event.status == "Downloading" {
            sink.lock()
                .unwrap()
                .push(event.progress_detail.unwrap().current.unwrap());
        }
    });
    let image = store.pull(&name, None, &progress).await.unwrap();
    assert!(
        seen.lock().unwrap()[0] > 5_000_000,
        "the first half was fetched again"
    );
    store.remove(image.id.as_str(), true, &none).await.unwrap();
    // A rotten beginning is noticed and fetched anew.
    fs::write(root.join("partial").join(&hex), vec![7; 5_000_000]).unwrap();
    let image = store.pull(&name, None, &Progress::none()).await.unwrap();
    store.remove(image.id.as_str(), true, &none).await.unwrap();
    // The registry's own copy is rotten.
    let mut rotten = good;
    rotten[4_000_000] ^= 1;
    fs::write(registry.blob(&layer), rotten).unwrap();
    let refusal = store
        .pull(&name, None, &Progress::none())
        .await
        .unwrap_err();
    assert!(refusal.message.contains("is corrupt"), "{refusal}");
    for folder in ["layers", "partial", "tmp"] {
        assert_eq!(count(root.join(folder)), 0, "{folder}");
    }
    assert!(store.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_beside_each_other_share_and_errors_are_told() {
    let registry = Registry::start();
    let name = registry.name("app:v1");
    small().push(&name, None, true).await.unwrap();
    let (_folder, store) = store();
    let pulls = (0..4).map(|_| async { store.pull(&name, None, &Progress::none()).await });
    let images: Vec<Image> = futures_util::future::try_join_all(pulls).await.unwrap();
    assert!(images.iter().all(|image| image.id == images[0].id));
    let missing = store
        .pull(&registry.name("app:v2"), None, &Progress::none())
        .await
        .unwrap_err();
    assert_eq!(missing.kind, RefusalKind::NotFound);
    assert!(missing.message.starts_with("manifest for "), "{missing}");
    drop(registry);
    let down = store
        .pull(&name, None, &Progress::none())
        .await
        .unwrap_err();
    assert!(down.message.contains("cannot be reached"), "{down}");
}

enum Piece<'a> {
    File(&'a str),
    Symlink(&'a str, &'a str),
    Link(&'a str, &'a str),
}

/// A tar with names as given, which the tar crate itself would refuse to write.
fn tar(pieces: &[Piece<'_>]) -> Vec<u8> {
    let mut tar = Vec::new();
    for piece in pieces {
        let (name, kind, link, content) = match piece {
            Piece::File(name) => (name, tar::EntryType::Regular, "", "evil"),
            Piece::Symlink(name, to) => (name, tar::EntryType::Symlink, *to, ""),
            Piece::Link(name, to) => (name, tar::EntryType::Link, *to, ""),
        };
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Unpacks beside a file that must stay as it is.
fn contained(layer: &[u8]) -> (TempDir, Result<(), UnpackError>) {
    let folder = tempfile::tempdir().unwrap();
    let diff = folder.path().join("diff");
    fs::create_dir(&diff).unwrap();
    fs::write(folder.path().join("victim"), "good").unwrap();
    let done = unpack(layer, &diff, &[]).map(drop);
    assert_eq!(
        fs::read_to_string(folder.path().join("victim")).unwrap(),
        "good"
    );
    assert_eq!(
        count(folder.path().into()),
        2,
        "something was made outside of the layer"
    );
    (folder, done)
}

#[test]
fn malicious_layers_stay_inside() {
    use Piece::{File, Link, Symlink};
    let (_f, done) = contained(&tar(&[File("../victim")]));
    assert!(matches!(done, Err(UnpackError::Escape { .. })), "{done:?}");
    let (_f, done) = contained(&tar(&[File("a/../../victim")]));
    assert!(matches!(done, Err(UnpackError::Escape { .. })), "{done:?}");
    let (_f, done) = contained(&tar(&[Link("a", "../victim")]));
    assert!(matches!(done, Err(UnpackError::Escape { .. })), "{done:?}");
    let (_f, done) = contained(&tar(&[File(".wh...")]));
    assert!(matches!(done, Err(UnpackError::Escape { .. })), "{done:?}");
    // Through links: climbing ends at the layer's root, absolute targets start there.
    let (folder, done) = contained(&tar(&[Symlink("up", ".."), File("up/victim")]));
    done.unwrap();
    assert_eq!(
        fs::read_to_string(folder.path().join("diff/victim")).unwrap(),
        "evil"
    );
    let (folder, done) = contained(&tar(&[
        File("etc/x"),
        Symlink("abs", "/etc"),
        File("abs/y"),
    ]));
    done.unwrap();
    assert!(folder.path().join("diff/etc/y").is_file());
    // A link as the last name is replaced, not written through.
    let (folder, done) = contained(&tar(&[Symlink("v", "../victim"), File("v")]));
    done.unwrap();
    assert!(
        fs::symlink_metadata(folder.path().join("diff/v"))
            .unwrap()
            .is_file()
    );
    let (_f, done) = contained(&tar(&[Symlink("s", "/"), Link("h", "s/etc/passwd")]));
    assert!(matches!(done, Err(UnpackError::Entry { .. })), "{done:?}");
    let (folder, done) = contained(&tar(&[File("/abs")]));
    done.unwrap();
    assert!(folder.path().join("diff/abs").is_file() && !Path::new("/abs").exists());
}

#[test]
fn a_link_into_proc_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let to = format!("/proc/self/root{}", outside.path().display());
    let (_f, _) = contained(&tar(&[Piece::Symlink("p", &to), Piece::File("p/x")]));
    assert_eq!(count(outside.path().into()), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_bytes_are_unpacked_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
        at in 0_usize..3000,
        patch in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let _ = contained(&bytes);
        use Piece::{File, Link, Symlink};
        let mut layer = tar(&[File("a/b"), Symlink("c", "a"), Link("d", "a/b"), File(".wh.x")]);
        let at = at.min(layer.len() - patch.len());
        layer[at..at + patch.len()].copy_from_slice(&patch);
        let _ = contained(&layer);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&layer).unwrap();
        let mut packed = packed.finish().unwrap();
        let end = packed.len() - 1;
        packed[at.min(end)] ^= patch[0];
        let _ = contained(&packed);
    }
}

#[test]
fn a_killed_predecessors_scraps_are_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("images");
    fs::create_dir_all(root.join("tmp/half/diff")).unwrap();
    let first = ImageStore::open(Config::new(&root)).unwrap();
    assert_eq!(count(root.join("tmp")), 0);
    let Err(refusal) = ImageStore::open(Config::new(&root)) else {
        panic!("opened twice")
    };
    assert!(
        refusal.message.contains("another process holds it"),
        "{refusal}"
    );
    drop(first);
    let mut text = String::new();
    fs::write(root.join("catalog.json"), "{").unwrap();
    let Err(refusal) = ImageStore::open(Config::new(&root)) else {
        panic!("damage unnoticed")
    };
    assert!(refusal.message.contains("is damaged"), "{refusal}");
    fs::File::open(root.join("catalog.json"))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "{", "a damaged catalogue is left for the operator");
}
