//! Ends a rotation of the root certificate once every node has a certificate of the new root.

use super::loops::Loop;
use crate::{
    ca,
    decision::Decision,
    dispatcher::Sessions,
    store::{StoreChange, Tables},
};

/// The last change of a rotation, when nothing is left to wait for.
fn end(tables: &Tables) -> Option<StoreChange> {
    let record = tables.cluster()?;
    record.public.rotation.as_ref()?;
    let announced = ca::announced(&record.public);
    let announced = announced.inspect_err(|error| tracing::error!("the new root: {error}"));
    if ca::waiting(&announced.ok()?, tables.nodes())
        .next()
        .is_some()
    {
        return None;
    }
    let mut record = record.clone();
    if let Err(error) = ca::finish(&mut record) {
        tracing::error!("the rotation of the root certificate cannot be ended: {error}");
        return None;
    }
    tracing::info!("every node has a certificate of the new root, which is the cluster's now");
    Some(StoreChange::SetCluster(Box::new(record)))
}

/// Looking for the end as a loop of the leader.
pub(super) struct RotationLoop;

impl Loop for RotationLoop {
    fn name(&self) -> &'static str {
        "rotation"
    }

    fn start_over(&mut self, _: &Tables) {}

    fn note(&mut self, before: &Tables, change: &StoreChange) -> bool {
        let under_way = || {
            let record = before.cluster();
            record.is_some_and(|record| record.public.rotation.is_some())
        };
        match change {
            StoreChange::SetCluster(record) => record.public.rotation.is_some(),
            StoreChange::SetNode(_) | StoreChange::RemoveNode(_) => under_way(),
            _ => false,
        }
    }

    fn decide(&mut self, tables: &Tables, _: &Sessions, _: i64) -> Decision {
        Decision {
            changes: end(tables).into_iter().collect(),
            again: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::{example, store::ClusterRecord};

    fn tables(record: &ClusterRecord, nodes: &[(&str, Option<&ClusterRecord>)]) -> Tables {
        let nodes = nodes.iter().map(|(name, issuer)| {
            let mut node = example::node(name);
            node.description.tls =
                issuer.map(|record| ca::announced(&record.public).expect("a root"));
            StoreChange::SetNode(Box::new(node))
        });
        let cluster = StoreChange::SetCluster(Box::new(record.clone()));
        example::tables(nodes.chain([cluster]).collect())
    }

    fn ended(tables: &Tables) -> Option<ClusterRecord> {
        let mut decided = RotationLoop.decide(tables, &Sessions::new(), 0).changes;
        match decided.pop() {
            Some(StoreChange::SetCluster(record)) => Some(*record),
            None => None,
            Some(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_ends_when_every_node_has_a_certificate_of_the_new_root() {
        let before = example::signing_cluster_record();
        assert!(ended(&tables(&before, &[("n1", Some(&before))])).is_none());
        let mut turning = before.clone();
        ca::begin(&mut turning, None, OffsetDateTime::now_utc()).expect("begun");
        assert_eq!(turning.public.root_ca_pem, before.public.root_ca_pem);
        assert_eq!(turning.public.join_tokens, before.public.join_tokens);
        let old = || Some(&before);
        let new = || Some(&turning);
        for (nodes, ends) in [
            (&[("n1", old()), ("n2", old())][..], false),
            (&[("n1", new()), ("n2", old())], false),
            // One that has joined and said nothing yet.
            (&[("n1", new()), ("n2", None)], false),
            (&[("n1", new()), ("n2", new())], true),
            (&[("n1", new())], true),
        ] {
            let state = tables(&turning, nodes);
            assert_eq!(ended(&state).is_some(), ends, "{nodes:?}");
        }
        let end = ended(&tables(&turning, &[("n1", new())])).expect("ended");
        let next = turning.public.rotation.as_ref().expect("under way");
        assert_eq!(end.public.root_ca_pem, next.root_ca_pem);
        assert_eq!(Some(&end.ca_key_pem), turning.next_ca_key_pem.as_ref());
        assert_eq!((&end.public.rotation, &end.next_ca_key_pem), (&None, &None));
        let digest = ca::root_digest(&next.root_ca_pem).expect("a root");
        for token in [
            &end.public.join_tokens.worker,
            &end.public.join_tokens.manager,
        ] {
            assert_eq!(ca::Token::parse(token).expect("a token").digest, digest);
        }
        // Nothing more is decided on the state it has led to.
        assert!(ended(&tables(&end, &[("n1", new())])).is_none());
    }

    #[test]
    fn a_second_rotation_starts_over() {
        let before = example::signing_cluster_record();
        let now = OffsetDateTime::now_utc();
        let mut first = before.clone();
        ca::begin(&mut first, None, now).expect("begun");
        let mut second = first.clone();
        ca::begin(&mut second, None, now).expect("begun again");
        assert_eq!(second.public.root_ca_pem, before.public.root_ca_pem);
        assert_ne!(second.public.rotation, first.public.rotation);
        let nodes = [("n1", Some(&first)), ("n2", Some(&second))];
        assert!(ended(&tables(&second, &nodes)).is_none());
        assert!(ended(&tables(&second, &nodes[1..])).is_some());
    }

    #[test]
    fn only_what_may_end_it_is_worth_a_look() {
        let before = example::signing_cluster_record();
        let mut turning = before.clone();
        ca::begin(&mut turning, None, OffsetDateTime::now_utc()).expect("begun");
        let node = StoreChange::SetNode(Box::new(example::node("n1")));
        let gone = StoreChange::RemoveNode("n1".into());
        for (record, worth) in [(&before, false), (&turning, true)] {
            let state = tables(record, &[]);
            for change in [&node, &gone] {
                assert_eq!(RotationLoop.note(&state, change), worth, "{change:?}");
            }
            let set = StoreChange::SetCluster(Box::new(record.clone()));
            assert_eq!(RotationLoop.note(&tables(&before, &[]), &set), worth);
        }
    }
}
