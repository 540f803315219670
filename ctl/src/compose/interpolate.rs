//! `$NAME`, `${NAME}` with `:-`, `-`, `:?`, `?`, `:+`, `+`, nested, and `$$` for a dollar sign.
//!
//! Works on text after YAML's own escapes and before anything is read as a number, so
//! `replicas: ${N}` works. Keys are not touched. Source: the Compose Specification,
//! "Interpolation".

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::node::{Node, Place, Value};
use super::problem::{Problem, Sources};

/// Levels of `${A:-${B:-…}}`.
const DEPTH: usize = 32;
/// Bytes of all texts of one file after interpolation.
pub(super) const BYTES: usize = 16 << 20;
pub(super) const TOO_MUCH: &str = "the values of variables add up to more than 16 MiB";

/// Why a text cannot be interpolated: `at` is the byte of the text that the sentence is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Offset in the text.
    pub at: usize,
    /// The sentence.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
}

/// Expands one text; names without a value go to `unset`.
pub fn expand(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut BTreeSet<String>,
) -> Result<String, Bad> {
    let mut machine = Machine {
        text,
        lookup,
        unset,
    };
    let mut out = String::with_capacity(text.len());
    let end = machine.run(0, 0, true, &mut out)?;
    debug_assert_eq!(end, text.len());
    Ok(out)
}

struct Machine<'a> {
    text: &'a str,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    unset: &'a mut BTreeSet<String>,
}

impl Machine<'_> {
    /// Expands from `position` to the end of the text, or inside braces to the closing one,
    /// whose offset it returns. `live` is false in a branch whose value is thrown away.
    fn run(
        &mut self,
        mut position: usize,
        depth: usize,
        live: bool,
        out: &mut String,
    ) -> Result<usize, Bad> {
        if depth > DEPTH {
            return Err(self.bad(position, format!("more than {DEPTH} levels of ${{…}}")));
        }
        while let Some(rest) = self.text.get(position..).filter(|rest| !rest.is_empty()) {
            if depth > 0 && rest.starts_with('}') {
                return Ok(position);
            }
            let Some(after) = rest.strip_prefix('$') else {
                let stop = rest.find(if depth > 0 {
                    &['$', '}'][..]
                } else {
                    &['$'][..]
                });
                let plain = &rest[..stop.unwrap_or(rest.len())];
                out.push_str(plain);
                position += plain.len();
                continue;
            };
            if after.starts_with('$') {
                out.push('$');
                position += 2;
            } else if after.starts_with('{') {
                position = self.braced(position, depth, live, out)?;
            } else {
                let name = name(after);
                if name.is_empty() {
                    let bad =
                        self.bad(position, "a dollar sign that begins no variable".to_owned());
                    return Err(Bad {
                        help: Some("write $$ for a dollar sign itself".to_owned()),
                        ..bad
                    });
                }
                self.put(name, live, position, out)?;
                position += 1 + name.len();
            }
        }
        if depth > 0 {
            return Err(self.bad(self.text.len(), "a closing } is missing".to_owned()));
        }
        Ok(position)
    }

    /// `${…}` at `start`; returns the offset after it.
    fn braced(
        &mut self,
        start: usize,
        depth: usize,
        live: bool,
        out: &mut String,
    ) -> Result<usize, Bad> {
        let text = self.text;
        let body = start + 2;
        let name = name(&text[body..]);
        if name.is_empty() {
            return Err(self.bad(start, "${ is not followed by a variable's name".to_owned()));
        }
        let operator = body + name.len();
        let rest = &text[operator..];
        if rest.starts_with('}') {
            self.put(name, live, start, out)?;
            return Ok(operator + 1);
        }
        let (colon, sign) = match rest.strip_prefix(':') {
            Some(rest) => (true, rest.chars().next()),
            None => (false, rest.chars().next()),
        };
        let Some(sign @ ('-' | '?' | '+')) = sign else {
            let bad = self.bad(
                operator,
                format!("${{{name} is followed by none of }} :- - :? ? :+ +"),
            );
            return Err(bad);
        };
        let word = operator + usize::from(colon) + 1;
        let value = (self.lookup)(name).filter(|value| !colon || !value.is_empty());
        let wanted = live
            && match sign {
                '+' => value.is_some(),
                _ => value.is_none(),
            };
        let mut inner = String::new();
        let end = self.run(word, depth + 1, wanted, &mut inner)?;
        match (sign, value) {
            ('-' | '?', Some(value)) => self.add(&value, start, out)?,
            ('-', None) | ('+', Some(_)) => out.push_str(&inner),
            ('?', None) if live => {
                let why = if inner.is_empty() {
                    String::new()
                } else {
                    format!(": {inner}")
                };
                let bad = self.bad(
                    start,
                    format!("required variable {name} is missing a value{why}"),
                );
                return Err(Bad {
                    help: Some(format!("set {name} in the environment or in a .env file")),
                    ..bad
                });
            }
            _ => {}
        }
        Ok(end + 1)
    }

    fn put(&mut self, name: &str, live: bool, at: usize, out: &mut String) -> Result<(), Bad> {
        let value = self.value(name, live);
        self.add(&value, at, out)
    }

    /// A text in which a long value stands many times is stopped before it is made.
    fn add(&self, value: &str, at: usize, out: &mut String) -> Result<(), Bad> {
        if out.len() + value.len() > BYTES {
            return Err(self.bad(at, TOO_MUCH.to_owned()));
        }
        out.push_str(value);
        Ok(())
    }

    fn value(&mut self, name: &str, live: bool) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            if live {
                self.unset.insert(name.to_owned());
            }
            String::new()
        })
    }

    fn bad(&self, at: usize, message: String) -> Bad {
        Bad {
            at: at.min(self.text.len()),
            message: format!("invalid interpolation format: {message}"),
            help: None,
        }
    }
}

