//! The seccomp allow-list: what the VMM, std and glibc call while the guest runs and until the process has ended.
//!
//! A refused call raises SIGSYS, whose handler prints one line and aborts. `KILL_PROCESS` would be as final, but
//! silent: the caller of a command line tool is owed a message, and the handler gains an attacker nothing, since
//! every call it makes passes the same filter. If the handler itself fails, the blocked signal kills the process.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as ArgLen, SeccompCmpOp as Op,
    SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule, TargetArch, apply_filter_all_threads,
    sock_filter,
};

use super::{Layer, SandboxError, SandboxOptions};

/// `_IO(KVMIO, 0x80)`: run a virtual CPU until its next exit.
const KVM_RUN: u32 = 0xae80;

/// Numbers in a group of [`in_groups`]: about the root of how many there are.
const GROUP: usize = 6;

/// `BPF_JMP | BPF_JGE | BPF_K`.
const JUMP_IF_NOT_BELOW: u16 = 0x35;

/// Allowed whatever the arguments are; the kernel answers these from a bitmap without running the filter.
const ALLOWED: &[i64] = &[
    // Moving bytes through descriptors that are open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_close,
    // An event loop over eventfds and timers that exist.
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_timerfd_settime,
    libc::SYS_timer_settime,
    libc::SYS_timer_delete,
    // Memory, short of mapping (below).
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    // Threads that exist: locks, waiting (one for signals that end the process), ending.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // A spawned thread may still be starting when the filter goes in.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
];

/// Allowed beside [`ALLOWED`] when a file is written to.
const WRITING: &[i64] = &[
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
];

/// Allowed beside [`ALLOWED`] when files that images name may be opened, and looked at as far as a host may.
const OPENING: &[i64] =
    &[libc::SYS_openat2, libc::SYS_statx, libc::SYS_fstat, libc::SYS_lseek, libc::SYS_memfd_create];

/// Allowed beside [`WRITING`] when files get their names.
const APPEARING: &[i64] =
    &[libc::SYS_linkat, libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_unlinkat, libc::SYS_newfstatat];

/// Installs the filter on all threads of the process.
pub fn filter(options: SandboxOptions) -> Result<Layer, SandboxError> {
    let program = compile(options)?;
    AS_QEMU_IMG.store(options.as_qemu_img, Ordering::Relaxed);
    vmm_sys_util::signal::register_signal_handler(libc::SIGSYS, refused)
        .map_err(|error| SandboxError::Handler(io::Error::from(error)))?;
    apply_filter_all_threads(&program)?;
    Ok(Layer::Enforced)
}

fn compile(options: SandboxOptions) -> Result<BpfProgram, BackendError> {
    in_groups(rules(options)?)
}

fn rules(options: SandboxOptions) -> Result<BTreeMap<i64, Vec<Rule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<Rule>> = ALLOWED.iter().map(|&number| (number, Vec::new())).collect();
    if options.writable {
        rules.extend(WRITING.iter().map(|&number| (number, Vec::new())));
    }

    // The one thing left to ask of KVM.
    rules.insert(libc::SYS_ioctl, vec![only(1, Op::Eq, KVM_RUN)?]);
    // Debug builds of std check with F_GETFD that a descriptor they close is open.
    let mut controls = vec![libc::F_GETFD];
    if options.appearing {
        rules.extend(APPEARING.iter().map(|&number| (number, Vec::new())));
    }
    if options.references || options.creating {
        rules.extend(OPENING.iter().map(|&number| (number, Vec::new())));
        controls.extend([libc::F_OFD_SETLK, libc::F_OFD_GETLK]);
    }
    let controls = controls.into_iter().map(|control| only(1, Op::Eq, control.cast_unsigned()));
    let mut controls: Vec<Rule> = controls.collect::<Result<_, _>>()?;
    if options.direct {
        controls.push(Rule::new(vec![
            condition(1, Op::Eq, libc::F_SETFL.cast_unsigned())?,
            condition(2, Op::Eq, libc::O_DIRECT.cast_unsigned())?,
        ])?);
    }
    rules.insert(libc::SYS_fcntl, controls);
    // Fresh memory, never executable.
    let anonymous = libc::MAP_ANONYMOUS.cast_unsigned();
    let executable = libc::PROT_EXEC.cast_unsigned();
    rules.insert(
        libc::SYS_mmap,
        vec![Rule::new(vec![
            condition(2, Op::MaskedEq(executable.into()), 0)?,
            condition(3, Op::MaskedEq(anonymous.into()), anonymous)?,
        ])?],
    );
    rules.insert(libc::SYS_mprotect, vec![only(2, Op::MaskedEq(executable.into()), 0)?]);
    // A starting thread gives itself its name.
    rules.insert(libc::SYS_prctl, vec![only(0, Op::Eq, libc::PR_SET_NAME.cast_unsigned())?]);
    // std's handler for memory faults puts the default action back and lets the fault happen again; abort() does
    // the same for its own signal.
    let fatal = [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT];
    let restored = fatal.iter().map(|signal| only(0, Op::Eq, signal.cast_unsigned()));
    rules.insert(libc::SYS_rt_sigaction, restored.collect::<Result<_, _>>()?);
    // Signals go to this process alone: kicking a thread out of KVM_RUN, abort().
    rules.insert(libc::SYS_tgkill, vec![only(0, Op::Eq, std::process::id())?]);

    Ok(rules)
}

