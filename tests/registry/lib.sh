# shellcheck shell=bash disable=SC2034 # registry_host is the caller's
# Sourced, at the root of the checkout or with `repo` set to it: oras, docker-registry and cosign of Debian's sid, unpacked into
# the cache and never installed; and a registry on loopback.

# shellcheck source=tests/oracle/debian.sh
source "${repo:-.}/tests/oracle/debian.sh"

registry_tools=(oras docker-registry cosign)

# registry_tool NAME: prints the path of a tool.
registry_tool() {
    local folder
    folder=$(release_package "sid/$(dpkg --print-architecture)" "$1" --wildcards './usr/bin/*') || return
    echo "$folder/usr/bin/$1"
}

# use_registry_tools: puts the tools into PATH.
use_registry_tools() {
    local tool path
    for tool in "${registry_tools[@]}"; do
        path=$(registry_tool "$tool") || return
        PATH=${path%/*}:$PATH
    done
}

# free_port: prints a port of loopback that nobody listens on.
free_port() {
    /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for_port PORT: waits until somebody listens on a port of loopback; fails after ten seconds.
wait_for_port() {
    for _ in {1..100}; do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.1
    done
    return 1
}

# start_registry FOLDER: starts an empty registry on loopback, which keeps its content in that folder. registry_host is its
# host and port.
start_registry() {
    local port
    stop_registry
    rm -rf "$1"
    mkdir -p "$1"
    port=$(free_port)
    "${repo:-.}/tests/registry/serve.sh" "$1" "127.0.0.1:$port" >"$1/log" 2>&1 &
    registry_pid=$! registry_host=127.0.0.1:$port
    wait_for_port "$port" && return
    echo "the registry does not answer: $(tail -n 3 "$1/log")" >&2
    return 1
}

# Ends the registry that start_registry started.
stop_registry() {
    [[ ${registry_pid:-} ]] || return 0
    kill "$registry_pid" 2>/dev/null || true
    wait "$registry_pid" 2>/dev/null || true
    registry_pid=
}
