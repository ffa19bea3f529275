# shellcheck shell=bash disable=SC2154 # out, run, netns and the like are from lib.sh, which cluster.sh sources first
# The helpers in target/cluster: each enters the cluster's or a node's namespaces and runs one tool.

# helper NAME SCRIPT
helper() {
  printf '#!/bin/sh\n# Made by tests/cluster/cluster.sh.\n%s\n' "$2" >"$out/$1"
  chmod +x "$out/$1"
}

helpers_up() {
  local tools enter
  tools=$(tools_path)
  tools=${tools%":$PATH"}
  enter="nsenter --net=/run/netns/$netns --"
  helper run "export KUBECONFIG='$out/kubeconfig' PATH='$tools':\"\$PATH\"; exec $enter \"\$@\""
  helper kubectl "exec '$out/run' kubectl \"\$@\""
  helper helm "exec '$out/run' helm \"\$@\""
  helper helm3 "exec '$out/run' helm3 \"\$@\""
  # shellcheck disable=SC2016
  local node='node=$1; shift; pid=$(cat '$run'/nodes/"$node"/holder.pid) || { echo "no node $node; there are: $(ls '$run'/nodes)" >&2; exit 1; }'
  helper exec "$node; PATH='$tools':\"\$PATH\" exec nsenter --mount=/proc/\$pid/ns/mnt --net=/run/netns/$netns -- \"\$@\""
  # PATH may have target/cluster, and so this helper itself.
  helper bpftool "node=\$1; shift; exec '$out/exec' \"\$node\" '$(PATH=${PATH//"$out"/} command -v bpftool)' \"\$@\""
  helper ctr "node=\$1; shift; exec '$out/exec' \"\$node\" ctr --namespace k8s.io \"\$@\""
}
