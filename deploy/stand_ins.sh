#!/usr/bin/env bash
# Makes stand-ins for the images of Python and Prometheus from Debian's packages, so that `make test-tools` can prove
# the containers on a machine that reaches no registry. Needs root, debootstrap and podman.
#   deploy/stand_ins.sh [DEBIAN_MIRROR]
set -euo pipefail

mirror=${1:-http://deb.debian.org/debian}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" "$mirror"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
tar -C "$root" -c . | podman import - localhost/attendant-stand-in/python

chroot "$root" sh -c 'apt-get update && apt-get install --yes --no-install-recommends prometheus' </dev/null
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
install --directory --owner=65534 --group=65534 "$root/prometheus"
tar -C "$root" -c . | podman import \
    --change 'USER 65534:65534' --change 'ENTRYPOINT ["/usr/bin/prometheus"]' \
    - localhost/attendant-stand-in/prometheus
