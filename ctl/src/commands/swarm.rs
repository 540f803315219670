//! `swarm init`, `join`, `leave`, `join-token`, `unlock`, `unlock-key`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::swarm_update::{CaArgs, SpecFlags, UpdateArgs, post_update};
use super::text;
use crate::failure::Failure;
use crate::session::Session;

/// Make and manage the cluster
#[derive(Subcommand, Debug)]
pub enum SwarmCommand {
    Ca(CaArgs),
    Init(Box<InitArgs>),
    Join(JoinArgs),
    JoinToken(JoinTokenArgs),
    Leave(LeaveArgs),
    /// Unlock a manager that was restarted with autolock on
    Unlock,
    UnlockKey(UnlockKeyArgs),
    Update(UpdateArgs),
}

/// Make a cluster whose first manager is this host
///
/// Prints the command with which other hosts join.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl swarm init --advertise-addr 192.0.2.11\n  ovnctl swarm init --advertise-addr eth1 --default-addr-pool 10.20.0.0/16 --default-addr-pool-mask-length 24"
)]
pub struct InitArgs {
    /// Address other hosts reach this one at
    #[arg(long, value_name = "IP|INTERFACE[:PORT]")]
    advertise_addr: Option<String>,
    /// Availability of this node: active (default), pause or drain
    #[arg(long, value_name = "WORD")]
    availability: Option<String>,
    /// Address or interface for the containers' traffic
    #[arg(long, value_name = "IP|INTERFACE")]
    data_path_addr: Option<String>,
    /// UDP port of the containers' traffic, 1024 to 49151; 0 is 4789
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    data_path_port: u32,
    /// Pool that networks take their subnets from; repeatable
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    default_addr_pool: Vec<String>,
    /// Size of the subnets cut from the pool
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    /// Make a new cluster of this manager's state, without the other managers
    #[arg(long)]
    force_new_cluster: bool,
    /// Address to listen on
    #[arg(
        long,
        value_name = "IP|INTERFACE[:PORT]",
        default_value = "0.0.0.0:2377"
    )]
    listen_addr: String,
    /// Lock managers: a restarted one needs the unlock key
    #[arg(long)]
    autolock: bool,
    #[command(flatten)]
    spec: SpecFlags,
}

/// Join a cluster
///
/// The token decides whether this host becomes a worker or a manager.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl swarm join --token SWMTKN-1-… 192.0.2.11:2377")]
pub struct JoinArgs {
    /// Address other hosts reach this one at
    #[arg(long, value_name = "IP|INTERFACE[:PORT]")]
    advertise_addr: Option<String>,
    /// Availability of this node: active (default), pause or drain
    #[arg(long, value_name = "WORD")]
    availability: Option<String>,
    /// Address or interface for the containers' traffic
    #[arg(long, value_name = "IP|INTERFACE")]
    data_path_addr: Option<String>,
    /// Address to listen on
    #[arg(
        long,
        value_name = "IP|INTERFACE[:PORT]",
        default_value = "0.0.0.0:2377"
    )]
    listen_addr: String,
    /// Token, as `swarm join-token` shows it
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// A manager
    #[arg(value_name = "HOST:PORT")]
    remote: String,
}

/// Leave the cluster
///
/// A manager needs --force; the node stays listed as down until `node rm`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl swarm leave")]
pub struct LeaveArgs {
    /// Leave even if the cluster suffers
    #[arg(short, long)]
    force: bool,
}

/// Show or change the token that lets hosts join
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl swarm join-token worker\n  ovnctl swarm join-token --rotate -q manager"
)]
pub struct JoinTokenArgs {
    /// Print only the token
    #[arg(short, long)]
    quiet: bool,
    /// Make a new token; the old one no longer works
    #[arg(long)]
    rotate: bool,
    /// worker or manager
    #[arg(value_name = "worker|manager")]
    role: String,
}

/// Show or change the key that unlocks managers
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl swarm unlock-key -q")]
pub struct UnlockKeyArgs {
    /// Print only the key
    #[arg(short, long)]
    quiet: bool,
    /// Make a new key
    #[arg(long)]
    rotate: bool,
}

