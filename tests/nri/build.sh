#!/usr/bin/env bash
# Builds the runtime's half of NRI from main.go, and prints the binary's path. Builds it once for each content of its
# sources.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/packages.sh
source tests/packages.sh
go_tool tests/nri runtime "the runtime's half of NRI"
