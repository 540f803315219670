//! Draws lines that change: in place on a terminal, each new text once in a pipe.

use std::fmt::Write as _;

use super::view::Line;
use crate::output::table::ellipsis;

const BAR: usize = 50;

/// What was drawn so far.
pub struct Screen {
    terminal: bool,
    shown: Vec<(String, String)>,
}

impl Screen {
    /// Nothing drawn yet.
    pub fn new(terminal: bool) -> Self {
        Self {
            terminal,
            shown: Vec::new(),
        }
    }

    /// The text to write for these lines; a line replaces the one of the same id.
    pub fn draw(&mut self, lines: &[Line]) -> String {
        let width = crate::terminal::size().map_or(120, |(_, columns)| usize::from(columns));
        self.draw_in(lines, width)
    }

    fn draw_in(&mut self, lines: &[Line], width: usize) -> String {
        let mut text = String::new();
        for line in lines {
            if !self.terminal && line.bar.is_some() {
                continue;
            }
            let content = if self.terminal {
                whole(line, width)
            } else {
                plain(line)
            };
            let place = self.shown.iter().position(|(id, _)| *id == line.id);
            if place.is_some_and(|p| self.shown[p].1 == content) {
                continue;
            }
            match place {
                Some(place) if self.terminal => {
                    let up = self.shown.len() - place;
                    // Up to the line, clear it, write, and down again (ECMA-48: CUU, EL, CUD).
                    let _ = write!(text, "\x1b[{up}A\r\x1b[2K{content}\r\x1b[{up}B");
                }
                _ => {
                    let _ = writeln!(text, "{content}");
                }
            }
            match place {
                Some(place) => self.shown[place].1 = content,
                None => self.shown.push((line.id.clone(), content)),
            }
        }
        text
    }
}

fn plain(line: &Line) -> String {
    if line.id.is_empty() {
        line.text.clone()
    } else {
        format!("{}: {}", line.id, line.text)
    }
}

/// With its bar, as far as the width allows: a line that wraps could not be redrawn.
fn whole(line: &Line, width: usize) -> String {
    let text = plain(line);
    let Some((current, total)) = line.bar else {
        return ellipsis(&text, width.saturating_sub(1));
    };
    let room = width.saturating_sub(text.len() + 5).min(BAR);
    if room < 10 {
        return ellipsis(text.trim_end(), width.saturating_sub(1));
    }
    let full = (room * current.min(total) as usize) / (total.max(1) as usize);
    format!("{text} [{}>{}]", "=".repeat(full), " ".repeat(room - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, text: &str, bar: Option<(u64, u64)>) -> Line {
        Line {
            id: id.to_owned(),
            text: text.to_owned(),
            bar,
        }
    }

    #[test]
    fn a_pipe_gets_each_new_text_once_and_no_bars() {
        let mut screen = Screen::new(false);
        let lines = [
            line("overall progress", "0 out of 1 tasks", None),
            line("1/1", "preparing", Some((6, 9))),
        ];
        assert_eq!(
            screen.draw_in(&lines, 80),
            "overall progress: 0 out of 1 tasks\n"
        );
        assert_eq!(screen.draw_in(&lines, 80), "");
        assert_eq!(
            screen.draw_in(&[line("overall progress", "1 out of 1 tasks", None)], 80),
            "overall progress: 1 out of 1 tasks\n"
        );
    }

    #[test]
    fn a_terminal_redraws_in_place() {
        let mut screen = Screen::new(true);
        let bar = "=".repeat(50);
        screen.draw_in(
            &[
                line("overall progress", "0 out of 1 tasks", None),
                line("1/1", " ", None),
            ],
            120,
        );
        assert_eq!(
            screen.draw_in(&[line("1/1", "running  ", Some((9, 9)))], 120),
            format!("\x1b[1A\r\x1b[2K1/1: running   [{bar}>]\r\x1b[1B")
        );
        assert_eq!(
            screen.draw_in(&[line("overall progress", "1 out of 1 tasks", None)], 120),
            "\x1b[2A\r\x1b[2Koverall progress: 1 out of 1 tasks\r\x1b[2B"
        );
    }

    #[test]
    fn a_line_never_wraps() {
        let long = line("1/1", &"x".repeat(200), None);
        let bar = line("1/1", "preparing", Some((6, 9)));
        for width in [1, 10, 20, 25, 40, 60, 80, 200] {
            for line in [&long, &bar] {
                let drawn = whole(line, width);
                assert!(drawn.chars().count() <= width.max(1), "{width}: {drawn}");
            }
        }
    }
}
