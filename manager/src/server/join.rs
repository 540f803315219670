//! For those who are not members yet.

use std::{net::IpAddr, sync::Arc};

use model::{
    Refusal,
    node::{NodeDescription, Role},
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::caller;
use crate::{
    ca::{Member, Subject, Token},
    clock, control,
    leader::Manager,
    wire::{
        IssueReply, IssueRequest, ManagerAsk, Payload, Reply, RootReply, pack,
        proto::join_server::Join, unpack,
    },
};

pub(super) struct Newcomers(pub Arc<Manager>);

#[tonic::async_trait]
impl Join for Newcomers {
    async fn root(&self, _request: Request<Payload>) -> Result<Response<Payload>, Status> {
        // Join tokens vouch for the cluster's root, and for that one alone.
        let known = self.0.cluster().map(|cluster| cluster.root_ca_pem);
        let root_pem = known.unwrap_or_else(|| {
            let identity = self.0.identity().current();
            identity.tls_info().trust_root_pem.clone()
        });
        let reply: Reply<RootReply> = Ok(RootReply {
            root_pem,
            now: clock::now(),
        });
        Ok(Response::new(pack(&reply)?))
    }

    async fn issue(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let asked: IssueRequest = unpack(request.get_ref())?;
        let caller = match &asked.token {
            Some(_) => None,
            None => Some(caller(&self.0, &request)?),
        };
        let from = super::address_of(&request).map(|from| from.ip());
        let reply: Reply<IssueReply> = self
            .0
            .issue(ManagerAsk::Issue {
                caller,
                request: Box::new(asked),
                from,
            })
            .await;
        Ok(Response::new(pack(&reply)?))
    }
}

impl Manager {
    /// The leader's side of a request for a certificate.
    pub(crate) async fn issue_here(
        &self,
        caller: Option<Member>,
        asked: &IssueRequest,
        from: Option<IpAddr>,
    ) -> Result<IssueReply, Refusal> {
        if let Some(member) = caller {
            let view = self.store().view();
            let node = view.node(&member.node).ok_or_else(|| {
                Refusal::forbidden(
                    "this node was removed from the cluster; leave it and join again",
                )
            })?;
            // The next certificate says what the node is now.
            let member = Member {
                role: node.spec.role,
                ..member
            };
            return self.renew(asked, &member);
        }
        let token = asked.token.as_deref().unwrap_or_default();
        let role = self.role_of(token)?;
        self.admit_node(asked, role, from).await
    }

    fn role_of(&self, token: &str) -> Result<Role, Refusal> {
        let token = Token::parse(token)?;
        let cluster = self.cluster().ok_or_else(not_ready)?;
        if token.equals(&cluster.join_tokens.worker) {
            return Ok(Role::Worker);
        }
        if token.equals(&cluster.join_tokens.manager) {
            return Ok(Role::Manager);
        }
        Err(Refusal::invalid(
            "the join token is not valid (any more): it may have been rotated; ask a manager for the present one with `ovnctl swarm join-token worker`",
        ))
    }

    async fn admit_node(
        &self,
        asked: &IssueRequest,
        role: Role,
        from: Option<IpAddr>,
    ) -> Result<IssueReply, Refusal> {
        let id = control::new_id();
        let mut description: NodeDescription = asked.description.clone();
        description.advertise = description.advertise.or(from);
        description.data_path = description.data_path.or(description.advertise);
        let cluster = self.cluster().ok_or_else(not_ready)?;
        let member = Member {
            node: id.clone(),
            role,
            cluster: cluster.id,
        };
        let reply = self.renew(asked, &member)?;
        let availability = asked.availability;
        let trusted = reply.root_pem.clone();
        self.store()
            .update(move |tx| {
                let now = tx.tables().cluster();
                if now.is_none_or(|record| record.public.trusted_pem() != trusted) {
                    return Err(Refusal::unavailable(
                        "the cluster's root certificate was changed at this moment; try again",
                    ));
                }
                control::admit(tx, id, role, description, availability);
                Ok(())
            })
            .await?;
        self.sessions()
            .expect(&member.node, std::time::Instant::now());
        Ok(reply)
    }

    fn renew(&self, asked: &IssueRequest, member: &Member) -> Result<IssueReply, Refusal> {
        let view = self.store().view();
        let record = view.cluster().ok_or_else(not_ready)?;
        let internal = |error: crate::ca::CaError| Refusal::internal(error.to_string());
        let authority = record.authority().map_err(internal)?;
        let subject = Subject {
            node: member.node.clone(),
            role: member.role,
            cluster: record.public.id.clone(),
        };
        let expiry = record.public.spec.node_cert_expiry;
        let chain_pem = authority
            .issue(&asked.csr_pem, &subject, expiry, OffsetDateTime::now_utc())
            .map_err(|error| {
                Refusal::invalid(format!("the certificate request is refused: {error}"))
            })?;
        Ok(IssueReply {
            node_id: subject.node,
            cluster_id: subject.cluster,
            role: subject.role,
            chain_pem,
            root_pem: record.public.trusted_pem(),
            managers: self.managers(),
            data_path_port: record.public.data_path_port,
            now: clock::now(),
        })
    }
}

fn not_ready() -> Refusal {
    Refusal::unavailable("the cluster is not ready; try again in a moment")
}
