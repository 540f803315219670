//! From the text of one file to a [`Node`]: anchors, aliases, merge keys and tags are resolved
//! here, within limits on size, depth and expansion.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use super::node::{Entry, Mark, Node, Place, Value};
use super::problem::{Problem, Problems, Warning};

/// The largest file that is read, in bytes.
pub const LARGEST: usize = 4 << 20;
/// Values in one file, those that aliases stand for included.
const NODES: usize = 200_000;
/// Bytes of text in one file, those that aliases stand for included.
const BYTES: usize = 16 << 20;
/// Levels of nesting.
const DEPTH: usize = 64;

/// A document and the remarks about it.
#[derive(Debug)]
pub struct Document {
    /// The document's value.
    pub root: Node,
    /// Repeated keys and the like.
    pub warnings: Vec<Warning>,
}

/// Reads one document.
pub fn read(text: &str, source: usize) -> Result<Document, Problems> {
    if text.len() > LARGEST {
        return Err(Problem::bare(format!(
            "the file is too large: {} bytes where {LARGEST} are the limit",
            text.len()
        ))
        .into());
    }
    let mut reader = Reader {
        source,
        text,
        stack: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        bytes: 0,
        root: None,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let mut documents = 0;
    for event in Parser::new(StrInput::new(text)) {
        match event {
            Ok((Event::DocumentStart(..), span)) => {
                documents += 1;
                if documents > 1 {
                    return Err(Problem::new(
                        reader.place(span),
                        "",
                        "a second document begins here, and a file holds one",
                    )
                    .help("put it into a file of its own and give both with -c")
                    .into());
                }
            }
            Ok((event, span)) => reader.event(event, span)?,
            Err(error) => {
                let start = reader.offset(*error.marker());
                let at = Place {
                    source,
                    start,
                    end: start,
                };
                let said = match error.info() {
                    deep if deep.contains("recursion limit") => {
                        "too many levels of nesting".to_owned()
                    }
                    other => format!("this is not YAML: {other}"),
                };
                return Err(Problem::new(at, "", said).into());
            }
        }
    }
    let root = reader.root.take().filter(|root| !root.is_null());
    Problems(std::mem::take(&mut reader.problems)).check()?;
    match root {
        Some(root) => Ok(Document {
            root,
            warnings: reader.warnings,
        }),
        None => Err(Problem::bare("the file is empty").into()),
    }
}

/// A collection that is still open.
struct Open {
    at: Place,
    mark: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(Vec<Entry>, Option<(String, Place)>),
}

struct Reader<'a> {
    source: usize,
    text: &'a str,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    bytes: usize,
    root: Option<Node>,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Reader<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = self.place(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    _ => Value::Scalar {
                        text: text.into_owned(),
                        plain,
                    },
                };
                let mut node = Node::new(value, at);
                node.mark = mark(tag.as_deref(), at)?;
                if node.mark != Mark::Merge
                    && node.text().is_some_and(|t| t == "null" || t.is_empty())
                {
                    node.value = Value::Null;
                }
                self.spend(&node)?;
                self.finish(node, anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Problem::new(
                        at,
                        "",
                        "this alias stands for something it is part of",
                    ));
                };
                let (nodes, bytes) = node.weight();
                self.room(nodes, bytes, at)?;
                let node = node.clone();
                self.nodes += nodes;
                self.bytes += bytes;
                self.finish(node, 0)
            }
            Event::SequenceStart(_, anchor, tag) => self.open(
                at,
                mark(tag.as_deref(), at)?,
                anchor,
                Content::List(Vec::new()),
            ),
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Map(Vec::new(), None);
                self.open(at, mark(tag.as_deref(), at)?, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at),
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        at: Place,
        mark: Mark,
        anchor: usize,
        content: Content,
    ) -> Result<(), Problem> {
        if self.stack.len() >= DEPTH {
            return Err(Problem::new(
                at,
                "",
                format!("more than {DEPTH} levels of nesting"),
            ));
        }
        self.room(1, 0, at)?;
        self.nodes += 1;
        self.stack.push(Open {
            at,
            mark,
            anchor,
            content,
        });
        Ok(())
    }

    fn close(&mut self, end: Place) -> Result<(), Problem> {
        let Some(open) = self.stack.pop() else {
            return Ok(());
        };
        let at = Place {
            end: end.end.max(open.at.start),
            ..open.at
        };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map(entries, _) => Value::Map(self.mapping(entries)),
        };
        let node = Node {
            value,
            at,
            mark: open.mark,
        };
        self.finish(node, open.anchor)
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if anchor != 0 {
            let (nodes, bytes) = node.weight();
            self.room(nodes, bytes, node.at)?;
            self.nodes += nodes;
            self.bytes += bytes;
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map(entries, pending)) => match pending.take() {
                Some((key, at)) => entries.push(Entry {
                    key,
                    at,
                    value: node,
                }),
                None => match &node.value {
                    Value::Scalar { text, .. } => *pending = Some((text.clone(), node.at)),
                    Value::Null => *pending = Some(("null".to_owned(), node.at)),
                    Value::List(_) | Value::Map(_) => {
                        let what = format!("a key must be a word, not {}", node.kind());
                        return Err(Problem::new(node.at, "", what));
                    }
                },
            },
        }
        Ok(())
    }

    /// Settles repeated keys and merge keys of one mapping.
    fn mapping(&mut self, written: Vec<Entry>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(written.len());
        let mut index: HashMap<String, usize> = HashMap::new();
        let mut merges = Vec::new();
        for entry in written {
            if entry.key == "<<" {
                merges.push(entry);
                continue;
            }
            let Some(first) = index.get(&entry.key).map(|i| &entries[*i]) else {
                index.insert(entry.key.clone(), entries.len());
                entries.push(entry);
                continue;
            };
            if first.value == entry.value {
                self.warnings.push(Warning {
                    at: Some(entry.at),
                    message: format!(
                        "the key \"{}\" is written twice with the same value",
                        entry.key
                    ),
                });
            } else {
                let message = format!(
                    "the key \"{}\" is written twice with different values",
                    entry.key
                );
                self.problems.push(
                    Problem::new(entry.at, "", message)
                        .and(first.at)
                        .help("keep one of the two"),
                );
            }
        }
        for merge in merges {
            let maps = match merge.value.value {
                Value::Map(_) => vec![merge.value],
                Value::List(items) if items.iter().all(Node::is_map) => items,
                _ => {
                    let message = "a merge key takes a mapping or a list of mappings";
                    self.problems.push(Problem::new(merge.at, "", message));
                    continue;
                }
            };
            for map in maps {
                let Value::Map(more) = map.value else {
                    continue;
                };
                for entry in more {
                    if !index.contains_key(&entry.key) {
                        index.insert(entry.key.clone(), entries.len());
                        entries.push(entry);
                    }
                }
            }
        }
        entries
    }

    fn spend(&mut self, node: &Node) -> Result<(), Problem> {
        let (nodes, bytes) = node.weight();
        self.room(nodes, bytes, node.at)?;
        self.nodes += nodes;
        self.bytes += bytes;
        Ok(())
    }

    fn room(&self, nodes: usize, bytes: usize, at: Place) -> Result<(), Problem> {
        if self.nodes + nodes > NODES || self.bytes + bytes > BYTES {
            return Err(Problem::new(
                at,
                "",
                format!(
                    "the file grows beyond {NODES} values or {BYTES} bytes here, aliases written out"
                ),
            ));
        }
        Ok(())
    }

    fn place(&self, span: Span) -> Place {
        Place {
            source: self.source,
            start: self.offset(span.start),
            end: self.offset(span.end),
        }
    }

    fn offset(&self, marker: Marker) -> usize {
        let mut offset = marker.byte_offset().unwrap_or(0).min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

fn mark(tag: Option<&Tag>, at: Place) -> Result<Mark, Problem> {
    match tag {
        Some(tag) if tag.is_custom() => match tag.suffix() {
            "reset" => Ok(Mark::Reset),
            "override" => Ok(Mark::Override),
            other => Err(
                Problem::new(at, "", format!("the tag !{other} is not known"))
                    .help("there are !reset and !override"),
            ),
        },
        Some(_) | None => Ok(Mark::Merge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        match read(text, 0) {
            Ok(document) => panic!("read: {document:?}"),
            Err(problems) => problems.0[0].message.clone(),
        }
    }

    #[test]
    fn places_are_those_of_the_file() {
        let text = "a: 1\n한글: [x, \"y z\"]\n";
        let root = read(text, 0).unwrap().root;
        let list = &root.entry("한글").unwrap().value;
        let item = &list.items()[1];
        assert_eq!(&text[item.at.start..item.at.end], "\"y z\"");
        assert_eq!(item.text(), Some("y z"));
        let key = root.entry("한글").unwrap().at;
        assert_eq!(&text[key.start..key.end], "한글");
    }

    #[test]
    fn merge_keys_fill_gaps_and_the_first_wins() {
        let text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], a: 0}\n";
        let root = read(text, 0).unwrap().root;
        let z = root.get("z").unwrap();
        assert_eq!(z.text_of("a"), Some("0"));
        assert_eq!(z.text_of("b"), Some("1"));
        assert_eq!(z.text_of("c"), Some("2"));
    }

    #[test]
    fn a_repeated_key_is_accepted_when_equal() {
        let same = read("a: {n: [x, y]}\na:\n  n:\n  - x\n  - y\n", 0).unwrap();
        assert_eq!(same.warnings.len(), 1);
        assert!(refusal("a: [x]\na: [y]\n").contains("different values"));
    }

    #[test]
    fn numbers_stay_as_written_and_null_is_null() {
        let root = read("a: 1.10\nb: 0o17\nc: ~\nd: '~'\ne:\n", 0)
            .unwrap()
            .root;
        assert_eq!(root.text_of("a"), Some("1.10"));
        assert_eq!(root.text_of("b"), Some("0o17"));
        assert!(root.get("c").is_none() && root.get("e").is_none());
        assert_eq!(root.text_of("d"), Some("~"));
    }

    #[test]
    fn tags() {
        let root = read("a: !reset null\nb: !override [x]\nc: !reset []\n", 0)
            .unwrap()
            .root;
        assert_eq!(root.entry("a").unwrap().value.mark, Mark::Reset);
        assert_eq!(root.entry("b").unwrap().value.mark, Mark::Override);
        assert_eq!(root.entry("c").unwrap().value.mark, Mark::Reset);
        assert!(refusal("a: !x 1").contains("!x"));
    }

    #[test]
    fn bad_input_is_refused_in_bounded_time() {
        let bomb = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            format!("{text}a{n}: &a{n} [*a{m}, *a{m}]\n", m = n - 1)
        });
        let long = format!(
            "a: &a {}\nb: [{}]\n",
            "x".repeat(1 << 20),
            "*a, ".repeat(100)
        );
        let cases = [
            (String::new(), "empty"),
            ("# only a comment\n".to_owned(), "empty"),
            ("a: [1, 2".to_owned(), "not YAML"),
            ("a: b: c".to_owned(), "not YAML"),
            (bomb, "grows beyond"),
            (long, "grows beyond"),
            ("a: &a [*a]\n".to_owned(), "part of"),
            ("a: *b\n".to_owned(), "not YAML"),
            ("[".repeat(100_000), "nesting"),
            ("a: 1\n---\nb: 2\n".to_owned(), "second document"),
            ("x".repeat(LARGEST + 1), "too large"),
            ("? [a]\n: b\n".to_owned(), "a key must be"),
            ("a: {<<: 3}\n".to_owned(), "merge key"),
        ];
        for (text, wanted) in cases {
            let start: String = text.chars().take(40).collect();
            let said = refusal(&text);
            assert!(said.contains(wanted), "{start}: {said}");
        }
    }
}
