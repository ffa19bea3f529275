# shellcheck shell=bash disable=SC2154 # out, run, netns and the like are from lib.sh, which cluster.sh sources first
# An API server alone, on loopback, for tests of schemas and rights: no nodes, nothing that needs root.

free_port() {
  local port
  for port in $(shuf -i 20000-45000 -n 50); do
    if ! (: <>/dev/tcp/127.0.0.1/"$port") 2>/dev/null; then echo "$port"; return; fi
  done
  die "no free port on loopback"
}

# api_up DIR
api_up() {
  local dir etcd_port peer_port port
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  api_down "$dir"
  "$cluster_src/build-tools.sh" etcd kube-apiserver kubectl
  PATH=$(tools_path)
  export PATH
  etcd_port=$(free_port) peer_port=$(free_port) port=$(free_port)
  pki=$dir/pki
  pki_base "DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1"
  kubeconfig admin "https://127.0.0.1:$port" "$dir/kubeconfig"
  setsid env "$mark=api" etcd --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
    --listen-peer-urls "http://127.0.0.1:$peer_port" >"$dir/etcd.log" 2>&1 </dev/null &
  echo $! >"$dir/etcd.pid"
  setsid env "$mark=api" kube-apiserver --etcd-servers="http://127.0.0.1:$etcd_port" \
    --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port="$port" --service-cluster-ip-range="$service_cidr" \
    --client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --service-account-key-file="$pki/service-account.key" --service-account-signing-key-file="$pki/service-account.key" \
    --service-account-issuer=https://kubernetes.default.svc --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement \
    --disable-admission-plugins=ServiceAccount --endpoint-reconciler-type=none >"$dir/kube-apiserver.log" 2>&1 </dev/null &
  echo $! >"$dir/kube-apiserver.pid"
  out=$dir wait_for 60 "the API server" env KUBECONFIG="$dir/kubeconfig" kubectl get --raw /readyz
}

# api_down DIR
api_down() {
  local name pid
  for name in kube-apiserver etcd; do
    pid=$(cat "$1/$name.pid" 2>/dev/null) || continue
    if is_ours "$pid" api; then kill -9 "$pid" 2>/dev/null || true; fi
    rm -f "$1/$name.pid"
  done
  rm -rf "$1/etcd"
}
