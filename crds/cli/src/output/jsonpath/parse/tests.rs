use super::*;

#[test]
fn what_is_no_template_is_refused_with_what_is_wrong() {
    for (text, problem) in [
        ("{", "not closed"),
        ("{.a", "not closed"),
        ("{.a[0}", "bracket is not closed"),
        ("{.a[x]}", "no index"),
        ("{.a[1:2:3:4]}", "no index"),
        ("{name}", "begins no step"),
        ("{end}", "without a range"),
        ("{\"a}", "not closed"),
        ("{.a[?(@.b=1)]}", "no comparison"),
    ] {
        let error = text.parse::<Template>().unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
    let deep = "{range .a}".repeat(MAX_DEPTH + 1);
    assert!(deep.parse::<Template>().unwrap_err().to_string().contains("ranges"));
    let deep = format!("{{.a{}", "[?(@.a".repeat(1000));
    assert!(deep.parse::<Template>().is_err());
}
