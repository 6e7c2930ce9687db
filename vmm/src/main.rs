//! `instar`: qemu-img for images nobody should trust.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    instar::cli::main()
}
