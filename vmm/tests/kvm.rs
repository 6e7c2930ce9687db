//! A machine whose `/dev/kvm` is missing, closed or no KVM: the message says what to check.

use std::{
    env,
    ffi::CStr,
    fs::File,
    io,
    os::unix::process::CommandExt,
    process::{self, Command, Output},
    ptr::null,
    time::Duration,
};

use instar::{
    launch::{self as machine, Disk, IoMode, Limits, no_parts, run_guest},
    sandbox::{Layer, Sandbox, SandboxOptions},
};
use protocol::{Answer, MeasureAnswer, Op};

const ROGUE: &[u8] = include_bytes!(env!("INSTAR_ROGUE"));

/// What `/dev/kvm` is.
#[derive(Clone, Copy)]
enum Kvm {
    Missing,
    /// A plain file of this mode.
    File(u32),
    /// The real thing, open to everybody.
    Real,
}

/// Runs `instar measure --size 1G` as [`run`] does.
fn with(kvm: Kvm) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_instar"));
    command.args(["measure", "--size", "1G"]);
    run(command, kvm)
}

/// Runs `command` without root's rights, with nothing in `/dev` but `kvm`.
fn run(mut command: Command, kvm: Kvm) -> Output {
    // SAFETY: only asks for numbers.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // Who is not root needs no set-up to be nobody in particular, and could not make the device.
    if user == 0 || !matches!(kvm, Kvm::Real) {
        let identity = [
            (c"/proc/self/setgroups", "deny".into()),
            (c"/proc/self/uid_map", format!("{user} {user} 1")),
            (c"/proc/self/gid_map", format!("{group} {group} 1")),
        ];
        // SAFETY: the closure only makes system calls, and allocates nothing.
        unsafe { command.pre_exec(move || set_up(kvm, user == 0, &identity)) };
    }
    command.output().unwrap()
}

fn set_up(kvm: Kvm, root: bool, identity: &[(&CStr, String)]) -> io::Result<()> {
    const NOBODY: u32 = 65534;
    let mount = |kind: Option<&CStr>, target: &CStr, flags| {
        let kind = kind.map_or(null(), CStr::as_ptr);
        // SAFETY: every pointer is null or a string.
        check(unsafe { libc::mount(null(), target.as_ptr(), kind, flags, null()) })
    };
    // SAFETY: plain system calls; the paths are strings, the buffer is as long as it says.
    unsafe {
        // Without root's rights a namespace of users gives enough of them, until the program starts.
        check(libc::unshare(libc::CLONE_NEWNS | if root { 0 } else { libc::CLONE_NEWUSER }))?;
        for (path, text) in identity.iter().filter(|_| !root) {
            let map = check(libc::open(path.as_ptr(), libc::O_WRONLY))?;
            if libc::write(map, text.as_ptr().cast(), text.len()) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        mount(None, c"/", libc::MS_REC | libc::MS_PRIVATE)?;
        mount(Some(c"tmpfs"), c"/dev", 0)?;
        let path = c"/dev/kvm".as_ptr();
        match kvm {
            Kvm::Missing => {}
            Kvm::File(mode) => {
                let file = check(libc::open(path, libc::O_CREAT | libc::O_RDWR, 0))?;
                check(libc::fchmod(file, mode))?;
            }
            Kvm::Real => {
                check(libc::mknod(path, libc::S_IFCHR, libc::makedev(10, 232)))?;
                check(libc::chmod(path, 0o666))?;
            }
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

fn assert_fails(kvm: Kvm, text: &str) {
    let output = with(kvm);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!("instar: Could not open '/dev/kvm': {text} (io)\n")
    );
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}

#[test]
fn a_missing_kvm_is_told_with_what_to_load() {
    assert_fails(
        Kvm::Missing,
        "No such file or directory; load kvm_intel or kvm_amd, and see that virtualization is on in the firmware or, \
         inside a virtual machine, that nesting is on",
    );
}

#[test]
fn a_closed_kvm_is_told_with_the_group_to_join() {
    assert_fails(
        Kvm::File(0o000),
        "Permission denied; add the user to group 'kvm' (usermod -aG kvm USER) and log in again",
    );
}

#[test]
fn something_else_named_kvm_is_told() {
    assert_fails(Kvm::File(0o666), "this is not KVM version 12");
}

#[test]
fn nobody_in_particular_can_run_a_machine_in_its_sandbox() {
    let output = with(Kvm::Real);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.stdout, b"required size: 1073741824\nfully allocated size: 1073741824\n");
}

/// Tells a process that it is the child of the test below.
const CHILD: &str = "INSTAR_KVM_CHILD";

#[test]
fn nobody_in_particular_can_run_workers_in_their_sandbox() {
    const TEST: &str = "nobody_in_particular_can_run_workers_in_their_sandbox";
    if env::var_os(CHILD).is_some() {
        for (workers, io) in [(0, IoMode::Inline), (1, IoMode::Inline), (3, IoMode::Threaded)] {
            let disks = io.for_all(vec![Disk::read_only("source", memory_file(), 4096)]);
            let pool = machine::Command::new(Op::Measure, b"pool".to_vec());
            let command = machine::Command { workers, disks, ..pool };
            let limits = Limits { memory: 64 << 20, timeout: Duration::from_secs(60) };
            // The sandbox is for good.
            let sandbox = (workers == 3).then(|| Sandbox::new(SandboxOptions::default()));
            let finished = run_guest(ROGUE, command, &limits, sandbox.as_ref(), &mut no_parts).unwrap();
            let expected = MeasureAnswer { required: 500, fully_allocated: workers as u64, bitmaps: None };
            assert_eq!(finished.answer, Answer::Measure(expected));
            if workers == 3 {
                let status = sandbox.unwrap().status();
                assert_eq!((status.limits, status.seccomp), (Layer::Enforced, Layer::Enforced));
                // As a command does: its threads are still running.
                finished.leave_standing();
                process::exit(0);
            }
        }
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]).env(CHILD, "");
    let output = run(command, Kvm::Real);
    assert!(output.status.success(), "{output:?}");
}

fn memory_file() -> File {
    let file = nix::sys::memfd::memfd_create(c"source", nix::sys::memfd::MFdFlags::empty()).unwrap();
    let file = File::from(file);
    file.set_len(4096).unwrap();
    file
}
