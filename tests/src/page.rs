//! What stands on a page of the documentation: text, and blocks between fences.

/// The text outside of fenced blocks, line by line with numbers from 1, and the blocks.
///
/// # Panics
/// When a block is not closed.
pub fn take_apart(page: &str) -> (Vec<(usize, &str)>, Vec<Block>) {
    let (mut prose, mut blocks) = (Vec::new(), Vec::<Block>::new());
    let mut open = None;
    for (number, line) in page.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                open = Some(Block {
                    language: language.to_owned(),
                    line: number + 2,
                    text: String::new(),
                });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => prose.push((number + 1, line)),
        }
    }
    assert!(open.is_none(), "a block is not closed");
    (prose, blocks)
}

/// A block between fences.
#[derive(Debug)]
pub struct Block {
    pub language: String,
    /// The first line between the fences, counted from 1.
    pub line: usize,
    pub text: String,
}

/// One command of a console block.
#[derive(Debug)]
pub struct Step {
    pub line: usize,
    /// Whose prompt it stands behind.
    pub host: String,
    pub command: String,
    /// The lines shown below it.
    pub answer: Vec<String>,
}

impl Block {
    /// The commands of a console block: what follows `HOST$ `, `HOST# ` or `$ `; a backslash joins
    /// lines.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::<Step>::new();
        let mut joins = false;
        for (number, line) in self.text.lines().enumerate() {
            let prompt = line.split_once(['$', '#']).filter(|(host, rest)| {
                rest.starts_with(' ')
                    && host.chars().all(|c| c.is_ascii_alphanumeric())
                    && !line.starts_with('#')
            });
            let part = match (prompt, steps.last_mut()) {
                (None, Some(step)) if !joins => {
                    step.answer.push(line.to_owned());
                    continue;
                }
                (None, _) if joins => line.trim(),
                (None, _) => continue,
                (Some((host, rest)), _) => {
                    steps.push(Step {
                        line: self.line + number,
                        host: host.to_owned(),
                        command: String::new(),
                        answer: Vec::new(),
                    });
                    rest.trim()
                }
            };
            joins = part.ends_with('\\');
            if let Some(step) = steps.last_mut() {
                step.command.push_str(part.trim_end_matches('\\'));
            }
        }
        steps
    }
}