/// The program for `rules`. seccompiler compares a number with every listed one in turn, and the kernel runs the
/// program for every number there is when it installs it; so the list is cut into groups, each skipped as a whole by
/// numbers above it, which halves the time of that.
fn in_groups(rules: BTreeMap<i64, Vec<Rule>>) -> Result<BpfProgram, BackendError> {
    // Without rules a program checks the architecture and returns; with rules it also loads the number.
    let architecture = program(BTreeMap::new())?.len() - 1;
    let mut groups: Vec<BTreeMap<i64, Vec<Rule>>> = Vec::new();
    for (number, rule) in rules {
        match groups.last_mut() {
            Some(group) if group.len() < GROUP => drop(group.insert(number, rule)),
            _ => groups.push(BTreeMap::from([(number, rule)])),
        }
    }
    let firsts: Vec<i64> = groups.iter().filter_map(|group| group.keys().next().copied()).collect();
    let mut whole = Vec::new();
    for (index, group) in groups.into_iter().enumerate() {
        let mut body = program(group)?;
        let head: Vec<_> = body.drain(..=architecture).collect();
        if index == 0 {
            whole.extend(head);
        }
        if let Some(&next) = firsts.get(index + 1) {
            let too_large = |_| BackendError::FilterTooLarge(body.len());
            let skip = u8::try_from(body.len()).map_err(too_large)?;
            let next = u32::try_from(next).map_err(|_| BackendError::FilterTooLarge(body.len()))?;
            whole.push(sock_filter { code: JUMP_IF_NOT_BELOW, jt: skip, jf: 0, k: next });
        }
        whole.append(&mut body);
    }
    Ok(whole)
}

fn program(rules: BTreeMap<i64, Vec<Rule>>) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

fn only(argument: u8, op: Op, value: u32) -> Result<Rule, BackendError> {
    Rule::new(vec![condition(argument, op, value)?])
}

fn condition(argument: u8, op: Op, value: u32) -> Result<Condition, BackendError> {
    Condition::new(argument, ArgLen::Dword, op, value.into())
}

static AS_QEMU_IMG: AtomicBool = AtomicBool::new(false);

/// The SIGSYS handler: async-signal-safe, because an atomic load, `write` and `abort` are all it does.
extern "C" fn refused(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let text: &[u8] = if AS_QEMU_IMG.load(Ordering::Relaxed) {
        b"qemu-img: Stopped by the sandbox: forbidden system call\n"
    } else {
        b"instar: Stopped by the sandbox: forbidden system call (guest-fault)\n"
    };
    let _ = nix::unistd::write(io::stderr().as_fd(), text);
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel makes of a program: the action for a call whose arguments all have this value.
    fn run(program: &[sock_filter], number: u32, argument: u32) -> u32 {
        const X86_64: u32 = 0xc000_003e;
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &program[at];
            let choose = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            at += 1;
            match step.code {
                0x20 => {
                    value = match step.k {
                        0 => number,
                        4 => X86_64,
                        16.. => argument,
                        other => panic!("load from {other}"),
                    };
                }
                0x05 => at += step.k as usize,
                0x06 => return step.k,
                0x15 => at += choose(value == step.k),
                0x35 => at += choose(value >= step.k),
                0x54 => value &= step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn groups_decide_as_the_plain_list_does() {
        for (writable, references) in [(false, false), (true, false), (false, true), (true, true)] {
            let options = SandboxOptions { writable, references, ..SandboxOptions::default() };
            let plain = program(rules(options).unwrap()).unwrap();
            let grouped = compile(options).unwrap();
            let mut allowed = 0;
            for number in (0..1000).chain([1 << 30, u32::MAX]) {
                for argument in [0, 1, 2, 3, KVM_RUN, std::process::id(), u32::MAX] {
                    let action = run(&grouped, number, argument);
                    assert_eq!(action, run(&plain, number, argument), "{number} {argument:#x}");
                    allowed += u32::from(action == libc::SECCOMP_RET_ALLOW);
                }
            }
            assert!(allowed > 7 * 30 && allowed < 7 * 60, "{allowed}");
        }
    }

    #[test]
    fn the_filter_stays_small() {
        let writable = SandboxOptions { writable: true, references: true, ..SandboxOptions::default() };
        assert!(compile(SandboxOptions::default()).unwrap().len() < 300);
        assert!(compile(writable).unwrap().len() < 350);
    }
}
