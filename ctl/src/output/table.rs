//! Docker's tables: every column but the last is padded to its widest cell plus three
//! spaces and is at least ten wide. Wide characters count as two, so columns stay straight.

use unicode_width::UnicodeWidthStr;

const PADDING: usize = 3;
const MINIMUM: usize = 10;

/// Aligns lines whose cells are divided by tabs. Each line keeps its own end.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for line in &lines {
        for (cell, width) in line
            .iter()
            .zip(&mut widths)
            .take(line.len().saturating_sub(1))
        {
            *width = (*width).max((cell.width() + PADDING).max(MINIMUM));
        }
    }
    let mut aligned = String::with_capacity(text.len() * 2);
    for line in &lines {
        for (position, cell) in line.iter().enumerate() {
            aligned.push_str(cell);
            if position + 1 < line.len() {
                aligned.push_str(&" ".repeat(widths[position].saturating_sub(cell.width())));
            }
        }
        aligned.push('\n');
    }
    aligned
}

/// Cuts to `length` characters, the last of them `…`.
pub fn ellipsis(text: &str, length: usize) -> String {
    if text.width() <= length {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        cut.push(c);
        if cut.width() >= length {
            cut.pop();
            break;
        }
    }
    cut.push('…');
    cut
}

/// The first twelve characters of an id, without `sha256:`.
pub fn short_id(id: &str) -> &str {
    let bare = id.split_once(':').map_or(id, |(_, hex)| hex);
    bare.get(..12).unwrap_or(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_at_least_ten_wide_and_the_last_is_not_padded() {
        assert_eq!(
            align("A\tB\tC\n1\t22\t3\n"),
            "A         B         C\n1         22        3\n"
        );
        assert_eq!(
            align("NETWORK ID\tNAME\n0123456789ab\tch03\n"),
            "NETWORK ID     NAME\n0123456789ab   ch03\n"
        );
    }

    #[test]
    fn wide_characters_keep_columns_straight() {
        assert_eq!(
            align("NAME\tX\n日本語ネット\t1\nab\t2\n"),
            "NAME           X\n日本語ネット   1\nab             2\n"
        );
    }

    #[test]
    fn an_empty_cell_keeps_its_place() {
        assert_eq!(
            align("A\tB\tC\n\t\tx\n"),
            "A         B         C\n                    x\n"
        );
    }

    #[test]
    fn cutting() {
        let cases = [
            ("short", 20, "short"),
            ("abcdef", 4, "abc…"),
            ("日本語", 4, "日…"),
            ("abcd", 4, "abcd"),
        ];
        for (text, length, wanted) in cases {
            assert_eq!(ellipsis(text, length), wanted, "{text}");
        }
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("abc"), "abc");
    }
}
