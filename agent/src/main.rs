//! `ovnd`: the agent.

use agent::{
    config::{Command, Settings, Typed},
    daemon, wish,
};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let typed = Typed::parse();
    let settings = Settings::load(&typed.flags)?;
    start_log(&settings)?;
    // Refused only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match typed.command {
        None => runtime.block_on(daemon::run(settings)),
        Some(Command::Dataplane { action }) => runtime.block_on(wish::run(action, &settings)),
    }
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if settings.log_json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
    Ok(())
}
