//! From the files named to one merged tree: `.env`, interpolation, checking, `include`,
//! `extends`, merging, profiles.
//!
//! Files are read through a function of the caller, so everything here can be tested on plain
//! data.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::check::check;
use super::dotenv;
use super::node::{Node, Place, Value};
use super::problem::{Problem, Problems, Sources, Warning};
use super::suggest::nearest;
use super::{interpolate, merge, read};

/// At most so many files are read for one stack.
const FILES: usize = 100;
/// At most so many services extend one another in a row.
const CHAIN: usize = 32;

/// Reads a file by its path.
pub type Reader<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// A file given with `-c`.
#[derive(Clone, Debug)]
pub struct Input {
    /// As the user wrote it; `-` is standard input.
    pub name: String,
    /// The content of standard input; `None` for a file.
    pub text: Option<Vec<u8>>,
}

/// What to load.
pub struct Request<'a> {
    /// The files, later ones over earlier ones.
    pub files: &'a [Input],
    /// Where relative names start.
    pub directory: &'a Path,
    /// Environment variables.
    pub variables: &'a BTreeMap<String, String>,
    /// Profiles that are active; `*` is all.
    pub profiles: &'a BTreeSet<String>,
    /// Leave `$X` alone and check nothing.
    pub raw: bool,
    /// How files are read.
    pub reader: Reader<'a>,
}

/// The merged tree.
#[derive(Debug)]
pub struct Loaded {
    /// `services`, `networks`, `volumes`, `configs`, `secrets`.
    pub root: Node,
    /// Environment and `.env` together.
    pub variables: BTreeMap<String, String>,
    /// What is ignored, in the order found.
    pub warnings: Vec<Warning>,
    /// Services left out because none of their profiles is active.
    pub inactive: Vec<String>,
}

/// Loads and merges; the sources are filled also when it fails, for the messages.
pub fn load(request: &Request<'_>, sources: &mut Sources) -> Result<Loaded, Problems> {
    let mut loader = Loader {
        request,
        sources,
        warnings: Vec::new(),
        unset: BTreeSet::new(),
        files: 0,
    };
    let first = request.files.first().filter(|input| input.text.is_none());
    let base = first.map_or_else(
        || request.directory.to_path_buf(),
        |input| folder(&clean(&request.directory.join(&input.name))),
    );
    let variables = loader.environment(&base, &[], request.variables)?;
    let mut root: Option<Node> = None;
    for input in request.files {
        let path = clean(&request.directory.join(&input.name));
        let place = input.text.is_none().then_some(path.as_path());
        let bytes = match &input.text {
            Some(text) => text.clone(),
            None => (request.reader)(&path)
                .map_err(|e| Problem::bare(format!("cannot read {}: {e}", input.name)))?,
        };
        let name = if input.text.is_some() {
            "stdin"
        } else {
            &input.name
        };
        let node = loader.file(name, place, &bytes, &base, &variables, &[])?;
        root = Some(match root {
            None => node,
            Some(root) => merge::files(root, node),
        });
    }
    let mut root =
        root.ok_or_else(|| Problem::bare("no compose file is named; give one with -c"))?;
    merge::settle(&mut root);
    let inactive = if request.raw {
        Vec::new()
    } else {
        loader.profiles(&mut root)
    };
    let mut warnings = std::mem::take(&mut loader.warnings);
    warnings.extend(loader.unset.iter().map(|name| Warning {
        at: None,
        message: format!("The \"{name}\" variable is not set. Defaulting to a blank string."),
    }));
    Ok(Loaded {
        root,
        variables,
        warnings,
        inactive,
    })
}

struct Loader<'a, 'r> {
    request: &'a Request<'r>,
    sources: &'a mut Sources,
    warnings: Vec<Warning>,
    unset: BTreeSet<String>,
    files: usize,
}

type Variables = BTreeMap<String, String>;

