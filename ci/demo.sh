#!/usr/bin/env bash
# Sets up what is missing, builds instar and measures a real image.
# Usage: ci/demo.sh [IMAGE]     without IMAGE it makes one
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/setup.sh
. ci/setup.sh

image=$(realpath -- "${1-}" 2>/dev/null || true)
need_rust
need_compiler
need_kvm
if [ $# -eq 0 ]; then
    need_qemu_img
    directory=$(mktemp -d)
    trap 'rm -rf "$directory"' EXIT
    image=$directory/example.qcow2
    "${QEMU_IMG:-qemu-img}" create -q -f qcow2 "$image" 1G
    "${QEMU_IO:-qemu-io}" -c 'write -q 0 5M' -c 'write -q 700M 300k' "$image"
fi
cargo build --release --locked

echo
echo "\$ instar measure -O qcow2 $image"
target/release/instar measure -O qcow2 "$image"
