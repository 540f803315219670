//! `stack config`.

use clap::Args;

use super::explain::explain;
use super::read::{self, FileFlags};
use crate::compose::write::yaml;
use crate::failure::Failure;
use crate::session::Session;

/// Show what files come to: merged, with variables filled in
///
/// With --explain it says what each service becomes in the cluster. Nothing is changed.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ovnctl stack config -c base.yml -c production.yml\n  ovnctl stack config --explain -c ch03-webapi.yml echo"
)]
pub struct ConfigArgs {
    #[command(flatten)]
    files: FileFlags,
    /// Say in words what becomes of the files
    #[arg(long)]
    explain: bool,
    /// Leave variables as they are written
    #[arg(long, conflicts_with = "explain")]
    skip_interpolation: bool,
    /// Name of the stack, for --explain
    #[arg(value_name = "STACK", default_value = "stack")]
    stack: String,
}

/// `stack config`.
pub async fn config(session: &Session, args: ConfigArgs) -> Result<(), Failure> {
    let files = read::files(session, &args.files, args.skip_interpolation).await?;
    if args.explain {
        let stack = read::stack(session, &files, &args.stack)?;
        return session.print(&explain(&stack, &files.loaded.inactive));
    }
    read::warn(session, &files.loaded.warnings, &files.sources);
    session.print(&yaml(&files.loaded.root))
}
