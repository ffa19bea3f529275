#!/usr/bin/env bash
# Builds the tools that the local cluster is made of, from Go modules at pinned versions, once: they are kept by the content
# of what they are made from, and a fresh clone finds them again.
#
#   build-tools.sh [TOOL...]      all that a cluster needs where none is named; lib.sh's tools_path says where they are
#
# What KUBEBUILDER_ASSETS gives, or PATH in the pinned series, is not built.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/cluster/lib.sh
. "$here/lib.sh"

declare -A module_of=(
  [kube-apiserver]=kubernetes [kube-controller-manager]=kubernetes [kube-scheduler]=kubernetes
  [kube-proxy]=kubernetes [kubelet]=kubernetes [kubectl]=kubernetes
  [etcd]=etcd [helm]=helm
  [containerd]=containerd [containerd-shim-runc-v2]=containerd [ctr]=containerd
)
declare -A package_of=(
  [etcd]=go.etcd.io/etcd/server/v3
  [helm]=helm.sh/helm/v4/cmd/helm [helm3]=helm.sh/helm/v3/cmd/helm
  [containerd]=github.com/containerd/containerd/v2/cmd/containerd
  [containerd-shim-runc-v2]=github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
  [ctr]=github.com/containerd/containerd/v2/cmd/ctr
)
for tool in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
  package_of[$tool]=k8s.io/kubernetes/cmd/$tool
done

[ $# -gt 0 ] || set -- "${!module_of[@]}"
# Only a test of the chart needs it, and names it.
module_of[helm3]=helm3
declare -A wanted=()
for tool; do
  module=${module_of[$tool]:?unknown tool $tool}
  if [ -x "$(tools_dir "$module")/$tool" ] || given "$tool" "$module"; then continue; fi
  wanted[$module]+="$tool "
done

for module in "${!wanted[@]}"; do
  out=$(tools_dir "$module")
  mkdir -p "$out.part"
  packages=()
  for tool in ${wanted[$module]}; do packages+=("${package_of[$tool]}"); done
  say "building ${wanted[$module]}(once; minutes on two cores)"
  started=$SECONDS
  # One invocation a module, so that what the tools share is compiled once. A directory ending in / takes each under its name.
  (cd "$here/tools/$module" &&
    CGO_ENABLED=0 go build "${build_flags[@]}" -ldflags "-s -w $(flags_of "$module")" -o "$out.part/" "${packages[@]}")
  [ ! -e "$out.part/server" ] || mv "$out.part/server" "$out.part/etcd"
  [ "$module" != helm3 ] || mv "$out.part/helm" "$out.part/helm3"
  [ ! -e "$out.part/v3" ] || mv "$out.part/v3" "$out.part/etcd"
  mkdir -p "$out"
  mv -f "$out.part"/* "$out/"
  rmdir "$out.part"
  say "built ${wanted[$module]}in $((SECONDS - started)) s"
done
