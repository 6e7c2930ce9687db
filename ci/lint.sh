#!/usr/bin/env bash
# Formatting, lints and documentation of all crates, the guest's own build included.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/setup.sh
. ci/setup.sh

need_rust
need_compiler
cargo fmt --all -- --check
cargo clippy --locked --workspace --all-targets -- -D warnings
cargo clippy --locked --package unikernel --features guest --profile guest --bins -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --quiet
