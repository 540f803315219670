//! A YAML document as written: order, places in the file and tags are kept.

/// Bytes `start..end` of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into [`super::problem::Sources`].
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// What `!reset` and `!override` ask of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mark {
    /// No tag: merge as the key's rule says.
    #[default]
    Merge,
    /// `!reset`: take the key away.
    Reset,
    /// `!override`: replace what was there.
    Override,
}

/// One value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it was written; for an alias, where the anchor is.
    pub at: Place,
    /// Its tag.
    pub mark: Mark,
}

/// The four shapes. Numbers and booleans stay text: the key decides what they mean, so `"80"`
/// and `80`, `1.10` and `yes` arrive as the user wrote them.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; `plain` means written without quotes.
    Scalar {
        /// The text after YAML's own escapes.
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order written.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub at: Place,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A node without a tag.
    pub fn new(value: Value, at: Place) -> Self {
        Self {
            value,
            at,
            mark: Mark::Merge,
        }
    }

    /// Quoted text.
    pub fn of_text(text: impl Into<String>, at: Place) -> Self {
        Self::new(
            Value::Scalar {
                text: text.into(),
                plain: false,
            },
            at,
        )
    }

    /// The value of a key; absent and null are the same.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key)
            .map(|entry| &entry.value)
            .filter(|node| !node.is_null())
    }

    /// A key with its place, null or not.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Scalar { .. } | Value::List(_) => &[],
        }
    }

    /// The items of a sequence; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Null | Value::Scalar { .. } | Value::Map(_) => &[],
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The text of a key's scalar.
    pub fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::text)
    }

    /// True for null.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// True for a mapping.
    pub fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    /// True for a sequence.
    pub fn is_list(&self) -> bool {
        matches!(self.value, Value::List(_))
    }

    /// Sets a key, in place when it exists.
    pub fn set(&mut self, key: &str, value: Node) {
        let at = value.at;
        if let Value::Map(entries) = &mut self.value {
            match entries.iter_mut().find(|entry| entry.key == key) {
                Some(entry) => entry.value = value,
                None => entries.push(Entry {
                    key: key.to_owned(),
                    at,
                    value,
                }),
            }
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        let Value::Map(entries) = &mut self.value else {
            return None;
        };
        let position = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(position))
    }

    /// Nodes and bytes of text in it, for the limits.
    pub fn weight(&self) -> (usize, usize) {
        let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        match &self.value {
            Value::Null => (1, 0),
            Value::Scalar { text, .. } => (1, text.len()),
            Value::List(items) => items.iter().map(Node::weight).fold((1, 0), add),
            Value::Map(entries) => entries
                .iter()
                .map(|e| add((1, e.key.len()), e.value.weight()))
                .fold((1, 0), add),
        }
    }

    /// A word for error messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Equal in meaning: places and quotes do not count, nor does the order of keys.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Scalar { text: a, .. }, Value::Scalar { text: b, .. }) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|(x, y)| {
                        if x.key == y.key {
                            x.value == y.value
                        } else {
                            b.iter().any(|y| y.key == x.key && y.value == x.value)
                        }
                    })
            }
            (Value::Null | Value::Scalar { .. } | Value::List(_) | Value::Map(_), _) => false,
        }
    }
}