/// Runs one of them.
pub async fn run(session: &Session, command: SwarmCommand) -> Result<(), Failure> {
    match command {
        SwarmCommand::Ca(args) => super::swarm_update::ca(session, args).await,
        SwarmCommand::Init(args) => init(session, *args).await,
        SwarmCommand::Join(args) => join(session, args).await,
        SwarmCommand::JoinToken(args) => join_token(session, args).await,
        SwarmCommand::Leave(args) => leave(session, args).await,
        SwarmCommand::Unlock => unlock(session).await,
        SwarmCommand::UnlockKey(args) => unlock_key(session, args).await,
        SwarmCommand::Update(args) => super::swarm_update::update(session, args).await,
    }
}

fn checked_availability(word: Option<&str>) -> Result<String, Failure> {
    let word = word.unwrap_or_default().to_lowercase();
    match word.as_str() {
        "" | "active" | "pause" | "drain" => Ok(word),
        _ => Err(Failure::new(format!(
            "--availability {word:?}: use active, pause or drain"
        ))),
    }
}

impl InitArgs {
    /// The body of `POST /swarm/init`.
    fn body(&self) -> Result<Value, Failure> {
        // Only what was asked: the daemon knows its own defaults.
        let mut spec = json!({});
        self.spec.apply(&mut spec)?;
        spec["EncryptionConfig"] = json!({"AutoLockManagers": self.autolock});
        Ok(json!({
            "ListenAddr": self.listen_addr,
            "AdvertiseAddr": self.advertise_addr.clone().unwrap_or_default(),
            "DataPathAddr": self.data_path_addr.clone().unwrap_or_default(),
            "DataPathPort": self.data_path_port,
            "ForceNewCluster": self.force_new_cluster,
            "Spec": spec,
            "AutoLockManagers": self.autolock,
            "Availability": checked_availability(self.availability.as_deref())?,
            "DefaultAddrPool": if self.default_addr_pool.is_empty() { Value::Null } else { json!(self.default_addr_pool) },
            "SubnetSize": self.default_addr_pool_mask_length,
        }))
    }
}

async fn init(session: &Session, args: InitArgs) -> Result<(), Failure> {
    let body = args.body()?;
    let client = session.client().await?;
    let answer = client
        .post("/swarm/init")
        .json(&body)
        .value()
        .await
        .map_err(|error| {
            let mut failure = Failure::from(error);
            let unclear = [
                "could not choose an IP address to advertise",
                "could not find the system's IP address",
            ];
            if unclear.iter().any(|words| failure.text().contains(words)) {
                failure.message = Some(format!(
                    "{} - name one with --advertise-addr",
                    failure.text()
                ));
            }
            failure
        })?;
    let id = answer.as_str().unwrap_or_default().to_owned();
    session.print(&format!(
        "Swarm initialized: current node ({id}) is now a manager.\n\n"
    ))?;
    print_join_command(session, &id, "worker").await?;
    session.line("To add a manager to this swarm, run 'ovnctl swarm join-token manager' and follow the instructions.")?;
    if args.autolock {
        let key = client.get("/swarm/unlockkey").value().await?;
        session.line("")?;
        print_unlock_command(session, text(&key, "/UnlockKey"))?;
    }
    Ok(())
}

async fn print_join_command(session: &Session, node: &str, role: &str) -> Result<(), Failure> {
    let client = session.client().await?;
    let node = client.get(format!("/nodes/{node}")).value().await?;
    let address = text(&node, "/ManagerStatus/Addr");
    if address.is_empty() {
        return Ok(());
    }
    let swarm = client.get("/swarm").value().await?;
    let token = text(
        &swarm,
        if role == "manager" {
            "/JoinTokens/Manager"
        } else {
            "/JoinTokens/Worker"
        },
    );
    session.print(&format!(
        "To add a {role} to this swarm, run the following command:\n\n    ovnctl swarm join --token {token} {address}\n\n"
    ))
}

