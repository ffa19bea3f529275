# shellcheck shell=bash disable=SC2154 # out, run, netns and the like are from lib.sh, which cluster.sh sources first
# An API server alone on loopback, without nodes and without root, for tests of schemas and rights.

free_port() {
  local port
  # Below the ports that the kernel gives to clients: one of those could take it before the server does.
  for port in $(shuf -i 20000-32000 -n 50); do
    if ! (: <>/dev/tcp/127.0.0.1/"$port") 2>/dev/null; then echo "$port"; return; fi
  done
  die "no free port on loopback"
}

# api_up DIR: starts a new one; DIR/kubeconfig names it.
api_up() {
  local dir port
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  api_down "$dir"
  rm -f "$dir"/*.log
  "$cluster_src/build-tools.sh" etcd kube-apiserver kubectl
  port=$(free_port)
  pki=$dir/pki
  pki_base "DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1"
  kubeconfig admin "https://127.0.0.1:$port" "$dir/kubeconfig"
  echo "$port $(free_port) $(free_port)" >"$dir/ports"
  api_start "$dir"
}

# api_start DIR: starts it with the same data, on the same ports.
api_start() {
  local dir port etcd_port peer_port
  dir=$(cd "$1" && pwd)
  pki=$dir/pki
  read -r port etcd_port peer_port <"$dir/ports"
  PATH=$(tools_path)
  export PATH
  setsid env "$mark=api" etcd --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
    --listen-peer-urls "http://127.0.0.1:$peer_port" >>"$dir/etcd.log" 2>&1 </dev/null &
  echo $! >"$dir/etcd.pid"
  setsid env "$mark=api" kube-apiserver --etcd-servers="http://127.0.0.1:$etcd_port" \
    --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port="$port" --service-cluster-ip-range="$service_cidr" \
    --client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --service-account-key-file="$pki/service-account.key" --service-account-signing-key-file="$pki/service-account.key" \
    --service-account-issuer=https://kubernetes.default.svc --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement \
    --disable-admission-plugins=ServiceAccount --endpoint-reconciler-type=none >>"$dir/kube-apiserver.log" 2>&1 </dev/null &
  echo $! >"$dir/kube-apiserver.pid"
  out=$dir wait_for 60 "the API server" env KUBECONFIG="$dir/kubeconfig" kubectl get --raw /readyz
}

# api_stop DIR: kills it, as a crash does.
api_stop() {
  local name pid
  for name in kube-apiserver etcd; do
    pid=$(cat "$1/$name.pid" 2>/dev/null) || continue
    if is_ours "$pid" api; then kill -9 "$pid" 2>/dev/null || true; fi
    while is_ours "$pid" api; do sleep 0.05; done
    rm -f "$1/$name.pid"
  done
}

# api_down DIR: kills it, and deletes its data.
api_down() {
  api_stop "$1"
  rm -rf "$1/etcd"
}
