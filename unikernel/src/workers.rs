//! Jobs for the processors beside the first one: clusters to compress or to decompress.
//!
//! The first processor submits jobs, and takes them back in the same order; between, they are done by workers, or by itself
//! while it waits, so that nothing needs a worker. A job is claimed by counting: jobs have numbers, job `n` is in slot
//! `n % SLOTS`, and who raises `Queue::claimed` from `n` to `n + 1` does it. All memory is the first processor's: a worker
//! fills a buffer that came with the job, by a coder that was made for it, and never uses the heap.
//!
//! What is decoded ahead is taken back at other times than what is encoded: each has a pool of its own, as has each of two
//! disks that are compared. Who works does so for all of them.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use codecs::{Decoder, Encoder, Method};
use drivers::Patience;
use protocol::handover::MAX_WORKERS;
use spin::Mutex;

/// Most jobs on their way at a time.
pub const SLOTS: usize = 64;

/// Most pools at a time.
const POOLS: usize = 2;

/// What is to be done with the input of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Compress it. There is no result if it is longer than the room for it: make that a byte less than the input.
    Encode(Method),
    /// Decode it, into a cluster as long as the output. There is no result if it is corrupt.
    Decode(Method),
}

/// One cluster. Both buffers come back, to be used again.
#[derive(Debug)]
pub struct Job {
    /// What is to be done.
    pub task: Task,
    /// What it is done with.
    pub input: Vec<u8>,
    /// Room for what comes of it: its length is how much there is.
    pub output: Vec<u8>,
}

/// A job that was done.
#[derive(Debug)]
pub struct Done {
    /// The job.
    pub job: Job,
    /// How many bytes of the output were filled; `None` if they are more than there is room for, or the input is corrupt.
    pub length: Option<usize>,
}

/// The coders of one processor.
struct Coders {
    encoders: Vec<(Method, Encoder)>,
    decoders: Vec<(Method, Decoder)>,
}

impl Coders {
    fn new(tasks: &[Task]) -> Self {
        let mut coders = Self { encoders: Vec::new(), decoders: Vec::new() };
        for task in tasks {
            match *task {
                Task::Encode(method) => coders.encoders.push((method, Encoder::new(method))),
                Task::Decode(method) => coders.decoders.push((method, Decoder::new(method))),
            }
        }
        coders
    }

    /// Does the job. A task that there is no coder for is a mistake of the caller's.
    fn run(&mut self, job: &mut Job) -> Option<usize> {
        match job.task {
            Task::Encode(method) => {
                let (_, encoder) =
                    self.encoders.iter_mut().find(|coder| coder.0 == method).expect("an encoder");
                encoder.encode(&job.input, &mut job.output)
            }
            Task::Decode(method) => {
                let (_, decoder) =
                    self.decoders.iter_mut().find(|coder| coder.0 == method).expect("a decoder");
                decoder.decode(&job.input, &mut job.output)
            }
        }
    }
}

/// A place of a job on its way.
struct Slot {
    /// Locked by whose turn it is: nobody ever waits for it.
    job: Mutex<Option<Done>>,
    /// Whether it is done, and waits to be taken.
    done: AtomicBool,
}

/// What all processors see of a pool.
struct Queue {
    slots: [Slot; SLOTS],
    /// Jobs submitted so far.
    submitted: AtomicU64,
    /// Jobs that somebody does or has done.
    claimed: AtomicU64,
    /// Coders by processor.
    coders: [Mutex<Option<Coders>>; 1 + MAX_WORKERS],
    /// Whether there is a pool.
    in_use: AtomicBool,
}

/// Those of all pools.
struct Queues([Queue; POOLS]);

/// The ones of the guest.
#[cfg(feature = "guest")]
static QUEUES: Queues = Queues::new();

impl Queues {
    const fn new() -> Self {
        Self([const { Queue::new() }; POOLS])
    }

    /// Does a job as processor number `cpu`, if there is one to do.
    fn work(&self, cpu: usize) -> bool {
        self.0.iter().any(|queue| queue.work(cpu))
    }
}

impl Queue {
    const fn new() -> Self {
        Self {
            slots: [const { Slot { job: Mutex::new(None), done: AtomicBool::new(false) } }; SLOTS],
            submitted: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            coders: [const { Mutex::new(None) }; 1 + MAX_WORKERS],
            in_use: AtomicBool::new(false),
        }
    }

    fn slot(&self, number: u64) -> &Slot {
        &self.slots[(number % SLOTS as u64) as usize]
    }

