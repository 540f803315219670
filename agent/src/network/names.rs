//! What members of networks are called after they have been given another name. The cluster is told
//! by the tidying, which finds endpoints of other names than their records have.

use model::{ContainerId, Refusal};
use runtime::network::{ConnectRequest, Connected};

use super::{
    Inner, Networks,
    guests::{self, Which},
    record::SandboxRecord,
    report,
};

impl Networks {
    /// A container is called otherwise from now on; what it has then.
    pub(super) async fn rename(&self, request: &ConnectRequest) -> Option<Connected> {
        let mut inner = self.inner.lock().await;
        let record = inner.sandboxes.get_mut(&request.container)?;
        let old = std::mem::replace(&mut record.request.name, request.name.clone());
        if old == request.name {
            return None;
        }
        rename_all(record, &old, &request.name);
        let connected = record.connected.clone();
        self.tell_names(&inner, &request.container).await;
        Some(connected)
    }

    /// The owner of a guest has told what it is called on a network.
    pub async fn name_guest(
        &self,
        owner: &str,
        name: &str,
        aliases: &[String],
    ) -> Result<(), Refusal> {
        guests::check_names(name, aliases)?;
        let which = Which {
            owner: Some(owner.to_owned()),
            ..Which::default()
        };
        let mut inner = self.inner.lock().await;
        let Some((id, meant)) = inner.guest_endpoints(&which).pop() else {
            return Err(Refusal::not_found(format!("there is no guest of {owner}")));
        };
        if let Some(record) = inner.sandboxes.get_mut(&id) {
            let endpoint = &meant.endpoint.endpoint_id;
            let names = with_first(name, aliases.iter());
            for given in &mut record.endpoints {
                if given.endpoint.as_str() == endpoint {
                    given.names.clone_from(&names);
                }
            }
            for one in &mut record.connected.endpoints {
                if one.endpoint_id == *endpoint {
                    one.dns_names.clone_from(&names);
                    one.aliases = aliases.to_vec();
                }
            }
        }
        self.tell_names(&inner, &id).await;
        Ok(())
    }

    async fn tell_names(&self, inner: &Inner, id: &ContainerId) {
        let Some(record) = inner.sandboxes.get(id) else {
            return;
        };
        if let Err(refusal) = self.keep(record) {
            tracing::warn!(%refusal, "a name may be the old one after the next start");
        }
        let step = self.sandbox_step(inner, record).into_iter().collect();
        report("names", &self.dataplane.change(step).await);
        self.untidy.notify_one();
    }
}

/// On all networks but those where a task has its names of its service.
fn rename_all(record: &mut SandboxRecord, old: &str, new: &str) {
    for one in &mut record.connected.endpoints {
        let mut given = record.endpoints.iter_mut();
        let given = given.find(|given| given.endpoint.as_str() == one.endpoint_id);
        let has_name = one.dns_names.first().is_some_and(|first| first == old);
        if !has_name || given.as_ref().is_some_and(|given| given.task) {
            continue;
        }
        // The user may have asked for the old one, too.
        let stays = |name: &&String| **name != old || one.aliases.contains(name);
        one.dns_names = with_first(new, one.dns_names.iter().filter(stays));
        if let Some(given) = given {
            given.names.clone_from(&one.dns_names);
        }
    }
}

fn with_first<'a>(first: &str, others: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names = vec![first.to_owned()];
    for name in others {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use runtime::network::{ConnectedEndpoint, NetworkMode};

    use super::*;
    use crate::network::record::GivenEndpoint;

    #[test]
    fn a_new_name_takes_the_place_of_the_old_one() {
        let shown = |id: &str, names: &[&str], aliases: &[&str]| ConnectedEndpoint {
            network_name: id.into(),
            network_id: id.into(),
            endpoint_id: id.into(),
            addresses: vec![],
            gateways: vec![],
            mac: String::new(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            dns_names: names.iter().map(ToString::to_string).collect(),
        };
        let given = |id: &str, task| GivenEndpoint {
            endpoint: model::EndpointId::new(id),
            network: model::NetworkId::new(id),
            names: vec!["web".into(), "abc".into()],
            task,
        };
        let container = ContainerId::from_random([1; 32]);
        let mut record = SandboxRecord {
            request: ConnectRequest {
                container,
                name: "web".into(),
                hostname: String::new(),
                mode: NetworkMode::None,
                dns: vec![],
                dns_search: vec![],
                dns_options: vec![],
                ports: vec![],
            },
            connected: Connected {
                endpoints: vec![
                    shown("plain", &["web", "abc"], &[]),
                    shown("asked", &["web", "new"], &["web"]),
                    shown("task", &["web", "abc"], &[]),
                    shown("bridge", &[], &[]),
                ],
                ..Connected::default()
            },
            interfaces: vec![],
            endpoints: vec![given("plain", false), given("task", true)],
            local: vec![],
            running: true,
            guest: None,
        };
        rename_all(&mut record, "web", "new");
        let names = |at: usize| record.connected.endpoints[at].dns_names.join(" ");
        assert_eq!(
            [names(0), names(1), names(2), names(3)],
            ["new abc", "new web", "web abc", ""]
        );
        assert_eq!(record.endpoints[0].names, ["new", "abc"]);
        assert_eq!(record.endpoints[1].names, ["web", "abc"]);
    }
}
