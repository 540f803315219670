//! What is wrong with a file, or worth a word, and how it is shown: file, line, column, the
//! lines around it, the key's path and the way out.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};

use super::node::Place;

/// At most so many problems are shown of one run.
const SHOWN: usize = 10;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user named it.
    pub name: String,
    /// Its text.
    pub text: Arc<str>,
    /// Relative paths in it start here.
    pub base: PathBuf,
}

/// All files of one run, in the order read.
#[derive(Clone, Debug, Default)]
pub struct Sources(pub Vec<Source>);

impl Sources {
    /// Adds a file and returns its index.
    pub fn add(&mut self, name: &str, text: &str, base: PathBuf) -> usize {
        self.0.push(Source {
            name: name.to_owned(),
            text: text.into(),
            base,
        });
        self.0.len() - 1
    }

    /// `FILE:LINE:COLUMN`, both counted from 1, columns in characters.
    pub fn locate(&self, at: Place) -> String {
        let Some(source) = self.0.get(at.source) else {
            return String::new();
        };
        let before = source.text.get(..at.start).unwrap_or(&source.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{}:{line}:{column}", source.name)
    }

    /// The folder that relative paths of this place start from.
    pub fn base(&self, at: Place) -> PathBuf {
        self.0
            .get(at.source)
            .map(|s| s.base.clone())
            .unwrap_or_default()
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The sentence, without place and path.
    pub message: String,
    /// Where.
    pub at: Option<Place>,
    /// The key's path, such as `services.web.deploy.replicas`; empty for the file itself.
    pub path: String,
    /// The way out.
    pub help: Option<String>,
    /// A second place that has to do with it.
    pub other: Option<Box<Place>>,
}

impl Problem {
    /// A problem at a place.
    pub fn new(at: Place, path: &str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            at: Some(at),
            path: path.to_owned(),
            help: None,
            other: None,
        }
    }

    /// A problem with a file that has no lines to show.
    pub fn bare(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            at: None,
            path: String::new(),
            help: None,
            other: None,
        }
    }

    /// Adds the way out.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a second place.
    pub fn and(mut self, other: Place) -> Self {
        self.other = Some(Box::new(other));
        self
    }

    /// One line: `FILE:LINE:COLUMN: PATH: message`.
    pub fn line(&self, sources: &Sources) -> String {
        let mut parts = Vec::new();
        if let Some(at) = self.at {
            parts.push(sources.locate(at));
        }
        if !self.path.is_empty() {
            parts.push(self.path.clone());
        }
        parts.push(self.message.clone());
        parts.join(": ")
    }
}

/// A remark that stops nothing.
#[derive(Clone, Debug)]
pub struct Warning {
    /// Where, when it has a place.
    pub at: Option<Place>,
    /// The whole sentence, the key's path included.
    pub message: String,
}

impl Warning {
    /// `FILE:LINE:COLUMN: message`.
    pub fn line(&self, sources: &Sources) -> String {
        match self.at {
            Some(at) => format!("{}: {}", sources.locate(at), self.message),
            None => self.message.clone(),
        }
    }
}

/// Why a stack was not read; at least one problem.
#[derive(Clone, Debug, Default)]
pub struct Problems(pub Vec<Problem>);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl Problems {
    /// `Ok` without any.
    pub fn check(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// All of them with the lines they are about.
    pub fn render(&self, sources: &Sources) -> String {
        let mut text: Vec<String> = self
            .0
            .iter()
            .take(SHOWN)
            .map(|problem| render(problem, sources))
            .collect();
        if self.0.len() > SHOWN {
            text.push(format!("and {} more problems", self.0.len() - SHOWN));
        }
        text.join("\n")
    }
}

/// One problem in miette's form.
#[derive(Debug)]
struct Shown {
    line: String,
    help: Option<String>,
    source: NamedSource<String>,
    labels: Vec<LabeledSpan>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

fn render(problem: &Problem, sources: &Sources) -> String {
    let line = problem.line(sources);
    let Some((at, source)) = problem
        .at
        .and_then(|at| Some((at, sources.0.get(at.source)?)))
    else {
        return match &problem.help {
            Some(help) => format!("{line}: {help}"),
            None => line,
        };
    };
    let span = |at: Place, word: &str| {
        // A long block is pointed at by its first line.
        let end = source
            .text
            .get(at.start..at.end)
            .and_then(|text| text.find('\n'))
            .map_or(at.end, |length| at.start + length);
        LabeledSpan::new(
            Some(word.to_owned()),
            at.start.min(source.text.len()),
            end.saturating_sub(at.start),
        )
    };
    let mut labels = vec![span(at, "here")];
    if let Some(other) = problem
        .other
        .as_deref()
        .filter(|other| other.source == at.source)
    {
        labels.push(span(*other, "and here"));
    }
    let shown = Shown {
        line: line.clone(),
        help: problem.help.clone(),
        source: NamedSource::new(&source.name, source.text.to_string()),
        labels,
    };
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(400)
        .with_context_lines(2);
    match handler.render_report(&mut text, &shown) {
        Ok(()) => text.trim_end().to_owned(),
        Err(_) => line,
    }
}
