//! A vCPU: started in 64-bit mode at ring 3, without a kernel, interrupts or a descriptor table.

use std::{
    arch::x86_64::{__cpuid, __cpuid_count},
    borrow::Cow,
    io,
};

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2, kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};

use super::{MachineError, boot::Plan, kick::Target};

const CR0_PE: u64 = 1;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_AM: u64 = 1 << 18;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

// CPUID leaf 1, EDX.
const FPU: u32 = 1;
const TSC: u32 = 1 << 4;
const MSR: u32 = 1 << 5;
const PAE: u32 = 1 << 6;
const CX8: u32 = 1 << 8;
const CMOV: u32 = 1 << 15;
const MMX: u32 = 1 << 23;
const FXSR: u32 = 1 << 24;
const SSE: u32 = 1 << 25;
const SSE2: u32 = 1 << 26;
// CPUID leaf 0x80000001, EDX.
const SYSCALL: u32 = 1 << 11;
const NX: u32 = 1 << 20;
const LM: u32 = 1 << 29;
// CPUID leaf 1, ECX: what a processor may have on top, none of which has state beyond the SSE registers.
const SSE3: u32 = 1;
const PCLMULQDQ: u32 = 1 << 1;
const SSSE3: u32 = 1 << 9;
const SSE4_1: u32 = 1 << 19;
const SSE4_2: u32 = 1 << 20;
const POPCNT: u32 = 1 << 23;
const AES: u32 = 1 << 25;
// CPUID leaf 7, EBX: likewise.
const SHA: u32 = 1 << 29;
/// CPUID leaf 0x80000008: 48 virtual, 36 physical address bits.
const ADDRESS_BITS: u32 = 48 << 8 | 36;

/// The bit of RFLAGS that is always set.
const RFLAGS_FIXED: u64 = 2;

/// Opens `/dev/kvm` and sees that it is one we can use.
pub fn open_kvm() -> Result<Kvm, MachineError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT => MachineError::NoKvm,
        libc::EACCES | libc::EPERM => MachineError::KvmDenied,
        errno => MachineError::KvmUnusable(io::Error::from_raw_os_error(errno)),
    })?;
    if kvm.get_api_version() != 12 {
        return Err(MachineError::KvmUnusable(io::Error::other("this is not KVM version 12")));
    }
    for (capability, name) in [
        (Cap::UserMemory, "user memory"),
        (Cap::ImmediateExit, "immediate exit"),
        (Cap::Ioeventfd, "ioeventfd"),
    ] {
        if !kvm.check_extension(capability) {
            return Err(MachineError::Capability(name));
        }
    }
    Ok(kvm)
}

/// Creates the machine; without an interrupt controller, because nothing ever interrupts the guest.
pub fn create_vm(kvm: &Kvm) -> Result<VmFd, MachineError> {
    loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(|error| MachineError::kvm("create a machine", error)),
        }
    }
}

/// What is behind the guest's device addresses.
pub trait Bus {
    /// How a device refuses its driver.
    type Error;

    /// The guest reads `data.len()` bytes at `address`.
    fn read(&mut self, address: u64, data: &mut [u8]) -> Result<(), Self::Error>;

    /// The guest writes `data` at `address`.
    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), Self::Error>;
}

/// Why the guest stopped running for now.
pub enum Exit<E> {
    /// It used a device.
    Device(Result<(), E>),
    /// A signal arrived: look who sent it.
    Kicked,
}

/// The guest broke a rule and is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What KVM said.
    pub reason: Cow<'static, str>,
    /// Address of the instruction, where the processor tells (SVM does not after a shutdown).
    pub rip: Option<u64>,
}

/// The instructions that the guest is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// x86-64 with SSE2, for which the guest is built, on any host.
    Baseline,
    /// And what of the processor's instructions for cryptography and of their companions a library may look for. To ask
    /// the processor takes up to 0.1 ms where it is itself virtual.
    Crypto,
}

