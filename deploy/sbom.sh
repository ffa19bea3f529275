#!/usr/bin/env bash
# Writes the SBOMs of images, command line and chart as CycloneDX: target/sbom/{operator,agent,cli,chart}.json.
#
# cargo-cyclonedx lists the crates of Cargo.lock, and deploy/sbom.py adds what cargo does not know. The same sources give the
# same bytes, so that images are rebuilt only after a change.
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tests/packages.sh
source "$repo/tests/packages.sh"
# What the images are built for, the version of the C library in them, and where the SBOMs go: by default what
# deploy/images/build.sh builds.
target=${SBOM_TARGET:-$(rustc -vV | awk '$1 == "host:" {print $2}')}
libc=${SBOM_LIBC:-$(getconf GNU_LIBC_VERSION)}
out=${SBOM_OUT:-$repo/target/sbom}
# The name of the files that cargo-cyclonedx writes beside each Cargo.toml; .gitignore has it too.
mark=sbom.cdx

tool=$(cargo_tool cargo-cyclonedx 0.5.9)
# With this, cargo-cyclonedx writes no serial number and a fixed time.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$repo" log -1 --format=%ct -- Cargo.lock 2>/dev/null || true)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
trap 'rm -f "$repo"/{*,*/*}/"$mark.json"' EXIT
(cd "$repo" && "$tool" cyclonedx --quiet --manifest-path Cargo.toml --format json --spec-version 1.5 --target "$target" \
  --no-build-deps --override-filename "$mark")
mkdir -p "$out"
for folder in operator agent crds/cli; do
  /usr/bin/python3 "$repo/deploy/sbom.py" binary "$repo" "${libc#glibc }" <"$repo/$folder/$mark.json" >"$out/${folder##*/}.json"
done
/usr/bin/python3 "$repo/deploy/sbom.py" chart "$out"/{operator,agent}.json >"$out/chart.json"
