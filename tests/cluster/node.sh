# shellcheck shell=bash disable=SC2154 # out, run, netns and the like are from lib.sh, which cluster.sh sources first
# A node: containerd and a kubelet in a mount namespace of their own, with their own bpffs at /sys/fs/bpf and their own cgroup
# as the kubelet's root. Their data is on tmpfs in that namespace, and goes with its last process.

node_ip() { printf '198.18.0.%d' $((10 + $1)); }

# node_pid NAME: prints the process that holds a node's mount namespace.
node_pid() { cat "$run/nodes/$1/holder.pid"; }

in_node() {
  local name=$1
  shift
  nsenter --mount="/proc/$(node_pid "$name")/ns/mnt" --net="/run/netns/$netns" -- "$@"
}

# node_up NAME N
node_up() {
  local name=$1 n=$2 dir=$run/nodes/$1 ip
  ip=$(node_ip "$n")
  say "starting $name"
  mkdir -p "$dir/static"
  echo "$n" >"$dir/number"
  in_netns ip addr add "$ip/24" dev nodes 2>/dev/null || true
  node_cgroups "$name"
  node_pki "$name" "$ip"
  node_configs "$name" "$n" "$ip"
  setsid env "$mark=1" unshare --mount --propagation private bash "$cluster_src/node-mounts.sh" \
    "$dir" "$(cgroup2_mount)/sockeye-$name" >"$out/logs/$name-mounts.log" 2>&1 </dev/null &
  echo $! >"$dir/holder.pid"
  wait_for 10 "the mounts of $name" test -e "$dir/mounted"
  daemon "$name-containerd" nsenter --mount="/proc/$(node_pid "$name")/ns/mnt" --net="/run/netns/$netns" -- \
    containerd --config "$dir/containerd.toml"
  wait_for 30 "containerd of $name" in_node "$name" ctr version
  kubelet_up "$name"
}

kubelet_up() {
  local name=$1 dir=$run/nodes/$1
  # No pod can start without the pause image.
  images_import "$name"
  daemon "$name-kubelet" nsenter --mount="/proc/$(node_pid "$name")/ns/mnt" --net="/run/netns/$netns" -- \
    kubelet --config "$dir/kubelet.yaml" --kubeconfig "$pki/$name.kubeconfig" --hostname-override "$name" \
    --node-ip "$(node_ip "$(cat "$dir/number")")" --v=1
}

node_ready() {
  wait_for 60 "Node $1" "$out/kubectl" wait --for=condition=Ready --timeout=1s "node/$1"
}

# Makes the kubelet's cgroup root in every hierarchy.
node_cgroups() {
  local cgroup parent
  while read -r cgroup; do
    mkdir -p "$cgroup"
    parent=$(dirname "$cgroup")
    if [ -e "$cgroup/cpuset.cpus" ] && [ -e "$parent/cpuset.mems" ]; then
      cat "$parent/cpuset.cpus" >"$cgroup/cpuset.cpus"
      cat "$parent/cpuset.mems" >"$cgroup/cpuset.mems"
    fi
  done < <(cgroup_dirs "$1")
}

node_configs() {
  local name=$1 n=$2 ip=$3 dir=$run/nodes/$1
  cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $ip
healthzPort: $((10300 + n))
authentication: {x509: {clientCAFile: $pki/ca.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
tlsCertFile: $pki/$name.crt
tlsPrivateKeyFile: $pki/$name.key
cgroupDriver: cgroupfs
cgroupRoot: /sockeye-$name
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
maxPods: 250
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 4
syncFrequency: 10s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%", memory.available: 1Mi}
resolvConf: ""
registerNode: true
staticPodPath: $dir/static
YAML
  mkdir -p "$dir/cni"
  cat >"$dir/cni/10-pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods-$n", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": "198.18.$((100 + n)).0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
  mkdir -p "$dir/registries/$api_ip:5000"
  printf 'server = "http://%s:5000"\n' "$api_ip" >"$dir/registries/$api_ip:5000/hosts.toml"
  cat >"$dir/containerd.toml" <<TOML
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE runc can't lower an OOM score.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$dir/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
# The registry of tests, on the gateway, has no TLS.
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "$dir/registries"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/sockeye-pause:dev"
TOML
}

node_stop() { stop_daemon "$1-kubelet"; }

node_remove() {
  local name=$1 cgroup
  node_stop "$name"
  stop_daemon "$name-containerd"
  while read -r cgroup; do kill_cgroup "$cgroup"; done < <(cgroup_dirs "$name")
  local ns pid
  ns=$(readlink "/proc/$(node_pid "$name")/ns/mnt")
  for pid in $(our_pids); do
    if [ "$(readlink "/proc/$pid/ns/mnt")" = "$ns" ]; then kill -9 "$pid" 2>/dev/null || true; fi
  done
  while read -r cgroup; do remove_cgroup "$cgroup"; done < <(cgroup_dirs "$name")
  in_netns ip addr del "$(node_ip "$(cat "$run/nodes/$name/number")")/24" dev nodes || true
  in_netns ip link del "pods-$(cat "$run/nodes/$name/number")" 2>/dev/null || true
  rm -rf "$run/nodes/$name"
  "$out/kubectl" delete node "$name" --wait=false
}