/// The variable's name that `text` begins with.
fn name(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        ""
    } else {
        &text[..end]
    }
}

/// Expands every value below `node`; problems point into the scalar where its text allows it.
pub fn tree(
    node: &mut Node,
    lookup: &dyn Fn(&str) -> Option<String>,
    sources: &Sources,
    unset: &mut BTreeSet<String>,
) -> Result<(), Vec<Problem>> {
    let mut walk = Walk {
        lookup,
        sources,
        unset,
        problems: Vec::new(),
        bytes: 0,
    };
    walk.node(node, &mut String::new());
    if walk.problems.is_empty() {
        Ok(())
    } else {
        Err(walk.problems)
    }
}

struct Walk<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    sources: &'a Sources,
    unset: &'a mut BTreeSet<String>,
    problems: Vec<Problem>,
    bytes: usize,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node, path: &mut String) {
        let at = node.at;
        let length = path.len();
        match &mut node.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let _ = write!(path, "[{index}]");
                    self.node(item, path);
                    path.truncate(length);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(&entry.key);
                    self.node(&mut entry.value, path);
                    path.truncate(length);
                }
            }
            Value::Scalar { text, .. } if text.contains('$') && self.bytes <= BYTES => {
                match expand(text, self.lookup, self.unset) {
                    Ok(new) => {
                        self.bytes += new.len();
                        *text = new;
                        if self.bytes > BYTES {
                            self.problems.push(Problem::new(at, path, TOO_MUCH));
                        }
                    }
                    Err(bad) => {
                        let at = within(at, text, bad.at, self.sources);
                        let mut problem = Problem::new(at, path, bad.message);
                        problem.help = bad.help;
                        self.problems.push(problem);
                    }
                }
            }
            Value::Null | Value::Scalar { .. } => {}
        }
    }
}

