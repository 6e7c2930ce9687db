//! Each layer of the sandbox alone, in a process of its own: what it forbids is refused, and by that layer.
//!
//! A test starts this very binary again for one case; there the layer is applied through the library and the
//! forbidden thing is tried.

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::MetadataExt,
            net::{SocketAddr, UnixListener, UnixStream},
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{self, Command, Output},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use instar::sandbox::{Layer, Sandbox, SandboxOptions, layers};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Tells a process that it is the child, and of which case.
const CASE: &str = "INSTAR_SANDBOX_CASE";

/// Nobody: limits on processes and on raising limits do not bind root.
const NOBODY: u32 = 65534;

/// The same test in a process of its own, for one case of it.
fn child(test: &str, case: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CASE, case)
        .env_remove("RUST_BACKTRACE");
    command
}

/// In the child, runs `body` for the case and ends the process; in the parent, runs the child.
fn in_child(test: &str, body: impl FnOnce()) -> Output {
    if env::var_os(CASE).is_some() {
        body();
        process::exit(0);
    }
    child(test, test).output().unwrap()
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Any system call, with arguments that do no harm if it is let through.
fn call(number: i64, arguments: [i64; 4]) -> i64 {
    let [first, second, third, fourth] = arguments;
    // SAFETY: the calls in these tests have null pointers, invalid descriptors or nothing to damage.
    unsafe { libc::syscall(number, first, second, third, fourth, -1, 0) }
}

#[test]
fn no_new_privs_is_set() {
    let output = in_child("no_new_privs_is_set", || {
        assert_eq!(layers::no_new_privs().unwrap(), Layer::Enforced);
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    });
    assert_success(&output);
}

#[test]
fn landlock_closes_every_path() {
    let output = in_child("landlock_closes_every_path", || {
        let mut open = File::open("/etc/passwd").unwrap();
        let new = env::temp_dir().join(format!("instar-landlock-{}", process::id()));
        // A kernel without Landlock fails here: this project's tests are run where it exists.
        assert_eq!(layers::landlock(&[]).unwrap(), Layer::Enforced);

        assert_eq!(errno(File::open("/etc/passwd")), Some(libc::EACCES));
        assert_eq!(errno(File::open("/dev/null")), Some(libc::EACCES));
        assert_eq!(errno(File::create(&new)), Some(libc::EACCES));
        assert_eq!(errno(fs::read_dir("/")), Some(libc::EACCES));
        assert_eq!(errno(fs::create_dir(&new)), Some(libc::EACCES));
        assert_eq!(errno(fs::remove_file(env::current_exe().unwrap())), Some(libc::EACCES));
        assert_eq!(errno(Command::new("/bin/true").status()), Some(libc::EACCES));
        // What is open stays open.
        assert!(open.read(&mut [0; 16]).unwrap() > 0);
    });
    assert_success(&output);
}

#[test]
fn landlock_closes_the_network_and_other_processes() {
    const TEST: &str = "landlock_closes_the_network_and_other_processes";
    let abstract_socket = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
    if let Ok(case) = env::var(CASE) {
        let (name, port) = case.split_once(' ').unwrap();
        let port: u16 = port.parse().unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert_eq!(layers::landlock(&[]).unwrap(), Layer::Enforced);
        assert_eq!(errno(TcpStream::connect(("127.0.0.1", port))), Some(libc::EACCES));
        assert_eq!(errno(TcpListener::bind(("127.0.0.1", 0))), Some(libc::EACCES));
        assert_eq!(errno(UnixStream::connect_addr(&abstract_socket(name))), Some(libc::EPERM));
        let parent = std::os::unix::process::parent_id();
        assert_eq!(call(libc::SYS_kill, [parent.into(), 0, 0, 0]), -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
        assert_eq!(call(libc::SYS_kill, [process::id().into(), 0, 0, 0]), 0);
        process::exit(0);
    }
    let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let name = format!("instar-test-{}", process::id());
    let _unix = UnixListener::bind_addr(&abstract_socket(&name)).unwrap();
    let case = format!("{name} {}", tcp.local_addr().unwrap().port());
    assert_success(&child(TEST, &case).output().unwrap());
}

/// Runs a case of the limits as an ordinary user.
fn limited(test: &str, body: impl FnOnce()) -> Output {
    if env::var_os(CASE).is_some() {
        body();
        process::exit(0);
    }
    let mut command = child(test, test);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
}

fn lower_limits(writable: bool) {
    let options = SandboxOptions { writable, ..SandboxOptions::default() };
    assert_eq!(layers::limits(options).unwrap(), Layer::Enforced);
}

#[test]
fn limits_cannot_be_raised_again() {
    let output = limited("limits_cannot_be_raised_again", || {
        lower_limits(false);
        for resource in [
            Resource::RLIMIT_CORE,
            Resource::RLIMIT_FSIZE,
            Resource::RLIMIT_NOFILE,
            Resource::RLIMIT_NPROC,
            Resource::RLIMIT_MEMLOCK,
            Resource::RLIMIT_MSGQUEUE,
        ] {
            assert_eq!(getrlimit(resource).unwrap(), (0, 0), "{resource:?}");
            assert_eq!(setrlimit(resource, 0, 1), Err(nix::Error::EPERM), "{resource:?}");
        }
    });
    assert_success(&output);
}

#[test]
fn limits_stop_new_descriptors_and_threads() {
    let output = limited("limits_stop_new_descriptors_and_threads", || {
        lower_limits(false);
        assert_eq!(errno(File::open("/dev/null")), Some(libc::EMFILE));
        assert_eq!(errno(UnixStream::pair()), Some(libc::EMFILE));
        assert_eq!(errno(thread::Builder::new().spawn(|| {})), Some(libc::EAGAIN));
    });
    assert_success(&output);
}

fn scratch_file() -> File {
    File::from(nix::sys::memfd::memfd_create(c"scratch", nix::sys::memfd::MFdFlags::empty()).unwrap())
}

#[test]
fn limits_stop_a_file_from_growing() {
    let output = limited("limits_stop_a_file_from_growing", || {
        let mut file = scratch_file();
        lower_limits(false);
        let _ = file.write_all(b"x");
    });
    assert_eq!(output.status.signal(), Some(libc::SIGXFSZ), "{output:?}");
}

#[test]
fn a_command_that_writes_may_grow_its_file() {
    let output = limited("a_command_that_writes_may_grow_its_file", || {
        let mut file = scratch_file();
        lower_limits(true);
        file.write_all(b"x").unwrap();
    });
    assert_success(&output);
}

#[test]
fn output_redirected_to_a_file_still_arrives() {
    const TEST: &str = "output_redirected_to_a_file_still_arrives";
    if env::var_os(CASE).is_some() {
        lower_limits(false);
        println!("the answer");
        process::exit(0);
    }
    let path = env::temp_dir().join(format!("instar-output-{}", process::id()));
    let status = child(TEST, TEST).stdout(File::create(&path).unwrap()).status().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(status.success());
    assert!(text.contains("the answer"), "{text}");
}

const EXECUTABLE: i64 = (libc::PROT_READ | libc::PROT_EXEC) as i64;
const ANONYMOUS: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;

/// System calls that the filter must refuse: name, number, arguments.
const FORBIDDEN: &[(&str, i64, [i64; 4])] = &[
    ("open", libc::SYS_open, [0; 4]),
    ("openat", libc::SYS_openat, [-1, 0, 0, 0]),
    ("openat2", libc::SYS_openat2, [-1, 0, 0, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0]),
    ("unlink", libc::SYS_unlink, [0; 4]),
    ("rename", libc::SYS_rename, [0; 4]),
    ("chmod", libc::SYS_chmod, [0; 4]),
    ("mount", libc::SYS_mount, [0; 4]),
    ("memfd_create", libc::SYS_memfd_create, [0; 4]),
    ("dup", libc::SYS_dup, [1, 0, 0, 0]),
    ("socket", libc::SYS_socket, [1, 1, 0, 0]),
    ("connect", libc::SYS_connect, [-1, 0, 0, 0]),
    ("sendmsg", libc::SYS_sendmsg, [-1, 0, 0, 0]),
    ("recvmsg", libc::SYS_recvmsg, [-1, 0, 0, 0]),
    ("execve", libc::SYS_execve, [0; 4]),
    ("execveat", libc::SYS_execveat, [-1, 0, 0, 0]),
    ("fork", libc::SYS_fork, [0; 4]),
    ("vfork", libc::SYS_vfork, [0; 4]),
    ("clone", libc::SYS_clone, [0; 4]),
    ("clone3", libc::SYS_clone3, [0; 4]),
    ("ptrace", libc::SYS_ptrace, [-1, 0, 0, 0]),
    ("process_vm_writev", libc::SYS_process_vm_writev, [0; 4]),
    ("setrlimit", libc::SYS_setrlimit, [0; 4]),
    ("prlimit64", libc::SYS_prlimit64, [0; 4]),
    ("setuid", libc::SYS_setuid, [0; 4]),
    ("unshare", libc::SYS_unshare, [0; 4]),
    ("bpf", libc::SYS_bpf, [-1, 0, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [0; 4]),
    ("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0, 0]),
    ("kill another", libc::SYS_kill, [1, 0, 0, 0]),
    ("tgkill another", libc::SYS_tgkill, [1, 1, 0, 0]),
    ("prctl other than PR_SET_NAME", libc::SYS_prctl, [libc::PR_GET_DUMPABLE as i64, 0, 0, 0]),
    ("fcntl other than F_GETFD", libc::SYS_fcntl, [1, libc::F_GETFL as i64, 0, 0]),
    ("rt_sigaction of SIGSYS", libc::SYS_rt_sigaction, [libc::SIGSYS as i64, 0, 0, 8]),
    ("ioctl TCGETS", libc::SYS_ioctl, [1, libc::TCGETS as i64, 0, 0]),
    ("ioctl TIOCSTI", libc::SYS_ioctl, [1, libc::TIOCSTI as i64, 0, 0]),
    ("ioctl KVM_CREATE_VM", libc::SYS_ioctl, [-1, 0xae01, 0, 0]),
    ("ioctl KVM_SET_USER_MEMORY_REGION", libc::SYS_ioctl, [-1, 0x4020_ae46, 0, 0]),
    ("mmap of executable memory", libc::SYS_mmap, [0, 4096, EXECUTABLE, ANONYMOUS]),
    ("mmap of a file", libc::SYS_mmap, [0, 4096, libc::PROT_READ as i64, libc::MAP_PRIVATE as i64]),
    ("mprotect to executable", libc::SYS_mprotect, [0, 4096, EXECUTABLE, 0]),
    ("pkey_mprotect", libc::SYS_pkey_mprotect, [0, 4096, EXECUTABLE, -1]),
    ("pwrite64", libc::SYS_pwrite64, [-1, 0, 0, 0]),
    ("pwritev", libc::SYS_pwritev, [-1, 0, 0, 0]),
    ("ftruncate", libc::SYS_ftruncate, [-1, 0, 0, 0]),
    ("fallocate", libc::SYS_fallocate, [-1, 0, 0, 0]),
    ("a number nobody has", 100_000, [0; 4]),
];

fn filter(writable: bool) {
    let options = SandboxOptions { writable, ..SandboxOptions::default() };
    assert_eq!(layers::seccomp(options).unwrap(), Layer::Enforced);
}

/// The process was ended by the filter's handler, which said so.
fn assert_refused(output: &Output, what: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{what}: {output:?}");
    assert_eq!(stderr, "instar: Stopped by the sandbox: forbidden system call (guest-fault)\n", "{what}");
}

#[test]
fn seccomp_refuses_what_is_not_listed() {
    const TEST: &str = "seccomp_refuses_what_is_not_listed";
    if let Ok(case) = env::var(CASE) {
        let (_, number, arguments) = FORBIDDEN.iter().find(|(name, ..)| *name == case).unwrap();
        filter(false);
        call(*number, *arguments);
        process::exit(0);
    }
    for (name, ..) in FORBIDDEN {
        assert_refused(&child(TEST, name).output().unwrap(), name);
    }
}

#[test]
fn seccomp_binds_threads_that_exist_already() {
    let output = in_child("seccomp_binds_threads_that_exist_already", || {
        let (go, wait) = mpsc::channel();
        let thread = thread::Builder::new().name("worker".into()).spawn(move || {
            wait.recv().unwrap();
            call(libc::SYS_socket, [1, 1, 0, 0])
        });
        filter(false);
        go.send(()).unwrap();
        let _ = thread.unwrap().join();
    });
    assert_refused(&output, "socket in another thread");
}

#[test]
fn seccomp_speaks_as_qemu_img_where_that_is_the_name() {
    let output = in_child("seccomp_speaks_as_qemu_img_where_that_is_the_name", || {
        layers::seccomp(SandboxOptions { as_qemu_img: true, ..SandboxOptions::default() }).unwrap();
        call(libc::SYS_socket, [1, 1, 0, 0]);
    });
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "qemu-img: Stopped by the sandbox: forbidden system call\n"
    );
}

#[test]
fn seccomp_lets_a_run_go_on() {
    let output = in_child("seccomp_lets_a_run_go_on", || {
        let mut file = File::open("/proc/self/exe").unwrap();
        let (mut there, mut from_here) = io::pipe().unwrap();
        let (mut here, mut from_there) = io::pipe().unwrap();
        let fd = i64::from(here.as_raw_fd());
        let thread = thread::spawn(move || {
            let mut byte = [0];
            there.read_exact(&mut byte).unwrap();
            thread::sleep(Duration::from_millis(1));
            from_there.write_all(&byte).unwrap();
            vec![byte[0]; 10 << 20]
        });
        filter(false);

        // KVM_RUN passes the filter: it is the descriptor that does not know it.
        assert_eq!(call(libc::SYS_ioctl, [fd, 0xae80, 0, 0]), -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOTTY));
        let started = Instant::now();
        let mut large: Vec<u8> = Vec::new();
        for size in [1 << 10, 1 << 20, 50 << 20] {
            large.resize(size, 1);
        }
        file.read_exact(&mut large[..4096]).unwrap();
        from_here.write_all(b"x").unwrap();
        here.read_exact(&mut [0]).unwrap();
        assert_eq!(thread.join().unwrap().len(), 10 << 20);
        drop(file);
        assert!(started.elapsed() > Duration::ZERO);
        println!("{:?}", std::collections::HashMap::from([(1, 2)]));
    });
    assert_success(&output);
}

#[test]
fn seccomp_lets_a_command_write_that_may() {
    let output = in_child("seccomp_lets_a_command_write_that_may", || {
        use std::os::unix::fs::FileExt;
        let file = scratch_file();
        filter(true);
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"x", 4096).unwrap();
        file.sync_all().unwrap();
    });
    assert_success(&output);
}

#[test]
fn a_panic_under_seccomp_still_says_so() {
    let output = in_child("a_panic_under_seccomp_still_says_so", || {
        filter(false);
        let panicked = std::panic::catch_unwind(|| panic!("told to"));
        process::exit(if panicked.is_err() { 7 } else { 0 });
    });
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("told to"), "{output:?}");
}

