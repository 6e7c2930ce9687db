//! The I/O of long commands: a thread with an event loop that serves block devices while the guest computes.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{DeviceError, SharedDevice};
use crate::machine::Kicker;

/// How long it looks for the next request: about what the guest takes to make one of many. To be notified costs the guest an
/// exit, which may take longer than what the request asks for.
const PATIENCE: Duration = Duration::from_micros(200);

/// A device with one queue, served when its event fires.
struct Served {
    device: SharedDevice,
    event: EventFd,
    memory: GuestMemoryMmap,
    failure: Failure,
    kicker: Kicker,
}

/// Ends the loop when its event fires.
struct Stop {
    event: EventFd,
    stopped: Arc<Mutex<bool>>,
}

/// What went wrong in the loop, for the thread that runs the vCPU.
type Failure = Arc<Mutex<Option<DeviceError>>>;

/// The running loop; it ends when this is dropped.
pub struct EventLoop {
    stop: EventFd,
    failure: Failure,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Serves queue 0 of each device whenever its event fires. A driver that breaks the rules kicks the calling
    /// thread, which then asks [`take_failure`](Self::take_failure).
    pub fn start(devices: Vec<(SharedDevice, EventFd)>, memory: &GuestMemoryMmap) -> io::Result<Self> {
        let failure = Failure::default();
        let kicker = Kicker::of_this_thread();
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let stopped = Arc::new(Mutex::new(false));
        let mut manager: EventManager<Box<dyn MutEventSubscriber + Send>> =
            EventManager::new().map_err(|error| io::Error::other(format!("{error:?}")))?;
        manager.add_subscriber(Box::new(Stop { event: stop.try_clone()?, stopped: stopped.clone() }));
        for (device, event) in devices {
            let (memory, failure) = (memory.clone(), failure.clone());
            manager.add_subscriber(Box::new(Served { device, event, memory, failure, kicker }));
        }
        let thread = std::thread::Builder::new().name("block-io".into()).spawn(move || {
            while !*stopped.lock().unwrap_or_else(PoisonError::into_inner) {
                if manager.run().is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { stop, failure, thread: Some(thread) })
    }

    /// What went wrong since the last call.
    pub fn take_failure(&self) -> Option<DeviceError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        let stopped = self.stop.write(1);
        if let (Ok(()), Some(thread)) = (stopped, self.thread.take()) {
            // A panic in the loop has already been printed.
            let _ = thread.join();
        }
    }
}

impl MutEventSubscriber for Served {
    fn process(&mut self, _: Events, _: &mut EventOps) {
        // Reading resets the event; it fires again for what comes later.
        if self.event.read().is_err() {
            return;
        }
        if let Err(error) = self.device.notified(0, &self.memory, PATIENCE) {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            self.kicker.kick();
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        watch(&self.event, ops);
    }
}

impl MutEventSubscriber for Stop {
    fn process(&mut self, _: Events, _: &mut EventOps) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn init(&mut self, ops: &mut EventOps) {
        watch(&self.event, ops);
    }
}

/// Adding a fresh descriptor to a fresh set fails only when the kernel has no memory left.
fn watch(event: &EventFd, ops: &mut EventOps) {
    if let Err(error) = ops.add(Events::new(event, EventSet::IN)) {
        panic!("event loop: {error:?}");
    }
}
