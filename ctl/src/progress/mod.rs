//! How a service gets on, shown until it is as it was asked to be.
//!
//! Every 200 ms the service, its tasks of the newest specification and the nodes are read, as
//! Docker's client does; [`view`] decides what to show, [`screen`] draws it.

mod bars;
pub mod rotation;
mod screen;
mod view;

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::flags::Filters;
use crate::session::Session;
use screen::Screen;
use view::{Step, View};

pub use view::{Asked, Line};

const PAUSE: Duration = Duration::from_millis(200);

/// Shows the progress of a service and ends when it has converged; `quiet` shows nothing.
///
/// Fails when its update was paused, or was rolled back though that was not `asked`. An
/// interrupt (ctrl-c) ends the showing, not the update.
pub async fn show(
    session: &Session,
    service: &str,
    asked: Asked,
    quiet: bool,
) -> Result<(), Failure> {
    let client = session.client().await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut screen = Screen::new(session.io.output_is_terminal);
    let mut view = View::new(service, asked);
    let begin = Instant::now();
    loop {
        let now = client
            .get(format!("/services/{service}"))
            .query("insertDefaults", "false")
            .value()
            .await?;
        let mut lines = Vec::new();
        let mut step = view.service(&now, begin.elapsed(), &mut lines);
        if matches!(step, Step::Goes) {
            let mut filters = Filters::default();
            filters.add("_up-to-date", "true");
            filters.add("service", crate::commands::text(&now, "/ID"));
            let tasks = client.get("/tasks").filters(&filters).value().await?;
            let nodes = client.get("/nodes").value().await?;
            step = view.tasks(&now, &tasks, &nodes, begin.elapsed(), &mut lines);
        }
        if !quiet {
            session.print(&screen.draw(&lines))?;
        }
        match step {
            Step::Goes => {}
            Step::Done => return Ok(()),
            Step::Failed(message) => return Err(Failure::new(message)),
        }
        tokio::select! {
            // Both may be dropped at any point: a signal is kept until it is read.
            () = tokio::time::sleep(PAUSE) => {}
            _ = interrupt.recv() => {
                if !quiet && !view.converged() {
                    session.line("Operation continuing in background.")?;
                    session.line(&format!("Use `ovnctl service ps {service}` to check progress."))?;
                }
                return Ok(());
            }
        }
    }
}