impl Loader<'_, '_> {
    /// The environment, over the env files named or `.env` of the folder.
    fn environment(
        &mut self,
        base: &Path,
        named: &[PathBuf],
        outer: &Variables,
    ) -> Result<Variables, Problems> {
        let mut variables = Variables::new();
        let default = [base.join(".env")];
        for path in if named.is_empty() {
            &default[..]
        } else {
            named
        } {
            let bytes = match (self.request.reader)(path) {
                Ok(bytes) => bytes,
                Err(_) if named.is_empty() => continue,
                Err(error) => {
                    return Err(
                        Problem::bare(format!("cannot read {}: {error}", path.display())).into(),
                    );
                }
            };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let pairs = dotenv::parse(&text, &|name| outer.get(name).cloned()).map_err(|bad| {
                Problem::bare(format!("{}:{}: {}", path.display(), bad.line, bad.message))
            })?;
            variables.extend(
                pairs
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
        }
        variables.extend(outer.clone());
        Ok(variables)
    }

    /// One file with everything it includes and extends.
    fn file(
        &mut self,
        name: &str,
        path: Option<&Path>,
        bytes: &[u8],
        base: &Path,
        variables: &Variables,
        chain: &[PathBuf],
    ) -> Result<Node, Problems> {
        let (mut node, warnings) = self.parse(name, bytes, base, variables)?;
        self.warnings.extend(warnings);
        if self.request.raw {
            return Ok(node);
        }
        let mut chain = chain.to_vec();
        chain.extend(path.map(Path::to_path_buf));
        let included = node.remove("include").map(|entry| entry.value);
        self.extend_all(&mut node, path, variables)?;
        for item in included.iter().flat_map(Node::items) {
            let other = self.include(item, base, variables, &chain)?;
            import(&mut node, other)?;
        }
        Ok(node)
    }

    /// Text to a checked tree.
    fn parse(
        &mut self,
        name: &str,
        bytes: &[u8],
        base: &Path,
        variables: &Variables,
    ) -> Result<(Node, Vec<Warning>), Problems> {
        self.files += 1;
        if self.files > FILES {
            return Err(
                Problem::bare(format!("more than {FILES} files belong to this stack")).into(),
            );
        }
        let unnamed = |mut problems: Problems| {
            for problem in problems.0.iter_mut().filter(|p| p.at.is_none()) {
                problem.message = format!("{name}: {}", problem.message);
            }
            problems
        };
        if bytes.len() > read::LARGEST {
            let problem = format!(
                "{name}: the file is too large: {} bytes where {} are the limit",
                bytes.len(),
                read::LARGEST
            );
            return Err(Problem::bare(problem).into());
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Problem::bare(format!("{name}: the file is not UTF-8 text")))?;
        let source = self.sources.add(name, text, base.to_path_buf());
        let mut document = read::read(text, source).map_err(unnamed)?;
        if self.request.raw {
            return Ok((document.root, document.warnings));
        }
        let lookup = |name: &str| variables.get(name).cloned();
        interpolate::tree(&mut document.root, &lookup, self.sources, &mut self.unset)
            .map_err(Problems)?;
        let found = check(&document.root);
        Problems(found.problems).check()?;
        let mut warnings = document.warnings;
        warnings.extend(found.warnings);
        Ok((document.root, warnings))
    }

    fn include(
        &mut self,
        item: &Node,
        base: &Path,
        variables: &Variables,
        chain: &[PathBuf],
    ) -> Result<Node, Problems> {
        let texts = |node: Option<&Node>| -> Vec<(String, Place)> {
            let node = node.into_iter();
            node.flat_map(|n| {
                if n.is_list() {
                    n.items()
                } else {
                    std::slice::from_ref(n)
                }
            })
            .filter_map(|n| Some((n.text()?.to_owned(), n.at)))
            .collect()
        };
        let paths = if item.is_map() {
            texts(item.get("path"))
        } else {
            texts(Some(item))
        };
        let Some((first, _)) = paths.first() else {
            return Err(Problem::new(item.at, "include", "the path is missing").into());
        };
        let directory = match item.text_of("project_directory") {
            Some(directory) => clean(&base.join(directory)),
            None => folder(&clean(&base.join(first))),
        };
        let named: Vec<PathBuf> = texts(item.get("env_file"))
            .into_iter()
            .map(|(name, _)| clean(&base.join(name)))
            .collect();
        let variables = self.environment(&directory, &named, variables)?;
        let mut root: Option<Node> = None;
        for (name, at) in paths {
            let path = clean(&base.join(&name));
            if chain.contains(&path) {
                return Err(Problem::new(
                    at,
                    "include",
                    format!("{name} includes itself, through {}", trail(chain)),
                )
                .into());
            }
            let bytes = self.fetch(&path, at, "include")?;
            let node = self.file(&name, Some(&path), &bytes, &directory, &variables, chain)?;
            root = Some(match root {
                None => node,
                Some(root) => merge::files(root, node),
            });
        }
        root.ok_or_else(|| Problem::new(item.at, "include", "the path is missing").into())
    }

    fn fetch(&self, path: &Path, at: Place, key: &str) -> Result<Vec<u8>, Problem> {
        (self.request.reader)(path)
            .map_err(|e| Problem::new(at, key, format!("cannot read {}: {e}", path.display())))
    }

    fn extend_all(
        &mut self,
        root: &mut Node,
        path: Option<&Path>,
        variables: &Variables,
    ) -> Result<(), Problems> {
        let names: Vec<String> = root
            .get("services")
            .map(|s| s.entries().iter().map(|e| e.key.clone()).collect())
            .unwrap_or_default();
        let mut done = BTreeMap::new();
        for name in names {
            let service =
                self.extended(root, &name, path, variables, &mut Vec::new(), &mut done)?;
            if let Some(services) = root_services(root) {
                services.set(&name, service);
            }
        }
        Ok(())
    }

    /// A service with what it extends merged below it.
    fn extended(
        &mut self,
        root: &Node,
        name: &str,
        path: Option<&Path>,
        variables: &Variables,
        chain: &mut Vec<(PathBuf, String)>,
        done: &mut BTreeMap<String, Node>,
    ) -> Result<Node, Problems> {
        if let Some(service) = done.get(name) {
            return Ok(service.clone());
        }
        let mut service = root
            .get("services")
            .and_then(|s| s.entry(name))
            .map(|entry| entry.value.clone())
            .ok_or_else(|| Problem::bare(format!("there is no service \"{name}\"")))?;
        let Some(extends) = service.remove("extends").map(|e| e.value) else {
            return Ok(service);
        };
        let key = format!("services.{name}.extends");
        let this = (
            path.map(Path::to_path_buf).unwrap_or_default(),
            name.to_owned(),
        );
        if chain.contains(&this) || chain.len() >= CHAIN {
            let message = if chain.contains(&this) {
                let names: Vec<&str> = chain.iter().map(|(_, name)| name.as_str()).collect();
                format!("the service extends itself, through {}", names.join(", "))
            } else {
                format!("more than {CHAIN} services extend one another here")
            };
            return Err(Problem::new(extends.at, &key, message).into());
        }
        chain.push(this);
        let wanted = extends.text().or_else(|| extends.text_of("service"));
        let Some(wanted) = wanted else {
            return Err(Problem::new(extends.at, &key, "the name of a service is missing").into());
        };
        let below = match extends.get("file") {
            None => {
                exists(root, wanted, extends.at, &key)?;
                self.extended(root, wanted, path, variables, chain, done)?
            }
            Some(file) => {
                let shown = file.text().unwrap_or_default();
                let other_path = clean(&self.sources.base(file.at).join(shown));
                let bytes = self.fetch(&other_path, file.at, &key)?;
                let (other, warnings) =
                    self.parse(shown, &bytes, &folder(&other_path), variables)?;
                exists(&other, wanted, extends.at, &key)?;
                let prefix = format!("services.{wanted}.");
                self.warnings.extend(
                    warnings
                        .into_iter()
                        .filter(|w| w.message.starts_with(&prefix)),
                );
                self.extended(
                    &other,
                    wanted,
                    Some(&other_path),
                    variables,
                    chain,
                    &mut BTreeMap::new(),
                )?
            }
        };
        chain.pop();
        let merged = merge::services(below, service);
        done.insert(name.to_owned(), merged.clone());
        Ok(merged)
    }

    /// Takes out the services whose profiles are all inactive.
    fn profiles(&self, root: &mut Node) -> Vec<String> {
        let mut inactive = Vec::new();
        if let Some(Node {
            value: Value::Map(services),
            ..
        }) = root_services(root)
        {
            services.retain(|entry| {
                let wanted = entry
                    .value
                    .get("profiles")
                    .map(Node::items)
                    .unwrap_or_default();
                let active = wanted.is_empty()
                    || self.request.profiles.contains("*")
                    || wanted
                        .iter()
                        .filter_map(Node::text)
                        .any(|p| self.request.profiles.contains(p));
                if !active {
                    inactive.push(entry.key.clone());
                }
                active
            });
        }
        inactive
    }
}

fn root_services(root: &mut Node) -> Option<&mut Node> {
    match &mut root.value {
        Value::Map(entries) => entries
            .iter_mut()
            .find(|entry| entry.key == "services")
            .map(|entry| &mut entry.value),
        Value::Null | Value::Scalar { .. } | Value::List(_) => None,
    }
}

fn exists(root: &Node, name: &str, at: Place, key: &str) -> Result<(), Problem> {
    let services = root.get("services").map(Node::entries).unwrap_or_default();
    if services.iter().any(|entry| entry.key == name) {
        return Ok(());
    }
    let mut problem = Problem::new(at, key, format!("there is no service \"{name}\" to extend"));
    if let Some(near) = nearest(name, services.iter().map(|e| e.key.as_str())) {
        problem = problem.help(format!("did you mean {near}?"));
    }
    Err(problem)
}

/// Adds what an include brought; the same name twice is refused unless both are equal.
fn import(root: &mut Node, other: Node) -> Result<(), Problem> {
    let Value::Map(sections) = other.value else {
        return Ok(());
    };
    for section in sections {
        if !matches!(
            section.key.as_str(),
            "services" | "networks" | "volumes" | "configs" | "secrets"
        ) {
            continue;
        }
        if root.get(&section.key).is_none() {
            root.set(&section.key, Node::new(Value::Map(Vec::new()), section.at));
        }
        let Value::Map(entries) = section.value.value else {
            continue;
        };
        let Value::Map(all) = &mut root.value else {
            return Ok(());
        };
        let Some(here) = all.iter_mut().find(|e| e.key == section.key) else {
            continue;
        };
        for entry in entries {
            match here.value.entry(&entry.key) {
                None => here.value.set(&entry.key, entry.value),
                Some(old) if old.value == entry.value => {}
                Some(old) => {
                    let path = format!("{}.{}", section.key, entry.key);
                    let message = "an included file has this name too, with other content";
                    return Err(Problem::new(old.at, &path, message).help("rename one of the two"));
                }
            }
        }
    }
    Ok(())
}

fn trail(chain: &[PathBuf]) -> String {
    let names: Vec<String> = chain.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}

fn folder(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Without `.` and `..`, so that two ways to one file are one path.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            other => clean.push(other),
        }
    }
    clean
}
