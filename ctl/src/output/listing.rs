//! Lists of things: a table, JSON lines, a template, or only the ids.

use serde_json::{Map, Value};

use super::table::align;
use crate::template::{Template, TemplateError};

/// How one kind of thing is listed.
pub struct Listing {
    /// The template of the plain table, without the word `table`.
    pub columns: &'static str,
    /// Every field a template may name, with its heading.
    pub headings: &'static [(&'static str, &'static str)],
    /// What `--quiet` prints.
    pub quiet: &'static str,
}

impl Listing {
    /// Renders rows, each an object with the fields of `headings`.
    ///
    /// `format` is the `--format` flag: nothing or `table`, `table TEMPLATE`, `json`, or a template.
    pub fn render(
        &self,
        rows: &[Value],
        format: Option<&str>,
        quiet: bool,
    ) -> Result<String, TemplateError> {
        let format = format.unwrap_or_default().trim();
        let (template, table) = match format {
            "" | "table" if quiet => (self.quiet, false),
            "" | "table" => (self.columns, true),
            "json" | "{{json .}}" => return Ok(Self::json_lines(rows)),
            other => match other.strip_prefix("table ") {
                Some(rest) if quiet => {
                    Template::new(rest)?;
                    (self.quiet, false)
                }
                Some(rest) => (rest.trim(), true),
                None => (other, false),
            },
        };
        let parsed = Template::new(template)?;
        let mut text = String::new();
        if table {
            let headings: Map<String, Value> = self
                .headings
                .iter()
                .map(|(field, heading)| ((*field).to_owned(), Value::from(*heading)))
                .collect();
            text.push_str(&parsed.render_headings(&Value::Object(headings))?);
            text.push('\n');
        }
        for row in rows {
            text.push_str(&parsed.render(row)?);
            text.push('\n');
        }
        Ok(if table { align(&text) } else { text })
    }

    /// One object a line, the fields in alphabetical order as Go writes them.
    fn json_lines(rows: &[Value]) -> String {
        let mut text = String::new();
        for row in rows {
            text.push_str(&sorted(row).to_string());
            text.push('\n');
        }
        text
    }
}

fn sorted(row: &Value) -> Value {
    let Value::Object(map) = row else {
        return row.clone();
    };
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(name, _)| name.as_str());
    Value::Object(
        entries
            .into_iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    )
}

/// Renders one thing for `--format`: `json` or a template; ends with a newline.
pub fn render_one(value: &Value, format: &str) -> Result<String, TemplateError> {
    match format.trim() {
        "json" | "{{json .}}" => Ok(format!("{value}\n")),
        template => Ok(format!("{}\n", Template::new(template)?.render(value)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NETWORKS: Listing = Listing {
        columns: "{{.ID}}\t{{.Name}}",
        headings: &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Labels", "LABELS")],
        quiet: "{{.ID}}",
    };

    #[test]
    fn every_form() {
        let rows = [
            json!({"ID": "0123456789ab", "Name": "ch03", "Labels": "a=1,b=2"}),
            json!({"ID": "ba9876543210", "Name": "网络", "Labels": ""}),
        ];
        let cases = [
            (
                None,
                false,
                "NETWORK ID     NAME\n0123456789ab   ch03\nba9876543210   网络\n",
            ),
            (
                Some("table"),
                false,
                "NETWORK ID     NAME\n0123456789ab   ch03\nba9876543210   网络\n",
            ),
            (None, true, "0123456789ab\nba9876543210\n"),
            (Some("{{.Name}}"), false, "ch03\n网络\n"),
            (Some("{{.Name}}"), true, "ch03\n网络\n"),
            (
                Some(r"table {{upper .Name}}\t{{.ID}}"),
                false,
                "NAME      NETWORK ID\nCH03      0123456789ab\n网络      ba9876543210\n",
            ),
            (Some("{{.Label \"b\"}}"), false, "2\n\n"),
            (
                Some("json"),
                false,
                "{\"ID\":\"0123456789ab\",\"Labels\":\"a=1,b=2\",\"Name\":\"ch03\"}\n{\"ID\":\"ba9876543210\",\"Labels\":\"\",\"Name\":\"网络\"}\n",
            ),
        ];
        for (format, quiet, wanted) in cases {
            assert_eq!(
                NETWORKS.render(&rows, format, quiet).unwrap(),
                wanted,
                "{format:?} {quiet}"
            );
        }
    }

    #[test]
    fn a_wrong_field_names_the_right_ones() {
        let error = NETWORKS
            .render(&[json!({"ID": "x", "Name": "y"})], Some("{{.Nmae}}"), false)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "template error: .Nmae: there is no field \"Nmae\"; there are ID, Name"
        );
    }
}
