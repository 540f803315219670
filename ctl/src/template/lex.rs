//! From text to pieces and their tokens.

use serde_json::{Number, Value};

use super::TemplateError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Open,
    Close,
    Bar,
    Comma,
    Declare,
    Assign,
    Dot,
    /// `.Name`; `glued` when no space stands before it.
    Field {
        name: String,
        glued: bool,
    },
    Variable(String),
    Word(String),
    Literal(Value),
}

/// One `{{…}}` and the text before it.
pub(super) struct Action {
    pub tokens: Vec<Token>,
    /// Character where `{{` stands, counted from 1.
    pub at: usize,
}

pub(super) enum Piece {
    Text(String),
    Action(Action),
}

pub(super) fn pieces(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let characters: Vec<char> = source.chars().collect();
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut position = 0;
    while position < characters.len() {
        if !starts(&characters, position, "{{") {
            text.push(characters[position]);
            position += 1;
            continue;
        }
        let at = position + 1;
        position += 2;
        if starts(&characters, position, "-")
            && characters
                .get(position + 1)
                .is_some_and(|c| c.is_whitespace())
        {
            text.truncate(text.trim_end().len());
            position += 1;
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        while characters.get(position).is_some_and(|c| c.is_whitespace()) {
            position += 1;
        }
        let comment = starts(&characters, position, "/*");
        let tokens = if comment {
            while position < characters.len() && !starts(&characters, position, "*/") {
                position += 1;
            }
            position += 2;
            while characters.get(position).is_some_and(|c| c.is_whitespace()) {
                position += 1;
            }
            Vec::new()
        } else {
            tokens(&characters, &mut position, at)?
        };
        let trims = starts(&characters, position, "-}}");
        if trims {
            position += 1;
        }
        if !starts(&characters, position, "}}") {
            return fail(format!(
                "\"{{{{\" at character {at} is never closed by \"}}}}\""
            ));
        }
        position += 2;
        if trims {
            while characters.get(position).is_some_and(|c| c.is_whitespace()) {
                position += 1;
            }
        }
        if !comment {
            pieces.push(Piece::Action(Action { tokens, at }));
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

pub(super) fn fail<T>(text: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(text.into()))
}

fn starts(characters: &[char], position: usize, wanted: &str) -> bool {
    wanted
        .chars()
        .enumerate()
        .all(|(offset, c)| characters.get(position + offset) == Some(&c))
}

/// Reads up to `}}` or ` -}}`, which stay unread.
fn tokens(
    characters: &[char],
    position: &mut usize,
    at: usize,
) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut spaced = true;
    loop {
        let Some(&c) = characters.get(*position) else {
            return fail(format!(
                "\"{{{{\" at character {at} is never closed by \"}}}}\""
            ));
        };
        if starts(characters, *position, "}}") || (spaced && starts(characters, *position, "-}}")) {
            return Ok(tokens);
        }
        if c.is_whitespace() {
            spaced = true;
            *position += 1;
            continue;
        }
        let glued = !spaced;
        spaced = false;
        let token = match c {
            '(' => single(Token::Open, position),
            ')' => single(Token::Close, position),
            '|' => single(Token::Bar, position),
            ',' => single(Token::Comma, position),
            ':' if starts(characters, *position, ":=") => {
                *position += 2;
                Token::Declare
            }
            '=' => single(Token::Assign, position),
            '"' | '`' | '\'' => quoted(characters, position)?,
            '$' => {
                *position += 1;
                Token::Variable(word(characters, position))
            }
            '.' if characters
                .get(*position + 1)
                .is_some_and(|c| is_word(*c) && !c.is_ascii_digit()) =>
            {
                *position += 1;
                Token::Field {
                    name: word(characters, position),
                    glued,
                }
            }
            '.' if !characters
                .get(*position + 1)
                .is_some_and(char::is_ascii_digit) =>
            {
                single(Token::Dot, position)
            }
            c if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => {
                number(characters, position)?
            }
            c if is_word(c) => Token::Word(word(characters, position)),
            c => return fail(format!("unexpected {c:?} at character {}", *position + 1)),
        };
        tokens.push(token);
    }
}

fn single(token: Token, position: &mut usize) -> Token {
    *position += 1;
    token
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(characters: &[char], position: &mut usize) -> String {
    let begin = *position;
    while characters.get(*position).is_some_and(|c| is_word(*c)) {
        *position += 1;
    }
    characters[begin..*position].iter().collect()
}

fn number(characters: &[char], position: &mut usize) -> Result<Token, TemplateError> {
    let begin = *position;
    while characters.get(*position).is_some_and(|c| {
        c.is_ascii_alphanumeric()
            || matches!(c, '.' | '_')
            || (*position == begin && matches!(c, '-' | '+'))
    }) {
        *position += 1;
    }
    let text: String = characters[begin..*position]
        .iter()
        .filter(|c| **c != '_')
        .collect();
    if let Ok(whole) = text.parse::<i64>() {
        return Ok(Token::Literal(Value::from(whole)));
    }
    match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(number) => Ok(Token::Literal(Value::Number(number))),
        None => fail(format!(
            "{text:?} at character {} is not a number",
            begin + 1
        )),
    }
}

fn quoted(characters: &[char], position: &mut usize) -> Result<Token, TemplateError> {
    let begin = *position;
    let quote = characters[begin];
    let mut text = String::new();
    *position += 1;
    loop {
        let Some(&c) = characters.get(*position) else {
            return fail(format!(
                "a string that begins at character {} is not closed",
                begin + 1
            ));
        };
        *position += 1;
        if c == quote {
            break;
        }
        if c != '\\' || quote == '`' {
            text.push(c);
            continue;
        }
        let escaped = characters.get(*position).copied().unwrap_or('\\');
        *position += 1;
        text.push(match escaped {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            other => other,
        });
    }
    if quote == '\'' {
        // A character is a number, as in Go.
        return Ok(Token::Literal(Value::from(
            text.chars().next().map_or(0, |c| c as u32),
        )));
    }
    Ok(Token::Literal(Value::String(text)))
}
