//! [`Template`]: a template as a tree.

use std::{
    iter::Peekable,
    str::{Chars, FromStr},
};

use serde_json::{Number, Value};

/// The depth of ranges and filters in one another, at most. kubectl's is that of its stack.
const MAX_DEPTH: usize = 32;

/// A template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(pub(super) Vec<Node>);

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Text that is printed as it is.
    Text(String),
    /// The values that a path finds.
    Path(Path),
    /// A template that is printed for each value that a path finds.
    Range(Path, Vec<Self>),
}

/// The steps from a value to others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Path(pub(super) Vec<Step>);

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// A member of an object.
    Field(String),
    /// All members of an object, or items of a list.
    Wildcard,
    /// A value and all below it.
    Recursive,
    /// Items of a list.
    Slice(Slice),
    /// The values that several paths find.
    Union(Vec<Path>),
    /// The items of a list for which a filter holds.
    Filter(Box<Filter>),
    /// A value that stands in the template.
    Literal(Value),
}

/// Items of a list: `start:end:step`, or `[start]`, which is one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
    pub(super) step: Option<i64>,
    pub(super) is_index: bool,
}

/// A condition on an item.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    /// A path finds something.
    Exists(Path),
    /// Two values compare.
    Compare(Path, Operator, Path),
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The text is no template: the template, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the template {0:?} can't be read: {1}")]
pub struct ParseError(String, String);

impl FromStr for Template {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = |problem: String| ParseError(text.to_owned(), problem);
        let mut parser = Parser { rest: text.chars().peekable(), depth: 0 };
        let nodes = parser.nodes(false).map_err(wrong)?;
        Ok(Self(nodes))
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    depth: usize,
}

/// The content of braces.
enum Action {
    Node(Node),
    Range(Path),
    End,
    Nothing,
}

impl Parser<'_> {
    fn nodes(&mut self, in_range: bool) -> Result<Vec<Node>, String> {
        let (mut nodes, mut text) = (Vec::new(), String::new());
        while let Some(character) = self.rest.next() {
            if character != '{' {
                text.push(character);
                continue;
            }
            if !text.is_empty() {
                nodes.push(Node::Text(std::mem::take(&mut text)));
            }
            match action(&self.braces()?)? {
                Action::Node(node) => nodes.push(node),
                Action::Range(path) => {
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return Err(format!("more than {MAX_DEPTH} ranges are in one another"));
                    }
                    nodes.push(Node::Range(path, self.nodes(true)?));
                    self.depth -= 1;
                }
                Action::End if in_range => return Ok(nodes),
                Action::End => return Err("there is an end without a range".to_owned()),
                Action::Nothing => {}
            }
        }
        // As in client-go, the end of the template ends its ranges.
        if !text.is_empty() {
            nodes.push(Node::Text(text));
        }
        Ok(nodes)
    }

    /// Returns the text up to the brace that closes, which no quotes hold.
    fn braces(&mut self) -> Result<String, String> {
        let (mut text, mut quote) = (String::new(), None);
        while let Some(character) = self.rest.next() {
            match (quote, character) {
                (None, '}') => return Ok(text.trim().to_owned()),
                (None, '"' | '\'') => quote = Some(character),
                (Some(open), _) if open == character => quote = None,
                (_, '\\') => {
                    text.push(character);
                    text.extend(self.rest.next());
                    continue;
                }
                _ => {}
            }
            text.push(character);
        }
        Err("a brace is not closed".to_owned())
    }
}

fn action(text: &str) -> Result<Action, String> {
    let words = text.split_once(char::is_whitespace);
    match (text, words) {
        ("", _) => Ok(Action::Nothing),
        ("end", _) => Ok(Action::End),
        (_, Some(("range", path))) => Ok(Action::Range(path_of(path.trim(), 0)?)),
        _ if text.starts_with(['"', '\'']) => quoted(text).map(|text| Action::Node(Node::Text(text))),
        _ => Ok(Action::Node(Node::Path(path_of(text, 0)?))),
    }
}

/// Reads quoted text with the escapes of Go, as `"\n"`.
fn quoted(text: &str) -> Result<String, String> {
    let mut rest = text.chars();
    let quote = rest.next();
    let mut read = String::new();
    while let Some(character) = rest.next() {
        match character {
            _ if Some(character) == quote => {
                return if rest.as_str().is_empty() { Ok(read) } else { Err(format!("{text} goes on after its end")) };
            }
            '\\' => read.push(match rest.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(other) => other,
                None => break,
            }),
            _ => read.push(character),
        }
    }
    Err(format!("{text} has no closing quote"))
}

