//! `swarm update` and `swarm ca`: edits of the cluster's specification.

use clap::Args;
use serde_json::{Map, Value, json};

use super::text;
use crate::failure::Failure;
use crate::flags::comma_fields;
use crate::output::units::parse_duration;
use crate::progress::rotation;
use crate::session::Session;

/// Settings of the cluster that `init` and `update` share.
#[derive(Args, Debug, Default)]
pub struct SpecFlags {
    /// How long certificates of nodes are valid (default 2160h)
    #[arg(long, value_name = "DURATION")]
    pub cert_expiry: Option<String>,
    /// Time between two heartbeats of a node
    #[arg(long, value_name = "DURATION")]
    pub dispatcher_heartbeat: Option<String>,
    /// Outside certificate authority: protocol=cfssl,url=…
    #[arg(long, value_name = "SPEC")]
    pub external_ca: Vec<String>,
    /// Number of old Raft snapshots to keep
    #[arg(long, value_name = "N")]
    pub max_snapshots: Option<u64>,
    /// Log entries between two Raft snapshots (default 10000)
    #[arg(long, value_name = "N")]
    pub snapshot_interval: Option<u64>,
    /// Old tasks to keep (default 5)
    #[arg(long, value_name = "N")]
    pub task_history_limit: Option<i64>,
}

impl SpecFlags {
    /// Edits a specification; true when anything was given.
    pub fn apply(&self, spec: &mut Value) -> Result<bool, String> {
        let mut edits: Vec<(&str, &str, Value)> = Vec::new();
        if let Some(text) = &self.cert_expiry {
            let nanos = parse_duration(text).map_err(|e| format!("--cert-expiry: {e}"))?;
            edits.push(("CAConfig", "NodeCertExpiry", json!(nanos)));
        }
        if let Some(text) = &self.dispatcher_heartbeat {
            let nanos = parse_duration(text).map_err(|e| format!("--dispatcher-heartbeat: {e}"))?;
            edits.push(("Dispatcher", "HeartbeatPeriod", json!(nanos)));
        }
        if !self.external_ca.is_empty() {
            let list = self
                .external_ca
                .iter()
                .map(|t| external_ca(t))
                .collect::<Result<Vec<_>, _>>()?;
            edits.push(("CAConfig", "ExternalCAs", Value::Array(list)));
        }
        if let Some(number) = self.max_snapshots {
            edits.push(("Raft", "KeepOldSnapshots", json!(number)));
        }
        if let Some(number) = self.snapshot_interval {
            edits.push(("Raft", "SnapshotInterval", json!(number)));
        }
        if let Some(number) = self.task_history_limit {
            edits.push(("Orchestration", "TaskHistoryRetentionLimit", json!(number)));
        }
        let any = !edits.is_empty();
        for (part, field, value) in edits {
            spec[part][field] = value;
        }
        Ok(any)
    }
}

fn external_ca(text: &str) -> Result<Value, String> {
    let mut entry = Map::new();
    let mut options = Map::new();
    for field in comma_fields(text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!(
                "--external-ca {text:?}: {field:?} is not of the form KEY=VALUE"
            ));
        };
        match key.to_lowercase().as_str() {
            "protocol" if value == "cfssl" => {
                drop(entry.insert("Protocol".to_owned(), json!(value)));
            }
            "protocol" => {
                return Err(format!(
                    "--external-ca {text:?}: the protocol must be cfssl"
                ));
            }
            "url" => drop(entry.insert("URL".to_owned(), json!(value))),
            "cacert" => {
                let pem = std::fs::read_to_string(value)
                    .map_err(|e| format!("--external-ca: cannot read {value}: {e}"))?;
                entry.insert("CACert".to_owned(), json!(pem));
            }
            other => drop(options.insert(other.to_owned(), json!(value))),
        }
    }
    if !entry.contains_key("Protocol") || !entry.contains_key("URL") {
        return Err(format!(
            "--external-ca {text:?}: protocol= and url= are needed"
        ));
    }
    if !options.is_empty() {
        entry.insert("Options".to_owned(), Value::Object(options));
    }
    Ok(Value::Object(entry))
}

/// Change settings of the cluster, live
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  ovnctl swarm update --dispatcher-heartbeat 2s --task-history-limit 3"
)]
pub struct UpdateArgs {
    /// Lock managers: a restarted one needs the unlock key
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = crate::flags::boolean)]
    autolock: Option<bool>,
    #[command(flatten)]
    spec: SpecFlags,
}

