# shellcheck shell=bash disable=SC2034 # what is set here is for those who source it
# Sourced: paths and functions that the scripts of the local cluster share.

cluster_src=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$cluster_src/../.." && pwd)
# shellcheck source=tests/cgroup.sh
. "$repo/tests/cgroup.sh"
cache=${SOCKEYE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockeye}
# For users and tests: kubeconfig, helpers, logs.
out=$repo/target/cluster
# For the processes: one cluster a machine.
run=/run/sockeye-cluster
# Every process of the cluster has this in its environment, so that the scripts end no other process.
mark=SOCKEYE_LOCAL_CLUSTER

netns=sockeye
api_ip=198.18.0.1
service_cidr=198.19.0.0/24
service_ip=198.19.0.1

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# pinned DIRECTORY MODULE: prints the version of a Go module that a go.mod pins.
pinned() { awk -v m="$2" '$1 == "require" && $2 == m {print $3; exit} $1 == m && $2 ~ /^v/ {print $2; exit}' "$cluster_src/tools/$1/go.mod"; }

# version_of MODULE: prints the pinned version of a module of tools.
version_of() {
  case $1 in
    kubernetes) pinned kubernetes k8s.io/kubernetes ;;
    etcd) pinned etcd go.etcd.io/etcd/server/v3 ;;
    helm) pinned helm helm.sh/helm/v4 ;;
    helm3) pinned helm3 helm.sh/helm/v3 ;;
    containerd) pinned containerd github.com/containerd/containerd/v2 ;;
    actionlint) pinned actionlint github.com/rhysd/actionlint ;;
    krew) pinned krew sigs.k8s.io/krew ;;
  esac
}

# flags_of MODULE: prints linker flags that set the version in the binaries, as their own builds do.
flags_of() {
  local version package minor
  version=$(version_of "$1")
  case $1 in
    kubernetes)
      minor=${version#v1.}
      for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        printf -- '-X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s ' \
          $package "$version" $package $package "${minor%%.*}"
      done ;;
    helm) printf -- '-X helm.sh/helm/v4/internal/version.version=%s' "$version" ;;
    helm3) printf -- '-X helm.sh/helm/v3/internal/version.version=%s' "$version" ;;
    containerd) printf -- '-X github.com/containerd/containerd/v2/version.Version=%s' "$version" ;;
  esac
}
# Without btrfs, containerd needs no C; the other tools ignore the tag.
build_flags=(-trimpath -buildvcs=false -tags no_btrfs)

# tools_dir MODULE: prints the directory of a module's tools, named by the content of their sources.
tools_dir() {
  local key
  key=$({ cat "$cluster_src/tools/$1/go.mod" "$cluster_src/tools/$1/go.sum"; echo "${build_flags[@]}" "$(flags_of "$1")"; go version; } | sha256sum | cut -c1-16)
  printf '%s/tools/%s-%s' "$cache" "$1" "$key"
}

tools_path() {
  local path=${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS:} module
  for module in kubernetes etcd helm helm3 containerd krew; do path+="$(tools_dir $module):"; done
  printf '%s' "$path$PATH"
}

# given TOOL MODULE: tells whether a tool need not be built: KUBEBUILDER_ASSETS has it, or PATH has it in the pinned series.
given() {
  local series says
  if [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ]; then return 0; fi
  command -v "$1" >/dev/null || return 1
  case $1 in
    kubectl) says=$(kubectl version --client) ;;
    helm | helm3) says=$("$1" version --short) ;;
    containerd-shim-runc-v2) says=$("$1" -v) ;;
    *) says=$("$1" --version) ;;
  esac 2>/dev/null || return 1
  # The minor release counts, for Helm the major.
  series=$(version_of "$2")
  series=${series#v}
  series=${series%.*}
  [[ $2 != helm* ]] || series=${series%.*}
  grep -qE "(^|[^0-9.])v?${series//./\\.}\\." <<<"$says"
}

in_netns() { nsenter --net="/run/netns/$netns" -- "$@"; }

# daemon NAME CMD...: starts a daemon of the cluster.
daemon() {
  local name=$1
  shift
  mkdir -p "$out/logs"
  setsid env "$mark=1" "$@" >>"$out/logs/$name.log" 2>&1 </dev/null &
  echo $! >"$run/$name.pid"
}

# is_ours PID [MARK]: tells whether a process is the cluster's, or, with the mark `api`, a lone API server's.
is_ours() { tr '\0' '\n' 2>/dev/null <"/proc/$1/environ" | grep -qx "$mark=${2:-1}"; }

our_pids() {
  local environ pid
  for environ in /proc/[0-9]*/environ; do
    pid=${environ#/proc/}
    pid=${pid%/environ}
    if [ "$pid" != $$ ] && is_ours "$pid"; then echo "$pid"; fi
  done
}

# wait_for SECONDS WHAT CMD...: waits until a command succeeds.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || die "$what did not come about in time; see $out/logs"
    sleep 0.2
  done
}

# Prints the mount points of cgroup v1 hierarchies; and a node's cgroups, in these and then in cgroup v2.
v1_mounts() { awk '$3 == "cgroup" {print $2}' /proc/self/mounts; }
cgroup_dirs() {
  local mount
  for mount in $(v1_mounts) "$(cgroup2_mount)"; do printf '%s\n' "$mount/sockeye-$1"; done
}