/// The place of byte `offset` of a scalar's text, if the file has that text as it is.
fn within(at: Place, text: &str, offset: usize, sources: &Sources) -> Place {
    let written = sources
        .0
        .get(at.source)
        .and_then(|s| s.text.get(at.start..at.end))
        .unwrap_or_default();
    match written.find(text) {
        Some(begin) => Place {
            start: at.start + begin + offset,
            end: at.start + begin + text.len(),
            ..at
        },
        None => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            "D" => Some("$A ${A}".to_owned()),
            "_x1" => Some("x".to_owned()),
            _ => None,
        }
    }

    fn run(text: &str) -> Result<String, Bad> {
        expand(text, &lookup, &mut BTreeSet::new())
    }

    #[test]
    fn every_form() {
        let cases = [
            ("plain", "plain"),
            ("$A", "a"),
            ("$A-b", "a-b"),
            ("x${A}y", "xay"),
            ("$_x1.", "x."),
            ("$NO|", "|"),
            ("$$A $${A} $$$A", "$A ${A} $a"),
            ("$D", "$A ${A}"),
            ("${A:-d} ${EMPTY:-d} ${NO:-d}", "a d d"),
            ("${A-d} ${EMPTY-d} ${NO-d}", "a  d"),
            ("${A:+d} ${EMPTY:+d} ${NO:+d}|", "d  |"),
            ("${A+d} ${EMPTY+d} ${NO+d}|", "d d |"),
            ("${A:?e} ${A?e} ${EMPTY?e}|", "a a |"),
            ("${NO:-}|${NO-}", "|"),
            ("${NO:-${A}}", "a"),
            ("${NO:-${NO2:-${NO3:-x}y}z}", "xyz"),
            ("${NO:-$A$$}", "a$"),
            ("${NO:-http://x:1/?q=1}", "http://x:1/?q=1"),
            ("${NO:-{\"k\":1}}", "{\"k\":1}"),
            ("${A:-${NO:?never asked}}", "a"),
            ("${NO:+${NO:?never asked}}|", "|"),
            ("한${A}글", "한a글"),
        ];
        for (text, wanted) in cases {
            assert_eq!(run(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let cases = [
            ("x $", 2, "begins no variable"),
            ("cost: $5", 6, "begins no variable"),
            ("a${", 1, "variable's name"),
            ("${A", 3, "none of"),
            ("${A!x}", 3, "none of"),
            ("${NO:-x", 7, "closing }"),
            (
                "ab${NO:?set me}",
                2,
                "required variable NO is missing a value: set me",
            ),
            (
                "${EMPTY:?}",
                0,
                "required variable EMPTY is missing a value",
            ),
            ("${NO?$A}", 0, "missing a value: a"),
        ];
        for (text, at, wanted) in cases {
            let bad = run(text).unwrap_err();
            assert_eq!(bad.at, at, "{text}");
            assert!(bad.message.contains(wanted), "{text}: {}", bad.message);
        }
        assert!(run(&"${A:-".repeat(100_000)).is_err());
    }

    #[test]
    fn unset_names_are_told_once_and_only_where_used() {
        let mut unset = BTreeSet::new();
        expand("$NO ${NO} ${A:-$X} ${Y:-d} ${NO2:-$Z}", &lookup, &mut unset).unwrap();
        assert_eq!(unset.into_iter().collect::<Vec<_>>(), ["NO", "Z"]);
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_stays(text in "[^$]{0,40}") {
            prop_assert_eq!(run(&text), Ok(text));
        }

        #[test]
        fn doubled_dollars_give_the_text_back(text in ".{0,40}") {
            prop_assert_eq!(run(&text.replace('$', "$$")), Ok(text));
        }

        #[test]
        fn anything_is_survived(text in "[$A{}:?+\\-a 한]{0,60}") {
            if let Err(bad) = run(&text) {
                prop_assert!(bad.at <= text.len() && text.is_char_boundary(bad.at));
            }
        }

        #[test]
        fn each_operator_is_its_truth_table(
            value in proptest::option::of("[a-z]{0,3}"),
            word in "[a-z]{1,3}",
            colon in any::<bool>(),
            sign in "[-+]",
        ) {
            let text = format!("<${{V{}{sign}{word}}}>", if colon { ":" } else { "" });
            let lookup = |_: &str| value.clone();
            let present = value.clone().filter(|v| !colon || !v.is_empty());
            let wanted = match (sign.as_str(), present) {
                ("-", Some(value)) => value,
                ("-", None) | ("+", Some(_)) => word,
                _ => String::new(),
            };
            prop_assert_eq!(expand(&text, &lookup, &mut BTreeSet::new()), Ok(format!("<{wanted}>")));
        }
    }
}
