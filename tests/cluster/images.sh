# shellcheck shell=bash disable=SC2154 # out, run, netns and the like are from lib.sh, which cluster.sh sources first
# Images: built here from scratch, imported into every node; no registry is asked. And sockeye's chart, by Helm.

images_build() { "$repo/deploy/images/build.sh"; "$cluster_src/test-images.sh"; }

# images_import NAME [ARCHIVE...]
images_import() {
  local name=$1 archive
  for archive in "$repo"/target/images/*.tar; do
    [ -e "$archive" ] || continue
    in_node "$name" ctr --namespace k8s.io images import "$archive" >/dev/null
  done
}

nodes_running() { ls "$run/nodes"; }

sockeye_install() {
  local name version
  images_build
  for name in $(nodes_running); do images_import "$name"; done
  say "images are on the nodes"
  # A rebuilt image keeps its tag: its content in an annotation makes the pods follow it.
  version=$(cat "$repo"/target/images/{operator,agent}.tar | sha256sum | cut -c1-16)
  "$out/helm" upgrade --install sockeye "$repo/deploy/chart" --namespace sockeye-system --create-namespace \
    --values "$cluster_src/values.yaml" --set-string "operator.podAnnotations.images=$version,agent.podAnnotations.images=$version" \
    --wait --timeout 120s >"$out/logs/helm.log" 2>&1 || { tail -20 "$out/logs/helm.log" >&2; die "helm did not succeed"; }
  say "sockeye is installed"
}
