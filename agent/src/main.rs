//! `ovnd`: the agent.

use std::{path::Path, process::ExitCode};

use agent::{
    config::{Command, Settings, Typed},
    daemon, data_format, doctor,
    journal::Journal,
    wish,
};
use clap::{CommandFactory, Parser};
use trace::Exporter;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// EX_CONFIG of sysexits.h: the settings are wrong, or the data is a later version's. The service
/// manager does not start again what cannot work.
const REFUSED: u8 = 78;
/// The library tells of every handshake that is not answered.
const LOG_OF_PROCESS: &str = "info,boringtun=off";

fn main() -> ExitCode {
    let typed = Typed::parse();
    if let Some(Command::Wireguard { device, empty }) = &typed.command {
        return carry(device, empty);
    }
    let settings = match Settings::load(&typed.flags) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::from(REFUSED);
        }
    };
    let would_start = matches!(typed.command, None | Some(Command::Settings));
    if would_start && let Err(error) = data_format::check(&settings.root) {
        eprintln!("{error}");
        return ExitCode::from(REFUSED);
    }
    match run(typed.command, settings) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("ovnd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The process of a WireGuard device. It reads no settings: it has to run as well as the daemon
/// that has started it, whatever has become of them since.
fn carry(device: &str, empty: &Path) -> ExitCode {
    start_log(EnvFilter::new(LOG_OF_PROCESS), false, None);
    match dataplane::wireguard::process::run(empty) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(
                device,
                "a WireGuard device has no process any more: {error}"
            );
            ExitCode::FAILURE
        }
    }
}

fn run(command: Option<Command>, settings: Settings) -> anyhow::Result<ExitCode> {
    match &command {
        Some(Command::Settings) => {
            print!("{}", settings.to_toml());
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Man { folder }) => {
            std::fs::create_dir_all(folder)?;
            clap_mangen::generate_to(Typed::command(), folder)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    // Refused only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (exporter, unexported) = match Exporter::of_environment("ovnd") {
        Ok(exporter) => (exporter, None),
        Err(reason) => (None, Some(reason)),
    };
    let filter = EnvFilter::try_new(&settings.log)?;
    start_log(filter, settings.log_json, exporter.as_ref());
    // A host without its daemon is worse than one without traces.
    if let Some(reason) = unexported {
        tracing::warn!("{reason}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(carry_out(command, settings));
    if let Some(exporter) = exporter {
        exporter.end();
    }
    done
}

async fn carry_out(command: Option<Command>, settings: Settings) -> anyhow::Result<ExitCode> {
    match command {
        None => daemon::run(settings).await?,
        Some(Command::Dataplane { action }) => wish::run(action, &settings).await?,
        Some(Command::Doctor { json }) => return doctor::command(&settings, json).await,
        // Answered above, before there was a log.
        Some(Command::Man { .. } | Command::Settings | Command::Wireguard { .. }) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn start_log(filter: EnvFilter, json: bool, exporter: Option<&Exporter>) {
    let log = tracing_subscriber::registry().with(exporter.map(Exporter::layer));
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if json {
        log.with(text.json().with_filter(filter)).init();
    } else if let Some(journal) = Journal::of_stderr() {
        log.with(journal.with_filter(filter)).init();
    } else {
        log.with(text.with_ansi(false).with_filter(filter)).init();
    }
}
