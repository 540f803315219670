//! What keeps a session while no other connection can be had.

use manager::{
    client::Connection,
    tls,
    wire::{BeatReply, LEVEL, Register, SessionMessage},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{super::heartbeat, *};

/// Longer than a manager waits for a first heartbeat, at one attempt every [`PERIOD`].
const ATTEMPTS: usize = 30;
const PERIOD: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_without_a_second_connection() {
    let folders = [
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    ];
    let manager = node(folders[0].path(), "one").await;
    let init = InitRequest {
        listen_addr: "127.0.0.1:0".to_owned(),
        ..InitRequest::default()
    };
    manager.init(init).await.expect("made");
    let address = manager.local_state().borrow().managers[0].1;
    let worker = node(folders[1].path(), "two").await;
    let join = JoinRequest {
        remotes: vec![address.to_string()],
        token: manager.join_tokens().await.expect("tokens").worker,
        ..JoinRequest::default()
    };
    worker.join(join).await.expect("joined");
    let identity = Arc::clone(&worker.member.load_full().expect("a member").identity);
    worker.shutdown().await;

    let tls = tls::member(&identity).expect("a client");
    let beside = Connection::open(address, tls).await.expect("connected");
    let register = Register {
        description: NodeDescription::default(),
        generation: model::Generation::default(),
        level: LEVEL,
    };
    let mut stream = beside.session(&register).await.expect("a session");
    let Ok(SessionMessage::Welcome(welcome)) = stream.next().await else {
        panic!("no welcome");
    };
    // Whoever comes here is sent away.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let nobody = nobody.expect("a listener");
    let stop = CancellationToken::new();
    let period = watch::Sender::new(PERIOD);
    let mut end = heartbeat::start(heartbeat::Heartbeat {
        address: nobody.local_addr().expect("an address"),
        beside: beside.clone(),
        identity,
        session: welcome.session.clone(),
        period: period.subscribe(),
        stop: stop.clone(),
    })
    .expect("started");
    for attempt in 0..ATTEMPTS {
        let next = tokio::time::timeout(Duration::from_secs(30), nobody.accept()).await;
        assert!(next.is_ok(), "no heartbeat after {attempt}: {end:?}");
    }
    assert!(end.try_recv().is_err(), "the heartbeat has ended");
    ready(&manager, 2).await;
    let said = beside.beat(&welcome.session).await.expect("an answer");
    assert!(matches!(said, Ok(BeatReply::Fine)), "{said:?}");
    stop.cancel();
    manager.shutdown().await;
}
