//! Programs that speak Docker's API, as Debian packages them: the SDK for Python, and Ansible with its
//! docker collection.

#![allow(clippy::unwrap_used)] // all of it is tests

use tests::{Lab, Options};

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox:latest";
const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

#[test]
fn the_sdk_and_ansible_do_their_work() {
    let lab = Lab::up(Options {
        workers: 1,
        ..Options::for_test("clients")
    })
    .unwrap();
    let manager = lab.host("manager01");
    // Debian's interpreter has Debian's modules; another one may come first in PATH.
    let sdk = format!("{CLIENTS}/sdk.py");
    let said = manager.exec(["/usr/bin/python3", "-B", &sdk, ECHO, TOOLBOX]);
    assert!(said.success(), "{said:#?}");
    eprintln!("{}", said.stderr);
    let playbook = format!("{CLIENTS}/playbook.yml");
    let play =
        "/usr/bin/ansible-playbook -i localhost, -e ansible_python_interpreter=/usr/bin/python3";
    let said = manager.exec(play.split(' ').chain([playbook.as_str()]));
    assert!(said.success(), "{}\n{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("failed=0"), "{}", said.stdout);
    lab.down().unwrap();
}
