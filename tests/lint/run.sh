#!/usr/bin/env bash
# Runs every check that needs no running program, then exits non-zero if one failed.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/packages.sh
source tests/packages.sh

failed=()

check() { # check WHAT COMMAND...
    local what=$1
    shift
    echo "== $what"
    "$@" || failed+=("$what")
}

cargo_deny() {
    local deny
    deny=$(cargo_tool cargo-deny 0.20.2) || return
    "$deny" --log-level warn check --hide-inclusion-graph bans licenses sources || return
    if "$deny" --log-level error fetch db 2>/dev/null; then
        "$deny" --log-level warn check --hide-inclusion-graph --disable-fetch advisories
    else
        echo "!! ADVISORIES WERE NOT CHECKED: the advisory database cannot be reached from here"
    fi
}

# The chart with its defaults and with every switch the other way.
chart() {
    local helm
    helm=$(helm_path) || return
    "$helm" lint --strict --quiet deploy/chart || return
    local values
    for values in "-f tests/lint/values.yaml" "--set crds.keep=false" ""; do
        # shellcheck disable=SC2086 # options, not one word
        "$helm" template sockeye deploy/chart -n sockeye-system $values | /usr/bin/python3 tests/lint/chart.py || return
    done
    # A value that is null is none at all to Helm, and must not stand for the less safe of two. All are tried, new ones too.
    local nulls
    nulls=$(/usr/bin/python3 tests/lint/nulls.py deploy/chart) || return
    for values in $nulls; do
        if "$helm" template sockeye deploy/chart --set "$values" >/dev/null 2>&1; then
            echo "the chart takes $values" >&2
            return 1
        fi
    done
    # Values that contradict each other, or that the agent or the API server would refuse.
    while read -r values; do
        if "$helm" template sockeye deploy/chart --set "$values" >/dev/null 2>&1; then
            echo "the chart takes $values" >&2
            return 1
        fi
    done <tests/lint/refused.txt
}

# What is handed out is the chart as it is here, with its SBOM.
package() {
    local helm package
    helm=$(helm_path) || return
    deploy/package.sh || return
    package=$(echo target/chart/sockeye-*.tgz)
    tar -xzOf "$package" sockeye/sbom.json | grep -q '"bomFormat": *"CycloneDX"' || return
    diff <("$helm" template sockeye deploy/chart) <("$helm" template sockeye "$package")
}

helm_path() {
    if command -v helm; then return; fi
    tests/cluster/build-tools.sh helm >&2 && (source tests/cluster/lib.sh && echo "$(tools_dir helm)/helm")
}

# The imports between files and rooms, on the condition that the check finds what it is made for.
layers() {
    /usr/bin/python3 tests/lint/layers.py --self-test && /usr/bin/python3 tests/lint/layers.py
}

# Each reason has a test, and its page is made of what tests provoke.
reasons() {
    /usr/bin/python3 tests/lint/reasons.py --self-test && /usr/bin/python3 tests/lint/reasons.py
}

# rustfmt breaks no comment and no string.
long_lines() {
    local long
    long=$(git ls-files -co --exclude-standard -z '*.rs' | LC_ALL=C.UTF-8 xargs -0 grep -snHE '.{121}' || true)
    [[ -z $long ]] || { printf '%s\n' "$long"; return 1; }
}

shell_scripts() {
    git ls-files -co --exclude-standard -z | xargs -0 grep -lIE '^#!.*bash|^# shellcheck shell=' -- | xargs shellcheck -x
}

# The forge's workflows: their syntax, and that their commands are the Makefile's.
workflows() {
    local tool commands
    tool=$(command -v actionlint || { tests/cluster/build-tools.sh actionlint >&2 &&
        (source tests/cluster/lib.sh && echo "$(tools_dir actionlint)/actionlint"); }) || return
    "$tool" || return
    commands=$(grep -hE '^ *- run:' .github/workflows/*.yml | grep -vE 'run: (sudo --preserve-env\S* )?make [a-z-]+$' || true)
    [[ ! $commands ]] || { printf 'not a make target:\n%s\n' "$commands"; return 1; }
}

need clang-16:clang-16 /usr/include/bpf/bpf_helpers.h:libbpf-dev shellcheck:shellcheck \
    g++:g++ /usr/bin/python3:python3-minimal /usr/lib/python3/dist-packages/yaml/__init__.py:python3-yaml
check "formatting" cargo fmt --check
check "lines of 120 columns" long_lines
check "layers" layers
check "names in documentation and guests" /usr/bin/python3 tests/lint/docs.py
check "reasons" reasons
check "clippy" cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
check "fuzz target" cargo check --locked --quiet --manifest-path ebpf/fuzz/Cargo.toml --target-dir target/fuzz/check
check "committed CRDs" cargo test --locked --quiet -p sockeye-crds --test definitions
check "dependencies" cargo_deny
check "chart" chart
check "package" package
check "shell scripts" shell_scripts
check "workflows" workflows

if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "lint: nothing to complain of"
