#!/usr/bin/env bash
# The local cluster: a real Kubernetes on this machine, in its own network namespace, with each node in its own mount
# namespace. See usage below.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/cluster/lib.sh
. "$here/lib.sh"
for part in net pki helpers control-plane node images sweep apiserver; do
  # shellcheck source=/dev/null
  . "$here/$part.sh"
done

# Fails if the cluster of another checkout runs.
own() {
  local owner
  owner=$(cat "$run/owner" 2>/dev/null) || return 0
  if [ "$owner" != "$repo" ] && [ -n "$(our_pids)" ]; then
    die "another checkout's cluster is running here: stop it with $owner/tests/cluster/cluster.sh down"
  fi
}

usage() {
  cat <<'USAGE'
cluster.sh up [--no-sockeye] [--images KIND]
                                   two nodes, with sockeye installed on them by Helm; images are quick to build, or, by
                                   their KIND, as they are released (release), or with an older agent for tests (test)
cluster.sh down                    stop it and leave nothing behind
cluster.sh node-add NAME N         one more node; N (3 to 9) makes its addresses
cluster.sh node-remove NAME        stop a node and delete its Node
cluster.sh node-stop NAME          stop a node's kubelet: it becomes NotReady; its pods run on
cluster.sh node-start NAME         start it again
cluster.sh apiserver-stop          stop the API server and etcd
cluster.sh apiserver-start         start them again
cluster.sh images [KIND]           build the images
cluster.sh sockeye [KIND]          build the images, import them, install or upgrade the chart
cluster.sh api-up DIR              an API server alone on loopback, for schema and RBAC tests; DIR/kubeconfig
cluster.sh api-stop DIR            stop it as a crash does
cluster.sh api-start DIR           start it again, as it was
cluster.sh api-down DIR            stop it, and forget what it held
USAGE
}

# Runs this script under a lock, since there is one cluster a machine: of two that go up or down, the second waits. flock
# holds the lock, not the daemons, so that it ends with this script.
alone() {
  [ "${SOCKEYE_CLUSTER_ALONE:-}" != 1 ] || return 0
  flock --nonblock /run/lock true || say "another cluster.sh is at work on this machine: waiting for it"
  SOCKEYE_CLUSTER_ALONE=1 exec flock --close /run/lock "$here/cluster.sh" "$@"
}

up() {
  local images=quick install=1
  while [ $# -gt 0 ]; do
    case $1 in
      --no-sockeye) install= ;;
      --images) images=$2; shift ;;
      *) usage; exit 2 ;;
    esac
    shift
  done
  [ "$(id -u)" = 0 ] || die "the cluster needs root: it makes namespaces, mounts and cgroups"
  own
  "$here/install-packages.sh"
  "$here/build-tools.sh"
  PATH=$(tools_path)
  export PATH
  if ! is_up; then
    sweep
    say "starting the control plane"
    mkdir -p "$run" "$out/logs"
    echo "$repo" >"$run/owner"
    net_up
    pki_up
    helpers_up
    control_plane_up
    for n in 1 2; do node_up "node-$n" "$n"; done
    for n in 1 2; do node_ready "node-$n"; done
    say "two nodes are Ready"
  fi
  if [ "$install" ]; then sockeye_install "$images"; fi
  say "up: $out/kubectl get nodes"
}

is_up() {
  [ -e "$run/owner" ] && [ "$(cat "$run/owner")" = "$repo" ] && [ -x "$out/kubectl" ] &&
    "$out/kubectl" --request-timeout=3s wait --for=condition=Ready --timeout=5s node/node-1 node/node-2 >/dev/null 2>&1
}

case ${1:-} in
  down | sockeye | node-* | apiserver-*) own ;;
esac
case ${1:-} in
  up) alone "$@"; shift; up "$@" ;;
  down) alone "$@"; sweep; residue; say "down" ;;
  images) "$here/install-packages.sh"; images_build "${2:-quick}" ;;
  sockeye) PATH=$(tools_path) sockeye_install "${2:-quick}" ;;
  node-add) PATH=$(tools_path); export PATH; node_up "$2" "$3"; images_import "$2"; node_ready "$2" ;;
  node-remove) node_remove "$2" ;;
  node-stop) node_stop "$2" ;;
  node-start) PATH=$(tools_path); export PATH; kubelet_up "$2" ;;
  apiserver-stop) apiserver_stop ;;
  apiserver-start) PATH=$(tools_path); export PATH; apiserver_start ;;
  api-up) api_up "$2" ;;
  api-stop) api_stop "$2" ;;
  api-start) api_start "$2" ;;
  api-down) api_down "$2" ;;
  *) usage; exit 2 ;;
esac
