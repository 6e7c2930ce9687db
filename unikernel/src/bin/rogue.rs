//! A guest that does what its command's payload says: the machine's tests run it. All of it is forbidden but `pool`, of which
//! no answer of a command's tells who did the work.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::{format, vec, vec::Vec};
use core::{
    arch::asm,
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
};

use codecs::Method;
use drivers::Patience;
use unikernel::{
    boot::{self, BootInfo},
    workers::{Done, Job, Pool, Task},
};

unikernel::guest!(main, work);

/// What workers are told to do: the place in [`WORK`], counted from 1.
static TASK: AtomicUsize = AtomicUsize::new(0);

/// The payload that asks for a deed of a worker's, and the deed.
type Deed = (&'static [u8], fn());

/// What a worker can be told to do.
const WORK: [Deed; 9] = [
    (b"worker-touches-null", || write(0)),
    (b"worker-writes-text", || write(main as *const () as usize)),
    (b"worker-overruns-stack", || {
        black_box(overrun_stack(0));
    }),
    (b"worker-divides-by-zero", divide_by_zero),
    (b"worker-touches-console", || write(CONSOLE)),
    (b"worker-reads-idle-register", || {
        // SAFETY: none: the machine must stop this.
        black_box(unsafe { (IDLE as *const u32).read_volatile() });
    }),
    (b"worker-panics", || panic!("told a worker to")),
    (b"worker-uses-heap", || {
        black_box(vec![1_u8; 100]);
    }),
    (b"worker-spins", || {
        loop {
            core::hint::spin_loop();
        }
    }),
];

/// Address of the registers of the first device.
const CONSOLE: usize = 0xd000_0000;

/// Address of the idle register: behind the console, since there are no disks.
const IDLE: usize = CONSOLE + 0x1000;

fn work(_: usize) -> ! {
    let mut patience = Patience::new();
    loop {
        match TASK.load(Ordering::Acquire) {
            0 => patience.wait(),
            task => WORK[task - 1].1(),
        }
    }
}

fn main(info: &BootInfo) -> ! {
    boot::start_devices(info.command_line);
    let (_, payload) = unikernel::read_command().expect("a command");
    if let Some(task) = WORK.iter().position(|(deed, _)| *deed == payload.as_slice()) {
        TASK.store(task + 1, Ordering::Release);
        let mut patience = Patience::new();
        loop {
            boot::end_if_a_worker_panicked();
            patience.wait();
        }
    }
    match payload.as_slice() {
        b"write-text" => write(main as *const () as usize),
        b"write-rodata" => write(RODATA.as_ptr() as usize),
        b"execute-data" => execute_data(),
        b"touch-null" => write(0),
        b"touch-page-tables" => touch_page_tables(),
        b"overrun-stack" => {
            black_box(overrun_stack(0));
        }
        b"divide-by-zero" => divide_by_zero(),
        b"privileged" => privileged(),
        b"port" => port(),
        b"panic" => panic!("told to"),
        b"exhaust-memory" => exhaust_memory(),
        b"spin" => loop {
            core::hint::spin_loop();
        },
        b"garbage" => say(b"\xff\x00 this is no record\n"),
        b"endless-line" => loop {
            say(&[b'x'; 4096]);
        },
        b"endless-records" => loop {
            say(b"\n");
        },
        b"two-results" => {
            let result = br#"{"record":"result","request_id":1,"answer":{"measure":{"required":1,"fully-allocated":1}}}"#;
            say(&[result, b"\n".as_slice(), result, b"\n"].concat());
        }
        b"cut-source" => say(b"{\"record\":\"length\",\"request_id\":1,\"disk\":\"source\",\"length\":0}\n"),
        b"pool" => pool(),
        b"wrong-request" => {
            say(b"{\"record\":\"result\",\"request_id\":77,\"answer\":{\"measure\":{\"required\":1,\"fully-allocated\":1}}}\n");
        }
        _ => {}
    }
    loop {
        core::hint::spin_loop();
    }
}

static RODATA: [u8; 64] = [7; 64];

fn say(bytes: &[u8]) {
    boot::console(|console| console.write(bytes));
}

#[inline(never)]
fn write(address: usize) {
    // SAFETY: none: the machine must stop this.
    unsafe { (black_box(address) as *mut u8).write_volatile(1) };
}

fn execute_data() {
    let code = black_box([0xc3_u8; 16]);
    // SAFETY: none: the machine must stop this.
    unsafe {
        let function: extern "C" fn() = core::mem::transmute(black_box(code.as_ptr()));
        function();
    }
}

fn touch_page_tables() {
    unsafe extern "C" {
        static __pvh_end: u8;
    }
    // Where the machine keeps its page tables (linker script).
    write((&raw const __pvh_end) as usize);
}

fn overrun_stack(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    if frame[0] == u64::MAX { 0 } else { overrun_stack(depth + 1) + frame[511] }
}

fn divide_by_zero() {
    // SAFETY: none: the machine must stop this.
    unsafe {
        asm!("xor edx, edx", "xor ecx, ecx", "mov eax, 1", "div ecx", out("eax") _, out("ecx") _, out("edx") _);
    };
}

fn privileged() {
    // SAFETY: none: the machine must stop this.
    unsafe { asm!("mov rax, cr3", out("rax") _) };
}

fn port() {
    // SAFETY: none: the machine must stop this.
    unsafe { asm!("out 0x80, al", in("al") 0_u8) };
}

/// Compresses and decompresses clusters with the pool. Says how many came back right, and how many workers there are.
fn pool() {
    let encode = Task::Encode(Method::Zstd);
    let decode = Task::Decode(Method::Zstd);
    let mut pool = Pool::new(&[encode, decode], 16);
    let cluster = |number: usize| vec![number as u8; 4096 + number];
    let jobs = (0..500).map(|number| Job { task: encode, input: cluster(number), output: vec![0; 4096] });
    let streams = run(&mut pool, jobs);
    let jobs = (0..).zip(streams).map(|(number, stream)| Job {
        task: decode,
        input: stream,
        output: vec![0; 4096 + number],
    });
    let clusters = run(&mut pool, jobs);
    let right = (0..).zip(clusters).filter(|(number, bytes)| *bytes == cluster(*number)).count();
    let record = format!(
        "{{\"record\":\"result\",\"request_id\":1,\"answer\":{{\"measure\":{{\"required\":{right},\"fully-allocated\":{}}}}}}}\n",
        boot::workers()
    );
    say(record.as_bytes());
}

/// What comes of the jobs, in their order.
fn run(pool: &mut Pool, jobs: impl Iterator<Item = Job>) -> Vec<Vec<u8>> {
    let mut results = vec![];
    let mut keep = |done: Done| results.push(done.job.output[..done.length.expect("a result")].to_vec());
    for mut job in jobs {
        while let Err(back) = pool.submit(job) {
            keep(pool.take().expect("a job on its way"));
            job = back;
        }
    }
    while let Some(done) = pool.take() {
        keep(done);
    }
    results
}

fn exhaust_memory() {
    let mut kept = vec![];
    loop {
        kept.push(black_box(vec![1_u8; 1 << 20]));
    }
}
