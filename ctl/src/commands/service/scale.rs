//! `service scale`, `rollback` and `rebalance`.

use clap::Args;
use serde_json::{Value, json};

use super::send::{self, Auth};
use crate::failure::Failure;
use crate::flags::service::edit::at;
use crate::progress::{self, Asked};
use crate::session::Session;

/// Change the number of tasks of services
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl service scale echo=6\n  ovnctl service scale -d front=3 api=10"
)]
pub struct ScaleArgs {
    /// Do not wait until the tasks run
    #[arg(short, long)]
    detach: bool,
    /// Service and number of its tasks
    #[arg(value_name = "SERVICE=REPLICAS", required = true)]
    services: Vec<String>,
}

/// Go back to what a service was before its last update
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl service rollback echo")]
pub struct RollbackArgs {
    /// Do not wait until the rollback is done
    #[arg(short, long)]
    detach: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Name or id of the service
    #[arg(value_name = "SERVICE")]
    service: String,
}

/// Spread the tasks of services evenly over the hosts again
///
/// Moves only as many tasks as needed, each as an update would: the new one runs before the old one goes
/// where the service's update order is start-first.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl service rebalance echo")]
pub struct RebalanceArgs {
    /// Do not wait until the tasks run
    #[arg(short, long)]
    detach: bool,
    /// Names or ids of services
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

/// `service scale`.
pub async fn scale(session: &Session, args: ScaleArgs) -> Result<(), Failure> {
    let mut wanted = Vec::new();
    for word in &args.services {
        let Some((name, number)) = word
            .split_once('=')
            .filter(|(n, r)| !n.is_empty() && !r.is_empty())
        else {
            return Err(Failure::new(format!(
                "invalid scale specifier '{word}'.\nSee 'ovnctl service scale --help'.\n\nUsage:  ovnctl service scale SERVICE=REPLICAS [SERVICE=REPLICAS...]\n\nScale one or multiple replicated services"
            )));
        };
        wanted.push((name, number));
    }
    let mut failures = Vec::new();
    let mut scaled = Vec::new();
    for (name, number) in wanted {
        match scale_one(session, name, number).await {
            Ok(()) => {
                session.line(&format!("{name} scaled to {number}"))?;
                scaled.push(name);
            }
            Err(failure) => failures.push(format!("{name}: {}", failure.text())),
        }
    }
    if !args.detach {
        for name in scaled {
            if let Err(failure) = progress::show(session, name, Asked::Change, false).await {
                failures.push(format!("{name}: {}", failure.text()));
            }
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(failures.join("\n")))
    }
}

async fn scale_one(session: &Session, name: &str, number: &str) -> Result<(), Failure> {
    let replicas: u64 = number
        .parse()
        .map_err(|_| format!("invalid replicas value {number}: it must be a whole number"))?;
    let service = send::read(session, name).await?;
    let mut spec = service["Spec"].clone();
    set_replicas(&mut spec, replicas)?;
    send::update(session, &service, &spec, &Auth::Unsaid, false).await
}

fn set_replicas(spec: &mut Value, replicas: u64) -> Result<(), String> {
    let has = |name: &str| spec["Mode"].get(name).is_some_and(|mode| !mode.is_null());
    let path = match () {
        () if has("Replicated") => ["Mode", "Replicated", "Replicas"],
        () if has("ReplicatedJob") => ["Mode", "ReplicatedJob", "TotalCompletions"],
        () => {
            return Err("scale can only be used with replicated or replicated-job mode".to_owned());
        }
    };
    *at(spec, &path) = json!(replicas);
    Ok(())
}

/// `service rollback`.
pub async fn rollback(session: &Session, args: RollbackArgs) -> Result<(), Failure> {
    let service = send::read(session, &args.service).await?;
    send::update(session, &service, &service["Spec"], &Auth::Unsaid, true).await?;
    session.line(&args.service)?;
    if args.detach {
        return Ok(());
    }
    progress::show(session, &args.service, Asked::Rollback, args.quiet).await
}

/// `service rebalance`.
pub async fn rebalance(session: &Session, args: RebalanceArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.services, async |name| {
            let answer = client
                .post(format!("/services/{name}/rebalance"))
                .value()
                .await?;
            let moved = answer["Moved"].as_u64().unwrap_or(0);
            session.line(&match moved {
                0 => format!("{name}: nothing to move"),
                1 => format!("{name}: 1 task moves"),
                moved => format!("{name}: {moved} tasks move"),
            })?;
            if moved > 0 && !args.detach {
                progress::show(session, name, Asked::Change, false).await?;
            }
            Ok(String::new())
        })
        .await
}
