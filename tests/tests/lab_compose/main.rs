//! Compose files against a real cluster beyond the plain case: what changed content, pruning,
//! a deploy that stops in the middle, a killed manager and bad files come to.

#![allow(clippy::unwrap_used)] // all of it is tests

mod bad;
mod change;
mod every_key;
mod faults;
mod files;
mod socket;

use std::{fs, time::Duration};

use tests::{Lab, Options};

use self::files::Files;

const ECHO: &str = "registry:5000/example/echo:latest";
const TOOLBOX: &str = "registry:5000/example/toolbox";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn stacks_change_and_survive() {
    let lab = Lab::up(Options {
        workers: 1,
        ..Options::for_test("compose")
    })
    .unwrap();
    let folder = lab.dir().join("compose");
    fs::create_dir(&folder).unwrap();
    let files = Files {
        manager: lab.host("manager01"),
        folder,
    };
    change::what_a_file_becomes_is_told(&files);
    change::changed_content_rolls_the_services(&files);
    every_key::every_key_that_is_honoured_stays(&files);
    change::what_runs_is_written_and_changes_nothing(&files);
    change::services_that_left_the_file_are_pruned(&files);
    faults::a_deploy_that_stopped_goes_on(&files);
    change::services_wait_for_what_they_depend_on(&files);
    bad::bad_files_create_nothing(&files);
    socket::whose_api_socket_a_container_sees(&files);
    faults::a_manager_killed_in_mid_deploy(&files);
    lab.down().unwrap();
}
