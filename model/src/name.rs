//! Rules for names.

use crate::Refusal;

/// Checks the name of a service or network: at most 63 characters, a letter or digit first,
/// then letters, digits, `-`, `_` and `.`.
pub fn check_network_name(name: &str) -> Result<(), Refusal> {
    check(name, 63, "network name")
}

/// Checks a container's name as Docker does: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn check_container_name(name: &str) -> Result<(), Refusal> {
    if name.len() < 2 {
        return Err(Refusal::invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at least two of them"
        )));
    }
    check(name, 255, "container name")
}

fn check(name: &str, most: usize, what: &str) -> Result<(), Refusal> {
    let Some(first) = name.bytes().next() else {
        return Err(Refusal::invalid(format!("{what} is empty; give it one")));
    };
    if name.len() > most {
        return Err(Refusal::invalid(format!(
            "{what} {name:?} has {} characters; at most {most} are allowed",
            name.len()
        )));
    }
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !first.is_ascii_alphanumeric() || !name.bytes().all(inside) {
        return Err(Refusal::invalid(format!(
            "invalid {what} {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_names() {
        for (name, fine) in [
            ("ch03", true),
            ("a", true),
            ("visualizer_default", true),
            ("", false),
            ("-a", false),
            ("a b", false),
            ("a/b", false),
        ] {
            assert_eq!(check_network_name(name).is_ok(), fine, "{name}");
        }
        assert!(check_network_name(&"x".repeat(64)).is_err());
    }
}
