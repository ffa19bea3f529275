# shellcheck shell=bash
# Sourced: builds static binaries, and images from scratch with buildah. Everything it makes is below target/.
#
# A release's images are made otherwise (deploy/release/layout.sh): the same bytes again from the same content, and an index.
# That needs oras, which no release of Debian has. What a developer builds needs what apt installs, and runs commands in the
# image of a toolbox.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
images_dir=$repo/target/images
static_target=$(rustc -vV | awk '$1 == "host:" {print $2}')
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

# build_static PROFILE OPTION...: builds packages with glibc linked in, since the images have no base image. glibc's name
# service is not used: agents and operator reach the API server by its address.
build_static() {
  RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile "$1" --locked --manifest-path "$repo/Cargo.toml" \
    --target "$static_target" "${@:2}"
}

# static_dir PROFILE: prints the directory that build_static builds into.
static_dir() { echo "${CARGO_TARGET_DIR:-$repo/target}/$static_target/$1"; }

# Runs buildah with a storage of its own, which nothing else sees.
own_buildah() { buildah --root "$images_dir/storage" --runroot "$images_dir/run" "$@"; }

# image NAME CONTEXT USER INSTRUCTIONS: makes target/images/NAME.tar, tagged localhost/sockeye-NAME:dev, if its content changed.
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
