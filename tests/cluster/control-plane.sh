# shellcheck shell=bash disable=SC2154 # out, run, netns and the like are from lib.sh, which cluster.sh sources first
# etcd, API server, controller manager, scheduler and kube-proxy, in the cluster's network namespace. Grace periods are
# short, so that a node that stops answering is NotReady within seconds.

etcd_up() {
  mkdir -p "$run/etcd"
  daemon etcd nsenter --net="/run/netns/$netns" -- etcd --data-dir "$run/etcd" --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --log-level warn
}

apiserver_up() {
  daemon kube-apiserver nsenter --net="/run/netns/$netns" -- kube-apiserver \
    --etcd-servers=http://127.0.0.1:2379 --bind-address="$api_ip" --advertise-address="$api_ip" --secure-port=6443 \
    --service-cluster-ip-range="$service_cidr" --client-ca-file="$pki/ca.crt" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --kubelet-certificate-authority="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
    --service-account-key-file="$pki/service-account.key" --service-account-signing-key-file="$pki/service-account.key" \
    --service-account-issuer=https://kubernetes.default.svc --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement --allow-privileged=true \
    --kubelet-preferred-address-types=InternalIP
  wait_for 60 "the API server" "$out/kubectl" get --raw /readyz
}

control_plane_up() {
  etcd_up
  apiserver_up
  say "the API server answers"
  daemon kube-controller-manager nsenter --net="/run/netns/$netns" -- kube-controller-manager \
    --kubeconfig="$pki/controller-manager.kubeconfig" --root-ca-file="$pki/ca.crt" \
    --service-account-private-key-file="$pki/service-account.key" --use-service-account-credentials \
    --node-monitor-period=1s --node-monitor-grace-period=8s --leader-elect=false
  daemon kube-scheduler nsenter --net="/run/netns/$netns" -- kube-scheduler \
    --kubeconfig="$pki/scheduler.kubeconfig" --leader-elect=false
  cat >"$pki/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: node-1
clientConnection: {kubeconfig: $pki/proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
  daemon kube-proxy nsenter --net="/run/netns/$netns" -- kube-proxy --config="$pki/proxy.yaml"
}

stop_daemon() {
  local pid
  pid=$(cat "$run/$1.pid" 2>/dev/null) || return 0
  if is_ours "$pid"; then
    kill "$pid"
    while [ -e "/proc/$pid" ] && is_ours "$pid"; do sleep 0.1; done
  fi
  rm -f "$run/$1.pid"
}

apiserver_stop() { stop_daemon kube-apiserver; stop_daemon etcd; }
apiserver_start() { etcd_up; apiserver_up; }
