//! Prints what an engine answers to the requests of the recorded suite: `record SOCKET ADDRESS`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [socket, address] = &words[..] else {
        bail!("usage: record SOCKET ADDRESS");
    };
    let mut answers = tests::recorded::play(Path::new(socket), address)?;
    for answer in answers.values_mut() {
        hide(&mut answer.body);
    }
    let text = serde_json::to_string_pretty(&answers).context("the answers are not JSON")?;
    println!("{text}");
    Ok(())
}

/// Keys of a cluster that is gone look like keys.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("SWMTKN-") => "SWMTKN-1-x-y".clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(fields) => fields.values_mut().for_each(hide),
        _ => {}
    }
}
