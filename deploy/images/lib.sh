# shellcheck shell=bash
# Sourced: makes image archives with buildah, from scratch, keeping its storage below target/.

images_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/images
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

# Runs buildah with a storage of its own, which nothing else sees.
own_buildah() { buildah --root "$images_dir/storage" --runroot "$images_dir/run" "$@"; }

# image NAME CONTEXT USER INSTRUCTIONS: target/images/NAME.tar, tagged localhost/sockeye-NAME:dev; made only where its content changed.
image() {
  local name=$1 context=$2 user=$3 instructions=$4 key tag=localhost/sockeye-$1:dev
  key=$({ printf '%s\n%s\n' "$user" "$instructions"; find "$context" -type f -exec sha256sum {} +; } | sha256sum)
  if [ -e "$images_dir/$name.tar" ] && [ "$(cat "$images_dir/$name.key" 2>/dev/null)" = "$key" ]; then return; fi
  printf 'FROM scratch\n%s\nUSER %s\n' "$instructions" "$user" >"$images_dir/$name.Containerfile"
  own_buildah build --quiet --layers=false --tag "$tag" --file "$images_dir/$name.Containerfile" "$context" >/dev/null
  rm -f "$images_dir/$name.tar"
  own_buildah push --quiet "$tag" "docker-archive:$images_dir/$name.tar:$tag" >/dev/null
  own_buildah rmi --force "$tag" >/dev/null
  printf '%s\n' "$key" >"$images_dir/$name.key"
  echo "image $tag: $(stat -c %s "$images_dir/$name.tar" | numfmt --to=iec)" >&2
}
