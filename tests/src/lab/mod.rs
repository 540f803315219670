//! Hosts as network, mount, UTS, PID and control-group namespaces of one machine.
//!
//! On disk, under the lab's folder:
//!
//! | path | what |
//! |---|---|
//! | `lab.json` | who is in the lab and how it was asked for; written first, removed last |
//! | `HOST/init` | number and start time of the host's first process, which holds its namespaces |
//! | `HOST/ovn.sock` | the host's API socket (leads to `HOST/run/ovnd.sock`) |
//! | `HOST/run`, `HOST/lib` | the host's /run/overnet and /var/lib/overnet |
//! | `HOST/etc`, `HOST/varlib` | what the host changed in /etc and /var/lib |
//! | `HOST/keeper.sock`, `HOST/ovnd.log` | the daemon's keeper and log |
//! | `registry/data` | what the registry stores |

mod cgroup;
mod daemon;
mod engine;
mod host;
mod host_init;
mod members;
mod namespace;
mod process;
mod registry;
mod resolver;
mod state;
mod stock;
mod switch;
mod up;

pub use engine::DockerEngine;
pub use host::{Host, Output, exit_code};
pub use host_init::run as host_init;
pub use members::{Member, Role};
pub use resolver::run as resolver;
pub use stock::docker_cli;
pub use up::{Lab, Options, binary, cache_dir, default_dir, down};
