//! `image ls`, `rm`, `tag`, `push`, `prune`, `history`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::pull::{Progress, PullArgs, authorised, show};
use super::{ListFlags, archive, text};
use crate::credentials::encode;
use crate::failure::Failure;
use crate::flags::Filters;
use crate::output::Listing;
use crate::output::table::{ellipsis, short_id};
use crate::output::units::{ago, size};
use crate::output::when::go_time;
use crate::reference::Reference;
use crate::session::Session;

/// Manage images
#[derive(Subcommand, Debug)]
pub enum ImageCommand {
    History(HistoryArgs),
    Import(archive::ImportArgs),
    /// Show everything known of images
    Inspect(super::inspect::TypedArgs),
    Load(archive::LoadArgs),
    #[command(alias = "list")]
    Ls(LsArgs),
    Prune(PruneArgs),
    Pull(PullArgs),
    Push(PushArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
    Save(archive::SaveArgs),
    Tag(TagArgs),
}

/// List images
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ovnctl images\n  ovnctl image ls --filter dangling=true -q")]
pub struct LsArgs {
    /// Show intermediate images too
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    #[command(flatten)]
    list: ListFlags,
    /// Show ids whole
    #[arg(long)]
    no_trunc: bool,
    /// Only this repository
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
}

/// Remove images
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl rmi registry:5000/example/echo:latest")]
pub struct RmArgs {
    /// Remove even if stopped containers use it
    #[arg(short, long)]
    force: bool,
    /// Keep untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Give an image another name
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl tag echo registry:5000/example/echo:v2")]
pub struct TagArgs {
    /// The image
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Its further name
    #[arg(value_name = "TARGET")]
    target: String,
}

/// Upload an image to a registry
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl push registry:5000/example/echo:v2")]
pub struct PushArgs {
    /// Upload all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Accepted and ignored, as signatures are not made
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    /// Only this platform
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print only the image's name
    #[arg(short, long)]
    quiet: bool,
    /// Image to upload
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

/// Remove images that nothing uses
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl image prune -a --filter until=240h")]
pub struct PruneArgs {
    /// Tagged ones too, if no container uses them
    #[arg(short, long)]
    all: bool,
    /// Only those that fit: until=24h, label=…
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Show how an image was made
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ovnctl history --no-trunc debian:12")]
pub struct HistoryArgs {
    /// table, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Times and sizes for people (default true)
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_parser = crate::flags::boolean, action = clap::ArgAction::Set)]
    human: bool,
    /// Show commands whole
    #[arg(long)]
    no_trunc: bool,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Name or id
    #[arg(value_name = "IMAGE")]
    image: String,
}

const IMAGE_HEADINGS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];

/// The columns of `images`.
pub const IMAGES: Listing = Listing {
    columns: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    headings: IMAGE_HEADINGS,
    quiet: "{{.ID}}",
};

/// The columns of `images --digests`.
pub const DIGESTS: Listing = Listing {
    columns: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    ..IMAGES
};

/// The columns of `history`.
pub const HISTORY: Listing = Listing {
    columns: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    headings: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    quiet: "{{.ID}}",
};

/// Runs one of the group.
pub async fn run(session: &Session, command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::History(args) => history(session, args).await,
        ImageCommand::Import(args) => archive::import(session, args).await,
        ImageCommand::Inspect(args) => super::inspect::typed(session, args, "image").await,
        ImageCommand::Load(args) => archive::load(session, args).await,
        ImageCommand::Ls(args) => ls(session, args).await,
        ImageCommand::Prune(args) => prune(session, args).await,
        ImageCommand::Pull(args) => super::pull::command(session, args).await,
        ImageCommand::Push(args) => push(session, args).await,
        ImageCommand::Rm(args) => rm(session, args).await,
        ImageCommand::Save(args) => archive::save(session, args).await,
        ImageCommand::Tag(args) => tag(session, args).await,
    }
}

/// `images`.
pub async fn ls(session: &Session, args: LsArgs) -> Result<(), Failure> {
    let mut filters = Filters::parse(&args.list.filter)?;
    if let Some(repository) = &args.repository {
        filters.add("reference", repository);
    }
    let images = session
        .client()
        .await?
        .get("/images/json")
        .flag("all", args.all)
        .filters(&filters)
        .value()
        .await?;
    let rows = rows(
        &images,
        args.no_trunc,
        args.digests,
        session.now(),
        session.surroundings.zone,
    );
    let listing = if args.digests { &DIGESTS } else { &IMAGES };
    session.print(&listing.render(&rows, args.list.format.as_deref(), args.list.quiet)?)
}

