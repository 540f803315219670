use std::{
    net::UdpSocket,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::sys::socket::{ControlMessage, UnixAddr, sendmsg};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test but the child of the others: a daemon of few words.
#[test]
fn child_of_the_keeper() {
    let Some(folder) = std::env::var_os("KEEPER_TEST_CHILD") else {
        return;
    };
    let folder = PathBuf::from(folder);
    let line = UnixDatagram::unbound().unwrap();
    let path = std::env::var("NOTIFY_SOCKET").unwrap();
    let variable = |name| std::env::var(name).ok();
    let report = match variable("LISTEN_FDS") {
        None => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let fds = [socket.as_raw_fd()];
            for _ in 0..2 {
                sendmsg(
                    line.as_raw_fd(),
                    &[std::io::IoSlice::new(b"FDSTORE=1\nFDNAME=first\n")],
                    &[ControlMessage::ScmRights(&fds)],
                    MsgFlags::empty(),
                    Some(&UnixAddr::new(path.as_str()).unwrap()),
                )
                .unwrap();
            }
            format!("made {}", socket.local_addr().unwrap())
        }
        Some(count) => {
            assert_eq!(variable("LISTEN_PID"), Some(std::process::id().to_string()));
            // SAFETY: the keeper passed it.
            let fd = unsafe { BorrowedFd::borrow_raw(3) };
            let socket = UdpSocket::from(fd.try_clone_to_owned().unwrap());
            socket.set_nonblocking(true).unwrap();
            let mut question = [0; 16];
            let heard = socket.recv(&mut question).unwrap_or(0);
            format!(
                "got {count} {} {} {}",
                variable("LISTEN_FDNAMES").unwrap(),
                socket.local_addr().unwrap(),
                String::from_utf8_lossy(&question[..heard])
            )
        }
    };
    std::fs::write(folder.join("report"), report).unwrap();
    line.send_to(b"READY=1\nSTATUS=at work\n", &path).unwrap();
    // The watchdog's turn: a child that hangs once lives on quietly the second time.
    while variable("WATCHDOG_USEC").is_some() && folder.join("pings").exists() {
        line.send_to(b"WATCHDOG=1", &path).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    loop {
        std::thread::park();
    }
}

fn options(folder: &Path) -> KeeperOptions {
    let child = [
        "--exact",
        "keeper::tests::child_of_the_keeper",
        "--nocapture",
    ];
    let mut command = vec![std::env::current_exe().unwrap().into_os_string()];
    command.extend(child.iter().map(OsString::from));
    KeeperOptions {
        command,
        env: [("KEEPER_TEST_CHILD".into(), folder.into())].into(),
        control_socket: folder.join("control"),
        log_file: folder.join("log"),
        start_timeout: PATIENCE,
        stop_timeout: PATIENCE,
        watchdog: None,
    }
}

/// A keeper on a thread that has quit by the end of the test, however it ends.
struct Running {
    control: PathBuf,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl Running {
    fn start(options: KeeperOptions) -> Self {
        let control = options.control_socket.clone();
        let ended = std::sync::Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let ended = std::sync::Arc::clone(&ended);
            move || {
                let result = run(options);
                ended.store(true, Ordering::SeqCst);
                result
            }
        });
        let begun = Instant::now();
        while !control.exists() && !ended.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < PATIENCE, "no control socket");
            std::thread::yield_now();
        }
        Self {
            control,
            thread: Some(thread),
        }
    }

    fn ask(&self, word: &str) -> String {
        ask(&self.control, word, PATIENCE).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = ask(&self.control, "quit", PATIENCE);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn stored_descriptors_outlive_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let report = || std::fs::read_to_string(folder.path().join("report")).unwrap();
    let keeper = Running::start(options(folder.path()));
    let pid = keeper.ask("start");
    // Stored twice, held once.
    assert_eq!(keeper.ask("status"), format!("ready {pid} 1 at work"));
    let address = report().strip_prefix("made ").unwrap().to_owned();

    keeper.ask("kill");
    assert_eq!(keeper.ask("status"), "stopped 0 1");
    let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
    asker.send_to(b"anybody?", &address).unwrap();

    let next = keeper.ask("start");
    assert_ne!(next, pid);
    assert_eq!(report(), format!("got 1 first {address} anybody?"));
    keeper.ask("stop");
    keeper.ask("stop");
    assert_eq!(keeper.ask("status"), "stopped 0 1");
    let error = ask(&keeper.control, "dance", PATIENCE).unwrap_err();
    assert!(error.to_string().contains("unknown word"), "{error}");
}

#[test]
fn a_child_that_ends_early_is_an_error_with_the_place_of_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.command = ["sh", "-c", "echo no luck; exit 3"]
        .map(OsString::from)
        .into();
    let keeper = Running::start(options);
    let error = ask(&keeper.control, "start", PATIENCE).unwrap_err();
    assert!(
        error.to_string().contains("ended before READY=1"),
        "{error}"
    );
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("no luck"), "{log}");
}

#[test]
fn a_child_that_hangs_is_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let pings = folder.path().join("pings");
    std::fs::write(&pings, "").unwrap();
    let mut options = options(folder.path());
    options.watchdog = Some(Duration::from_secs(2));
    let keeper = Running::start(options);
    let pid = keeper.ask("start");
    std::fs::remove_file(&pings).unwrap();
    let begun = Instant::now();
    loop {
        let status = keeper.ask("status");
        if !status.contains(&format!(" {pid} ")) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("restarted after {:?}", begun.elapsed());
}
