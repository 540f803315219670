//! From text to a tree of nodes.

use serde_json::Value;

use super::{
    TemplateError,
    lex::{Action, Piece, Token, fail, pieces},
};

/// A template that has been read.
#[derive(Debug, Clone)]
pub struct Template {
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Print(Pipe),
    If {
        branches: Vec<(Pipe, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        on: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// `$a, $b := command | command`.
#[derive(Debug, Clone)]
pub(super) struct Pipe {
    pub names: Vec<String>,
    pub assigns: bool,
    pub commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone)]
pub(super) enum Operand {
    /// `.A.B`, or `.` when empty.
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Literal(Value),
    Nested(Box<Pipe>, Vec<String>),
}

impl Template {
    pub(super) fn parse(source: &str) -> Result<Self, TemplateError> {
        let pieces = pieces(source)?;
        if depth(&pieces) > DEEPEST {
            return fail(format!(
                "more than {DEEPEST} levels of parentheses or of {{{{if}}}}, {{{{range}}}} and {{{{with}}}}"
            ));
        }
        let mut pieces = pieces.into_iter();
        let (nodes, end) = block(&mut pieces, None)?;
        match end {
            End::Source => Ok(Self { nodes }),
            End::Word { word, at, .. } => fail(format!(
                "{{{{{word}}}}} without {{{{if}}}}, {{{{range}}}} or {{{{with}}}} at character {at}"
            )),
        }
    }
}

/// How far parts may lie in one another: reading and running go down a level at a time, and the
/// stack ends. Real templates have three or four.
const DEEPEST: usize = 64;

/// Blocks count once, and parentheses inside of an action.
fn depth(pieces: &[Piece]) -> usize {
    let (mut blocks, mut deepest) = (0_usize, 0);
    for piece in pieces {
        let Piece::Action(action) = piece else {
            continue;
        };
        match action.tokens.first() {
            Some(Token::Word(word)) if matches!(word.as_str(), "if" | "range" | "with") => {
                blocks += 1;
            }
            // `else if` and `else with` are read as a block in the block.
            Some(Token::Word(word)) if word == "else" && action.tokens.len() > 1 => blocks += 1,
            Some(Token::Word(word)) if word == "end" => blocks = blocks.saturating_sub(1),
            _ => {}
        }
        let mut open = 0_usize;
        deepest = deepest.max(blocks);
        for token in &action.tokens {
            match token {
                Token::Open => open += 1,
                Token::Close => open = open.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(blocks + open);
        }
    }
    deepest
}

enum End {
    Source,
    /// `end` or `else`, with what follows `else` (`if …` or `with …`).
    Word {
        word: &'static str,
        at: usize,
        rest: Vec<Token>,
    },
}

fn block(
    pieces: &mut impl Iterator<Item = Piece>,
    inside: Option<&'static str>,
) -> Result<(Vec<Node>, End), TemplateError> {
    let mut nodes = Vec::new();
    loop {
        let action = match pieces.next() {
            None => {
                return match inside {
                    None => Ok((nodes, End::Source)),
                    Some(word) => fail(format!("{{{{{word}}}}} has no {{{{end}}}}")),
                };
            }
            Some(Piece::Text(text)) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Some(Piece::Action(action)) => action,
        };
        let Action { mut tokens, at } = action;
        let word = match tokens.first() {
            None => return fail(format!("an action at character {at} is empty")),
            Some(Token::Word(word)) => word.clone(),
            Some(_) => String::new(),
        };
        match word.as_str() {
            "end" => {
                return Ok((
                    nodes,
                    End::Word {
                        word: "end",
                        at,
                        rest: Vec::new(),
                    },
                ));
            }
            "else" => {
                tokens.remove(0);
                return Ok((
                    nodes,
                    End::Word {
                        word: "else",
                        at,
                        rest: tokens,
                    },
                ));
            }
            "if" => {
                tokens.remove(0);
                nodes.push(if_node(tokens, pieces)?);
            }
            "range" => {
                tokens.remove(0);
                let over = whole_pipe(&tokens)?;
                let (body, otherwise) = body_and_else(pieces, "range")?;
                nodes.push(Node::Range {
                    over,
                    body,
                    otherwise,
                });
            }
            "with" => {
                tokens.remove(0);
                let on = whole_pipe(&tokens)?;
                let (body, otherwise) = body_and_else(pieces, "with")?;
                nodes.push(Node::With {
                    on,
                    body,
                    otherwise,
                });
            }
            "break" => nodes.push(Node::Break),
            "continue" => nodes.push(Node::Continue),
            "define" | "template" | "block" => {
                return fail(format!("{{{{{word}}}}} is not supported"));
            }
            _ => nodes.push(Node::Print(whole_pipe(&tokens)?)),
        }
    }
}

fn if_node(
    condition: Vec<Token>,
    pieces: &mut impl Iterator<Item = Piece>,
) -> Result<Node, TemplateError> {
    let mut branches = Vec::new();
    let mut condition = condition;
    loop {
        let pipe = whole_pipe(&condition)?;
        let (body, end) = block(pieces, Some("if"))?;
        branches.push((pipe, body));
        match end {
            End::Source | End::Word { word: "end", .. } => {
                return Ok(Node::If {
                    branches,
                    otherwise: Vec::new(),
                });
            }
            End::Word { rest, .. } => match rest.first() {
                None => {
                    let (otherwise, _) = block(pieces, Some("if"))?;
                    return Ok(Node::If {
                        branches,
                        otherwise,
                    });
                }
                Some(Token::Word(word)) if word == "if" => condition = rest[1..].to_vec(),
                Some(_) => return fail("only {{else}} or {{else if …}} can follow {{if}}"),
            },
        }
    }
}

fn body_and_else(
    pieces: &mut impl Iterator<Item = Piece>,
    word: &'static str,
) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
    let (body, end) = block(pieces, Some(word))?;
    match end {
        End::Word {
            word: "else", rest, ..
        } if rest.is_empty() => {
            let (otherwise, _) = block(pieces, Some(word))?;
            Ok((body, otherwise))
        }
        End::Word { word: "else", .. } => fail(format!(
            "{{{{else …}}}} with a condition cannot follow {{{{{word}}}}}"
        )),
        End::Word { .. } | End::Source => Ok((body, Vec::new())),
    }
}

fn whole_pipe(tokens: &[Token]) -> Result<Pipe, TemplateError> {
    let mut position = 0;
    let pipe = pipe(tokens, &mut position)?;
    if position < tokens.len() {
        return fail("a closing parenthesis too many");
    }
    Ok(pipe)
}

fn pipe(tokens: &[Token], position: &mut usize) -> Result<Pipe, TemplateError> {
    let mut names = Vec::new();
    let mut assigns = false;
    match &tokens[*position..] {
        [
            Token::Variable(a),
            Token::Comma,
            Token::Variable(b),
            Token::Declare,
            ..,
        ] => {
            names = vec![a.clone(), b.clone()];
            *position += 4;
        }
        [Token::Variable(a), Token::Declare, ..] => {
            names = vec![a.clone()];
            *position += 2;
        }
        [Token::Variable(a), Token::Assign, ..] => {
            names = vec![a.clone()];
            assigns = true;
            *position += 2;
        }
        _ => {}
    }
    let mut commands = Vec::new();
    let mut operands = Vec::new();
    loop {
        match tokens.get(*position) {
            None | Some(Token::Close) => break,
            Some(Token::Bar) => {
                *position += 1;
                if operands.is_empty() {
                    return fail("nothing stands before a \"|\"");
                }
                commands.push(std::mem::take(&mut operands));
            }
            Some(_) => operands.push(operand(tokens, position)?),
        }
    }
    if operands.is_empty() {
        return fail("a value is missing");
    }
    commands.push(operands);
    Ok(Pipe {
        names,
        assigns,
        commands,
    })
}

fn operand(tokens: &[Token], position: &mut usize) -> Result<Operand, TemplateError> {
    let token = &tokens[*position];
    *position += 1;
    match token {
        Token::Dot => Ok(Operand::Field(Vec::new())),
        Token::Field { name, .. } => {
            let mut path = vec![name.clone()];
            path.extend(glued_fields(tokens, position));
            Ok(Operand::Field(path))
        }
        Token::Variable(name) => Ok(Operand::Variable(
            name.clone(),
            glued_fields(tokens, position),
        )),
        Token::Word(word) => Ok(match word.as_str() {
            "true" => Operand::Literal(Value::Bool(true)),
            "false" => Operand::Literal(Value::Bool(false)),
            "nil" => Operand::Literal(Value::Null),
            _ => Operand::Function(word.clone()),
        }),
        Token::Literal(value) => Ok(Operand::Literal(value.clone())),
        Token::Open => {
            let inner = pipe(tokens, position)?;
            if tokens.get(*position) != Some(&Token::Close) {
                return fail("a parenthesis is not closed");
            }
            *position += 1;
            Ok(Operand::Nested(
                Box::new(inner),
                glued_fields(tokens, position),
            ))
        }
        Token::Close | Token::Bar => fail("a value is missing"),
        Token::Comma => fail("a \",\" stands where none belongs"),
        Token::Declare | Token::Assign => {
            fail("a \"=\" stands where none belongs (a variable begins with $)")
        }
    }
}

fn glued_fields(tokens: &[Token], position: &mut usize) -> Vec<String> {
    let mut path = Vec::new();
    while let Some(Token::Field { name, glued: true }) = tokens.get(*position) {
        path.push(name.clone());
        *position += 1;
    }
    path
}
