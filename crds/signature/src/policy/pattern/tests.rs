use super::*;

fn matches(pattern: &str, repository: &str) -> bool {
    RepositoryPattern::parse(pattern).unwrap().matches(repository)
}

#[test]
fn one_star_stays_within_a_segment_and_two_cross_segments() {
    for (pattern, repository, expected) in [
        ("registry.example.com/team/guard", "registry.example.com/team/guard", true),
        ("registry.example.com/team/guard", "registry.example.com/team/guard2", false),
        ("registry.example.com/team/*", "registry.example.com/team/guard", true),
        ("registry.example.com/team/*", "registry.example.com/team/a/guard", false),
        ("registry.example.com/team/*", "registry.example.com/team", false),
        ("registry.example.com/*/guard", "registry.example.com/team/guard", true),
        ("registry.example.com/te*d", "registry.example.com/tested", true),
        ("registry.example.com/**", "registry.example.com/team", true),
        ("registry.example.com/**", "registry.example.com/team/a/guard", true),
        ("registry.example.com/**/guard", "registry.example.com/team/a/guard", true),
        ("registry.example.com/**/guard", "registry.example.com/guard", false),
        ("registry.example.com/**", "registry.example.com.evil.org/team", false),
        ("registry.example.com/**", "evil.org/registry.example.com/team", false),
        ("*.example.com/**", "a.example.com/team", true),
        ("*.example.com/**", "evil.org/a.example.com/team", false),
        ("localhost:5000/team/*", "localhost:5000/team/guard", true),
        ("localhost:5000/team/*", "localhost:5001/team/guard", false),
    ] {
        assert_eq!(matches(pattern, repository), expected, "{pattern} {repository}");
    }
}

#[test]
fn other_spellings_of_a_registry_are_the_same_registry() {
    for (pattern, repository) in [
        ("docker.io/team/*", "index.docker.io/team/guard"),
        ("docker.io/team/*", "registry-1.docker.io/team/guard"),
        ("docker.io/team/*", "registry.hub.docker.com/team/guard"),
        ("registry.hub.docker.com/team/*", "docker.io/team/guard"),
        ("Registry.Example.com/team/*", "registry.example.com:443/team/guard"),
        ("registry.example.com/team/*", "REGISTRY.example.com./team/guard"),
        ("registry.example.com:443/team/*", "registry.example.com/team/guard"),
    ] {
        assert!(matches(pattern, repository), "{pattern} {repository}");
    }
}

#[test]
fn a_pattern_that_is_none_says_what_is_wrong() {
    for (pattern, error) in [
        ("", PatternError::Length),
        ("team/guard", PatternError::NoRegistry),
        ("**", PatternError::NoRegistry),
        ("*/team", PatternError::NoRegistry),
        ("**.example.com/team", PatternError::NoRegistry),
        ("registry.example.com", PatternError::NoRepository),
        ("registry.example.com/", PatternError::NoRepository),
        ("https://registry.example.com/team", PatternError::EmptySegment),
        ("registry.example.com/team/guard:v1", PatternError::Character(':')),
        ("registry.example.com/team@sha256", PatternError::Character('@')),
        ("registry.example.com/Team", PatternError::Character('T')),
        ("registry.example.com/team**", PatternError::DoubleStar),
        ("registry.example.com/team//guard", PatternError::EmptySegment),
    ] {
        assert_eq!(RepositoryPattern::parse(pattern), Err(error), "{pattern}");
    }
}

#[test]
fn a_glob_takes_the_product_of_its_lengths_and_no_longer() {
    let glob = "*a".repeat(32) + "b";
    assert!(!glob_matches(&glob, &"a".repeat(20_000)));
    assert!(glob_matches("*", "") && glob_matches("a*", "a") && !glob_matches("a*", "b"));
}

#[test]
fn an_expression_matches_whole_texts() {
    let expression = whole("https://ci.example.com/team/.*|release@example.com").unwrap();
    assert!(expression.is_match("https://ci.example.com/team/guard"));
    assert!(expression.is_match("release@example.com"));
    assert!(!expression.is_match("prerelease@example.com"));
    assert!(!expression.is_match("release@example.com.evil.org"));
    assert!(!expression.is_match("release@example.com\n"));
    assert!(whole("(?m)a$").unwrap().is_match("a") && !whole("(?m)a$").unwrap().is_match("a\nb"));
    for wrong in ["", "a)|(b", "(?x)a #", "a{1000}{1000}{1000}", "(a"] {
        assert!(whole(wrong).is_err(), "{wrong}");
    }
}
