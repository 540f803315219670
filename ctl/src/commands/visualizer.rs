//! `visualizer`.

use clap::Args;
use serde_json::{Value, json};

use super::text;
use crate::failure::Failure;
use crate::session::Session;

/// Serve a picture of the cluster to browsers, and print its address
///
/// It shows hosts, tasks, networks, published ports and logs as they change, and changes nothing.
/// It is served until it is stopped, after a restart of ovnd too.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl visualizer\n  ovnctl visualizer --listen 0.0.0.0\n  ovnctl visualizer --stop"
)]
pub struct VisualizerArgs {
    /// Where to listen; unless it is an address of this host only, such as 127.0.0.1, browsers need
    /// the token that is printed [default: where it is served, else 127.0.0.1:9080]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    listen: Option<String>,
    /// Serve it no longer
    #[arg(long, conflicts_with = "listen")]
    stop: bool,
}

/// `visualizer`.
pub async fn run(session: &Session, args: VisualizerArgs) -> Result<(), Failure> {
    const PATH: &str = "/overnet/visualizer";
    let client = session.client().await?;
    if args.stop {
        client.delete(PATH).value().await.map_err(not_there)?;
        return session.line("The visualizer is served no longer.");
    }
    let mut view = match &args.listen {
        Some(listen) => {
            client
                .post(PATH)
                .json(&json!({"Listen": listen}))
                .value()
                .await
        }
        None => client.get(PATH).value().await,
    }
    .map_err(not_there)?;
    if text(&view, "/URL").is_empty() {
        view = client
            .post(PATH)
            .json(&Value::Object(serde_json::Map::new()))
            .value()
            .await?;
    }
    session.line(text(&view, "/URL"))
}

/// Docker has no such thing and says only that there is no such page.
fn not_there(error: crate::client::ClientError) -> Failure {
    let failure = Failure::from(error);
    if failure.is_not_found() {
        return Failure::new(
            "the daemon has no visualizer; it is ovnd that has one (see ovnctl -H)",
        );
    }
    failure
}
