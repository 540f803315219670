//! `login` and `logout`.

use clap::Args;
use serde_json::json;

use super::text;
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::session::Session;
use crate::terminal::NoEcho;

/// The key of Docker Hub in the configuration file.
const HUB: &str = "https://index.docker.io/v1/";

/// Store the credentials of a registry
///
/// They are checked first and kept in ~/.docker/config.json, as Docker keeps them.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  ovnctl login -u me --password-stdin registry.example.com < token"
)]
pub struct LoginArgs {
    /// Password or token; others on this host can see it, so prefer --password-stdin
    #[arg(short, long, value_name = "TEXT")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    /// User
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Registry (default: Docker Hub)
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Forget the credentials of a registry
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl logout registry.example.com")]
pub struct LogoutArgs {
    /// Registry (default: Docker Hub)
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

fn key(server: Option<&str>) -> String {
    match server {
        None | Some("" | "docker.io" | "index.docker.io" | HUB) => HUB.to_owned(),
        Some(server) => {
            let bare = server
                .trim_start_matches("https://")
                .trim_start_matches("http://");
            bare.split('/').next().unwrap_or(bare).to_owned()
        }
    }
}

/// `login`.
pub async fn login(session: &Session, args: LoginArgs) -> Result<(), Failure> {
    let key = key(args.server.as_deref());
    let Some(user) = args.username.filter(|u| !u.trim().is_empty()) else {
        return Err(Failure::new(
            "a user is missing: ovnctl login -u NAME [SERVER]",
        ));
    };
    let password = match args.password {
        Some(password) => {
            session
                .note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            password
        }
        None if args.password_stdin || !session.io.input_is_terminal => session.read_line().await?,
        None => {
            session.print("Password: ")?;
            let quiet = NoEcho::enter();
            let password = session.read_line().await?;
            drop(quiet);
            session.line("")?;
            password
        }
    };
    if password.is_empty() {
        return Err(Failure::new("the password is empty"));
    }
    let mut credentials = Credentials::read(&session.surroundings.docker_folder())?;
    let body = json!({"username": user, "password": password, "serveraddress": key});
    let answer = session
        .client()
        .await?
        .post("/auth")
        .json(&body)
        .value()
        .await?;
    credentials.store(
        &key,
        &user,
        &password,
        Some(text(&answer, "/IdentityToken")),
    )?;
    session.note(&format!(
        "WARNING! The credentials are stored unencrypted in '{}'.",
        credentials.path().display()
    ));
    if let Some(helper) = credentials.helper(&key) {
        session.note(&format!(
            "The credential helper {helper:?} is set there; ovnctl does not run helpers."
        ));
    }
    let status = text(&answer, "/Status");
    session.line(if status.is_empty() {
        "Login Succeeded"
    } else {
        status
    })
}

/// `logout`.
pub fn logout(session: &Session, args: LogoutArgs) -> Result<(), Failure> {
    let key = key(args.server.as_deref());
    let mut credentials = Credentials::read(&session.surroundings.docker_folder())?;
    if credentials.forget(&key)? {
        session.line(&format!("Removing login credentials for {key}"))
    } else {
        session.line(&format!("Not logged in to {key}"))
    }
}
