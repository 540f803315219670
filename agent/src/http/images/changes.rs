//! What `import --change` says of the new image, in words of a Dockerfile.

use model::Refusal;
use runtime::images::ImageConfiguration;
use serde_json::{Map, Value, json};

/// Takes the instructions over, in their order; refused, with its words: what is none of them.
pub fn apply(
    config: &ImageConfiguration,
    changes: &[String],
    message: &str,
) -> Result<ImageConfiguration, Refusal> {
    let unreadable =
        |error: serde_json::Error| Refusal::internal(format!("the image's configuration: {error}"));
    let mut whole = serde_json::to_value(config).map_err(unreadable)?;
    let mut inner = whole["config"].as_object().cloned().unwrap_or_default();
    let lines = changes.iter().flat_map(|change| change.lines());
    for line in lines.map(str::trim).filter(|line| !line.is_empty()) {
        instruction(&mut inner, line)?;
    }
    whole["config"] = Value::Object(inner);
    let created = whole["created"].clone();
    whole["history"] = json!([{"created": created, "comment": message}]);
    serde_json::from_value(whole).map_err(unreadable)
}

fn instruction(config: &mut Map<String, Value>, line: &str) -> Result<(), Refusal> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let wrong = |why: &str| Refusal::invalid(format!("change {line:?}: {why}"));
    let word = word.to_ascii_uppercase();
    if rest.is_empty() {
        return Err(wrong("a value is missing"));
    }
    match word.as_str() {
        "CMD" | "ENTRYPOINT" => {
            let key = if word == "CMD" { "Cmd" } else { "Entrypoint" };
            let argv = list(rest).unwrap_or_else(|| {
                let shell = ["/bin/sh", "-c", rest];
                shell.map(str::to_owned).to_vec()
            });
            config.insert(key.to_owned(), json!(argv));
        }
        "ENV" => {
            let pairs = pairs(rest).ok_or_else(|| wrong("write NAME=VALUE"))?;
            let entry = config.entry("Env").or_insert_with(|| json!([]));
            for (name, value) in pairs {
                if let Some(all) = entry.as_array_mut() {
                    let before = format!("{name}=");
                    all.retain(|one| !one.as_str().unwrap_or_default().starts_with(&before));
                    all.push(json!(format!("{name}={value}")));
                }
            }
        }
        "LABEL" => {
            let pairs = pairs(rest).ok_or_else(|| wrong("write NAME=VALUE"))?;
            let entry = config.entry("Labels").or_insert_with(|| json!({}));
            for (name, value) in pairs {
                entry[name] = json!(value);
            }
        }
        "EXPOSE" => {
            let entry = config.entry("ExposedPorts").or_insert_with(|| json!({}));
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                let fine = number.parse::<u16>().is_ok_and(|number| number != 0)
                    && matches!(protocol, "tcp" | "udp" | "sctp");
                if !fine {
                    return Err(wrong("write a port as 80 or 53/udp"));
                }
                entry[format!("{number}/{protocol}")] = json!({});
            }
        }
        "VOLUME" => {
            let words = || rest.split_whitespace().map(str::to_owned).collect();
            let entry = config.entry("Volumes").or_insert_with(|| json!({}));
            for path in list(rest).unwrap_or_else(words) {
                entry[path] = json!({});
            }
        }
        "USER" => {
            config.insert("User".to_owned(), json!(rest));
        }
        "WORKDIR" if rest.starts_with('/') => {
            config.insert("WorkingDir".to_owned(), json!(rest));
        }
        "WORKDIR" => return Err(wrong("write an absolute path")),
        "STOPSIGNAL" => {
            config.insert("StopSignal".to_owned(), json!(rest));
        }
        "HEALTHCHECK" | "ONBUILD" => {
            return Err(Refusal::not_implemented(format!(
                "change {line:?}: {word} is not there; give --health-cmd to the containers"
            )));
        }
        _ => {
            return Err(wrong(
                "not one of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR",
            ));
        }
    }
    Ok(())
}

/// The exec form.
fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `A=1 B="two words"`, or the old form `A all the rest`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let first = text.split_whitespace().next()?;
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let mut all = Vec::new();
    for word in words(text)? {
        let (name, value) = word.split_once('=')?;
        if name.is_empty() {
            return None;
        }
        all.push((name.to_owned(), value.to_owned()));
    }
    Some(all)
}

/// Words with their quotes and backslashes taken away; none when a quote is left open.
fn words(text: &str) -> Option<Vec<String>> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().push(letters.next()?),
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                word.get_or_insert_default();
                quote = Some(letter);
            }
            (letter, None) if letter.is_whitespace() => all.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    all.extend(word);
    quote.is_none().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(changes: &[&str]) -> Result<Value, Refusal> {
        let changes: Vec<String> = changes.iter().map(|one| (*one).to_owned()).collect();
        let config = apply(&ImageConfiguration::default(), &changes, "why")?;
        let whole = serde_json::to_value(config).unwrap();
        assert_eq!(whole["history"][0]["comment"], "why");
        Ok(whole["config"].clone())
    }

    #[test]
    fn instructions_are_taken_over() {
        let config = of(&[
            "CMD [\"serve\", \"-v\"]",
            "entrypoint run it",
            "ENV A=1 B=\"two words\"\nENV A=2",
            "ENV C old form",
            "LABEL tier=web",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "USER web",
            "WORKDIR /srv",
            "STOPSIGNAL SIGINT",
        ])
        .unwrap();
        assert_eq!(config["Cmd"], json!(["serve", "-v"]));
        assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c", "run it"]));
        assert_eq!(config["Env"], json!(["B=two words", "A=2", "C=old form"]));
        assert_eq!(config["Labels"], json!({"tier": "web"}));
        let text = config.to_string();
        for word in ["80/tcp", "53/udp", "/data", "SIGINT", "/srv"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn what_is_no_instruction_is_refused() {
        for (change, status) in [
            ("RUN make", 400),
            ("CMD", 400),
            ("ENV =x", 400),
            ("ENV A=\"open", 400),
            ("EXPOSE 0", 400),
            ("WORKDIR srv", 400),
            ("HEALTHCHECK NONE", 501),
        ] {
            assert_eq!(of(&[change]).unwrap_err().kind.status(), status, "{change}");
        }
    }
}
