//! Links the guest ELFs: no C library, no start files, laid out by link.ld.

fn main() {
    println!("cargo:rerun-if-changed=link.ld");
    println!("cargo:rerun-if-changed=src/boot/entry.s");
    if std::env::var_os("CARGO_FEATURE_GUEST").is_none() {
        return;
    }
    let script = format!("{}/link.ld", std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,max-page-size=4096",
        "-Wl,-z,noexecstack",
        &format!("-Wl,-T,{script}"),
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    // Only the guest of the benchmark has it, whose crate cannot be linked: it wants std.
    if let Some(root) = std::env::var_os("DEP_LIBDEFLATE_ROOT") {
        println!("cargo:rustc-link-arg-bin=bench={}/lib/libdeflate.a", root.display());
    }
}
