#!/usr/bin/env bash
# Compare the contract with that of the last release, the newest tag such as 0.1.0 or v0.1.0 before this commit.
# Usage: protos/check_breaking.sh BUF. The kinds of changes that count as breaking are in protos/buf.yaml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

release=$(git describe --tags --abbrev=0 --match '[0-9]*' --match 'v[0-9]*' 2>/dev/null || true)
if [ -z "$release" ]; then
    echo "NOT CHECKED: breaking changes of the contract, since no release is tagged" >&2
    exit 0
fi
released=build/released
rm -rf "$released"
mkdir -p "$released"
git archive "$release" protos | tar -x -C "$released"
if ! "$1" breaking protos --against "$released/protos"; then
    echo "the contract breaks clients of release $release" >&2
    exit 1
fi
