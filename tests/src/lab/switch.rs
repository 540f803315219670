//! The underlay: a bridge in a namespace of its own, one cable to each host.

use std::{
    collections::BTreeSet,
    fmt::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Member,
    members::{GATEWAY, GATEWAY6, PREFIX, PREFIX6},
    namespace::run_in_network,
    process::Process,
    state,
};

/// Name of the switch's folder and namespaces; no host is called so.
pub const NAME: &str = "switch";

/// Makes the bridge.
pub fn prepare(init: Process, mtu: u32) -> Result<()> {
    ip(
        init,
        &format!(
            "link set lo up\n\
             link add lan mtu {mtu} type bridge mcast_snooping 0\n\
             addr add {GATEWAY}/{PREFIX} dev lan\n\
             addr add {GATEWAY6}/{PREFIX6} dev lan nodad\n\
             link set lan up\n"
        ),
    )
    .context("cannot make the underlay's bridge")
}

/// Lays a cable from the switch to a host and gives the host its addresses.
pub fn plug(switch: Process, host: Process, member: &Member, mtu: u32) -> Result<()> {
    let (name, mac, pid) = (&member.name, member.mac(), host.pid);
    ip(
        switch,
        &format!(
            "link add {name} mtu {mtu} type veth peer name eth0 address {mac} mtu {mtu} netns {pid}\n\
             link set {name} master lan\n\
             link set {name} up\n"
        ),
    )
    .with_context(|| format!("cannot join {name} to the underlay"))?;
    let (address, address6) = (member.address(), member.address6());
    ip(
        host,
        &format!(
            "link set lo up\n\
             addr add {address}/{PREFIX} brd + dev eth0\n\
             addr add {address6}/{PREFIX6} dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via {GATEWAY}\n\
             route add ::/0 via {GATEWAY6} dev eth0\n"
        ),
    )
    .with_context(|| format!("cannot give {name} its addresses"))?;
    await_forwarding(switch, name)
}

/// A bridge passes nothing through a new port until the kernel has noticed its carrier.
fn await_forwarding(switch: Process, port: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut command = Command::new("bridge");
        command.args(["-o", "link", "show", "dev", port]);
        if run_in_network(switch, command, "")?.contains("state forwarding") {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the switch's port to {port} does not come up"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Pulls a host's cable. The namespace of a host that has ended goes some time later.
pub fn unplug(switch: Process, name: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-o", "link", "show", "master", "lan"]);
    let ports = run_in_network(switch, command, "")?;
    if ports.contains(&format!(" {name}@")) {
        // It may go between the look and the deed.
        let _ = ip(switch, &format!("link del {name}\n"));
    }
    Ok(())
}

/// A cable between two hosts beside the switch, for measurements (a bridge as the underlay
/// would segment again what a plain cable passes whole). `segmenting`: the cable takes
/// packets of its MTU only, as a plain network card does.
pub fn cable(a: (Process, &Member), b: (Process, &Member), mtu: u32) -> Result<()> {
    let pid = b.0.pid;
    ip(
        a.0,
        &format!(
            "link add cable mtu {mtu} type veth peer name cable mtu {mtu} netns {pid}\n\
             link set cable up\n\
             route replace {}/32 dev cable src {}\n",
            b.1.address(),
            a.1.address()
        ),
    )?;
    ip(
        b.0,
        &format!(
            "link set cable up\nroute replace {}/32 dev cable src {}\n",
            a.1.address(),
            b.1.address()
        ),
    )
}

/// What the switch refuses to pass: both directions of a pair.
pub fn partition(dir: &Path, switch: Process, pair: (&Member, &Member)) -> Result<()> {
    let file = dir.join(NAME).join("partitions");
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let mut pairs: BTreeSet<String> = known.lines().map(str::to_owned).collect();
    pairs.insert(format!("{} {}", pair.0.mac(), pair.1.mac()));
    pairs.insert(format!("{} {}", pair.1.mac(), pair.0.mac()));
    let pairs: Vec<String> = pairs.into_iter().collect();
    nft(switch, &rules(&pairs))?;
    std::fs::write(&file, pairs.join("\n")).context("cannot remember the partition")
}

/// Takes every partition back.
pub fn heal(dir: &Path, switch: Process) -> Result<()> {
    nft(switch, &rules(&[]))?;
    let _ = std::fs::remove_file(dir.join(NAME).join("partitions"));
    Ok(())
}

fn rules(pairs: &[String]) -> String {
    let mut text = "table bridge lab {}\ndelete table bridge lab\n\
                    table bridge lab {\n chain forward {\n  type filter hook forward priority 0;\n"
        .to_owned();
    for pair in pairs {
        let (from, to) = pair.split_once(' ').unwrap_or_default();
        let _ = writeln!(text, "  ether saddr {from} ether daddr {to} drop");
    }
    text.push_str(" }\n}\n");
    text
}

fn nft(switch: Process, rules: &str) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    run_in_network(switch, command, rules).map(drop)
}

fn ip(process: Process, batch: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    run_in_network(process, command, batch).map(drop)
}

/// The switch's first process.
pub fn init(dir: &Path) -> Result<Process> {
    state::init_of(dir, NAME).context("the lab's switch is gone: `lab down`, then `lab up`")
}
