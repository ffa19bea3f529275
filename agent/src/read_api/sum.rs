//! The sum of the values that processors have. Pure.

use serde_json::{Map, Number, Value};

/// Adds decoded values of one type: their numbers, at any depth. What is no number is there if all have the same, and
/// otherwise null. A sum beyond 64 bits is text.
pub(super) fn sum(mut values: Vec<Value>) -> Value {
    match values.first() {
        None => Value::Null,
        Some(Value::Number(_)) => add(&values).unwrap_or(Value::Null),
        Some(Value::Array(first)) => {
            let places = 0..first.len();
            Value::Array(
                places.map(|place| sum(values.iter_mut().map(|value| take(value.get_mut(place))).collect())).collect(),
            )
        }
        Some(Value::Object(first)) => {
            let names: Vec<String> = first.keys().cloned().collect();
            let field = |name: String| {
                let added = sum(values.iter_mut().map(|value| take(value.get_mut(&name))).collect());
                (name, added)
            };
            Value::Object(names.into_iter().map(field).collect::<Map<_, _>>())
        }
        Some(first) => {
            let is_same = values.iter().all(|value| value == first);
            if is_same { values.swap_remove(0) } else { Value::Null }
        }
    }
}

fn take(value: Option<&mut Value>) -> Value {
    value.map(Value::take).unwrap_or_default()
}

fn add(values: &[Value]) -> Option<Value> {
    let whole = |value: &Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    match values.iter().map(whole).sum::<Option<i128>>() {
        Some(total) => Some(match (u64::try_from(total), i64::try_from(total)) {
            (Ok(total), _) => total.into(),
            (_, Ok(total)) => total.into(),
            _ => total.to_string().into(),
        }),
        None => {
            let total = values.iter().map(Value::as_f64).sum::<Option<f64>>()?;
            Number::from_f64(total).map(Value::Number)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_added_and_other_things_compared() {
        let values = [
            json!({"count": 1, "bytes": [1, -2], "name": "eth0", "state": "UP", "big": u64::MAX}),
            json!({"count": 2, "bytes": [3, -4], "name": "eth0", "state": "DOWN", "big": u64::MAX}),
        ];
        let big = (2 * u128::from(u64::MAX)).to_string();
        let expected = json!({"count": 3, "bytes": [4, -6], "name": "eth0", "state": null, "big": big});
        assert_eq!(sum(values.to_vec()), expected);
        assert_eq!(sum(vec![json!(0.5), json!(1.25)]), json!(1.75));
        assert_eq!(sum(vec![json!(1), json!("1")]), json!(null));
        assert_eq!(sum(Vec::new()), json!(null));
    }

    proptest! {
        #[test]
        fn a_sum_is_exact(numbers in prop::collection::vec(any::<i64>(), 1..9)) {
            let total: i128 = numbers.iter().copied().map(i128::from).sum();
            let expected = i64::try_from(total).map_or_else(
                |_| u64::try_from(total).map_or_else(|_| json!(total.to_string()), |total| json!(total)),
                |total| json!(total),
            );
            prop_assert_eq!(sum(numbers.into_iter().map(Value::from).collect()), expected);
        }
    }
}
