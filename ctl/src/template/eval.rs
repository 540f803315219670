//! Running a template.

use serde_json::Value;

use super::TemplateError;
use super::functions::call;
use super::parse::{Node, Operand, Pipe, Template};
use super::print::go_text;

/// What the data is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// An object: functions work, a wrong field is an error.
    Data,
    /// A map from field to heading: functions hand their text through, a wrong field prints nothing of use.
    Headings,
}

/// Bytes of a text on its way: `json` of a `json` is twice as long, and so on.
const LONGEST: usize = 4 << 20;

pub(super) fn run(template: &Template, data: &Value, mode: Mode) -> Result<String, TemplateError> {
    let mut run = Run {
        output: String::new(),
        variables: vec![(String::new(), data.clone())],
        mode,
    };
    run.nodes(&template.nodes, data)?;
    Ok(run.output)
}

/// Maps whose keys are the user's: an absent key prints `<no value>` and is no error.
const FREE_MAPS: &[&str] = &[
    "Labels",
    "Options",
    "DriverOpts",
    "Networks",
    "Sysctls",
    "Tmpfs",
    "Annotations",
    "Ports",
    "PortBindings",
    "Volumes",
    "ExposedPorts",
    "Containers",
    "Attributes",
    "LogOpts",
    "Config.Options",
];

enum Flow {
    On,
    Break,
    Continue,
}

struct Run {
    output: String,
    /// The innermost last; the nameless one is `$`.
    variables: Vec<(String, Value)>,
    mode: Mode,
}

