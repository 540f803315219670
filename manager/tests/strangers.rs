//! What tokens and certificates do not open.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod members;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use manager::{
    ca::{self, Authority, Identity, Member},
    client::{ClientError, Connection},
    leader::Manager,
    tls::{self, LiveIdentity},
    wire::{IssueReply, IssueRequest, ManagerAsk, ReadLogs},
};
use model::{
    Node, RefusalKind,
    control::{Answer, TokenRotation, Verb},
    log::{LogOptions, LogSelector},
    node::{Availability, Role},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

use self::members::{LIMIT, description, join, new_cluster};

struct Lab {
    _folder: tempfile::TempDir,
    manager: Arc<Manager>,
    root: Member,
}

impl Lab {
    async fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (manager, identity) = Manager::create(folder.path(), new_cluster()).await.unwrap();
        Self {
            _folder: folder,
            manager,
            root: identity.member().clone(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.manager.listen_address()
    }

    fn token(&self) -> String {
        self.manager.cluster().unwrap().join_tokens.worker
    }

    async fn nodes(&self) -> Vec<Node> {
        match self.manager.call(&self.root, Verb::NodeList).await {
            Ok(Answer::Nodes(nodes)) => nodes,
            other => panic!("{other:?}"),
        }
    }

    /// A connection of somebody without a certificate.
    async fn newcomer(&self) -> Connection {
        let root = self.manager.cluster().unwrap().root_ca_pem;
        let tls = tls::newcomer(&root).unwrap();
        Connection::open(self.address(), tls).await.unwrap()
    }
}

fn request(csr_pem: String, token: Option<String>) -> IssueRequest {
    IssueRequest {
        csr_pem,
        token,
        description: description("worker01", "192.0.2.11"),
        availability: Availability::Active,
    }
}

fn identity(key: String, reply: IssueReply) -> Identity {
    Identity::new(key, reply.chain_pem, &reply.root_pem).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_join_takes_nobodys_place() {
    let lab = Lab::up().await;
    let (key, csr) = ca::certificate_request().unwrap();
    let asked = request(csr, Some(lab.token()));
    let newcomer = lab.newcomer().await;
    let first = newcomer.issue(&asked).await.unwrap().unwrap();
    let again = newcomer.issue(&asked).await.unwrap().unwrap();
    assert_ne!(first.node_id, again.node_id);
    assert_eq!(lab.nodes().await.len(), 3);
    // With a token of before it does not come that far.
    let cluster = lab.manager.cluster().unwrap();
    let rotate = Verb::ClusterUpdate {
        version: cluster.meta.version,
        spec: Box::new(cluster.spec),
        rotate: TokenRotation {
            worker: true,
            ..TokenRotation::default()
        },
        root: None,
    };
    lab.manager.call(&lab.root, rotate).await.unwrap();
    let refused = newcomer.issue(&asked).await.unwrap().unwrap_err();
    assert!(
        refused.message.contains("not valid (any more)"),
        "{refused}"
    );
    assert_eq!(lab.nodes().await.len(), 3);
    // The first one is undisturbed by all of that.
    let live = LiveIdentity::new(identity(key, first)).unwrap();
    let line = Connection::open(lab.address(), tls::member(&live).unwrap()).await;
    line.unwrap()
        .call(&Verb::NetworkList)
        .await
        .unwrap()
        .unwrap();
    lab.manager.shutdown().await;
}

/// A request that names a node that is there, the manager's name and an authority.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_chooses_who_they_are() {
    let lab = Lab::up().await;
    let taken = lab.root.node.clone();
    let key = KeyPair::generate().unwrap();
    let names = vec![taken.to_string(), tls::MANAGER_NAME.to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, taken.as_str());
    name.push(DnType::OrganizationalUnitName, tls::MANAGER_NAME);
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let newcomer = lab.newcomer().await;
    let asked = request(csr.clone(), Some(lab.token()));
    let reply = newcomer.issue(&asked).await.unwrap().unwrap();
    assert_ne!(reply.node_id, taken);
    let made = identity(key.serialize_pem(), reply);
    assert_ne!(made.member().node, taken);
    assert_eq!(made.member().role, Role::Worker);
    let own = made.member().clone();
    let live = LiveIdentity::new(made).unwrap();
    let line = Connection::open(lab.address(), tls::member(&live).unwrap())
        .await
        .unwrap();
    // Nor at the next certificate.
    let next = line.issue(&request(csr.clone(), None)).await.unwrap();
    let next = identity(key.serialize_pem(), next.unwrap());
    assert_eq!(next.member(), &own);
    // Without token and certificate there is none at all.
    let refused = newcomer.issue(&request(csr, None)).await;
    assert!(
        matches!(refused, Err(ClientError::Refused { .. })),
        "{}",
        refused.is_ok()
    );
    lab.manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_no_manager() {
    let lab = Lab::up().await;
    let live = join(lab.address(), &lab.token(), "worker01", "192.0.2.11").await;
    let live = live.unwrap();
    let line = Connection::open(lab.address(), tls::member(&live).unwrap())
        .await
        .unwrap();
    // In its own name.
    for verb in [Verb::ClusterInspect, Verb::ClusterBackup, Verb::UnlockKey] {
        let refused = line.call(&verb).await.unwrap().unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Forbidden, "{verb:?}");
    }
    // In a manager's, by the way that managers have among themselves.
    let ask = ManagerAsk::Verb {
        caller: lab.root.clone(),
        verb: Box::new(Verb::ClusterBackup),
    };
    let limit = Duration::from_secs(5);
    let refused = line.forward(&ask, limit).await.unwrap_err();
    assert!(
        refused.to_string().contains("for managers of the cluster"),
        "{refused}"
    );
    let enter = ManagerAsk::Enter {
        raft_id: 7,
        format: model::FORMAT,
        address: ([192, 0, 2, 11], 2377).into(),
    };
    assert!(line.forward(&enter, limit).await.is_err());
    let logs = ReadLogs {
        selector: LogSelector::default(),
        options: LogOptions::default(),
    };
    let refused = line.read_logs(&logs).await.err().unwrap();
    assert!(
        refused.to_string().contains("for managers of the cluster"),
        "{refused}"
    );
    // A stranger is asked for a certificate.
    let newcomer = lab.newcomer().await;
    for refused in [
        newcomer.call(&Verb::NetworkList).await.err(),
        newcomer.forward(&ask, limit).await.err(),
    ] {
        let refused = refused.unwrap().to_string();
        assert!(
            refused.contains("needs a certificate of the cluster"),
            "{refused}"
        );
    }
    lab.manager.shutdown().await;
}

/// An open connection is worth what its certificate is worth now.
#[tokio::test(flavor = "multi_thread")]
async fn open_connections_end_with_what_they_stand_on() {
    let lab = Lab::up().await;
    let token = lab.token();
    let live = join(lab.address(), &token, "worker01", "192.0.2.11");
    let live = live.await.unwrap();
    let open = || async {
        let tls = tls::member(&live).unwrap();
        Connection::open(lab.address(), tls).await.unwrap()
    };
    let (before, manager) = (open().await, lab.manager.identity());
    before.call(&Verb::NetworkList).await.unwrap().unwrap();
    let old = manager.current().roots_pem().to_owned();
    let authority = Authority::create(time::OffsetDateTime::now_utc()).unwrap();
    let trusting = |roots: &str| {
        let next = manager.current().trusting(roots).unwrap();
        manager.replace(next).unwrap();
    };
    // While both are trusted nobody is disturbed.
    trusting(&format!("{old}{}", authority.root_pem()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    before.call(&Verb::NetworkList).await.unwrap().unwrap();
    trusting(authority.root_pem());
    let begun = Instant::now();
    while before.call(&Verb::NetworkList).await.is_ok() {
        assert!(begun.elapsed() < LIMIT, "it is open still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("cut after {:?}", begun.elapsed());
    let tls = tls::member(&live).unwrap();
    let again = Connection::open(lab.address(), tls).await;
    let refused = match again {
        Ok(line) => line.call(&Verb::NetworkList).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "the old root is not trusted");
    // A removed node's open connection says nothing any more, whatever is trusted.
    trusting(&old);
    let held = open().await;
    held.call(&Verb::NetworkList).await.unwrap().unwrap();
    let reference = live.current().member().node.to_string();
    let verb = Verb::NodeRemove {
        reference,
        force: true,
    };
    lab.manager.call(&lab.root, verb).await.unwrap();
    let error = held.call(&Verb::NetworkList).await.unwrap_err();
    assert!(error.to_string().contains("was removed"), "{error}");
    lab.manager.shutdown().await;
}
