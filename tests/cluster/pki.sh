# shellcheck shell=bash disable=SC2154 # out, run, netns and the like are from lib.sh, which cluster.sh sources first
# Certificates and kubeconfigs, new for every cluster and valid for a week.

pki=$out/pki

# certificate NAME SUBJECT [SANS]
certificate() {
  openssl req -newkey rsa:2048 -nodes -keyout "$pki/$1.key" -subj "$2" -out "$pki/$1.csr" 2>/dev/null
  openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 7 -out "$pki/$1.crt" \
    -extfile <(printf 'keyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\n%s' "${3:+subjectAltName=$3}") 2>/dev/null
}

# kubeconfig NAME SERVER FILE
kubeconfig() {
  cat >"$3" <<YAML
apiVersion: v1
kind: Config
current-context: local
clusters:
- name: local
  cluster: {server: "$2", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}
users:
- name: local
  user: {client-certificate-data: $(base64 -w0 "$pki/$1.crt"), client-key-data: $(base64 -w0 "$pki/$1.key")}
contexts:
- name: local
  context: {cluster: local, user: local}
YAML
}

# pki_base SANS: makes the authority, and certificates of the API server and the administrator.
pki_base() {
  rm -rf "$pki"
  mkdir -p "$pki"
  openssl req -x509 -newkey rsa:2048 -nodes -keyout "$pki/ca.key" -subj /CN=sockeye-local-ca -days 7 -out "$pki/ca.crt" 2>/dev/null
  openssl genrsa -out "$pki/service-account.key" 2048 2>/dev/null
  certificate apiserver /CN=kube-apiserver "$1"
  certificate admin /O=system:masters/CN=admin
}

pki_up() {
  pki_base "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:$api_ip,IP:$service_ip,IP:127.0.0.1"
  certificate controller-manager /CN=system:kube-controller-manager
  certificate scheduler /CN=system:kube-scheduler
  certificate proxy /CN=system:kube-proxy
  kubeconfig admin "https://$api_ip:6443" "$out/kubeconfig"
  for name in controller-manager scheduler proxy; do kubeconfig $name "https://$api_ip:6443" "$pki/$name.kubeconfig"; done
}

# node_pki NAME IP
node_pki() {
  certificate "$1" "/O=system:nodes/CN=system:node:$1" "DNS:$1,IP:$2"
  kubeconfig "$1" "https://$api_ip:6443" "$pki/$1.kubeconfig"
}
