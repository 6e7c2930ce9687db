//! Builds the guest ELFs for the host's own triple and tells the crate where they are, to embed them.

use std::{env, fs, path::PathBuf, process::Command};

/// What the guests are made of, relative to this crate.
const SOURCES: [&str; 7] = [
    "../.cargo/config.toml",
    "../Cargo.toml",
    "../Cargo.lock",
    "../unikernel",
    "../drivers",
    "../formats/src",
    "../calc/src",
];

/// The variables that tell the crate where the guests are, and the binaries that they are.
const EMBEDDED: [(&str, &str); 2] = [("INSTAR_UNIKERNEL", "unikernel"), ("INSTAR_ROGUE", "rogue")];

fn main() {
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    // A fuzzer launches no machine.
    if env::var_os("CARGO_CFG_FUZZING").is_some() {
        for variable in EMBEDDED.map(|(variable, _)| variable) {
            println!("cargo:rustc-env={variable}=/dev/null");
        }
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    // One build for all profiles of the host: beside them in the target directory, which cargo marks as one.
    let root = out.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists()).unwrap_or(&out);
    let target_directory = root.join("embedded");
    let mut cargo = Command::new(env::var_os("CARGO").expect("set by cargo"));
    cargo
        .current_dir("..")
        .args(["build", "--package", "unikernel", "--features", "guest", "--bins", "--profile", "guest"])
        .arg("--target-dir")
        .arg(&target_directory);
    // What the outer build asks of the host's code must not reach the guest's: linters, sanitizers, another target.
    for name in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "RUSTC_WORKSPACE_WRAPPER",
        "CLIPPY_ARGS",
        "CARGO_PROFILE_GUEST_DEBUG",
    ] {
        cargo.env_remove(name);
    }
    // What this build is like says nothing of the guest: a sanitizer would come into its C code by that.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_CFG_") {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the unikernel does not build");
    for (variable, binary) in EMBEDDED {
        let elf = out.join(binary);
        fs::copy(target_directory.join("guest").join(binary), &elf).expect("the ELF is where it was built");
        println!("cargo:rustc-env={variable}={}", elf.display());
    }
}
