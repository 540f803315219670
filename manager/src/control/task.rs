//! Tasks, for those who look.

use model::{Refusal, Task};

use crate::store::Tables;

/// By full id, name, or unique id prefix.
pub fn find_task<'a>(tables: &'a Tables, reference: &str) -> Result<&'a Task, Refusal> {
    let work = tables.work();
    // The id is a name's last part.
    let id = reference.rsplit('.').next().unwrap_or(reference);
    if let Some(task) = work.task(&id.into()) {
        return Ok(task);
    }
    let mut found = work
        .tasks()
        .filter(|task| !reference.is_empty() && task.id.as_str().starts_with(reference));
    match (found.next(), found.next()) {
        (Some(task), None) => Ok(task),
        (None, _) => Err(Refusal::not_found(format!("task {reference} not found"))),
        (Some(_), Some(_)) => Err(Refusal::invalid(format!(
            "task {reference} is ambiguous: several ids begin so; give more of it"
        ))),
    }
}
