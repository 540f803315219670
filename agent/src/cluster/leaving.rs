//! Leaving a cluster, as a worker and as a manager.

use std::{sync::Arc, time::Duration};

use manager::{client::Connection, tls};
use model::{
    Refusal,
    control::{Answer, Verb},
    node::Reachability,
};

use super::member::Member;

/// How long the other managers may take to agree that this one goes.
const AGREE: Duration = Duration::from_secs(15);
/// Docker's words, which its command line shows as they are.
const ATTEMPT: &str =
    "You are attempting to leave the swarm on a node that is participating as a manager. ";
const RESTORE: &str = "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.";

/// Why a manager does not leave without force, and what its leaving would mean. The leader is
/// asked: followers do not hear of each other.
pub(super) async fn refusal(member: &Member) -> Refusal {
    let nodes = match member.manager() {
        Some(manager) => {
            let caller = member.identity.current().member().clone();
            manager.call(&caller, Verb::NodeList).await
        }
        None => Err(Refusal::unavailable("this node's manager does not run")),
    };
    let Ok(Answer::Nodes(nodes)) = nodes else {
        return Refusal::unavailable(format!(
            "{ATTEMPT}Doing so may lose the consensus of your cluster. {RESTORE}"
        ));
    };
    let own = member.membership().node_id;
    let others = nodes.iter().filter(|node| node.id != own);
    let reachable: Vec<bool> = others
        .filter_map(|node| Some(node.manager.as_ref()?.reachability == Reachability::Reachable))
        .collect();
    Refusal::unavailable(what_leaving_means(&reachable))
}

/// `others` are the managers that stay, and whether each can be reached.
fn what_leaving_means(others: &[bool]) -> String {
    let reachable = others.iter().filter(|reachable| **reachable).count();
    if others.is_empty() {
        return format!(
            "{ATTEMPT}Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
        );
    }
    if reachable * 2 > others.len() {
        return format!("{ATTEMPT}{RESTORE}");
    }
    format!(
        "{ATTEMPT}Removing this node leaves {reachable} managers out of {}. Without a Raft quorum your swarm will be inaccessible. {RESTORE}",
        others.len() + 1
    )
}

/// Takes this node's manager out of consensus, if the others agree in time.
pub(super) async fn step_down(member: &Arc<Member>) {
    let Some(manager) = member.manager() else {
        return say_goodbye(member).await;
    };
    if manager.roster().voting() <= 1 {
        return;
    }
    let caller = member.identity.current().member().clone();
    match tokio::time::timeout(AGREE, manager.leave(caller)).await {
        Ok(Ok(())) => {}
        Ok(Err(refusal)) => tracing::warn!("this manager leaves against advice: {refusal}"),
        Err(_) => tracing::warn!("this manager leaves without the others' consent"),
    }
}

/// Tells a manager that this worker goes, if one is there to be told.
pub(super) async fn say_goodbye(member: &Arc<Member>) {
    let goodbye = async {
        let mut last = Refusal::unavailable("no manager is known");
        for address in member.candidates() {
            let tls = tls::member(&member.identity)
                .map_err(|error| Refusal::internal(error.to_string()))?;
            let told = match Connection::open(address, tls).await {
                Ok(connection) => connection.leave().await,
                Err(error) => Err(error),
            };
            match told {
                Ok(reply) => return reply,
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    };
    if let Err(refusal) = goodbye.await {
        tracing::warn!("no manager heard that this node leaves: {refusal}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_said() {
        for (others, words) in [
            (&[][..], "Removing the last manager"),
            (&[true, true], "The only way to restore"),
            (&[true, false], "leaves 1 managers out of 3"),
            (&[false], "leaves 0 managers out of 2"),
        ] {
            let said = what_leaving_means(others);
            assert!(said.starts_with(ATTEMPT) && said.contains(words), "{said}");
            assert_eq!(said.contains("quorum"), words.contains("out of"), "{said}");
        }
    }
}
