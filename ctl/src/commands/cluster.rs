//! `cluster`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::cluster_backup::{self, BackupArgs, RejoinArgs, RestoreArgs};
use super::{doctor, text};
use crate::failure::Failure;
use crate::output::table::align;
use crate::session::Session;

/// Look after the cluster as a whole
#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    Backup(BackupArgs),
    Rejoin(RejoinArgs),
    Restore(RestoreArgs),
    RotateKeys(RotateKeysArgs),
    Status(StatusArgs),
}

/// Give all hosts new keys for encrypted networks; no packet is lost by it
#[derive(Args, Debug)]
#[command(
    after_help = "The cluster does so by itself every twelve hours. It takes some seconds; \
                  `ovnctl cluster status` shows how far it is.\n\n\
                  Examples:\n  ovnctl cluster rotate-keys"
)]
pub struct RotateKeysArgs {}

/// Show the managers, who leads, how far their logs are, and what is wrong
#[derive(Args, Debug)]
#[command(
    after_help = "LAG is in entries behind the leader's log. Status 1 when something is broken.\n\n\
                  Examples:\n  ovnctl cluster status\n  ovnctl cluster status --format json"
)]
pub struct StatusArgs {
    /// table, or json
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Runs a command.
pub async fn run(session: &Session, command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Backup(args) => cluster_backup::backup(session, args).await,
        ClusterCommand::Rejoin(args) => cluster_backup::rejoin(session, args).await,
        ClusterCommand::Restore(args) => cluster_backup::restore(session, args).await,
        ClusterCommand::RotateKeys(RotateKeysArgs {}) => rotate_keys(session).await,
        ClusterCommand::Status(args) => status(session, args).await,
    }
}

async fn rotate_keys(session: &Session) -> Result<(), Failure> {
    let client = session.client().await?;
    let swarm = client.get("/swarm").value().await?;
    let version = swarm.pointer("/Version/Index").and_then(Value::as_u64);
    client
        .post("/swarm/update")
        .query("version", version.unwrap_or_default())
        .query("rotateNetworkKeys", true)
        .json(&swarm["Spec"])
        .done()
        .await?;
    session.line("The keys of encrypted networks are being rotated.")
}

async fn status(session: &Session, args: StatusArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let answer = client.get("/overnet/cluster").value().await;
    let view = answer.map_err(|error| {
        let failure = Failure::from(error);
        if failure.is_not_found() {
            Failure::new("this daemon tells no such thing: it is not ovnd, or an older one")
        } else {
            failure
        }
    })?;
    if args.format == "json" {
        session.print(&format!("{view:#}\n"))?;
    } else {
        session.print(&shown(&view))?;
    }
    if doctor::findings(&view["Findings"]).any(|finding| text(finding, "/Level") == "error") {
        return Err(Failure::silent(1));
    }
    Ok(())
}

fn shown(view: &Value) -> String {
    let mut members: Vec<&Value> = view["Members"].as_array().into_iter().flatten().collect();
    members.sort_by_key(|member| (member["Manager"].is_null(), text(member, "/Hostname")));
    let leads = |member: &&&Value| member["Manager"]["Leader"] == true;
    let leader = members.iter().find(leads);
    let leader = leader.map_or("nobody", |member| text(member, "/Hostname"));
    let number = |name: &str| view[name].as_u64().unwrap_or_default();
    let mut out = format!(
        "Leader: {leader} (term {})\nManagers: {} of {} answer, {} are needed\nLog: {} entries, {} applied\n\n",
        number("Term"),
        number("Reachable"),
        number("Voting"),
        number("Needed"),
        number("LastIndex"),
        number("AppliedIndex"),
    );
    let keys = &view["NetworkKeys"];
    if keys["Newest"] != keys["Oldest"] {
        out.truncate(out.len() - 1);
        out.push_str("Keys of encrypted networks: being rotated\n\n");
    }
    let mut table = "HOSTNAME\tSTATUS\tMANAGER STATUS\tADDRESS\tLAG\tCERTIFICATE\n".to_owned();
    for member in members {
        let manager = &member["Manager"];
        let lag = manager["Lag"].as_u64().map(|lag| lag.to_string());
        let certificate = text(member, "/CertificateNotAfter");
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "{}\t{}\t{}\t{}\t{}\t{}",
            text(member, "/Hostname"),
            capital(text(member, "/State")),
            standing(manager),
            text(manager, "/Address"),
            lag.unwrap_or_default(),
            certificate
                .split_once('T')
                .map(|(day, _)| format!("until {day}"))
                .unwrap_or_default()
        );
    }
    out.push_str(&align(&table));
    let wrong = doctor::findings(&view["Findings"]).filter(|f| text(f, "/Level") != "ok");
    let wrong: Vec<Value> = wrong.cloned().collect();
    if !wrong.is_empty() {
        out.push('\n');
        out.push_str(&doctor::table(wrong));
    }
    out
}

fn standing(manager: &Value) -> &'static str {
    let is = |name: &str| manager[name] == true;
    match () {
        () if manager.is_null() => "",
        () if !is("Votes") => "Joining",
        () if is("Leader") => "Leader",
        () if is("Reachable") => "Reachable",
        () if manager["Outdated"].is_string() => "Outdated",
        () => "Unreachable",
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn managers_first_and_what_is_wrong_last() {
        let manager = |leader: bool, reachable: bool, lag: Option<u64>| {
            json!({"Address": "192.0.2.1:2377", "Votes": true, "Leader": leader,
                   "Reachable": reachable, "Lag": lag})
        };
        let member = |name: &str, manager: Value| {
            json!({"Hostname": name, "State": "ready", "Manager": manager,
                   "CertificateNotAfter": "2027-01-02T03:04:05Z"})
        };
        let mut old = manager(false, false, None);
        old["Outdated"] = json!("the log of manager m3 has gone back");
        let view = json!({
            "Term": 7, "LastIndex": 120, "AppliedIndex": 119,
            "Voting": 2, "Reachable": 1, "Needed": 2,
            "Members": [
                member("a-worker", Value::Null),
                member("m2", manager(false, false, Some(3))),
                member("m1", manager(true, true, Some(0))),
                member("m3", old),
            ],
            "Findings": [
                {"Level": "ok", "Check": "membership", "Found": "this node is active"},
                {"Level": "warning", "Check": "managers", "Found": "1 of 2 cannot be reached",
                 "Means": "M.", "Mend": "do"},
            ],
        });
        let shown = shown(&view);
        let lines: Vec<String> = shown
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines[..9],
            [
                "Leader: m1 (term 7)",
                "Managers: 1 of 2 answer, 2 are needed",
                "Log: 120 entries, 119 applied",
                "",
                "HOSTNAME STATUS MANAGER STATUS ADDRESS LAG CERTIFICATE",
                "m1 Ready Leader 192.0.2.1:2377 0 until 2027-01-02",
                "m2 Ready Unreachable 192.0.2.1:2377 3 until 2027-01-02",
                "m3 Ready Outdated 192.0.2.1:2377 until 2027-01-02",
                "a-worker Ready until 2027-01-02",
            ]
        );
        assert!(shown.contains("1 of 2 cannot be reached"), "{shown}");
        assert!(!shown.contains("this node is active"), "{shown}");
    }
}
