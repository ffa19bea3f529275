#!/usr/bin/env bash
# tests/registry/tools.sh: prints the paths of oras, docker-registry and cosign, as Debian's sid has them, and of the
# registry with referrers that is built here from main.go. Nothing is installed; all are kept in a cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/packages.sh
source tests/packages.sh
# shellcheck source=tests/registry/lib.sh
source tests/registry/lib.sh

for tool in "${registry_tools[@]}"; do registry_tool "$tool"; done
go_tool tests/registry registry "a registry with referrers"
