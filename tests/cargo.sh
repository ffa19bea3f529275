# shellcheck shell=bash
# Sourced: builds and runs the tests of all crates.

# The features of every test. All stages ask for the whole workspace with these: cargo then builds each crate once.
test_features=sockeye-agent/kernel-tests,sockeye-agent/nri-tests,sockeye-cli/api-tests,sockeye-registry/registry-tests,sockeye-tests/api,sockeye-tests/e2e,sockeye-bench/api

# cargo_test TARGET... [-- OPTION...]: builds and runs test targets, each given as cargo's option: --lib, or --test NAME.
# The build yields the processor to tests that other stages run meanwhile.
cargo_test() {
    local targets=() cargo=(cargo test --locked --workspace --features "$test_features")
    while (($#)) && [[ $1 != -- ]]; do
        targets+=("$1")
        shift
    done
    nice -n 5 "${cargo[@]}" --no-run "${targets[@]}" || return
    "${cargo[@]}" --no-fail-fast "${targets[@]}" "$@"
}

# plain_tests: prints the targets that need neither root nor an API server: those without required features, one a line.
plain_tests() {
    cargo metadata --locked --no-deps --format-version 1 | /usr/bin/python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    for target in package["targets"]:
        if "test" in target["kind"] and "required-features" not in target:
            print(target["name"])'
}
