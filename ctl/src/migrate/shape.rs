//! Pieces of a compose file.

use serde_json::Value as Json;

use crate::compose::node::{Entry, Node, Place, Value};

/// What is written here comes from no file.
const NOWHERE: Place = Place {
    source: 0,
    start: 0,
    end: 0,
};

/// A mapping that leaves out what is empty.
#[derive(Default)]
pub struct Map(Vec<Entry>);

impl Map {
    pub fn put(&mut self, key: &str, value: Option<Node>) -> &mut Self {
        let empty = |node: &Node| match &node.value {
            Value::Null => true,
            Value::Scalar { .. } => false,
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
        };
        if let Some(value) = value.filter(|node| !empty(node)) {
            self.keep(key, value);
        }
        self
    }

    /// Also what is empty.
    pub fn keep(&mut self, key: &str, value: Node) -> &mut Self {
        self.0.push(Entry {
            key: key.to_owned(),
            at: NOWHERE,
            value,
        });
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn done(self) -> Node {
        Node::new(Value::Map(self.0), NOWHERE)
    }
}

/// Text as it is: what compose would fill in is escaped.
pub fn quoted(text: &str) -> Node {
    Node::of_text(text.replace('$', "$$"), NOWHERE)
}

/// A number or a boolean.
pub fn plain(value: impl ToString) -> Node {
    let value = Value::Scalar {
        text: value.to_string(),
        plain: true,
    };
    Node::new(value, NOWHERE)
}

pub fn null() -> Node {
    Node::new(Value::Null, NOWHERE)
}

pub fn items(items: impl IntoIterator<Item = Node>) -> Node {
    Node::new(Value::List(items.into_iter().collect()), NOWHERE)
}

/// Text, unless it is empty.
pub fn word(value: &Json) -> Option<Node> {
    value.as_str().filter(|text| !text.is_empty()).map(quoted)
}

pub fn words(value: &Json) -> Option<Node> {
    let list = value.as_array()?.iter().filter_map(Json::as_str);
    Some(items(list.map(quoted)))
}

/// A number that is not 0.
pub fn number(value: &Json) -> Option<Node> {
    let zero = value.as_f64().is_none_or(|number| number == 0.0);
    (!zero).then(|| plain(value))
}

/// Written if true.
pub fn flag(value: &Json) -> Option<Node> {
    (value == &Json::Bool(true)).then(|| plain(true))
}

/// A mapping of texts.
pub fn pairs(value: &Json) -> Option<Node> {
    let mut map = Map::default();
    for (key, value) in value.as_object()? {
        map.keep(key, quoted(value.as_str().unwrap_or_default()));
    }
    Some(map.done())
}

/// Nanoseconds in the largest unit that has no fraction.
pub fn duration(value: &Json) -> Option<Node> {
    let nanos = value.as_u64()?;
    let units = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    if nanos == 0 {
        return Some(quoted("0s"));
    }
    let (size, unit) = units.into_iter().find(|(size, _)| nanos % size == 0)?;
    Some(quoted(&format!("{}{unit}", nanos / size)))
}

/// Bytes in the largest unit that has no fraction.
pub fn size(value: &Json) -> Option<Node> {
    let bytes = value.as_u64().filter(|bytes| *bytes != 0)?;
    let units = [(1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k"), (1, "b")];
    let (size, unit) = units.into_iter().find(|(size, _)| bytes % size == 0)?;
    Some(quoted(&format!("{}{unit}", bytes / size)))
}

/// Billionths of a processor.
pub fn cpus(value: &Json) -> Option<Node> {
    let nanos = value.as_u64().filter(|nanos| *nanos != 0)?;
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    Some(quoted(text))
}
