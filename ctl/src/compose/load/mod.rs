//! From the files named to one merged tree: `.env`, interpolation, checking, `include`,
//! `extends`, merging, profiles.
//!
//! Files are read through a function of the caller, so everything here can be tested on plain
//! data.

mod extend;
mod include;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use self::include::import;
use super::check::check;
use super::dotenv;
use super::node::{Node, Place, Value};
use super::problem::{Problem, Problems, Sources, Warning};
use super::{interpolate, merge, read};

/// At most so many files are read for one stack.
const FILES: usize = 100;

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

    fn fetch(&self, path: &Path, at: Place, key: &str) -> Result<Vec<u8>, Problem> {
        (self.request.reader)(path)
            .map_err(|e| Problem::new(at, key, format!("cannot read {}: {e}", path.display())))
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
