#!/usr/bin/env bash
# See cluster.sh.
exec "$(dirname "${BASH_SOURCE[0]}")/cluster.sh" up "$@"
