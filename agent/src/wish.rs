//! `ovnd dataplane`: the wish, the sight and the difference, for whoever debugs a network.
//!
//! Without `--file` the running daemon is asked, which is not disturbed by it. With `--file` this
//! process looks at the kernel itself, and no daemon is needed.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use dataplane::{Desired, kernel::Linux, plan};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::{
    config::{DataplaneAction, Settings},
    http::Sight,
};

/// Where the running daemon tells what it sees.
const QUESTION: &str = "/overnet/dataplane";

/// Runs one of the commands and prints to standard output.
pub async fn run(action: DataplaneAction, settings: &Settings) -> anyhow::Result<()> {
    match action {
        DataplaneAction::Show { file } => show(&look(file.as_deref(), settings).await?),
        DataplaneAction::Plan { file } => {
            let shown = look(file.as_deref(), settings).await?;
            let sight: Sight = serde_json::from_value(shown).context("not a dataplane's answer")?;
            let plan = plan(&sight.desired, &sight.observed);
            if plan.is_empty() {
                println!("nothing to do: the kernel matches the wish");
            }
            for reason in &plan.reasons {
                println!("{reason}");
            }
            Ok(())
        }
        DataplaneAction::Apply { file } => apply(&file, settings).await,
    }
}

fn show(sight: &Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(sight)?);
    Ok(())
}

async fn look(file: Option<&Path>, settings: &Settings) -> anyhow::Result<Value> {
    let Some(file) = file else {
        return ask(socket(settings)?, QUESTION).await;
    };
    let desired = read(file)?;
    let mut kernel = open(&desired, settings)?;
    Ok(serde_json::to_value(Sight {
        observed: kernel.observe().context("cannot look at the kernel")?,
        counters: kernel.counters().context("cannot read the counters")?,
        obstacles: kernel.probe(),
        desired,
        status: None,
    })?)
}

/// Networks, addresses and rules; name servers are the daemon's.
async fn apply(file: &Path, settings: &Settings) -> anyhow::Result<()> {
    let desired = read(file)?;
    let socket = socket(settings)?;
    ensure!(
        UnixStream::connect(socket).await.is_err(),
        "ovnd runs (it answers at {}) and would put everything back to its own wish; stop it first",
        socket.display()
    );
    let mut kernel = open(&desired, settings)?;
    let observed = kernel.observe().context("cannot look at the kernel")?;
    let plan = plan(&desired, &observed);
    print!("{plan}");
    let failures = kernel.apply(&plan.steps);
    for failure in &failures {
        eprintln!("{failure}");
    }
    match failures.len() {
        0 => Ok(()),
        failed => bail!("{failed} of {} steps failed", plan.steps.len()),
    }
}

fn open(desired: &Desired, settings: &Settings) -> anyhow::Result<Linux> {
    let mut kernel = Linux::open(&settings.run)?;
    for sandbox in desired.sandboxes.values() {
        kernel.remember(&sandbox.netns);
    }
    Ok(kernel)
}

/// Where the running daemon is asked.
pub fn socket(settings: &Settings) -> anyhow::Result<&Path> {
    let first = settings.sockets.first().context("no API socket is set")?;
    Ok(first)
}

/// Asks the running daemon for one of its own pages.
pub async fn ask(socket: &Path, question: &str) -> anyhow::Result<Value> {
    let at = socket.display();
    let (status, body) = fetch(socket, question).await.with_context(|| {
        format!(
            "ovnd does not answer at {at}; is it running, with the same --run and --socket? \
             A written wish is named by --file"
        )
    })?;
    let value: Value = serde_json::from_slice(&body)
        .with_context(|| format!("ovnd at {at} gives an answer of another kind ({status})"))?;
    ensure!(
        status.is_success(),
        "ovnd at {at}: {}",
        value["message"].as_str().unwrap_or("no reason given")
    );
    Ok(value)
}

/// What an API's socket answers.
pub async fn fetch(
    socket: &Path,
    question: &str,
) -> anyhow::Result<(http::StatusCode, bytes::Bytes)> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::get(question)
        .header(http::header::HOST, "ovnd")
        .body(Empty::<bytes::Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, body))
}

fn read(path: &Path) -> anyhow::Result<Desired> {
    let text = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    understand(&text).with_context(|| format!("{} is no wish", path.display()))
}

/// A wish, alone or within what `show` prints. A word it does not know is refused: a misspelt
/// part would be an empty part, and `apply` would take everything of that kind down.
fn understand(text: &[u8]) -> anyhow::Result<Desired> {
    let mut value: Value = serde_json::from_slice(text)?;
    if let Some(desired) = value.get_mut("desired") {
        value = desired.take();
    }
    ensure!(value.is_object(), "it is not a JSON object");
    Ok(serde_json::from_value(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_alone_and_within_what_show_prints() {
        let network = r#"{"name":"a","kind":{"overlay":{"vni":4096}},
            "subnets":[{"subnet":"10.1.0.0/24","gateway":"10.1.0.1"}]}"#;
        let alone = format!(r#"{{"networks":{{"n1":{network}}}}}"#);
        let shown = format!(r#"{{"desired":{alone},"observed":{{}},"obstacles":[]}}"#);
        let wish = understand(alone.as_bytes()).unwrap();
        assert_eq!(wish.networks["n1"].name, "a");
        assert_eq!(understand(shown.as_bytes()).unwrap(), wish);
        assert_eq!(understand(b"{}").unwrap(), Desired::default());
        let whole = serde_json::to_vec(&Desired::default()).unwrap();
        assert_eq!(understand(&whole).unwrap(), Desired::default());
        for wrong in [
            "",
            "[]",
            "7",
            r#"{"network":{}}"#,
            r#"{"networks":[]}"#,
            "{",
        ] {
            assert!(understand(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
