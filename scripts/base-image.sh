#!/usr/bin/env bash
# Makes sure that the runtime base image exists: pulled where a registry can be reached, else bootstrapped from Debian's
# packages under the same name, so that the Dockerfile is the same everywhere.
#   scripts/base-image.sh debian:bookworm-slim
set -euo pipefail

image=${1:-debian:bookworm-slim}
suite=${image#debian:}; suite=${suite%-slim}

docker image inspect "$image" >/dev/null 2>&1 && exit 0
timeout 60 docker pull --quiet "$image" >/dev/null 2>&1 && exit 0

echo "base-image: $image cannot be pulled; bootstrapping $suite from Debian's packages (two minutes, once)" >&2
command -v debootstrap >/dev/null || { apt-get update -qq; apt-get install -y -qq debootstrap; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates,libstdc++6 "$suite" "$root" >/dev/null
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
tar -C "$root" -c . | docker import - "$image" >/dev/null
