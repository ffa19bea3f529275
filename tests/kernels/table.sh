#!/usr/bin/env bash
# Writes the table of docs/kernels.md anew: what the kernels of the guests, and this machine's, have of what is named there.
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
    /^\| feature \|/ { for (i = 5; i < NF; i++) series[i] = $i; inside = 1 }
    !/^\|/ { inside = 0 }
    inside && /^\| `/ {
        name = substr($2, 2, length($2) - 2)
        for (i in series) if ((name, series[i]) in has) $i = has[name, series[i]]
        $1 = "|"; sub(/^\| \| /, "| "); sub(/ \| $/, " |")
    }
    { print }
' "$seen" docs/kernels.md >docs/kernels.md.new
mv docs/kernels.md.new docs/kernels.md
git --no-pager diff --stat -- docs/kernels.md
