//! The text that a template makes of a value. A member that is missing is no error, as with kubectl's default
//! (`--allow-missing-template-keys`).

use std::cmp::Ordering;

use serde_json::Value;

use super::parse::{Filter, Node, Operator, Path, Slice, Step, Template};

/// A template can't be applied to a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the template can't be applied: {0}")]
pub struct EvaluateError(String);

type Found<'a> = Result<Vec<&'a Value>, EvaluateError>;

impl Template {
    /// Returns the text.
    ///
    /// # Errors
    /// Fails where an index is out of bounds, or two values can't be compared.
    pub fn evaluate(&self, value: &Value) -> Result<String, EvaluateError> {
        let mut text = String::new();
        print(&self.0, value, &mut text)?;
        Ok(text)
    }

    /// Returns the first value that the template's path finds: what a printer column of a definition shows.
    pub fn first<'a>(&'a self, value: &'a Value) -> Option<&'a Value> {
        match &*self.0 {
            [Node::Path(path)] => find(path, value).ok()?.into_iter().next(),
            _ => None,
        }
    }
}

fn print(nodes: &[Node], value: &Value, text: &mut String) -> Result<(), EvaluateError> {
    for node in nodes {
        match node {
            Node::Text(literal) => text.push_str(literal),
            Node::Path(path) => {
                let found: Vec<String> = find(path, value)?.into_iter().map(shown).collect();
                text.push_str(&found.join(" "));
            }
            Node::Range(path, body) => {
                for item in find(path, value)? {
                    print(body, item, text)?;
                }
            }
        }
    }
    Ok(())
}

/// Returns a value as kubectl prints it: what is composed as Go's JSON.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => as_go(&value.to_string()),
        _ => value.to_string(),
    }
}

/// Returns JSON as Go writes it: what HTML would read is escaped (encoding/json, `HTMLEscape`).
pub fn as_go(json: &str) -> String {
    let escapes = ['<', '>', '&', '\u{2028}', '\u{2029}'];
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match escapes.contains(&letter) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => text.push(letter),
        }
    }
    text
}

fn find<'a>(path: &'a Path, value: &'a Value) -> Found<'a> {
    walk(path, vec![value])
}

fn walk<'a>(path: &'a Path, values: Vec<&'a Value>) -> Found<'a> {
    path.0.iter().try_fold(values, |values, step| {
        // What each path of a union finds comes together, as in client-go (`evalUnion`).
        if let Step::Union(paths) = step {
            let found = paths.iter().map(|path| walk(path, values.clone())).collect::<Result<Vec<_>, _>>()?;
            return Ok(found.into_iter().flatten().collect());
        }
        let found = values.into_iter().map(|value| take(step, value)).collect::<Result<Vec<_>, _>>()?;
        Ok(found.into_iter().flatten().collect())
    })
}

