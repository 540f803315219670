//! `[::1]` of a published port. The kernel leads no packet from that address to another host, so
//! the socket that holds the port answers there and passes on what comes, as a connection to
//! 127.0.0.1, which the kernel does lead away: the task sees this host's own address.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::{SockRef, Socket};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Handle,
    sync::Semaphore,
};
use tokio_util::task::AbortOnDropHandle;

/// Connections, and clients of UDP, that one port passes on at a time.
const MOST: usize = 1024;
const BACKLOG: i32 = 256;
/// How long a client of UDP may be silent.
const IDLE: Duration = Duration::from_secs(60);

/// Passes on until it is dropped; connections under way go on.
pub struct Relay(#[allow(dead_code)] AbortOnDropHandle<()>); // read by its drop

/// `socket` is bound to the port. Only what comes from this host's own loopback is passed on, if it
/// is to be `relayed` at all; all else is reset: the rules lead it away before it gets here, unless
/// they are gone.
pub fn tcp(socket: Socket, port: u16, relayed: bool, runtime: &Handle) -> io::Result<Relay> {
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    let _inside = runtime.enter();
    let listener = TcpListener::from_std(socket.into())?;
    let passing = runtime.spawn(accept(listener, port, relayed));
    Ok(Relay(AbortOnDropHandle::new(passing)))
}

/// `socket` is bound to the port of all IPv6 addresses.
pub fn udp(socket: Socket, port: u16, runtime: &Handle) -> io::Result<Relay> {
    socket.set_nonblocking(true)?;
    let _inside = runtime.enter();
    let socket = UdpSocket::from_std(socket.into())?;
    let passing = runtime.spawn(datagrams(Arc::new(socket), port));
    Ok(Relay(AbortOnDropHandle::new(passing)))
}

fn onward(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Closes with a reset, as the task's side did.
fn reset(stream: &TcpStream) {
    // Without it the end is an ordinary one.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn accept(listener: TcpListener, port: u16, relayed: bool) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (mut client, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: it passes when connections end.
                tracing::warn!(port, %error, "a connection to [::1] could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !relayed || !from.ip().is_loopback() {
            reset(&client);
            continue;
        }
        tokio::spawn(async move {
            let _place = place;
            let passed = async {
                let mut task = TcpStream::connect(onward(port)).await?;
                task.set_nodelay(true)?;
                client.set_nodelay(true)?;
                copy_bidirectional(&mut client, &mut task).await
            };
            if passed.await.is_err() {
                reset(&client);
            }
        });
    }
}

async fn datagrams(socket: Arc<UdpSocket>, port: u16) {
    // They end with this task: the port is free then.
    let mut clients: HashMap<SocketAddr, (Arc<UdpSocket>, AbortOnDropHandle<()>)> = HashMap::new();
    let mut packet = vec![0; 1 << 16];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet).await else {
            continue;
        };
        if !from.ip().is_loopback() {
            continue;
        }
        clients.retain(|_, (_, answers)| !answers.is_finished());
        if !clients.contains_key(&from) {
            if clients.len() >= MOST {
                continue;
            }
            let Ok(task) = open(port).await else { continue };
            let task = Arc::new(task);
            let answers = tokio::spawn(answer(Arc::clone(&socket), Arc::clone(&task), from));
            clients.insert(from, (task, AbortOnDropHandle::new(answers)));
        }
        if let Some((task, _)) = clients.get(&from) {
            // A datagram may be lost, here as anywhere.
            let _ = task.send(&packet[..length]).await;
        }
    }
}

async fn open(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(onward(port)).await?;
    Ok(socket)
}

/// Passes answers back until the task is silent for long, or refuses.
async fn answer(socket: Arc<UdpSocket>, task: Arc<UdpSocket>, client: SocketAddr) {
    let mut packet = vec![0; 1 << 16];
    while let Ok(Ok(length)) = tokio::time::timeout(IDLE, task.recv(&mut packet)).await {
        let _ = socket.send_to(&packet[..length], client).await;
    }
}
