//! Resources of a host that only its owner knows of, such as graphics cards.

use std::collections::BTreeSet;

use model::task::GenericResource;

/// `KIND=NUMBER` counts a resource, `KIND=NAME` names one of several; a kind has either. The error
/// says what is wrong.
pub(super) fn read(given: &[String]) -> Result<Vec<GenericResource>, String> {
    let mut resources: BTreeSet<GenericResource> = BTreeSet::new();
    for text in given {
        let resource = one(text)?;
        for earlier in resources.iter().filter(|one| kind(one) == kind(&resource)) {
            let kind = kind(&resource);
            match (earlier, &resource) {
                (GenericResource::Named { .. }, GenericResource::Named { .. }) => {}
                (GenericResource::Discrete { value, .. }, GenericResource::Discrete { .. }) => {
                    return Err(format!(
                        "{kind:?} is counted twice, {value} and in {text:?}; keep one"
                    ));
                }
                _ => {
                    return Err(format!(
                        "{kind:?} is both counted and named; a kind has either a number or names"
                    ));
                }
            }
        }
        if resources.contains(&resource) {
            return Err(format!("{text:?} is given twice; once is enough"));
        }
        resources.insert(resource);
    }
    Ok(resources.into_iter().collect())
}

/// As it is written.
pub(super) fn text(resource: &GenericResource) -> String {
    match resource {
        GenericResource::Discrete { kind, value } => format!("{kind}={value}"),
        GenericResource::Named { kind, value } => format!("{kind}={value}"),
    }
}

fn kind(resource: &GenericResource) -> &str {
    match resource {
        GenericResource::Discrete { kind, .. } | GenericResource::Named { kind, .. } => kind,
    }
}

fn one(text: &str) -> Result<GenericResource, String> {
    let refused = || {
        format!(
            "{text:?} is not KIND=NUMBER or KIND=NAME; write \"gpu=2\", or \"gpu=card0\" for each card"
        )
    };
    let (kind, value) = text.split_once('=').ok_or_else(refused)?;
    let is_word = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
    if !is_word(kind) || !is_word(value) {
        return Err(refused());
    }
    let kind = kind.to_owned();
    match value.parse::<i64>() {
        Ok(value) if value > 0 => Ok(GenericResource::Discrete { kind, value }),
        Ok(_) => Err(format!("{text:?}: the number must be above 0")),
        Err(_) => Ok(GenericResource::Named {
            kind,
            value: value.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[&str]) -> Result<Vec<String>, String> {
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        read(&given).map(|resources| resources.iter().map(text).collect())
    }

    #[test]
    fn numbers_and_names() {
        let read = of(&["slot=3", "gpu=card1", "gpu=card0"]).unwrap();
        assert_eq!(read, ["slot=3", "gpu=card0", "gpu=card1"]);
        assert_eq!(of(&[]).unwrap(), [] as [&str; 0]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (given, why) in [
            (&["gpu"][..], "KIND=NUMBER"),
            (&["=2"], "KIND=NUMBER"),
            (&["gpu="], "KIND=NUMBER"),
            (&["my gpu=2"], "KIND=NUMBER"),
            (&["gpu=0"], "above 0"),
            (&["gpu=-1"], "above 0"),
            (&["gpu=1", "gpu=2"], "counted twice"),
            (&["gpu=card0", "gpu=1"], "either"),
            (&["gpu=card0", "gpu=card0"], "once is enough"),
        ] {
            let refusal = of(given).unwrap_err();
            assert!(refusal.contains(why), "{given:?}: {refusal}");
        }
    }
}