impl Run {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.output.push_str(text),
                Node::Print(pipe) => {
                    let value = self.pipe(pipe, dot)?;
                    if pipe.names.is_empty() {
                        self.output.push_str(&go_text(&value));
                    }
                }
                Node::If {
                    branches,
                    otherwise,
                } => {
                    let depth = self.variables.len();
                    let mut chosen = otherwise;
                    for (condition, body) in branches {
                        if truth(&self.pipe(condition, dot)?) {
                            chosen = body;
                            break;
                        }
                    }
                    let flow = self.nodes(chosen, dot)?;
                    self.variables.truncate(depth);
                    if !matches!(flow, Flow::On) {
                        return Ok(flow);
                    }
                }
                Node::With {
                    on,
                    body,
                    otherwise,
                } => {
                    let depth = self.variables.len();
                    let value = self.pipe(on, dot)?;
                    let flow = if truth(&value) {
                        self.nodes(body, &value)?
                    } else {
                        self.nodes(otherwise, dot)?
                    };
                    self.variables.truncate(depth);
                    if !matches!(flow, Flow::On) {
                        return Ok(flow);
                    }
                }
                Node::Range {
                    over,
                    body,
                    otherwise,
                } => self.range(over, body, otherwise, dot)?,
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        over: &Pipe,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), TemplateError> {
        let value = self.commands(over, dot)?;
        let entries: Vec<(Value, Value)> = match value {
            Value::Null => Vec::new(),
            Value::Array(list) => list
                .into_iter()
                .enumerate()
                .map(|(i, v)| (Value::from(i), v))
                .collect(),
            Value::Object(map) => {
                let mut entries: Vec<_> = map
                    .into_iter()
                    .map(|(k, v)| (Value::String(k), v))
                    .collect();
                entries.sort_by(|a, b| a.0.as_str().cmp(&b.0.as_str()));
                entries
            }
            Value::Number(n) => (0..n.as_u64().unwrap_or(0))
                .map(|i| (Value::from(i), Value::from(i)))
                .collect(),
            Value::Bool(_) | Value::String(_) => {
                return Err(TemplateError(format!(
                    "range: {} cannot be ranged over",
                    kind(&value)
                )));
            }
        };
        if entries.is_empty() {
            return self.nodes(otherwise, dot).map(drop);
        }
        for (key, entry) in entries {
            let depth = self.variables.len();
            match over.names.as_slice() {
                [] => {}
                [only] => self.variables.push((only.clone(), entry.clone())),
                [first, second, ..] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), entry.clone()));
                }
            }
            let flow = self.nodes(body, &entry)?;
            self.variables.truncate(depth);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(())
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.commands(pipe, dot)?;
        if let [name] = pipe.names.as_slice() {
            if pipe.assigns {
                let slot = self.variables.iter_mut().rev().find(|(n, _)| n == name);
                match slot {
                    Some(slot) => slot.1 = value.clone(),
                    None => return Err(TemplateError(format!("there is no variable ${name}"))),
                }
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, TemplateError> {
        let mut previous: Option<Value> = None;
        for command in &pipe.commands {
            let value = self.command(command, previous, dot)?;
            if value.as_str().is_some_and(|text| text.len() > LONGEST) {
                return Err(TemplateError(format!(
                    "a text of more than {} MiB comes out of it",
                    LONGEST >> 20
                )));
            }
            previous = Some(value);
        }
        Ok(previous.unwrap_or(Value::Null))
    }

    fn command(
        &mut self,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, TemplateError> {
        let (first, rest) = operands
            .split_first()
            .expect("the parser makes no empty command");
        if let Operand::Function(name) = first {
            // `and` and `or` stop at the first argument that decides.
            if matches!(name.as_str(), "and" | "or") {
                let mut last = Value::Null;
                for operand in rest {
                    last = self.operand(operand, dot)?;
                    if truth(&last) == (name == "or") {
                        return Ok(last);
                    }
                }
                return Ok(piped.unwrap_or(last));
            }
            let mut arguments = Vec::with_capacity(rest.len() + 1);
            for operand in rest {
                arguments.push(self.operand(operand, dot)?);
            }
            arguments.extend(piped);
            if self.mode == Mode::Headings
                && matches!(
                    name.as_str(),
                    "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate" | "pad"
                )
            {
                return Ok(arguments
                    .into_iter()
                    .find(Value::is_string)
                    .unwrap_or(Value::Null));
            }
            return call(name, &arguments);
        }
        // `.Label "key"` is a method of the rows of ps, network ls and the like.
        if let (Operand::Field(path), [argument]) = (first, rest)
            && path.last().is_some_and(|name| name == "Label")
        {
            let argument = self.operand(argument, dot)?;
            return Ok(if self.mode == Mode::Headings {
                argument
            } else {
                label(dot, &argument)
            });
        }
        if !rest.is_empty() || (piped.is_some() && !matches!(first, Operand::Nested(..))) {
            return Err(TemplateError(format!(
                "{} is no function and takes no arguments",
                describe(first)
            )));
        }
        self.operand(first, dot)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        match operand {
            Operand::Field(path) => self.fields(dot, path),
            Operand::Variable(name, path) => {
                let found = self
                    .variables
                    .iter()
                    .rev()
                    .find(|(n, _)| n == name)
                    .map(|(_, v)| v.clone());
                match found {
                    Some(value) => self.fields(&value, path),
                    None => Err(TemplateError(format!("there is no variable ${name}"))),
                }
            }
            Operand::Function(name) => call(name, &[]),
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Nested(pipe, path) => {
                let value = self.pipe(pipe, dot)?;
                self.fields(&value, path)
            }
        }
    }

    fn fields(&self, value: &Value, path: &[String]) -> Result<Value, TemplateError> {
        let mut current = value;
        for (depth, name) in path.iter().enumerate() {
            let whole = || format!(".{}", path[..=depth].join("."));
            current = match current {
                Value::Object(map) => match map.get(name) {
                    Some(inner) => inner,
                    None if self.mode == Mode::Headings => return Ok(Value::Null),
                    None if depth > 0 && FREE_MAPS.contains(&path[depth - 1].as_str()) => {
                        return Ok(Value::Null);
                    }
                    None => {
                        return Err(TemplateError(format!(
                            "{}: {}",
                            whole(),
                            no_field(map, name)
                        )));
                    }
                },
                Value::Null => return Ok(Value::Null),
                Value::Array(_) => {
                    return Err(TemplateError(format!(
                        "{}: a list has no fields (use range or index)",
                        whole()
                    )));
                }
                other => {
                    return Err(TemplateError(format!(
                        "{}: {} has no fields",
                        whole(),
                        kind(other)
                    )));
                }
            };
        }
        Ok(current.clone())
    }
}

fn no_field(map: &serde_json::Map<String, Value>, name: &str) -> String {
    let mut names: Vec<&str> = map.keys().map(String::as_str).collect();
    names.sort_unstable();
    let meant = names
        .iter()
        .find(|n| n.eq_ignore_ascii_case(name))
        .map(|n| format!(" (did you mean \"{n}\"?)"))
        .unwrap_or_default();
    format!(
        "there is no field \"{name}\"{meant}; there are {}",
        names.join(", ")
    )
}

fn label(row: &Value, key: &Value) -> Value {
    let key = key.as_str().unwrap_or_default();
    match row.get("Labels") {
        Some(Value::Object(map)) => map.get(key).cloned().unwrap_or_else(|| Value::from("")),
        Some(Value::String(list)) => list
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)
            .map_or_else(|| Value::from(""), |(_, value)| Value::from(value)),
        _ => Value::from(""),
    }
}

fn describe(operand: &Operand) -> String {
    match operand {
        Operand::Field(path) => format!(".{}", path.join(".")),
        Operand::Variable(name, _) => format!("${name}"),
        Operand::Function(name) => name.clone(),
        Operand::Literal(value) => go_text(value),
        Operand::Nested(..) => "(…)".to_owned(),
    }
}

/// Go's truth: not zero, not empty, not nil.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
