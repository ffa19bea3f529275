#!/usr/bin/env bash
# tests/registry/serve.sh FOLDER HOST:PORT: becomes Debian's docker-registry, over plain HTTP unless FOLDER/more.yml says
# otherwise. Its content stays in FOLDER/content.
#
# FOLDER/more.yml, if it is there, follows what is said of HTTP in the registry's configuration.
#
#   DOCKER_REGISTRY   the registry's path, where it is known: to look for it takes a second
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=tests/registry/lib.sh
source "$repo/tests/registry/lib.sh"
folder=$1 address=$2

{
    printf '%s\n' "version: 0.1" "storage: {filesystem: {rootdirectory: '$folder/content'}}" \
        "log: {level: error, accesslog: {disabled: true}}" "http:" "  addr: '$address'"
    [[ ! -e $folder/more.yml ]] || cat "$folder/more.yml"
} >"$folder/config.yml"
exec "${DOCKER_REGISTRY:-$(command -v docker-registry || registry_tool docker-registry)}" serve "$folder/config.yml"