/// Which processor of the machine it is, and what it begins with.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// The first: it sets up its own stack.
    First,
    /// Another one.
    Worker {
        /// Its number, counted from 1.
        number: u64,
        /// Address behind its stack.
        stack_end: u64,
        /// Address of the idle register.
        idle: u64,
    },
}

/// Creates processor `number` of a machine, with no state yet.
pub fn create(vm: &VmFd, number: u64) -> Result<VcpuFd, MachineError> {
    vm.create_vcpu(number).map_err(|error| MachineError::kvm("create a vCPU", error))
}

/// A processor.
pub struct Vcpu {
    /// Dropped before `fd`, whose page it points into.
    _target: Target,
    fd: VcpuFd,
}

impl Vcpu {
    /// Gives the processor its state. It belongs to the calling thread from now on.
    pub(super) fn new(mut fd: VcpuFd, plan: &Plan, cpu: Cpu, start: Start) -> Result<Self, MachineError> {
        fd.set_cpuid2(&features(cpu)?).map_err(|error| MachineError::kvm("set the CPU's features", error))?;
        let sregs = fd.get_sregs().map_err(|error| MachineError::kvm("read the system registers", error))?;
        fd.set_sregs(&ring_3(sregs, plan.page_table_root))
            .map_err(|error| MachineError::kvm("start in 64-bit mode at ring 3", error))?;
        let regs = kvm_regs { rip: plan.entry, rflags: RFLAGS_FIXED, ..Default::default() };
        let regs = match start {
            Start::First => kvm_regs { rdi: plan.start_info, ..regs },
            Start::Worker { number, stack_end, idle } => {
                kvm_regs { rdi: idle, rsi: number, rsp: stack_end, ..regs }
            }
        };
        fd.set_regs(&regs).map_err(|error| MachineError::kvm("set the registers", error))?;
        warm_up(&mut fd)?;
        // SAFETY: the target is dropped before `fd`, which owns the page that the flag is in.
        let target = unsafe { Target::new(&raw mut fd.get_kvm_run().immediate_exit) };
        Ok(Self { _target: target, fd })
    }

    /// Runs the guest until it has used a device or was kicked. Must be called in the thread that made the vCPU.
    pub fn run<B: Bus>(&mut self, bus: &mut B) -> Result<Exit<B::Error>, Fault> {
        let reason = match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => return Ok(Exit::Device(bus.read(address, data))),
            Ok(VcpuExit::MmioWrite(address, data)) => return Ok(Exit::Device(bus.write(address, data))),
            Ok(VcpuExit::Shutdown) => "fault without a handler",
            Ok(VcpuExit::InternalError) => "instruction that KVM cannot run",
            Ok(VcpuExit::FailEntry(..)) => "state that the processor refuses",
            Ok(VcpuExit::Hlt) => "halt",
            Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => "port access",
            Ok(_) => "unexpected exit",
            Err(error) if error.errno() == libc::EINTR => {
                self.fd.set_kvm_immediate_exit(0);
                return Ok(Exit::Kicked);
            }
            Err(error) if error.errno() == libc::EFAULT => "access to memory that is not there",
            Err(error) => return Err(Fault { reason: format!("KVM_RUN failed: {error}").into(), rip: None }),
        };
        Err(Fault { reason: reason.into(), rip: self.fd.get_regs().ok().map(|regs| regs.rip) })
    }
}

/// Runs the vCPU for no instruction at all. The first run of a machine starts a worker thread of the kernel's, which
/// counts as the caller's: a sandbox that allows no further thread must come after it.
fn warm_up(fd: &mut VcpuFd) -> Result<(), MachineError> {
    fd.set_kvm_immediate_exit(1);
    let outcome = fd.run().map(|_| ());
    fd.set_kvm_immediate_exit(0);
    match outcome {
        Err(error) if error.errno() != libc::EINTR => Err(MachineError::kvm("run the vCPU", error)),
        _ => Ok(()),
    }
}

