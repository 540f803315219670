//! A tree as YAML again, for `stack config`.

use std::fmt::Write as _;

use super::node::{Node, Value};

/// Block style, two spaces a level; text that could be taken for something else is quoted.
pub fn yaml(root: &Node) -> String {
    let mut out = String::new();
    match &root.value {
        Value::Map(entries) if !entries.is_empty() => block(root, 0, &mut out),
        Value::List(items) if !items.is_empty() => block(root, 0, &mut out),
        Value::Map(_) | Value::List(_) | Value::Null | Value::Scalar { .. } => {
            inline(root, &mut out);
            out.push('\n');
        }
    }
    out
}

fn block(node: &Node, depth: usize, out: &mut String) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                indent(depth, out);
                word(&entry.key, false, out);
                out.push(':');
                after(&entry.value, depth, out);
            }
        }
        Value::List(items) => {
            for item in items {
                indent(depth, out);
                out.push('-');
                after(item, depth, out);
            }
        }
        Value::Null | Value::Scalar { .. } => {}
    }
}

fn after(node: &Node, depth: usize, out: &mut String) {
    let full = !node.entries().is_empty() || !node.items().is_empty();
    if full {
        out.push('\n');
        block(node, depth + 1, out);
    } else {
        out.push(' ');
        inline(node, out);
        out.push('\n');
    }
}

fn inline(node: &Node, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Map(_) => out.push_str("{}"),
        Value::List(_) => out.push_str("[]"),
        Value::Scalar { text, plain } => word(text, *plain, out),
    }
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// `typed` text was written without quotes: it may stay a number or a boolean.
fn word(text: &str, typed: bool, out: &mut String) {
    let safe = text.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_'))
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || "/._-@$+=,() ".contains(c))
        && !text.ends_with(' ');
    let looks_typed = text.parse::<f64>().is_ok()
        || matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null"
        )
        || text.starts_with("0x")
        || text.starts_with("0o");
    if safe && (typed || !looks_typed) && !matches!(text, "null" | "Null" | "NULL") {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::node::{Entry, Place};
    use crate::compose::read::read;
    use proptest::prelude::*;

    #[test]
    fn readable() {
        let text = "services: {web: {image: 'a:1', command: [a, 'b: c', '7'], ports: ['80:80'], environment: {X: 1, Y: , Z: ''}, labels: {}}}";
        insta::assert_snapshot!(yaml(&read(text, 0).unwrap().root), @r#"
        services:
          web:
            image: "a:1"
            command:
              - a
              - "b: c"
              - "7"
            ports:
              - "80:80"
            environment:
              X: 1
              "Y": null
              Z: ""
            labels: {}
        "#);
    }

    fn any_node() -> impl Strategy<Value = Node> {
        let at = Place {
            source: 0,
            start: 0,
            end: 0,
        };
        let leaf = prop_oneof![
            Just(Node::new(Value::Null, at)),
            "(?s).{0,12}".prop_map(move |t| Node::of_text(t, at)),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            let pairs =
                proptest::collection::btree_map("[a-z~#:0-9 \"']{1,6}", inner.clone(), 0..5);
            prop_oneof![
                proptest::collection::vec(inner, 0..5)
                    .prop_map(move |v| Node::new(Value::List(v), at)),
                pairs.prop_map(move |map| {
                    let entries = map.into_iter().map(|(key, value)| Entry { key, at, value });
                    Node::new(Value::Map(entries.collect()), at)
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(node in any_node()) {
            let text = yaml(&node);
            match read(&text, 0) {
                Ok(document) => prop_assert_eq!(document.root, node),
                Err(_) => prop_assert!(node.is_null(), "{}", text),
            }
        }
    }
}
