//! The vCPUs beside the first one: each runs in a thread of its own, and may do nothing but compute and idle.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{Builder, JoinHandle, sleep},
    time::Duration,
};

use kvm_ioctls::VmFd;

use super::{
    Exit, Fault, Kicker, Layout, MachineError,
    boot::Plan,
    vcpu::{self, Bus, Start, Vcpu},
};

/// The longest that who idles sleeps at a time: it must notice when it is told to stop.
const MAX_IDLE: Duration = Duration::from_millis(5);

/// Puts the calling thread to sleep, whose vCPU has nothing to do, for the microseconds in what it wrote to the idle register.
pub fn idle(written: &[u8]) {
    let microseconds = written.try_into().map_or(0, u32::from_le_bytes);
    sleep(Duration::from_micros(microseconds.into()).min(MAX_IDLE));
}

/// How a worker ended that was to run on.
#[derive(Debug)]
pub enum WorkerFailure {
    /// A processor fault.
    Fault(Fault),
    /// It touched a device at this address.
    Device(u64),
}

/// What went wrong first, for the thread of the first vCPU.
type Failure = Arc<Mutex<Option<WorkerFailure>>>;

/// The running workers; they end when this is dropped. A process that exits need not wait for that.
#[derive(Default)]
pub struct Workers {
    threads: Vec<Worker>,
    stop: Arc<AtomicBool>,
    failure: Failure,
}

struct Worker {
    /// Lets it run. When it is dropped before, the thread ends.
    release: Option<Sender<()>>,
    /// From the moment on that it can be released.
    kicker: Option<Kicker>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(vm: &VmFd, plan: &Plan, layout: &Layout, idle: u64) -> Result<Self, MachineError> {
        let mut workers = Self::default();
        let mut answers = vec![];
        for number in 1..=layout.workers as u64 {
            let fd = vcpu::create(vm, number)?;
            let start = Start::Worker { number, stack_end: plan.stack(number).end, idle };
            let (release, released) = channel();
            let (ready, answer) = channel();
            let (plan, cpu) = (*plan, layout.cpu);
            let duty = Duty {
                idle,
                stop: workers.stop.clone(),
                failure: workers.failure.clone(),
                first: Kicker::of_this_thread(),
            };
            let body = move || match Vcpu::new(fd, &plan, cpu, start) {
                Ok(vcpu) => {
                    let _ = ready.send(Ok(Kicker::of_this_thread()));
                    if released.recv().is_ok() {
                        duty.run(vcpu);
                    }
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            };
            let thread = Builder::new().name("worker".into()).spawn(body).map_err(MachineError::Worker)?;
            workers.threads.push(Worker { release: Some(release), kicker: None, thread: Some(thread) });
            answers.push(answer);
        }
        for (worker, answer) in workers.threads.iter_mut().zip(answers) {
            let gone = |_| MachineError::Worker(io::ErrorKind::BrokenPipe.into());
            worker.kicker = Some(answer.recv().map_err(gone)??);
        }
        Ok(workers)
    }

    /// Lets all of them run.
    pub fn release(&mut self) {
        for worker in &mut self.threads {
            if let Some(release) = worker.release.take() {
                let _ = release.send(());
            }
        }
    }

    /// What went wrong first.
    pub fn take_failure(&self) -> Option<WorkerFailure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for worker in &mut self.threads {
            worker.release = None;
            if let Some(kicker) = &worker.kicker {
                kicker.kick();
            }
        }
        for thread in self.threads.iter_mut().filter_map(|worker| worker.thread.take()) {
            // A panic in it has already been printed.
            let _ = thread.join();
        }
    }
}

/// What a worker's thread does.
struct Duty {
    /// Address of the idle register.
    idle: u64,
    stop: Arc<AtomicBool>,
    failure: Failure,
    /// The thread of the first vCPU.
    first: Kicker,
}

impl Duty {
    /// Runs the vCPU until it is told to stop or breaks a rule.
    fn run(self, mut vcpu: Vcpu) {
        let mut bus = IdleOnly(self.idle);
        while !self.stop.load(Ordering::Acquire) {
            let failure = match vcpu.run(&mut bus) {
                Ok(Exit::Device(Ok(())) | Exit::Kicked) => continue,
                Ok(Exit::Device(Err(address))) => WorkerFailure::Device(address),
                Err(fault) => WorkerFailure::Fault(fault),
            };
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            self.first.kick();
            return;
        }
    }
}

/// No device but the idle register, which can only be written to.
struct IdleOnly(u64);

impl Bus for IdleOnly {
    type Error = u64;

    fn read(&mut self, address: u64, _: &mut [u8]) -> Result<(), u64> {
        Err(address)
    }

    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), u64> {
        if address != self.0 {
            return Err(address);
        }
        idle(data);
        Ok(())
    }
}
