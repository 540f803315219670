//! `completion` and the hidden `man`.

use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::session::Session;

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl completion bash > /etc/bash_completion.d/ovnctl")]
pub struct CompletionArgs {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    shell: String,
}

/// Write the manual pages into a folder
#[derive(Args, Debug)]
pub struct ManArgs {
    /// The folder
    #[arg(value_name = "FOLDER")]
    folder: std::path::PathBuf,
}

/// `completion`.
pub fn completion(session: &Session, args: &CompletionArgs) -> Result<(), Failure> {
    let shell = Shell::from_str(&args.shell, true).map_err(|_| {
        Failure::new(format!(
            "there is no completion for {:?}: use bash, zsh, fish, elvish or powershell",
            args.shell
        ))
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::command(), "ovnctl", &mut script);
    Ok(session.io.out.put(&script)?)
}

/// `man`: one page a command.
pub fn man(args: &ManArgs) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.folder)?;
    Ok(clap_mangen::generate_to(
        crate::cli::command(),
        &args.folder,
    )?)
}
