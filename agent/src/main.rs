//! `ovnd`: the agent.

use std::{path::Path, process::ExitCode};

use agent::{
    config::{Command, Settings, Typed},
    daemon, doctor,
    journal::Journal,
    wish,
};
use clap::{CommandFactory, Parser};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// EX_CONFIG of sysexits.h; the service manager does not start again what cannot work.
const BAD_SETTINGS: u8 = 78;
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
            return ExitCode::from(BAD_SETTINGS);
        }
    };
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
    start_log(EnvFilter::new(LOG_OF_PROCESS), false);
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
    start_log(EnvFilter::try_new(&settings.log)?, settings.log_json);
    // Refused only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match command {
        None => runtime.block_on(daemon::run(settings))?,
        Some(Command::Dataplane { action }) => runtime.block_on(wish::run(action, &settings))?,
        Some(Command::Doctor { json }) => {
            return runtime.block_on(doctor::command(&settings, json));
        }
        // Answered above, before there was a log.
        Some(Command::Man { .. } | Command::Settings | Command::Wireguard { .. }) => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn start_log(filter: EnvFilter, json: bool) {
    let log = tracing_subscriber::registry().with(filter);
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if json {
        log.with(text.json()).init();
    } else if let Some(journal) = Journal::of_stderr() {
        log.with(journal).init();
    } else {
        log.with(text.with_ansi(false)).init();
    }
}