fn print_unlock_command(session: &Session, key: &str) -> Result<(), Failure> {
    session.print(&format!(
        "To unlock a swarm manager after it restarts, run the `ovnctl swarm unlock`\n\
         command and provide the following key:\n\n    {key}\n\n\
         Remember to store this key in a password manager, since without it you\n\
         will not be able to restart the manager.\n"
    ))
}

async fn join(session: &Session, args: JoinArgs) -> Result<(), Failure> {
    let body = json!({
        "ListenAddr": args.listen_addr,
        "AdvertiseAddr": args.advertise_addr.unwrap_or_default(),
        "DataPathAddr": args.data_path_addr.unwrap_or_default(),
        "RemoteAddrs": [args.remote],
        "JoinToken": args.token.unwrap_or_default(),
        "Availability": checked_availability(args.availability.as_deref())?,
    });
    let client = session.client().await?;
    client.post("/swarm/join").json(&body).done().await?;
    let info = client.get("/info").value().await?;
    let manager = info
        .pointer("/Swarm/ControlAvailable")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    session.line(&format!(
        "This node joined a swarm as a {}.",
        if manager { "manager" } else { "worker" }
    ))
}

async fn leave(session: &Session, args: LeaveArgs) -> Result<(), Failure> {
    session
        .client()
        .await?
        .post("/swarm/leave")
        .flag("force", args.force)
        .done()
        .await?;
    session.line("Node left the swarm.")
}

async fn join_token(session: &Session, args: JoinTokenArgs) -> Result<(), Failure> {
    let role = args.role.as_str();
    if !matches!(role, "worker" | "manager") {
        return Err(Failure::new(format!(
            "there is no role {role:?}: use worker or manager"
        )));
    }
    let client = session.client().await?;
    if args.rotate {
        let swarm = client.get("/swarm").value().await?;
        post_update(
            session,
            &swarm,
            &swarm["Spec"],
            [role == "worker", role == "manager", false],
        )
        .await?;
        if !args.quiet {
            session.print(&format!("Successfully rotated {role} join token.\n\n"))?;
        }
    }
    if args.quiet {
        let swarm = client.get("/swarm").value().await?;
        return session.line(text(
            &swarm,
            if role == "manager" {
                "/JoinTokens/Manager"
            } else {
                "/JoinTokens/Worker"
            },
        ));
    }
    let info = client.get("/info").value().await?;
    print_join_command(session, text(&info, "/Swarm/NodeID"), role).await
}

async fn unlock(session: &Session) -> Result<(), Failure> {
    let client = session.client().await?;
    let info = client.get("/info").value().await?;
    match text(&info, "/Swarm/LocalNodeState") {
        "locked" => {}
        "inactive" => return Err(Failure::new("this node is not part of a swarm")),
        _ => return Err(Failure::new("swarm is not locked")),
    }
    let quiet = if session.io.input_is_terminal {
        session.print("Enter unlock key: ")?;
        crate::terminal::NoEcho::enter()
    } else {
        None
    };
    let key = session.read_line().await?;
    drop(quiet);
    client
        .post("/swarm/unlock")
        .json(&json!({"UnlockKey": key.trim()}))
        .done()
        .await?;
    Ok(())
}

async fn unlock_key(session: &Session, args: UnlockKeyArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    if args.rotate {
        let swarm = client.get("/swarm").value().await?;
        if !swarm
            .pointer("/Spec/EncryptionConfig/AutoLockManagers")
            .and_then(Value::as_bool)
            .unwrap_or(false)
        {
            return Err(Failure::new(
                "cannot rotate because autolock is not turned on",
            ));
        }
        post_update(session, &swarm, &swarm["Spec"], [false, false, true]).await?;
        if !args.quiet {
            session.print("Successfully rotated manager unlock key.\n\n")?;
        }
    }
    let answer = client.get("/swarm/unlockkey").value().await?;
    let key = text(&answer, "/UnlockKey");
    if key.is_empty() {
        return Err(Failure::new("no unlock key is set"));
    }
    if args.quiet {
        session.line(key)
    } else {
        print_unlock_command(session, key)
    }
}
