#!/usr/bin/env bash
# Formatting, lints and documentation of all crates, the guest's own build and the fuzz targets included; the scripts; the
# licences and sources of what we depend on.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=ci/setup.sh
. ci/setup.sh

need_rust
need_compiler
need_shellcheck
need_cargo_deny
fuzz=(--manifest-path ci/fuzz/Cargo.toml)
target=${CARGO_TARGET_DIR:-target}

shellcheck --external-sources --severity=warning ci/*.sh .ci/run images/make images/baselines/{fetch,record,images}
cargo fmt --all -- --check
cargo fmt "${fuzz[@]}" -- --check
cargo clippy --locked --workspace --all-targets -- -D warnings
cargo clippy --locked --package unikernel --features guest --profile guest --bins --target-dir "$target/embedded" -- -D warnings
cargo clippy --locked "${fuzz[@]}" --target-dir "$target" -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --quiet
cargo deny --locked check licenses bans sources