#[test]
fn the_whole_sandbox_is_enforced_and_output_goes_on() {
    let output = in_child("the_whole_sandbox_is_enforced_and_output_goes_on", || {
        let sandbox = Sandbox::new(SandboxOptions::default());
        assert_eq!(sandbox.status().landlock, Layer::Missing);
        let first = sandbox.restrict(&[]).unwrap();
        assert_eq!((first.landlock, first.seccomp), (Layer::Enforced, Layer::Missing));
        let worker = thread::spawn(|| File::open("/etc/passwd").is_err());
        assert!(worker.join().unwrap());
        let status = sandbox.filter_syscalls().unwrap();
        let all = [status.no_new_privs, status.landlock, status.limits, status.seccomp];
        assert_eq!(all, [Layer::Enforced; 4]);
        println!("the answer");
    });
    assert_success(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("the answer"));
}

#[test]
fn an_interrupted_child_leaves_no_core() {
    let output = in_child("an_interrupted_child_leaves_no_core", || {
        lower_limits(false);
        process::abort();
    });
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
    assert!(!output.status.core_dumped());
}

#[test]
fn a_machine_runs_and_is_taken_down_inside_the_sandbox() {
    use instar::launch::{Command, Disk, IoMode, Limits, no_parts, run, run_guest};
    use protocol::{ErrorKind, Op};

    const ROGUE: &[u8] = include_bytes!(env!("INSTAR_ROGUE"));
    const TEST: &str = "a_machine_runs_and_is_taken_down_inside_the_sandbox";
    let Ok(case) = env::var(CASE) else {
        for case in ["inline", "threaded", "inline spin", "threaded spin", "threaded panic"] {
            assert_success(&child(TEST, case).output().unwrap());
        }
        return;
    };
    let io = if case.starts_with("inline") { IoMode::Inline } else { IoMode::Threaded };
    let source = r#"{"disk":"source","length":1048576,"allocated":0,"extents":{"inline":[[0,4096]]}}"#;
    let request = format!(
        r#"{{"profile":"11.1","target_format":"qcow2","options":null,"secrets":[],"subject":{{"image":{{"source":{{"file":{source}}},"snapshot":null}}}}}}"#
    );
    let file = scratch_file();
    file.set_len(1 << 20).unwrap();
    let disk = Disk::read_only("source", file, 1 << 20);
    let deed = case.split_once(' ').map(|(_, deed)| deed);
    let payload = deed.unwrap_or(&request).as_bytes().to_vec();
    let command = Command { disks: io.for_all(vec![disk]), ..Command::new(Op::Measure, payload) };
    let limits =
        Limits { memory: 64 << 20, timeout: Duration::from_secs(if deed.is_some() { 1 } else { 30 }) };
    let sandbox = Sandbox::new(SandboxOptions::default());
    match deed {
        None => drop(
            run(command, &limits, Some(&sandbox), &mut no_parts).map_err(|error| error.to_string()).unwrap(),
        ),
        Some(deed) => {
            let outcome = run_guest(ROGUE, command, &limits, Some(&sandbox), &mut no_parts);
            let expected = if deed == "spin" { ErrorKind::Timeout } else { ErrorKind::GuestFault };
            assert_eq!(outcome.err().map(|error| error.kind()), Some(expected));
        }
    }
    assert_eq!(sandbox.status().seccomp, Layer::Enforced);
    process::exit(0);
}