/// Reads a path, or a value that stands for itself.
fn path_of(text: &str, depth: usize) -> Result<Path, String> {
    if depth > MAX_DEPTH {
        return Err(format!("more than {MAX_DEPTH} filters are in one another"));
    }
    if let Some(literal) = literal(text)? {
        return Ok(Path(vec![Step::Literal(literal)]));
    }
    let mut rest = text;
    let mut steps = Vec::new();
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        match first {
            '$' | '@' => rest = after,
            '.' if after.starts_with('.') => {
                steps.push(Step::Recursive);
                // `..name` is a field below; `..[` goes on with a bracket.
                rest = if after[1..].starts_with('[') { &after[1..] } else { after };
            }
            '.' => {
                let (name, more) = field(after);
                match name.as_str() {
                    "" if more.is_empty() || more.starts_with('[') => {}
                    "" => return Err(format!("a name is missing before {more:?}")),
                    "*" => steps.push(Step::Wildcard),
                    _ => steps.push(Step::Field(name)),
                }
                rest = more;
            }
            '[' => {
                let (inside, more) = bracket(after)?;
                steps.push(in_brackets(inside.trim(), depth)?);
                rest = more;
            }
            _ if first.is_whitespace() => rest = after,
            _ => return Err(format!("{rest:?} begins no step of a path: a path begins with . or [")),
        }
    }
    Ok(Path(steps))
}

fn literal(text: &str) -> Result<Option<Value>, String> {
    if text.starts_with(['"', '\'']) {
        return quoted(text).map(|text| Some(Value::String(text)));
    }
    Ok(match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+')) => {
            let number = text.trim_start_matches('+');
            let number =
                number.parse().ok().map(Number::from_i128).or_else(|| Some(Number::from_f64(number.parse().ok()?)));
            Some(Value::Number(number.flatten().ok_or_else(|| format!("{text} is no number"))?))
        }
        _ => None,
    })
}

/// Reads a name up to a character that ends it. A backslash takes the next one as it is.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, next)| next)),
            '.' | '[' | ']' | '(' | ')' | '$' | '@' | '{' | '}' | '=' | '<' | '>' | '!' => return (name, &text[at..]),
            _ if character.is_whitespace() => return (name, &text[at..]),
            _ => name.push(character),
        }
    }
    (name, "")
}

/// Returns the content of brackets, and what is behind them.
fn bracket(text: &str) -> Result<(&str, &str), String> {
    let (mut depth, mut quote, mut escaped) = (1, None, false);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if std::mem::take(&mut escaped) => {}
            (_, '\\') => escaped = true,
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Ok((&text[..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
    }
    Err("a bracket is not closed".to_owned())
}

fn in_brackets(text: &str, depth: usize) -> Result<Step, String> {
    if let Some(filter) = text.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        return Ok(Step::Filter(Box::new(filter_of(filter.trim(), depth + 1)?)));
    }
    let parts = split(text, ',');
    if parts.len() > 1 {
        let paths = parts.iter().map(|part| Ok(Path(vec![in_brackets(part.trim(), depth)?])));
        return paths.collect::<Result<_, String>>().map(Step::Union);
    }
    match text {
        "*" => Ok(Step::Wildcard),
        // As in client-go, what is quoted is a path itself: ['a.b'] is .a.b, and ['a\.b'] is one name.
        _ if text.starts_with('\'') && text.ends_with('\'') && text.len() > 2 => {
            path_of(&format!(".{}", &text[1..text.len() - 1]), depth + 1).map(|path| Step::Union(vec![path]))
        }
        _ => slice(text).map(Step::Slice),
    }
}

fn slice(text: &str) -> Result<Slice, String> {
    let number = |part: Option<&&str>| match part.map(|part| part.trim()) {
        None | Some("") => Ok(None),
        Some(part) => {
            part.parse().map(Some).map_err(|_| format!("[{text}] is no index, no name in quotes and no filter"))
        }
    };
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 || text.is_empty() {
        return Err(format!("[{text}] is no index, no name in quotes and no filter"));
    }
    let [start, end, step] = [0, 1, 2].map(|at| number(parts.get(at)));
    Ok(Slice { start: start?, end: end?, step: step?, is_index: parts.len() == 1 })
}

/// Splits text where a character is in no quotes, brackets or parentheses.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0_i32, None);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth -= 1,
            (None, _) if character == separator && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn filter_of(text: &str, depth: usize) -> Result<Filter, String> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let mut quote = None;
    let mut brackets = 0_i32;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, '[') => brackets += 1,
            (None, ']') => brackets -= 1,
            (None, '!' | '<' | '>' | '=') if brackets == 0 => {
                let found = OPERATORS.iter().find(|(sign, _)| text[at..].starts_with(sign));
                let (sign, operator) = found.ok_or_else(|| format!("{:?} is no comparison", &text[at..]))?;
                let (left, right) = (text[..at].trim(), text[at + sign.len()..].trim());
                return Ok(Filter::Compare(path_of(left, depth)?, *operator, path_of(right, depth)?));
            }
            _ => {}
        }
    }
    Ok(Filter::Exists(path_of(text, depth)?))
}

#[cfg(test)]
mod tests;
