//! The API socket in containers.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
};

use crate::{TOOLBOX, files::Files};

/// Ours without Docker, and with Docker where it is asked for.
pub fn whose_api_socket_a_container_sees(files: &Files) {
    let mount = "/var/run/docker.sock:/var/run/docker.sock";
    let url = "http://docker/v1.41/info";
    let curl = ["curl", "-sS", "--unix-socket", "/var/run/docker.sock", url];
    let seen = |flags: &[&str]| {
        let run = ["run", "--rm", "-v", mount];
        let args: Vec<&str> = run
            .iter()
            .chain(flags)
            .chain(&[TOOLBOX])
            .chain(&curl)
            .copied()
            .collect();
        files.ctl(&args).ok()
    };
    assert!(seen(&[]).contains("\"ControlAvailable\":true"));
    // A socket as Docker's would be; whoever mounts it is answered by the host.
    let host = files.manager.dir().join("run/docker.sock");
    let docker = UnixListener::bind(&host).unwrap();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = docker.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).unwrap();
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\nDocker itself")
            .unwrap();
    });
    let link = ["ln", "-s", "/run/overnet/docker.sock", "/run/docker.sock"];
    files.manager.exec(link).ok();
    assert!(seen(&["--label", "overnet.api-socket=true"]).contains("\"ControlAvailable\":true"));
    assert_eq!(seen(&[]), "Docker itself");
    answers.join().unwrap();
    files.manager.exec(["rm", "/run/docker.sock"]).ok();
}
