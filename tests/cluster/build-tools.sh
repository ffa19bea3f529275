#!/usr/bin/env bash
# Builds the tools of the local cluster from Go modules at pinned versions, once: they are cached by the content of their
# sources, so that a fresh clone finds them.
#
#   build-tools.sh [TOOL...]      builds these tools, or all that a cluster needs; tools_path in lib.sh finds them
#
# A tool that KUBEBUILDER_ASSETS has, or PATH in the pinned series, is not built.
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
  [actionlint]=github.com/rhysd/actionlint/cmd/actionlint
  [kubectl-krew]=sigs.k8s.io/krew/cmd/krew [validate-krew-manifest]=sigs.k8s.io/krew/cmd/validate-krew-manifest
  [containerd]=github.com/containerd/containerd/v2/cmd/containerd
  [containerd-shim-runc-v2]=github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
  [ctr]=github.com/containerd/containerd/v2/cmd/ctr
)
for tool in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
  package_of[$tool]=k8s.io/kubernetes/cmd/$tool
done

[ $# -gt 0 ] || set -- "${!module_of[@]}"
# Tests need helm3 and krew, and the lint actionlint: they are asked for by name.
module_of[helm3]=helm3 module_of[actionlint]=actionlint
module_of[kubectl-krew]=krew module_of[validate-krew-manifest]=krew
declare -A asked=()
for tool; do asked[${module_of[$tool]:?unknown tool $tool}]+="$tool "; done

# build MODULE TOOL...: builds those tools of a module that are not there.
build() {
  local module=$1 out tool missing=() packages=() started=$SECONDS
  shift
  out=$(tools_dir "$module")
  for tool; do
    if [ -x "$out/$tool" ] || given "$tool" "$module"; then continue; fi
    missing+=("$tool")
    packages+=("${package_of[$tool]}")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  say "building ${missing[*]} (once; minutes on two cores)"
  rm -rf "$out.part"
  mkdir -p "$out.part"
  # One invocation a module, so that what the tools share is compiled once. A directory ending in / takes each under its name.
  (cd "$here/tools/$module" &&
    CGO_ENABLED=0 go build "${build_flags[@]}" -ldflags "-s -w $(flags_of "$module")" -o "$out.part/" "${packages[@]}")
  [ ! -e "$out.part/server" ] || mv "$out.part/server" "$out.part/etcd"
  [ "$module" != helm3 ] || mv "$out.part/helm" "$out.part/helm3"
  [ ! -e "$out.part/krew" ] || mv "$out.part/krew" "$out.part/kubectl-krew"
  [ ! -e "$out.part/v3" ] || mv "$out.part/v3" "$out.part/etcd"
  mkdir -p "$out"
  mv -f "$out.part"/* "$out/"
  rmdir "$out.part"
  say "built ${missing[*]} in $((SECONDS - started)) s"
}

# Another build of the same module ends first: what it builds is there then.
mkdir -p "$cache/tools"
for module in "${!asked[@]}"; do
  exec 9>"$cache/tools/$module.lock"
  flock 9
  # shellcheck disable=SC2086 # words
  build "$module" ${asked[$module]}
done
