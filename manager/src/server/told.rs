//! What a session has told its host, and what a letter adds to it.

use std::{net::SocketAddr, time::Duration};

use model::{Assignments, Id, NodeId};

use crate::{
    ca,
    dispatcher::{Letter, assignments, increment},
    store::{StoreChange, Tables},
    wire::{SessionMessage, Trust, Welcome},
};

/// From which level on a session is told what to trust.
const TRUST_LEVEL: u32 = 2;
/// The leader's share of work for one node's next certificate.
const EACH: Duration = Duration::from_millis(10);

pub(super) struct Told {
    node: NodeId,
    level: u32,
    sent: Assignments,
    managers: Vec<(NodeId, SocketAddr)>,
    trusted: Option<Trust>,
    period: Duration,
}

impl Told {
    /// How a session begins; `None`: the node is not of the cluster.
    pub(super) fn begin(
        tables: &Tables,
        node: &NodeId,
        level: u32,
        session: Id,
    ) -> Option<(Self, [SessionMessage; 2])> {
        let own = tables.node(node)?.clone();
        let told = Self {
            node: node.clone(),
            level,
            sent: assignments(tables, node),
            managers: managers(tables),
            trusted: trust(tables),
            period: heartbeat(tables),
        };
        let welcome = Welcome {
            session,
            heartbeat_period: told.period,
            managers: told.managers.clone(),
            node: own,
            data_path_port: tables
                .cluster()
                .map_or(0, |record| record.public.data_path_port),
            trust: told.trusted.clone(),
        };
        let full = SessionMessage::Full(Box::new(told.sent.clone()));
        Some((told, [SessionMessage::Welcome(Box::new(welcome)), full]))
    }

    /// What there is to say of `letter`. A removal is the last word.
    pub(super) fn news(&mut self, letter: &Letter) -> Vec<SessionMessage> {
        let tables = letter.tables();
        let Some(own) = tables.node(&self.node) else {
            return vec![SessionMessage::Removed];
        };
        let anew = matches!(letter, Letter::StartOver(_));
        let mut news = Vec::new();
        if anew {
            self.sent = assignments(tables, &self.node);
            news.push(SessionMessage::Full(Box::new(self.sent.clone())));
        } else {
            let changes = letter.changes(&self.node);
            let step = increment(&mut self.sent, tables, changes, &self.node);
            news.extend(step.map(SessionMessage::Increment));
        }
        let mut changes = letter.changes(&self.node);
        if anew
            || changes
                .any(|change| matches!(change, StoreChange::SetNode(set) if set.id == self.node))
        {
            news.push(SessionMessage::Node(Box::new(own.clone())));
        }
        let known = self.managers.iter().map(|(id, address)| (id, *address));
        if !tables.managers().eq(known) {
            self.managers = managers(tables);
            news.push(SessionMessage::Managers(self.managers.clone()));
        }
        let mut changes = letter.changes(&self.node);
        if self.level >= TRUST_LEVEL
            && (anew || changes.any(|change| matches!(change, StoreChange::SetCluster(_))))
        {
            let now = trust(tables);
            let changed = now.clone().filter(|_| now != self.trusted);
            news.extend(changed.map(|trust| SessionMessage::Trust(Box::new(trust))));
            self.trusted = now;
        }
        let period = heartbeat(tables);
        if period != self.period {
            self.period = period;
            news.push(SessionMessage::HeartbeatPeriod(period));
        }
        news
    }
}

fn managers(tables: &Tables) -> Vec<(NodeId, SocketAddr)> {
    let managers = tables.managers();
    managers
        .map(|(id, address)| (id.clone(), address))
        .collect()
}

/// What a node is told to trust.
fn trust(tables: &Tables) -> Option<Trust> {
    let cluster = &tables.cluster()?.public;
    let announced = ca::announced(cluster);
    let announced = announced.inspect_err(|error| tracing::error!("the cluster's root: {error}"));
    Some(Trust {
        roots_pem: cluster.trusted_pem(),
        issuer_public_key_der: announced.ok()?.issuer_public_key_der,
        within: spread(tables),
    })
}

/// Over how much time the nodes come for the same thing.
pub(super) fn spread(tables: &Tables) -> Duration {
    let nodes = u32::try_from(tables.node_count()).unwrap_or(u32::MAX);
    EACH.saturating_mul(nodes)
}

fn heartbeat(tables: &Tables) -> Duration {
    tables
        .cluster()
        .map_or(Duration::from_secs(1), |r| r.public.spec.heartbeat_period)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::node::{ManagerStatus, Reachability};

    use super::*;
    use crate::example;

    /// Two nodes, and the period of heartbeats; the first node is a manager with this address.
    fn tables(address: Option<&str>, period: Duration) -> Tables {
        let mut record = example::cluster_record();
        record.public.spec.heartbeat_period = period;
        let mut first = example::node("n1");
        first.manager = address.map(|address| ManagerStatus {
            leader: false,
            reachability: Reachability::Unknown,
            address: address.parse().unwrap(),
        });
        example::tables(vec![
            StoreChange::SetCluster(Box::new(record)),
            example::set_node(first),
            example::set_node(example::node("n2")),
        ])
    }

    #[test]
    fn who_starts_over_is_told_what_came_meanwhile() {
        let before = tables(None, Duration::from_secs(5));
        let node = example::node("n2").id;
        let (mut told, first) = Told::begin(&before, &node, TRUST_LEVEL, "s".into()).unwrap();
        assert!(matches!(
            &first,
            [SessionMessage::Welcome(welcome), SessionMessage::Full(_)]
                if welcome.heartbeat_period == Duration::from_secs(5) && welcome.managers.is_empty()
        ));
        let after = Arc::new(tables(Some("192.0.2.1:2377"), Duration::from_secs(1)));
        let news = told.news(&Letter::StartOver(Arc::clone(&after)));
        let [
            SessionMessage::Full(_),
            SessionMessage::Node(own),
            SessionMessage::Managers(managers),
            SessionMessage::HeartbeatPeriod(period),
        ] = news.as_slice()
        else {
            panic!("{news:?}");
        };
        assert_eq!(own.id, node);
        assert_eq!(managers.len(), 1);
        assert_eq!(*period, Duration::from_secs(1));
        // What is the same is said again only where it may have been missed.
        let news = told.news(&Letter::StartOver(after));
        assert!(
            matches!(
                news.as_slice(),
                [SessionMessage::Full(_), SessionMessage::Node(_)]
            ),
            "{news:?}"
        );
    }

    #[test]
    fn a_removal_is_the_last_word() {
        let before = tables(None, Duration::from_secs(5));
        let node = example::node("n2").id;
        let (mut told, _) = Told::begin(&before, &node, 0, "s".into()).unwrap();
        let news = told.news(&Letter::StartOver(Arc::new(Tables::default())));
        assert!(matches!(news.as_slice(), [SessionMessage::Removed]));
        assert!(Told::begin(&Tables::default(), &node, 0, "s".into()).is_none());
    }
}
