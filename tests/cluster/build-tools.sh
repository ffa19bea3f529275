#!/usr/bin/env bash
# Builds the tools that the local cluster is made of, from Go modules at pinned versions, once: they are kept by the content
# of what they are made from, and a fresh clone finds them again.
#
#   build-tools.sh [TOOL...]      all of them where none is named; lib.sh's tools_path says where they are
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
  [helm]=helm.sh/helm/v4/cmd/helm
  [containerd]=github.com/containerd/containerd/v2/cmd/containerd
  [containerd-shim-runc-v2]=github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
  [ctr]=github.com/containerd/containerd/v2/cmd/ctr
)
for tool in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
  package_of[$tool]=k8s.io/kubernetes/cmd/$tool
done

# Versions are told to the binaries by the linker, as their own builds do it.
flags_of() {
  local kubernetes helm containerd
  kubernetes=$(pinned kubernetes k8s.io/kubernetes)
  helm=$(pinned helm helm.sh/helm/v4)
  containerd=$(pinned containerd github.com/containerd/containerd/v2)
  case $1 in
    kubernetes)
      local minor=${kubernetes#v1.}
      for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        printf -- '-X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s ' \
          $package "$kubernetes" $package $package "${minor%%.*}"
      done ;;
    helm) printf -- '-X helm.sh/helm/v4/internal/version.version=%s' "$helm" ;;
    containerd) printf -- '-X github.com/containerd/containerd/v2/version.Version=%s' "$containerd" ;;
  esac
}

[ $# -gt 0 ] || set -- "${!module_of[@]}"
declare -A wanted=()
for tool; do
  module=${module_of[$tool]:?unknown tool $tool}
  [ -x "$(tools_dir "$module")/$tool" ] || wanted[$module]+="$tool "
done

for module in "${!wanted[@]}"; do
  out=$(tools_dir "$module")
  mkdir -p "$out.part"
  packages=()
  for tool in ${wanted[$module]}; do packages+=("${package_of[$tool]}"); done
  say "building ${wanted[$module]}(once; minutes on two cores)"
  started=$SECONDS
  tags=()
  [ "$module" != containerd ] || tags=(-tags no_btrfs)
  # One invocation a module, so that what the tools share is compiled once. A directory ending in / takes each under its name.
  (cd "$here/tools/$module" &&
    CGO_ENABLED=0 go build -trimpath -buildvcs=false "${tags[@]}" -ldflags "-s -w $(flags_of "$module")" -o "$out.part/" "${packages[@]}")
  [ ! -e "$out.part/server" ] || mv "$out.part/server" "$out.part/etcd"
  [ ! -e "$out.part/v3" ] || mv "$out.part/v3" "$out.part/etcd"
  mkdir -p "$out"
  mv -f "$out.part"/* "$out/"
  rmdir "$out.part"
  say "built ${wanted[$module]}in $((SECONDS - started)) s"
done
