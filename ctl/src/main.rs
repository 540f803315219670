//! `ovnctl`: the command line of Overnet. Everything is in the library.

use std::{ffi::OsStr, path::Path};

use ctl::{Io, Surroundings};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn main() {
    // Read before any thread starts: the time zone cannot be read safely after.
    let surroundings = Surroundings::of_process();
    let exporter = trace::Exporter::of_environment("ovnctl").unwrap_or_else(|error| {
        eprintln!("ovnctl: {error}");
        None
    });
    if let Some(exporter) = &exporter {
        tracing_subscriber::registry().with(exporter.layer()).init();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ovnctl: cannot start: {error}");
            std::process::exit(1);
        }
    };
    let arguments: Vec<_> = std::env::args_os().collect();
    let called = arguments.first().map(Path::new).and_then(Path::file_name);
    let io = Io::of_process();
    let status = if called == Some(OsStr::new(ctl::cni::PROGRAM)) {
        runtime.block_on(async { ctl::cni::run(&surroundings, &io).await })
    } else {
        runtime.block_on(async { ctl::run(arguments, surroundings, io).await })
    };
    // A thread that still reads the terminal must not hold the end back.
    runtime.shutdown_background();
    if let Some(exporter) = exporter {
        exporter.end();
    }
    std::process::exit(status);
}
