//! A machine whose `/dev/kvm` is missing, closed or no KVM: the message says what to check.

use std::{
    ffi::CStr,
    io,
    os::unix::process::CommandExt,
    process::{Command, Output},
    ptr::null,
};

/// Runs `instar measure --size 1G` with an empty `/dev`, in which `kvm` is a plain file of this mode, if any.
fn with_kvm(mode: Option<u32>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_instar"));
    command.args(["measure", "--size", "1G"]);
    // SAFETY: the closure only makes system calls, and allocates nothing.
    unsafe { command.pre_exec(move || set_up(mode)) };
    command.output().unwrap()
}

fn set_up(mode: Option<u32>) -> io::Result<()> {
    const NOBODY: u32 = 65534;
    let mount = |kind: Option<&CStr>, target: &CStr, flags| {
        let kind = kind.map_or(null(), CStr::as_ptr);
        // SAFETY: every pointer is null or a string.
        check(unsafe { libc::mount(null(), target.as_ptr(), kind, flags, null()) })
    };
    // SAFETY: plain system calls; the paths are strings.
    unsafe {
        let root = libc::geteuid() == 0;
        // Without root's rights a namespace of users gives enough of them.
        check(libc::unshare(libc::CLONE_NEWNS | if root { 0 } else { libc::CLONE_NEWUSER }))?;
        mount(None, c"/", libc::MS_REC | libc::MS_PRIVATE)?;
        mount(Some(c"tmpfs"), c"/dev", 0)?;
        if let Some(mode) = mode {
            let file = check(libc::open(c"/dev/kvm".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0))?;
            check(libc::fchmod(file, mode))?;
            check(libc::close(file))?;
        }
        if root {
            check(libc::setuid(NOBODY))?;
        }
    }
    Ok(())
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn assert_fails(mode: Option<u32>, text: &str) {
    let output = with_kvm(mode);
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("instar: Could not open '/dev/kvm': {text} (io)\n"));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}

#[test]
fn a_missing_kvm_is_told_with_what_to_load() {
    assert_fails(
        None,
        "No such file or directory; load kvm_intel or kvm_amd, and see that virtualization is on in the firmware or, \
         inside a virtual machine, that nesting is on",
    );
}

#[test]
fn a_closed_kvm_is_told_with_the_group_to_join() {
    assert_fails(
        Some(0o000),
        "Permission denied; add the user to group 'kvm' (usermod -aG kvm USER) and log in again",
    );
}

#[test]
fn something_else_named_kvm_is_told() {
    assert_fails(Some(0o666), "this is not KVM version 12");
}
