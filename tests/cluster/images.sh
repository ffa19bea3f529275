# shellcheck shell=bash disable=SC2154 # out, run, netns and the like are from lib.sh, which cluster.sh sources first
# Builds the images, imports them into every node, so that no registry is asked, and installs sockeye's chart by Helm.

# images_build KIND: `quick` ones for a developer's cluster, `release` ones as they ship, or those and what `test`s need.
images_build() {
  case $1 in
    quick) "$repo/deploy/images/build.sh" --quick && "$cluster_src/test-images.sh" ;;
    release) "$repo/deploy/images/build.sh" && "$cluster_src/test-images.sh" ;;
    test) "$repo/deploy/images/build.sh" && "$cluster_src/test-images.sh" --older ;;
    *) die "no images $1: quick, release or test" ;;
  esac
}

# images_import NAME
images_import() {
  local name=$1 archive
  for archive in "$repo"/target/images/*.tar; do
    [ -e "$archive" ] || continue
    in_node "$name" ctr --namespace k8s.io images import "$archive" >/dev/null
  done
}

nodes_running() { ls "$run/nodes"; }

# sockeye_install KIND: with images of that kind.
sockeye_install() {
  local name version import imports=()
  images_build "$1"
  for name in $(nodes_running); do
    images_import "$name" &
    imports+=($!)
  done
  for import in "${imports[@]}"; do wait "$import"; done
  say "images are on the nodes"
  # A rebuilt image keeps its tag: its content in an annotation makes the pods follow it.
  version=$(cat "$repo"/target/images/{operator,agent}.tar | sha256sum | cut -c1-16)
  "$out/helm" upgrade --install sockeye "$repo/deploy/chart" --namespace sockeye-system --create-namespace \
    --values "$cluster_src/values.yaml" --set-string "operator.podAnnotations.images=$version,agent.podAnnotations.images=$version" \
    --wait --timeout 120s >"$out/logs/helm.log" 2>&1 || { tail -20 "$out/logs/helm.log" >&2; die "helm did not succeed"; }
  say "sockeye is installed"
}
