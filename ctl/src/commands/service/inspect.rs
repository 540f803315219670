//! `service inspect`.

use std::collections::BTreeMap;

use clap::Args;

use super::pretty::pretty;
use super::published;
use crate::commands::inspect::print_all;
use crate::commands::text;
use crate::failure::Failure;
use crate::session::Session;

/// Show everything known of services
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl service inspect --pretty echo\n  ovnctl service inspect -f '{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}' echo"
)]
pub struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print it for people
    #[arg(long)]
    pretty: bool,
    /// Names or ids of services
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

/// `service inspect`.
pub async fn inspect(session: &Session, args: InspectArgs) -> Result<(), Failure> {
    let given = args.format.as_deref().filter(|f| !f.trim().is_empty());
    if args.pretty && given.is_some() {
        return Err(Failure::new(
            "--format is incompatible with human friendly format",
        ));
    }
    let client = session.client().await?;
    let fetch = async |name: &str| {
        let call = client.get(format!("/services/{name}"));
        match call
            .query("insertDefaults", "true")
            .value()
            .await
            .map_err(Failure::from)
        {
            Err(failure) if failure.is_not_found() => {
                Err(Failure::new(format!("Error: no such service: {name}")))
            }
            other => other,
        }
    };
    if !args.pretty && given != Some("pretty") {
        return print_all(session, &args.services, given, fetch).await;
    }
    for name in &args.services {
        let service = fetch(name).await?;
        let mut names = BTreeMap::new();
        let networks = service.pointer("/Spec/TaskTemplate/Networks");
        for network in networks.and_then(|n| n.as_array()).into_iter().flatten() {
            let id = text(network, "/Target");
            let call = client
                .get(format!("/networks/{id}"))
                .query("scope", "swarm");
            // A network that is gone is shown by its id.
            if let Ok(network) = call.value().await {
                names.insert(id.to_owned(), text(&network, "/Name").to_owned());
            }
        }
        let mut page = pretty(&service, &names, session.now());
        if publishes(&service) {
            let call = client
                .get("/overnet/ports")
                .query("service", text(&service, "/ID"));
            // Another engine, or an older one, has no such page.
            if let Ok(ports) = call.value().await {
                page = page.trim_end().to_owned() + "\n" + &published::on_hosts(&ports) + "\n";
            }
        }
        session.print(&page)?;
    }
    Ok(())
}

/// Whether it has a port on all hosts.
fn publishes(service: &serde_json::Value) -> bool {
    let ports = service
        .pointer("/Endpoint/Ports")
        .and_then(|p| p.as_array());
    let mut ports = ports.into_iter().flatten();
    ports.any(|port| text(port, "/PublishMode") == "ingress")
}
