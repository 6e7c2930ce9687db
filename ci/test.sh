#!/usr/bin/env bash
# All tests: unit and property tests, and the real binary in real virtual machines against the real qemu-img.
# Usage: ci/test.sh [ARGUMENT OF cargo test]...     QEMU_IMG and QEMU_IO name another reference than the one in the path
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/setup.sh
. ci/setup.sh

need_rust
need_compiler
need_kvm
need_qemu_img
need_readers
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
mkdir -p "$target"
cc -O -shared -fPIC -o "$target/clock.so" ci/clock.c
LD_PRELOAD=$target/clock.so cargo test --locked --workspace "$@"