fn take<'a>(step: &'a Step, value: &'a Value) -> Found<'a> {
    match step {
        Step::Literal(literal) => Ok(vec![literal]),
        // What is null has nothing below it, and is no error.
        _ if value.is_null() => Ok(Vec::new()),
        Step::Field(name) => Ok(value.get(name).into_iter().collect()),
        Step::Wildcard => Ok(children(value)),
        Step::Recursive => Ok(descend(value)),
        Step::Slice(slice) => take_slice(*slice, value),
        Step::Union(_) => Ok(Vec::new()),
        Step::Filter(filter) => {
            let Value::Array(items) = value else {
                return Err(EvaluateError(format!("{} is no list, and can't be filtered", shown(value))));
            };
            let mut kept = Vec::new();
            for item in items {
                if holds(filter, item)? {
                    kept.push(item);
                }
            }
            Ok(kept)
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

/// Returns a value that has others below it, and all those below it that have some.
fn descend(value: &Value) -> Vec<&Value> {
    let (mut found, mut rest) = (Vec::new(), vec![value]);
    while let Some(value) = rest.pop() {
        let below = children(value);
        if !below.is_empty() {
            found.push(value);
            rest.extend(below.into_iter().rev());
        }
    }
    found
}

/// Takes items of a list, with the bounds of client-go (`evalArray`).
fn take_slice(Slice { start, end, step, is_index }: Slice, value: &Value) -> Found<'_> {
    let Value::Array(items) = value else {
        return Err(EvaluateError(format!("{} is no list, and has no items", shown(value))));
    };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let from_end = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let start = from_end(start.unwrap_or(0));
    let end = if is_index { start.saturating_add(1) } else { from_end(end.unwrap_or(length)) };
    let out = |index: i64| EvaluateError(format!("array index out of bounds: index {index}, length {length}"));
    if start == end {
        return Ok(Vec::new());
    }
    if !(0..length).contains(&start) {
        return Err(out(start));
    }
    if end > length || end < 0 {
        return Err(out(end.saturating_sub(1)));
    }
    if start > end {
        return Err(EvaluateError(format!("starting index {start} is greater than ending index {end}")));
    }
    let step = usize::try_from(step.unwrap_or(1)).ok().filter(|step| *step > 0);
    let step = step.ok_or_else(|| EvaluateError("step must be > 0".to_owned()))?;
    let range = usize::try_from(start).unwrap_or_default()..usize::try_from(end).unwrap_or_default();
    Ok(items.get(range).unwrap_or_default().iter().step_by(step).collect())
}

fn holds(filter: &Filter, item: &Value) -> Result<bool, EvaluateError> {
    let (left, operator, right) = match filter {
        Filter::Exists(path) => return Ok(!find(path, item)?.is_empty()),
        Filter::Compare(left, operator, right) => (find(left, item)?, *operator, find(right, item)?),
    };
    let (left, right) = match (&*left, &*right) {
        ([], _) | (_, []) => return Ok(false),
        ([left], [right]) => (*left, *right),
        _ => return Err(EvaluateError("can only compare one element at a time".to_owned())),
    };
    let order = compare(left, right)
        .ok_or_else(|| EvaluateError(format!("{} and {} can't be compared", shown(left), shown(right))))?;
    Ok(match operator {
        Operator::Equal => order.is_eq(),
        Operator::NotEqual => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
    })
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => match (left.as_i128(), right.as_i128()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evaluate(template: &str, value: &Value) -> Result<String, String> {
        let template: Template = template.parse().map_err(|error: super::super::ParseError| error.to_string())?;
        template.evaluate(value).map_err(|error| error.to_string())
    }

    fn value() -> Value {
        json!({
            "kind": "List",
            "items": [
                {"name": "a", "labels": {"x.y/z": "dotted"}, "n": 1, "ready": true, "c": [{"t": "Ready", "s": "True"}]},
                {"name": "b", "n": 22, "ready": false, "c": [{"t": "Ready", "s": "False"}], "html": {"a": "<&>"}},
                {"name": "c", "z": null},
            ],
        })
    }

    /// The output of kubectl for the same templates (client-go's own tests and documentation).
    #[test]
    fn templates_print_what_kubectl_prints() {
        for (template, text) in [
            ("{.kind}", "List"),
            ("kind is {.kind}", "kind is List"),
            ("{.items[*].name}", "a b c"),
            ("{.items[*]['name', 'n']}", "a b c 1 22"),
            ("{.items[*]['html.a','z']}", "<&> null"),
            ("{.items[0].name}", "a"),
            ("{.items[-1].name}", "c"),
            ("{.items[0:2].name}", "a b"),
            ("{.items[::2].name}", "a c"),
            ("{.items[1:].name}", "b c"),
            ("{.items[0,2].name}", "a c"),
            ("{.items[0]['name']}", "a"),
            ("{.items[?(@.name==\"b\")].n}", "22"),
            ("{.items[?(@.name=='b')].n}", "22"),
            ("{.items[?(@.n>1)].name}", "b"),
            ("{.items[?(@.n!=1)].name}", "b"),
            ("{.items[?(@.ready)].name}", "a b"),
            ("{.items[?(@.ready==true)].name}", "a"),
            ("{.items[*].c[?(@.t==\"Ready\")].s}", "True False"),
            ("{range .items[*]}{.name}={.n}{\"\\n\"}{end}", "a=1\nb=22\nc=\n"),
            ("{range .items[*]}[{range .c[*]}{.t}{end}]{end}", "[Ready][Ready][]"),
            ("{.items[0].labels.x\\.y/z}", "dotted"),
            ("{.items[0].labels['x\\.y/z']}", "dotted"),
            ("{.items[0].labels}", r#"{"x.y/z":"dotted"}"#),
            ("{.items[1].html}", r#"{"a":"\u003c\u0026\u003e"}"#),
            ("{..t}", "Ready Ready"),
            ("{$.kind}{@.kind}", "ListList"),
            ("{range .items[*]}{.name};", "a;b;c;"),
            ("{.missing}", ""),
            ("{.items[*].missing.below}", ""),
            ("{true}{1}{'x'}", "true1x"),
            ("no braces", "no braces"),
            ("{.items[3:3]}", ""),
        ] {
            assert_eq!(evaluate(template, &value()).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_has_no_answer_is_an_error() {
        for (template, problem) in [
            ("{.items[3]}", "index 3, length 3"),
            ("{.items[-4]}", "index -1, length 3"),
            ("{.items[2:1]}", "greater"),
            ("{.items[0:3:0]}", "step must be > 0"),
            ("{.kind[0]}", "no list"),
            ("{.kind[?(@.a)]}", "no list"),
            ("{.items[?(@.name==1)]}", "can't be compared"),
            ("{.items[?(@.c[*].t==\"Ready\")]}", ""),
        ] {
            match evaluate(template, &value()) {
                Err(error) => assert!(error.contains(problem) && !problem.is_empty(), "{template}: {error}"),
                Ok(text) => assert!(problem.is_empty(), "{template}: {text}"),
            }
        }
    }
}
