//! The way of a verb to the leader.

use std::{sync::Arc, time::Instant};

use manager::{
    client::{CALL_LIMIT, Connection},
    tls,
};
use model::{
    Refusal,
    control::{Answer, Askers, Verb},
    node::Role,
};

use super::member::Member;

/// Docker's sentence for workers.
pub(super) const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
/// Docker's sentence for nodes in no cluster, with this product's commands.
pub(super) const NO_MEMBER: &str = "This node is not a swarm manager. Use \"ovnctl swarm init\" or \"ovnctl swarm join\" to connect this node to swarm and try again.";

pub(super) async fn call(member: &Arc<Member>, verb: Verb) -> Result<Answer, Refusal> {
    if let Some(manager) = member.manager() {
        let before = manager.stale_reads();
        let answer = manager.call(member.identity.current().member(), verb).await;
        member.note_stale_reads(manager.stale_reads() - before);
        return answer;
    }
    if member.membership().role == Role::Manager && member.others().is_empty() {
        return Err(Refusal::unavailable(
            "this node's manager is not running yet; the state's error in `ovnctl info` says why, try again when it is solved",
        ));
    }
    // A manager that has no vote yet asks the others.
    if member.membership().role == Role::Worker && verb.askers() == Askers::Managers {
        return Err(Refusal::unavailable(WORKER));
    }
    over_the_wire(member, &verb).await
}

async fn over_the_wire(member: &Member, verb: &Verb) -> Result<Answer, Refusal> {
    let mut failures = Vec::new();
    if let Some(connection) = member.connection() {
        let began = Instant::now();
        match connection.call(verb).await {
            Ok(reply) => return reply,
            // Who waited that long is not asked to wait once more.
            Err(error) if began.elapsed() > CALL_LIMIT => return Err(error.into()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    for address in member.others() {
        let tls =
            tls::member(&member.identity).map_err(|error| Refusal::internal(error.to_string()))?;
        let called = async { Connection::open(address, tls).await?.call(verb).await };
        match called.await {
            Ok(reply) => return reply,
            Err(error) => failures.push(error.to_string()),
        }
    }
    Err(Refusal::unavailable(format!(
        "no manager of the cluster answers: {}; what runs keeps running, try again when one is back",
        failures.join("; ")
    )))
}
