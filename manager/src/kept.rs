//! What older builds wrote is read: logs, snapshots and messages that they left in `kept/`, one folder
//! for each that had something new. Whatever such a build said of an object, this one still says.

use std::{
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
};

use model::control::Verb;
use openraft::Entry;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    raft::{Disk, RaftCall, TypeConfig, WrappingKey, examine, replay},
    store::Proposal,
    wire::{
        Acknowledge, Beat, IssueRequest, ManagerAsk, Payload, Register, SessionMessage, unpack,
    },
};

/// What the logs of the samples are sealed under.
const KEY: &[u8] = b"the kept sample's key";

fn samples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kept");
    let entries = fs::read_dir(folder).expect("kept samples");
    let mut samples: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    samples.sort();
    assert!(!samples.is_empty());
    samples
}

fn said(file: &Path) -> Value {
    let text = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// Everything that `old` says, `new` says too; it may say more.
fn still_says(old: &Value, new: &Value, place: &str) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let place = format!("{place}.{key}");
                let there = new.get(key);
                let there = there.unwrap_or_else(|| panic!("{place} is lost: it was {value}"));
                still_says(value, there, &place);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            assert_eq!(old.len(), new.len(), "{place}");
            for (number, (old, new)) in old.iter().zip(new).enumerate() {
                still_says(old, new, &format!("{place}[{number}]"));
            }
        }
        (old, new) => assert_eq!(old, new, "{place}"),
    }
}

fn reads<T: DeserializeOwned + Serialize + Debug>(sample: &Path, name: &str) -> T {
    let body = fs::read(sample.join(format!("{name}.msgpack"))).expect("a message");
    let message: T = unpack(&Payload { body })
        .unwrap_or_else(|status| panic!("{name} of {}: {status}", sample.display()));
    let old = said(&sample.join(format!("{name}.json")));
    let new = serde_json::to_value(&message).expect("JSON");
    still_says(&old, &new, name);
    message
}

#[test]
fn messages_of_older_builds_are_understood() {
    for sample in samples() {
        reads::<Proposal>(&sample, "proposal");
        for name in ["raft-append", "raft-vote"] {
            reads::<RaftCall>(&sample, name);
        }
        reads::<Entry<TypeConfig>>(&sample, "raft-membership");
        for name in [
            "welcome",
            "full",
            "increment",
            "elsewhere",
            "node",
            "heartbeat-period",
            "removed",
        ] {
            let message: SessionMessage = reads(&sample, name);
            // None of them is taken for another.
            let word = format!("{message:?}").to_lowercase();
            assert!(word.starts_with(&name.replace('-', "")), "{name}: {word}");
        }
        reads::<Beat>(&sample, "beat");
        reads::<Acknowledge>(&sample, "acknowledge");
        for name in ["verb-update", "verb-network"] {
            let body = fs::read(sample.join(format!("{name}.msgpack"))).expect("a message");
            unpack::<Verb>(&Payload { body }).expect("a verb");
        }
        let body = |name: &str| Payload {
            body: fs::read(sample.join(format!("{name}.msgpack"))).expect("a message"),
        };
        let register: Register = unpack(&body("register")).expect("a registration");
        // Builds that say no level are told nothing that came with one.
        assert!(register.level <= crate::wire::LEVEL);
        unpack::<IssueRequest>(&body("issue")).expect("a request");
        for name in ["ask-verb", "ask-leave"] {
            unpack::<ManagerAsk>(&body(name)).expect("what a manager asks");
        }
        let Ok(ManagerAsk::Enter { format, .. }) = unpack(&body("ask-enter")) else {
            panic!("a manager cannot enter");
        };
        assert!((1..=model::FORMAT).contains(&format), "{format}");
    }
}

#[tokio::test]
async fn logs_of_older_builds_are_opened() {
    for sample in samples() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.redb");
        fs::copy(sample.join("log.redb"), &path).expect("a copy");
        let key = || WrappingKey::from_node_key(KEY);
        assert_eq!(examine(&path, key()).await, None);
        let disk = Disk::open(&path, &key()).await.expect("a log");
        assert_eq!(disk.raft_id(), 7);
        let (tables, last) = replay(&disk).expect("its state");
        assert!(last.is_some());
        let new = serde_json::to_value(tables.image()).expect("JSON");
        still_says(&said(&sample.join("tables.json")), &new, "tables");
        disk.close();
    }
}

#[test]
#[should_panic(expected = "x.a[1].c is lost: it was 2")]
fn what_is_lost_is_seen() {
    let old = serde_json::json!({"a": [1, {"c": 2}]});
    let new = serde_json::json!({"a": [1, {"d": 2}], "b": 3});
    still_says(&old, &new, "x");
}
