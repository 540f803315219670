//! The table of every key of the Compose Specification: the forms it may take and what becomes
//! of it here. Checking, merging and docs/compose.md all read this one table.
//!
//! In paths `*` stands for a name the user chooses and `[]` for an item of a list.

mod deploy;
mod service;
#[cfg(test)]
mod specification_tests;
mod top;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

/// A form that a value may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text; any single value will do.
    Text,
    /// A whole number.
    Int,
    /// A whole number that is not negative.
    Count,
    /// A number, with a fraction or without.
    Number,
    /// true or false.
    Bool,
    /// `1m30s`.
    Duration,
    /// `512m`.
    Size,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A mapping of texts, or a list of `KEY=VALUE`.
    Pairs,
    /// A mapping with the keys of the table.
    Map,
    /// A list whose items are in the table under `[]`.
    List,
    /// Anything; not looked into.
    Any,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Does what it says.
    Honoured,
    /// Has no meaning in a cluster: one warning that names it, and it is ignored.
    Warned,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Segments divided by dots.
    pub path: &'static str,
    /// The forms it may take.
    pub forms: &'static [Form],
    /// What becomes of it.
    pub fate: Fate,
    /// Why it is ignored, or what is worth knowing.
    pub note: &'static str,
}

const fn honoured(path: &'static str, forms: &'static [Form]) -> Key {
    noted(path, forms, "")
}

const fn noted(path: &'static str, forms: &'static [Form], note: &'static str) -> Key {
    Key {
        path,
        forms,
        fate: Fate::Honoured,
        note,
    }
}

const fn warned(path: &'static str, note: &'static str) -> Key {
    Key {
        path,
        forms: &[Form::Any],
        fate: Fate::Warned,
        note,
    }
}

/// All rows, in the order of docs/compose.md.
pub fn all() -> impl Iterator<Item = &'static Key> {
    [top::KEYS, service::KEYS, deploy::KEYS]
        .into_iter()
        .flatten()
}

/// The table as a tree.
#[derive(Debug, Default)]
pub struct Branch {
    /// The row; the root has none.
    pub key: Option<&'static Key>,
    /// What may be below.
    pub children: BTreeMap<&'static str, Branch>,
}

impl Branch {
    /// The branch for a key or an item.
    pub fn child(&self, name: &str) -> Option<&Branch> {
        self.children.get(name).or_else(|| self.children.get("*"))
    }

    /// True when the row allows this form.
    pub fn allows(&self, form: Form) -> bool {
        self.key.is_some_and(|key| key.forms.contains(&form))
    }
}

/// The tree of all rows.
pub static TREE: LazyLock<Branch> = LazyLock::new(|| {
    let mut root = Branch::default();
    for key in all() {
        let mut branch = &mut root;
        for segment in key.path.split('.') {
            branch = branch.children.entry(segment).or_default();
        }
        branch.key = Some(key);
    }
    root
});

/// The matrix of docs/compose.md.
pub fn matrix() -> String {
    let mut text = String::new();
    let mut section = "";
    for key in all() {
        let head = key.path.split('.').next().unwrap_or_default();
        let head = match head {
            "services" if key.path.starts_with("services.*.deploy") => "services.*.deploy",
            "services" | "networks" | "volumes" | "configs" | "secrets" => head,
            _ => "top level",
        };
        if head != section {
            section = head;
            let _ = write!(
                text,
                "\n### {head}\n\n| key | form | what happens |\n|---|---|---|\n"
            );
        }
        let forms: Vec<String> = key.forms.iter().map(|form| word(*form)).collect();
        let fate = match (key.fate, key.note) {
            (Fate::Honoured, "") => "honoured".to_owned(),
            (Fate::Honoured, note) => format!("honoured: {note}"),
            (Fate::Warned, note) => format!("**warned**, ignored: {note}"),
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {fate} |",
            key.path.replace(".[]", "[]"),
            forms.join(" or ")
        );
    }
    text
}

/// How a form is called in documents and messages.
pub fn word(form: Form) -> String {
    match form {
        Form::Text => "a text".to_owned(),
        Form::Int | Form::Count => "a whole number".to_owned(),
        Form::Number => "a number".to_owned(),
        Form::Bool => "true or false".to_owned(),
        Form::Duration => "a duration (1m30s)".to_owned(),
        Form::Size => "a size (512m)".to_owned(),
        Form::OneOf(words) => words.join(", "),
        Form::Texts => "a list of texts".to_owned(),
        Form::Pairs => "a mapping or a list of KEY=VALUE".to_owned(),
        Form::Map => "a mapping".to_owned(),
        Form::List => "a list".to_owned(),
        Form::Any => "anything".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_is_sound() {
        let mut seen = BTreeSet::new();
        for key in all() {
            assert!(seen.insert(key.path), "{} is there twice", key.path);
            assert!(!key.forms.is_empty(), "{} has no form", key.path);
            assert!(
                key.fate == Fate::Honoured || !key.note.is_empty(),
                "{} is ignored without a reason",
                key.path
            );
            if let Some((parent, last)) = key.path.rsplit_once('.') {
                let parent = all()
                    .find(|k| k.path == parent)
                    .unwrap_or_else(|| panic!("{} has no parent", key.path));
                let form = if last == "[]" { Form::List } else { Form::Map };
                assert!(
                    parent.forms.contains(&form),
                    "{} cannot hold {}",
                    parent.path,
                    key.path
                );
            }
        }
    }

    /// `UPDATE_DOCS=1` writes the matrix into the page.
    #[test]
    fn the_page_has_the_matrix_of_the_code() {
        const BEGIN: &str = "<!-- matrix: written by ctl/src/compose/keys -->\n";
        const END: &str = "<!-- end of matrix -->";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compose.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (inside, after) = rest.split_once(END).unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", matrix())).unwrap();
            return;
        }
        assert_eq!(
            inside,
            matrix(),
            "run this test with UPDATE_DOCS=1 to write the page"
        );
    }
}