/// One row a tag, newest image first; an image without a name has one row of `<none>`.
pub fn rows(
    images: &Value,
    whole: bool,
    digests: bool,
    now: i64,
    zone: time::UtcOffset,
) -> Vec<Value> {
    let mut images: Vec<&Value> = images.as_array().into_iter().flatten().collect();
    images.sort_by_key(|image| -image["Created"].as_i64().unwrap_or(0));
    let mut rows = Vec::new();
    for image in images {
        let list = |name: &str| -> Vec<String> {
            let texts = image[name]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            texts
                .filter(|t| !t.starts_with("<none>"))
                .map(str::to_owned)
                .collect()
        };
        let digest_of = |repository: &str| {
            list("RepoDigests").iter().find_map(|d| {
                let (name, digest) = d.split_once('@')?;
                (name == repository).then(|| digest.to_owned())
            })
        };
        let mut names: Vec<(String, String, String)> = list("RepoTags")
            .iter()
            .filter_map(|t| t.rsplit_once(':'))
            .map(|(repository, tag)| {
                (
                    repository.to_owned(),
                    tag.to_owned(),
                    digest_of(repository).unwrap_or_else(|| "<none>".to_owned()),
                )
            })
            .collect();
        if names.is_empty() {
            let first = list("RepoDigests")
                .first()
                .and_then(|d| d.split_once('@').map(|(r, d)| (r.to_owned(), d.to_owned())));
            let (repository, digest) =
                first.unwrap_or_else(|| ("<none>".to_owned(), "<none>".to_owned()));
            names.push((
                repository,
                "<none>".to_owned(),
                if digests { digest } else { "<none>".to_owned() },
            ));
        }
        let id = text(image, "/Id");
        let created = image["Created"].as_i64().unwrap_or(0);
        let number = |name: &str| image[name].as_i64().filter(|n| *n >= 0);
        let shown = |name: &str| number(name).map_or_else(|| "N/A".to_owned(), |n| size(n as f64));
        for (repository, tag, digest) in names {
            rows.push(json!({
                "Repository": repository, "Tag": tag, "Digest": digest,
                "ID": if whole { id } else { short_id(id) },
                "CreatedSince": if created > 0 { ago(now - created) } else { "N/A".to_owned() },
                "CreatedAt": go_time(created, zone),
                "Size": shown("Size"),
                "VirtualSize": shown("Size"),
                "SharedSize": shown("SharedSize"),
                "UniqueSize": "N/A",
                "Containers": number("Containers").map_or_else(|| "N/A".to_owned(), |n| n.to_string()),
            }));
        }
    }
    rows
}

/// `rmi`.
pub async fn rm(session: &Session, args: RmArgs) -> Result<(), Failure> {
    let client = session.client().await?;
    session
        .each(&args.images, async |name| {
            let removed = client
                .delete(format!("/images/{name}"))
                .flag("force", args.force)
                .flag("noprune", args.no_prune)
                .value()
                .await
                .map_err(Failure::from);
            let removed = match removed {
                Err(failure) if args.force && failure.is_not_found() => {
                    session.note(failure.text());
                    return Ok(String::new());
                }
                other => other?,
            };
            let lines: Vec<String> = removed
                .as_array()
                .into_iter()
                .flatten()
                .map(removal_line)
                .collect();
            Ok(lines.join("\n"))
        })
        .await
}

fn removal_line(entry: &Value) -> String {
    match text(entry, "/Deleted") {
        "" => format!("Untagged: {}", text(entry, "/Untagged")),
        id => format!("Deleted: {id}"),
    }
}

/// `tag`.
pub async fn tag(session: &Session, args: TagArgs) -> Result<(), Failure> {
    let target = Reference::parse(&args.target)?;
    if target.digest.is_some() {
        return Err(Failure::new(
            "refusing to create a tag with a digest reference",
        ));
    }
    session
        .client()
        .await?
        .post(format!("/images/{}/tag", args.source))
        .query("repo", target.repository())
        .query("tag", target.tag_or_digest())
        .done()
        .await?;
    Ok(())
}

