//! How a rotation of the root certificate gets on, shown until every node has followed.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::screen::Screen;
use super::view::Line;
use crate::commands::text;
use crate::failure::Failure;
use crate::session::Session;

const PAUSE: Duration = Duration::from_millis(200);
/// Looks after which nodes are named that a rotation waits for.
const PATIENCE: u32 = 15;
/// Hosts that are named at most.
const NAMED: usize = 5;

/// Shows it and answers whether it has ended; an interrupt (ctrl-c) ends the showing only.
pub async fn show(session: &Session, quiet: bool) -> Result<bool, Failure> {
    let client = session.client().await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut screen = Screen::new(session.io.output_is_terminal);
    let mut looks = 0;
    loop {
        let swarm = client.get("/swarm").value().await?;
        let nodes = client.get("/nodes").value().await?;
        let seen = Seen::of(&swarm, &nodes);
        if !quiet {
            session.print(&screen.draw(&seen.lines(looks >= PATIENCE)))?;
        }
        if seen.ended() {
            return Ok(true);
        }
        looks += 1;
        tokio::select! {
            // Both may be dropped at any point: a signal is kept until it is read.
            () = tokio::time::sleep(PAUSE) => {}
            _ = interrupt.recv() => {
                if !quiet {
                    session.line("Operation continuing in background.")?;
                    session.line("Use `ovnctl cluster status` to check progress.")?;
                }
                return Ok(false);
            }
        }
    }
}

/// One look at the cluster and its nodes.
struct Seen {
    goes_on: bool,
    all: usize,
    /// Nodes with a certificate of the new root.
    certified: usize,
    /// Nodes that trust the new root alone.
    trusting: usize,
    /// The others, with their state.
    waits_for: Vec<String>,
}

impl Seen {
    fn of(swarm: &Value, nodes: &Value) -> Self {
        let wanted = &swarm["TLSInfo"];
        let goes_on = swarm["RootRotationInProgress"].as_bool().unwrap_or(false);
        let mut seen = Self {
            goes_on,
            all: 0,
            certified: 0,
            trusting: 0,
            waits_for: Vec::new(),
        };
        for node in nodes.as_array().into_iter().flatten() {
            let has = &node["Description"]["TLSInfo"];
            let same = |field: &str| has[field] == wanted[field];
            let certified = same("CertIssuerSubject") && same("CertIssuerPublicKey");
            let trusting = !goes_on && same("TrustRoot");
            seen.all += 1;
            seen.certified += usize::from(certified);
            seen.trusting += usize::from(trusting);
            if !certified || (!goes_on && !trusting) {
                let name = text(node, "/Description/Hostname");
                let state = text(node, "/Status/State");
                seen.waits_for.push(format!("{name} ({state})"));
            }
        }
        seen.waits_for.sort();
        seen
    }

    /// Certificates first, then what is trusted.
    fn ended(&self) -> bool {
        !self.goes_on && self.certified == self.all && self.trusting == self.all
    }

    fn lines(&self, names: bool) -> Vec<Line> {
        let of = |done: usize, what: &str| {
            let all = self.all;
            Line::said(what, format!("{done}/{all} nodes"))
        };
        let mut lines = vec![
            of(self.certified, "rotated TLS certificates"),
            of(self.trusting, "rotated CA certificates"),
        ];
        if names && !self.waits_for.is_empty() {
            let mut list = self.waits_for.join(", ");
            if self.waits_for.len() > NAMED {
                list = self.waits_for[..NAMED].join(", ");
                // Writing to a string does not fail.
                let _ = write!(list, " and {} more", self.waits_for.len() - NAMED);
            }
            lines.push(Line::said("waiting for", list));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info(root: &str, issuer: &str) -> Value {
        json!({"TrustRoot": root, "CertIssuerSubject": "CA", "CertIssuerPublicKey": issuer})
    }

    fn shown(goes_on: bool, wanted: &Value, nodes: &[(&str, &str, Value)]) -> (String, bool) {
        let swarm = json!({"RootRotationInProgress": goes_on, "TLSInfo": wanted});
        let nodes: Vec<Value> = nodes
            .iter()
            .map(|(name, state, has)| {
                json!({"Status": {"State": state},
                       "Description": {"Hostname": name, "TLSInfo": has}})
            })
            .collect();
        let seen = Seen::of(&swarm, &Value::Array(nodes));
        (Screen::new(false).draw(&seen.lines(true)), seen.ended())
    }

    #[test]
    fn certificates_first_then_what_is_trusted() {
        let (old, turning, new) = (info("R0", "K0"), info("R0", "K1"), info("R1", "K1"));
        let (text, ended) = shown(
            true,
            &turning,
            &[
                ("one", "ready", turning.clone()),
                ("two", "ready", old.clone()),
                ("three", "down", old),
            ],
        );
        assert_eq!(
            text,
            "rotated TLS certificates: 1/3 nodes\nrotated CA certificates: 0/3 nodes\nwaiting for: three (down), two (ready)\n"
        );
        assert!(!ended);
        // All have one, and the leader has not ended it yet.
        let all = [("one", "ready", turning.clone())];
        assert!(!shown(true, &turning, &all).1);
        // It has, and a node has not heard.
        let (text, ended) = shown(
            false,
            &new,
            &[("one", "ready", turning), ("two", "ready", new.clone())],
        );
        assert!(
            text.ends_with("CA certificates: 1/2 nodes\nwaiting for: one (ready)\n"),
            "{text}"
        );
        assert!(!ended);
        assert!(shown(false, &new, &[("one", "ready", new.clone())]).1);
    }
}