    /// The number of a job that is the caller's to do.
    fn claim(&self) -> Option<u64> {
        let mut next = self.claimed.load(Ordering::Relaxed);
        while next < self.submitted.load(Ordering::Acquire) {
            match self.claimed.compare_exchange_weak(next, next + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(next),
                Err(now) => next = now,
            }
        }
        None
    }

    /// Does a job as processor number `cpu`, if there is one to do.
    fn work(&self, cpu: usize) -> bool {
        let Some(number) = self.claim() else { return false };
        let slot = self.slot(number);
        {
            let mut coders = self.coders[cpu].lock();
            let mut entry = slot.job.lock();
            if let (Some(coders), Some(done)) = (coders.as_mut(), entry.as_mut()) {
                done.length = coders.run(&mut done.job);
            }
        }
        // What was locked is free before anybody can know.
        slot.done.store(true, Ordering::Release);
        true
    }
}

/// What a worker does, for as long as the machine stands.
#[cfg(feature = "guest")]
pub fn work(number: usize) -> ! {
    let mut patience = Patience::new();
    loop {
        if QUEUES.work(number) {
            patience = Patience::new();
        } else {
            patience.rest();
        }
    }
}

/// The first processor's side: submits jobs and takes them back.
pub struct Pool {
    queue: &'static Queue,
    all: &'static Queues,
    /// Jobs taken back so far.
    taken: u64,
    slots: u64,
}

impl Pool {
    /// A pool for these tasks, each given once, with the workers that the machine has, and room for up to `slots` jobs at a
    /// time, at most [`SLOTS`]. There are two pools at most.
    pub fn new(tasks: &[Task], slots: usize) -> Self {
        #[cfg(feature = "guest")]
        let (queues, workers) = (&QUEUES, crate::boot::workers());
        // Tests run side by side, without workers.
        #[cfg(not(feature = "guest"))]
        let (queues, workers) = (alloc::boxed::Box::leak(alloc::boxed::Box::new(Queues::new())), 0);
        Self::over(queues, tasks, workers, slots)
    }

    fn over(all: &'static Queues, tasks: &[Task], workers: usize, slots: usize) -> Self {
        let mut queues = all.0.iter();
        let queue = queues.find(|queue| !queue.in_use.swap(true, Ordering::Relaxed)).expect("too many pools");
        for coders in &queue.coders[..=workers.min(MAX_WORKERS)] {
            *coders.lock() = Some(Coders::new(tasks));
        }
        let taken = queue.submitted.load(Ordering::Relaxed);
        Self { queue, all, taken, slots: slots.clamp(1, SLOTS) as u64 }
    }

    /// Jobs that were submitted and not taken back.
    pub fn outstanding(&self) -> u64 {
        self.queue.submitted.load(Ordering::Relaxed) - self.taken
    }

    /// Whether there is room for one more job.
    pub fn has_room(&self) -> bool {
        self.outstanding() < self.slots
    }

    /// Puts a job on its way, or gives it back if there is no room: [`take`](Self::take) one first.
    pub fn submit(&mut self, job: Job) -> Result<(), Job> {
        if !self.has_room() {
            return Err(job);
        }
        let number = self.queue.submitted.load(Ordering::Relaxed);
        *self.queue.slot(number).job.lock() = Some(Done { job, length: None });
        self.queue.submitted.store(number + 1, Ordering::Release);
        Ok(())
    }

    /// Takes back the oldest job, if it is done.
    pub fn try_take(&mut self) -> Option<Done> {
        let slot = self.queue.slot(self.taken);
        if self.outstanding() == 0 || !slot.done.swap(false, Ordering::Acquire) {
            return None;
        }
        self.taken += 1;
        slot.job.lock().take()
    }

    /// Takes back the oldest job: does jobs until it is done, and waits if there are none. `None` if no job is on its way.
    pub fn take(&mut self) -> Option<Done> {
        let mut patience = Patience::new();
        while self.outstanding() > 0 {
            if let Some(done) = self.try_take() {
                return Some(done);
            }
            if !self.help() {
                #[cfg(feature = "guest")]
                crate::boot::end_if_a_worker_panicked();
                patience.wait();
            }
        }
        None
    }

    /// Does one job that no worker has begun, of another pool's if need be. Whether there was one.
    pub fn help(&mut self) -> bool {
        self.queue.work(0) || self.all.work(0)
    }
}

impl Drop for Pool {
    /// Waits for the jobs on their way, and takes the coders away from the workers.
    fn drop(&mut self) {
        while self.take().is_some() {}
        for coders in &self.queue.coders {
            *coders.lock() = None;
        }
        self.queue.in_use.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