/// Sends an edited specification; `rotate` is worker token, manager token, unlock key.
pub async fn post_update(
    session: &Session,
    swarm: &Value,
    spec: &Value,
    rotate: [bool; 3],
) -> Result<(), Failure> {
    let version = swarm
        .pointer("/Version/Index")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    session
        .client()
        .await?
        .post("/swarm/update")
        .query("version", version)
        .query("rotateWorkerToken", rotate[0])
        .query("rotateManagerToken", rotate[1])
        .query("rotateManagerUnlockKey", rotate[2])
        .json(spec)
        .done()
        .await?;
    Ok(())
}

/// `swarm update`.
pub async fn update(session: &Session, args: UpdateArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let swarm = client.get("/swarm").value().await?;
    let mut spec = swarm["Spec"].clone();
    let mut any = args.spec.apply(&mut spec)?;
    let before = spec
        .pointer("/EncryptionConfig/AutoLockManagers")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    if let Some(lock) = args.autolock {
        spec["EncryptionConfig"]["AutoLockManagers"] = json!(lock);
        any = true;
    }
    if !any {
        return Err(Failure::new(
            "nothing to change: give at least one flag, see ovnctl swarm update --help",
        ));
    }
    post_update(session, &swarm, &spec, [false; 3]).await?;
    session.line("Swarm updated.")?;
    if args.autolock == Some(true) && !before {
        let key = client.get("/swarm/unlockkey").value().await?;
        session.line(&format!("Unlock key: {}", text(&key, "/UnlockKey")))?;
    }
    Ok(())
}

/// Show the cluster's root certificate, or replace it
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ovnctl swarm ca > root.pem\n  ovnctl swarm ca --rotate")]
pub struct CaArgs {
    /// Certificate of the new root, in PEM
    #[arg(long, value_name = "FILE", requires_all = ["rotate", "ca_key"])]
    ca_cert: Option<String>,
    /// Key of the new root, in PEM (PKCS#8)
    #[arg(long, value_name = "FILE", requires_all = ["rotate", "ca_cert"])]
    ca_key: Option<String>,
    /// How long certificates of nodes are valid
    #[arg(long, value_name = "DURATION", requires = "rotate")]
    cert_expiry: Option<String>,
    /// Do not wait until all nodes have new certificates
    #[arg(short, long)]
    detach: bool,
    /// Outside certificate authority: protocol=cfssl,url=… (ovnd refuses it)
    #[arg(long, value_name = "SPEC", requires = "rotate")]
    external_ca: Vec<String>,
    /// Show no progress, and no root in the end
    #[arg(short, long)]
    quiet: bool,
    /// Make a new root; without files a fresh one
    #[arg(long)]
    rotate: bool,
}

/// `swarm ca`.
pub async fn ca(session: &Session, args: CaArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    let swarm = client.get("/swarm").value().await?;
    if !args.rotate {
        let root = text(&swarm, "/TLSInfo/TrustRoot");
        if root.is_empty() {
            return session.line("No CA information available");
        }
        return session.line(root.trim());
    }
    let mut spec = swarm["Spec"].clone();
    let flags = SpecFlags {
        cert_expiry: args.cert_expiry,
        external_ca: args.external_ca,
        ..SpecFlags::default()
    };
    flags.apply(&mut spec)?;
    let file = |path: Option<&String>| -> Result<String, Failure> {
        match path {
            None => Ok(String::new()),
            Some(path) => std::fs::read_to_string(session.surroundings.directory.join(path))
                .map_err(|e| Failure::new(format!("cannot read {path}: {e}"))),
        }
    };
    let (certificate, key) = (file(args.ca_cert.as_ref())?, file(args.ca_key.as_ref())?);
    if certificate.is_empty() && key.is_empty() {
        let force = spec
            .pointer("/CAConfig/ForceRotate")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        spec["CAConfig"]["ForceRotate"] = json!(force + 1);
    }
    spec["CAConfig"]["SigningCACert"] = json!(certificate);
    spec["CAConfig"]["SigningCAKey"] = json!(key);
    post_update(session, &swarm, &spec, [false; 3]).await?;
    if args.detach {
        return Ok(());
    }
    if !rotation::show(session, args.quiet).await? || args.quiet {
        return Ok(());
    }
    let swarm = client.get("/swarm").value().await?;
    session.line(text(&swarm, "/TLSInfo/TrustRoot").trim())
}