/// `push`.
pub async fn push(session: &Session, args: PushArgs) -> Result<(), Failure> {
    let reference = Reference::parse(&args.image)?;
    if args.all_tags && reference.tag.is_some() {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    if !args.quiet && !args.all_tags && reference.tag.is_none() {
        session.line("Using default tag: latest")?;
    }
    let client = session.client().await?;
    let call = client.post(format!("/images/{}/push", reference.repository()));
    let tag = (!args.all_tags).then(|| reference.tag_or_digest().to_owned());
    let call = call.maybe("tag", tag).maybe("platform", args.platform);
    let credentials = crate::credentials::Credentials::read(&session.surroundings.docker_folder())?;
    let call = if credentials.header(reference.credential_key()).is_some() {
        authorised(session, call, &reference)?
    } else {
        // The daemon wants the header even when there is nothing in it.
        call.header("x-registry-auth", encode(&json!({})))
    };
    show(
        session,
        call.values().await?,
        if args.quiet {
            Progress::Silent
        } else {
            Progress::OnOutput
        },
    )
    .await?;
    if args.quiet {
        session.line(&reference.with_version(&reference.repository()))
    } else {
        Ok(())
    }
}

/// `image prune`.
pub async fn prune(session: &Session, args: PruneArgs) -> Result<(), Failure> {
    let mut filters = Filters::parse(&args.filter)?;
    filters.add("dangling", if args.all { "false" } else { "true" });
    let question = if args.all {
        "WARNING! This will remove all images without at least one container associated to them.\nAre you sure you want to continue?"
    } else {
        "WARNING! This will remove all dangling images.\nAre you sure you want to continue?"
    };
    if !args.force && !session.confirm(question).await? {
        return Err(Failure::new("image prune has been cancelled"));
    }
    let answer = session
        .client()
        .await?
        .post("/images/prune")
        .filters(&filters)
        .value()
        .await?;
    let lines: Vec<String> = answer["ImagesDeleted"]
        .as_array()
        .into_iter()
        .flatten()
        .map(removal_line)
        .collect();
    if !lines.is_empty() {
        session.line(&format!(
            "Deleted Images:\n{}\n",
            lines
                .join("\n")
                .replace("Untagged:", "untagged:")
                .replace("Deleted:", "deleted:")
        ))?;
    }
    session.line(&format!(
        "Total reclaimed space: {}",
        size(answer["SpaceReclaimed"].as_f64().unwrap_or(0.0))
    ))
}

/// `history`.
pub async fn history(session: &Session, args: HistoryArgs) -> Result<(), Failure> {
    let layers = session
        .client()
        .await?
        .get(format!("/images/{}/history", args.image))
        .value()
        .await?;
    let rows = history_rows(
        &layers,
        args.human,
        args.no_trunc,
        session.now(),
        session.surroundings.zone,
    );
    session.print(&HISTORY.render(&rows, args.format.as_deref(), args.quiet)?)
}

fn history_rows(
    layers: &Value,
    human: bool,
    whole: bool,
    now: i64,
    zone: time::UtcOffset,
) -> Vec<Value> {
    layers
        .as_array()
        .into_iter()
        .flatten()
        .map(|layer| {
            let id = text(layer, "/Id");
            let created = layer["Created"].as_i64().unwrap_or(0);
            let bytes = layer["Size"].as_i64().unwrap_or(0);
            let by = text(layer, "/CreatedBy").replace('\t', " ");
            let made = go_time(created, zone);
            json!({
                "ID": if whole || id == "<missing>" { id } else { short_id(id) },
                "CreatedSince": if human { ago(now - created) } else { made.clone() },
                "CreatedAt": made,
                "CreatedBy": if whole { by } else { ellipsis(&by, 45) },
                "Size": if human { size(bytes as f64) } else { bytes.to_string() },
                "Comment": text(layer, "/Comment"),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::UtcOffset;

    #[test]
    fn the_tables() {
        let images = json!([
            {"Id": "sha256:aaaaaaaaaaaaaaaaaaaa", "Created": 1_690_000_000, "Size": 7_830_000, "RepoTags": ["alpine:3.20", "a/b:latest"],
             "RepoDigests": ["alpine@sha256:00ff"]},
            {"Id": "sha256:bbbbbbbbbbbbbbbbbbbb", "Created": 1_700_000_000, "Size": 116_500_000, "RepoTags": ["registry:5000/example/echo:latest"]},
            {"Id": "sha256:cccccccccccccccccccc", "Created": 1_600_000_000, "Size": 1, "RepoTags": null, "RepoDigests": null},
        ]);
        let table = |listing: &Listing, digests| {
            listing
                .render(
                    &rows(&images, false, digests, 1_700_086_400, UtcOffset::UTC),
                    None,
                    false,
                )
                .unwrap()
        };
        insta::assert_snapshot!(table(&IMAGES, false), @r"
        REPOSITORY                   TAG       IMAGE ID       CREATED        SIZE
        registry:5000/example/echo   latest    bbbbbbbbbbbb   24 hours ago   116MB
        alpine                       3.20      aaaaaaaaaaaa   3 months ago   7.83MB
        a/b                          latest    aaaaaaaaaaaa   3 months ago   7.83MB
        <none>                       <none>    cccccccccccc   3 years ago    1B
        ");
        insta::assert_snapshot!(table(&DIGESTS, true).lines().nth(2).unwrap(), @"alpine                       3.20      sha256:00ff   aaaaaaaaaaaa   3 months ago   7.83MB");
    }

    #[test]
    fn the_history() {
        let layers = json!([
            {"Id": "sha256:aaaaaaaaaaaaaaaaaaaa", "Created": 1_700_000_000, "CreatedBy": "/bin/sh -c #(nop)  CMD [\"/echo\" \"--port\" \"8080\" \"--verbose\"]", "Size": 0, "Comment": "buildkit"},
            {"Id": "<missing>", "Created": 1_700_000_000, "CreatedBy": "COPY . /", "Size": 1234, "Comment": ""},
        ]);
        let rows = history_rows(&layers, true, false, 1_700_000_060, UtcOffset::UTC);
        insta::assert_snapshot!(HISTORY.render(&rows, None, false).unwrap(), @r#"
        IMAGE          CREATED              CREATED BY                                      SIZE      COMMENT
        aaaaaaaaaaaa   About a minute ago   /bin/sh -c #(nop)  CMD ["/echo" "--port" "80…   0B        buildkit
        <missing>      About a minute ago   COPY . /                                        1.23kB    
        "#);
    }
}
