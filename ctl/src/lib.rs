//! `ovnctl` as a library: everything but the process itself, so that commands can be tested.
//!
//! It speaks only the Docker Engine API and never uses the other packages' logic, so it works
//! against Docker's own socket too. Reading order: [`cli`] (what commands there are), one file a
//! group in [`commands`], [`flags`] (what their flags mean to the API), [`client`] (the wire),
//! [`output`], [`template`] and [`progress`] (what is printed).

pub mod attach;
pub mod cli;
pub mod client;
pub mod cni;
pub mod commands;
pub mod compose;
pub mod credentials;
mod failure;
pub mod flags;
pub mod migrate;
pub mod output;
pub mod progress;
pub mod reference;
mod session;
pub mod template;
pub mod terminal;

use std::ffi::OsString;

use trace::{Instrument as _, tracing::field::Empty};

pub use failure::Failure;
pub use session::{Io, Session, Sink, Surroundings};

/// Runs one command line, the program's name first, and returns the exit status.
pub async fn run(arguments: Vec<OsString>, surroundings: Surroundings, io: Io) -> i32 {
    let (cli, words) = match cli::parse(&arguments) {
        Ok(parsed) => parsed,
        Err(stop) => {
            let sink = if stop.status == 0 { &io.out } else { &io.err };
            // That nobody reads the help is no error.
            let _ = sink.put(stop.text.as_bytes());
            return stop.status;
        }
    };
    let variables = &surroundings.variables;
    let tls = client::TlsFiles::choose(cli.tls, variables, &surroundings.docker_folder());
    let host = match client::Host::choose(cli.host.as_deref(), variables, tls.is_some()) {
        Ok(host) => host,
        Err(message) => {
            let _ = io.err.put(format!("ovnctl: {message}\n").as_bytes());
            return 1;
        }
    };
    let session = Session::new(io, surroundings, host, tls, cli.debug);
    let span = trace::request!(
        "command",
        otel.name = format!("ovnctl {}", words.join(" ")),
        otel.status_code = Empty,
        otel.status_description = Empty,
    );
    let dispatched = cli::dispatch(&session, cli.command);
    match dispatched.instrument(span.clone()).await {
        Ok(()) => 0,
        Err(failure) => {
            trace::failed(&span, failure.message.as_ref().unwrap_or(&String::new()));
            let name = words.iter().find(|word| *word != "container");
            let name = name.map(String::as_str).unwrap_or_default();
            let runs = matches!(name, "run" | "create");
            if let Some(message) = &failure.message {
                session.note(&if runs {
                    format!("ovnctl: {message}")
                } else {
                    message.clone()
                });
                if runs && failure.status == 125 {
                    session.note(&format!(
                        "\nRun 'ovnctl {name} --help' for more information"
                    ));
                }
            }
            failure.status
        }
    }
}
