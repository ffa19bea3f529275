#!/usr/bin/env bash
# Writes the tables of docs/kernels.md anew: what the kernels of the guests, and this machine's, have of what is named
# there, and which examples run on them for that.
set -euo pipefail
cd "$(dirname "$0")/../.."

seen=$(mktemp)
trap 'rm -f "$seen"' EXIT
# The test fails as long as the table says something else, and prints what it saw either way.
{
    cargo test --quiet --locked -p sockeye-agent --features kernel-tests --test kernel -- --show-output probe:: || true
    tests/kernels/run.sh --show-output probe:: || true
} | grep -xE '[A-Za-z0-9]+ [0-9]+\.[0-9]+ (yes|no)' >"$seen"

awk -F ' *[|] *' -v OFS=' | ' '
    FNR == NR { split($0, word, " "); has[word[1], word[2]] = word[3]; next }
    # An example stands before the feature that it needs.
    /^\| (feature|example) \|/ {
        delete series
        for (i = 3; i < NF; i++) if ($i ~ /^[0-9]+\.[0-9]+$/) series[i] = $i
        at = $2 == "feature" ? 2 : 3; inside = 1
    }
    !/^\|/ { inside = 0 }
    inside && /^\| `/ {
        name = substr($at, 2, length($at) - 2)
        for (i in series) if ((name, series[i]) in has) $i = has[name, series[i]]
        $1 = "|"; sub(/^\| \| /, "| "); sub(/ \| $/, " |")
    }
    { print }
' "$seen" docs/kernels.md >docs/kernels.md.new
mv docs/kernels.md.new docs/kernels.md
git --no-pager diff --stat -- docs/kernels.md
