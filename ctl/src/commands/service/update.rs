//! `service update`.

use clap::Args;

use super::lookup::{Wanted, look_up};
use super::send::{self, Auth};
use crate::commands::text;
use crate::failure::Failure;
use crate::flags::service::UpdateFlags;
use crate::progress::{self, Asked};
use crate::session::Session;

/// Change a service; its tasks are replaced a few at a time
///
/// Lists are changed with …-add and …-rm. Without an update policy one task after the other is
/// stopped and replaced, and a failure pauses the update.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl service update --image registry:5000/example/echo:v2 --update-order start-first echo\n  ovnctl service update --env-add LEVEL=debug --env-rm OLD --publish-add 9000:9000 api\n  ovnctl service update --force --update-parallelism 2 --update-delay 10s api\n  ovnctl service update --secret-rm pw-1 --secret-add source=pw-2,target=pw-1 api"
)]
pub struct UpdateArgs {
    /// Do not wait until the update is done
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    flags: UpdateFlags,
    /// Do not ask the registry for the image's digest and platforms
    #[arg(long)]
    no_resolve_image: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Go back to the specification before the last update
    #[arg(long)]
    rollback: bool,
    /// Let the hosts pull with your credentials of the registry
    #[arg(long)]
    with_registry_auth: bool,
    /// Name or id of the service
    #[arg(value_name = "SERVICE")]
    service: String,
}

/// `service update`.
pub async fn update(session: &Session, args: UpdateArgs) -> Result<(), Failure> {
    let flags = &args.flags;
    let service = send::read(session, &args.service).await?;
    let mut spec = service["Spec"].clone();
    if args.rollback && flags.given() {
        return Err(Failure::new(
            "other flags may not be combined with --rollback",
        ));
    }
    let wanted = Wanted {
        networks: flags.networks(),
        secrets: flags.secret_add.iter().map(|s| s.source.clone()).collect(),
        configs: flags.config_add.iter().map(|c| c.source.clone()).collect(),
    };
    let references = look_up(session, &wanted).await?;
    flags.edit(&mut spec, &session.surroundings, &references)?;
    let auth = if args.with_registry_auth {
        let image = text(&spec, "/TaskTemplate/ContainerSpec/Image");
        Auth::Header(send::credentials(session, image)?)
    } else {
        Auth::FromSpec
    };
    if flags.image.is_some() {
        let header = match &auth {
            Auth::Header(header) => Some(header.as_str()),
            Auth::FromSpec | Auth::Unsaid => None,
        };
        send::tag(&mut spec);
        if !args.no_resolve_image {
            send::pin(session, &mut spec, header).await?;
        }
    }
    send::update(session, &service, &spec, &auth, args.rollback).await?;
    session.line(&args.service)?;
    if args.detach {
        return Ok(());
    }
    let asked = if args.rollback {
        Asked::Rollback
    } else {
        Asked::Change
    };
    progress::show(session, &args.service, asked, args.quiet).await
}