/// What CPUID says. Asking KVM for all that the processor can do costs more than everything else that makes a vCPU.
fn features(cpu: Cpu) -> Result<CpuId, MachineError> {
    let leaf = |function, eax, edx| kvm_cpuid_entry2 { function, eax, edx, ..Default::default() };
    let basic = FPU | TSC | MSR | PAE | CX8 | CMOV | MMX | FXSR | SSE | SSE2;
    let extended = SYSCALL | NX | LM;
    let (more, sha) = match cpu {
        Cpu::Baseline => (0, 0),
        Cpu::Crypto => (
            __cpuid(1).ecx & (SSE3 | PCLMULQDQ | SSSE3 | SSE4_1 | SSE4_2 | POPCNT | AES),
            if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx & SHA } else { 0 },
        ),
    };
    let leaves = [
        leaf(0, 7, 0),
        kvm_cpuid_entry2 { ecx: more, ..leaf(1, 0, basic) },
        kvm_cpuid_entry2 { ebx: sha, flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX, ..leaf(7, 0, 0) },
        leaf(0x8000_0000, 0x8000_0008, 0),
        leaf(0x8000_0001, 0, extended),
        leaf(0x8000_0008, ADDRESS_BITS, 0),
    ];
    CpuId::from_entries(&leaves).map_err(|error| MachineError::Image(format!("CPUID: {error:?}")))
}

/// System registers of a processor in 64-bit mode at ring 3. There is no descriptor table behind the segments: the
/// guest cannot load one, and any fault is a triple fault.
fn ring_3(mut sregs: kvm_sregs, page_table_root: u64) -> kvm_sregs {
    let data = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 0x23,
        type_: 3,
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment { selector: 0x1b, type_: 11, db: 0, l: 1, ..data };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    // VMX demands a busy 64-bit task state segment; it has no room for an I/O bitmap, so every port is out of reach.
    sregs.tr = kvm_segment { selector: 0x28, type_: 11, present: 1, limit: 0x67, ..Default::default() };
    sregs.ldt = kvm_segment { unusable: 1, ..Default::default() };
    (sregs.gdt.base, sregs.gdt.limit) = (0, 0);
    (sregs.idt.base, sregs.idt.limit) = (0, 0);
    sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    sregs.cr3 = page_table_root;
    sregs.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    sregs.efer = EFER_LME | EFER_LMA | EFER_NXE;
    sregs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registers of a leaf: EBX, ECX, EDX.
    fn leaf(cpu: Cpu, function: u32) -> [u32; 3] {
        let leaves = features(cpu).unwrap();
        let entry = leaves.as_slice().iter().find(|entry| entry.function == function).unwrap();
        [entry.ebx, entry.ecx, entry.edx]
    }

    /// AVX and XSAVE above all: nobody would keep their registers.
    #[test]
    fn a_guest_is_told_of_no_instructions_with_state_of_their_own() {
        let allowed = SSE3 | PCLMULQDQ | SSSE3 | SSE4_1 | SSE4_2 | POPCNT | AES;
        assert_eq!(leaf(Cpu::Baseline, 1)[..2], [0, 0]);
        assert_eq!(leaf(Cpu::Baseline, 7), [0, 0, 0]);
        let [ebx, ecx, edx] = leaf(Cpu::Crypto, 1);
        assert_eq!((ebx, ecx & !allowed, edx), (0, 0, leaf(Cpu::Baseline, 1)[2]));
        assert_eq!(ecx & AES != 0, std::is_x86_feature_detected!("aes"));
        let [ebx, ecx, edx] = leaf(Cpu::Crypto, 7);
        assert_eq!((ebx & !SHA, ecx, edx), (0, 0, 0));
        assert_eq!(ebx != 0, std::is_x86_feature_detected!("sha"));
    }
}
