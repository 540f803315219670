//! Services in the order in which they are created: those that others wait for first, else as
//! the files have them.

use std::collections::BTreeMap;

use super::Service;

/// Sorts; a ring of services that wait for one another is refused with its names.
pub fn order(services: Vec<Service>) -> Result<Vec<Service>, String> {
    let index: BTreeMap<String, usize> = services
        .iter()
        .enumerate()
        .map(|(position, service)| (service.name.clone(), position))
        .collect();
    let mut state = vec![State::Unseen; services.len()];
    let mut sorted = Vec::with_capacity(services.len());
    for start in 0..services.len() {
        // Depth first without recursion: a chain may be as long as the file.
        let mut stack = vec![(start, 0)];
        while let Some((at, next)) = stack.pop() {
            if state[at] == State::Done {
                continue;
            }
            state[at] = State::Open;
            let Some((name, _)) = services[at].depends_on.get(next) else {
                state[at] = State::Done;
                sorted.push(at);
                continue;
            };
            stack.push((at, next + 1));
            match index.get(name).map(|below| (*below, state[*below])) {
                Some((below, State::Unseen)) => stack.push((below, 0)),
                Some((below, State::Open)) => {
                    let ring = stack.iter().skip_while(|(at, _)| *at != below);
                    let mut names: Vec<&str> =
                        ring.map(|(at, _)| services[*at].short.as_str()).collect();
                    names.push(&services[below].short);
                    return Err(format!(
                        "services wait for one another: {}",
                        names.join(" -> ")
                    ));
                }
                Some((_, State::Done)) | None => {}
            }
        }
    }
    let mut services: Vec<Option<Service>> = services.into_iter().map(Some).collect();
    Ok(sorted
        .into_iter()
        .filter_map(|at| services[at].take())
        .collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unseen,
    Open,
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(name: &str, after: &[&str]) -> Service {
        Service {
            name: name.to_owned(),
            short: name.to_owned(),
            image: String::new(),
            spec: serde_json::Value::Null,
            depends_on: after.iter().map(|n| ((*n).to_owned(), "started")).collect(),
        }
    }

    fn names(services: Vec<Service>) -> Result<Vec<String>, String> {
        Ok(order(services)?.into_iter().map(|s| s.name).collect())
    }

    #[test]
    fn dependencies_come_first_and_the_rest_keeps_its_order() {
        let list = vec![
            service("web", &["api", "db"]),
            service("b", &[]),
            service("api", &["db"]),
            service("db", &[]),
        ];
        assert_eq!(names(list).unwrap(), ["db", "api", "web", "b"]);
    }

    #[test]
    fn a_ring_is_named() {
        let list = vec![
            service("x", &["a"]),
            service("a", &["b"]),
            service("b", &["c"]),
            service("c", &["a"]),
        ];
        assert_eq!(
            names(list).unwrap_err(),
            "services wait for one another: a -> b -> c -> a"
        );
        assert!(names(vec![service("a", &["a"])]).is_err());
        assert!(names(vec![service("a", &["elsewhere"])]).is_ok());
    }

    proptest! {
        #[test]
        fn every_service_comes_after_what_it_waits_for(edges in proptest::collection::vec((0usize..20, 0usize..20), 0..40)) {
            let list: Vec<Service> = (0..20)
                .map(|n| {
                    let after: Vec<String> = edges.iter().filter(|(a, b)| *a == n && b < a).map(|(_, b)| format!("s{b}")).collect();
                    service(&format!("s{n}"), &after.iter().map(String::as_str).collect::<Vec<_>>())
                })
                .collect();
            let sorted = order(list).unwrap();
            prop_assert_eq!(sorted.len(), 20);
            for (position, service) in sorted.iter().enumerate() {
                for (name, _) in &service.depends_on {
                    prop_assert!(sorted[..position].iter().any(|s| s.name == *name));
                }
            }
        }
    }
}
