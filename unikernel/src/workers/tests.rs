//! The pool with threads for processors.

extern crate std;

use alloc::{boxed::Box, vec};
use std::thread;

use super::*;

const TASKS: [Task; 2] = [Task::Encode(Method::Zstd), Task::Decode(Method::Deflate)];

/// Queues of its own, with that many workers, which go on until the process ends.
fn queues(workers: usize) -> &'static Queues {
    let queues: &'static Queues = Box::leak(Box::new(Queues::new()));
    for number in 1..=workers {
        thread::spawn(move || {
            loop {
                if !queues.work(number) {
                    thread::yield_now();
                }
            }
        });
    }
    queues
}

/// A job whose result tells which it was: `number` bytes of the same, and as many zeros.
fn job(number: usize) -> Job {
    let input = [vec![7; number], vec![0; 5000]].concat();
    Job { task: TASKS[0], input, output: vec![0; 5000] }
}

fn check(done: &Done, number: usize) {
    assert_eq!(done.job.input.len(), number + 5000);
    let stream = &done.job.output[..done.length.unwrap()];
    let mut decoded = vec![1; number + 5000];
    assert_eq!(Decoder::new(Method::Zstd).decode(stream, &mut decoded), Some(number + 5000));
    assert_eq!(decoded, done.job.input);
}

#[test]
fn jobs_come_back_in_order_however_many_do_them() {
    for workers in [0, 1, 3, MAX_WORKERS] {
        let queues = queues(workers);
        // One pool after the other.
        for (slots, jobs) in [(1, 5), (7, 300), (SLOTS, 1000), (1000, 200)] {
            let mut pool = Pool::over(queues, &TASKS, workers, slots);
            let mut taken = 0;
            for number in 0..jobs {
                let mut job = job(number);
                while let Err(back) = pool.submit(job) {
                    check(&pool.take().unwrap(), taken);
                    taken += 1;
                    job = back;
                }
                assert!(pool.outstanding() <= slots.min(SLOTS) as u64);
                if let Some(done) = pool.try_take() {
                    check(&done, taken);
                    taken += 1;
                }
            }
            while let Some(done) = pool.take() {
                check(&done, taken);
                taken += 1;
            }
            assert_eq!(taken, jobs);
        }
    }
}

#[test]
fn what_cannot_be_done_is_told_and_nothing_else_suffers() {
    let mut pool = Pool::over(queues(1), &TASKS, 1, 4);
    let mut random = 1_u32;
    let noise: Vec<u8> = core::iter::repeat_with(|| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random.to_le_bytes()[3]
    })
    .take(4096)
    .collect();
    pool.submit(Job { task: TASKS[0], input: noise.clone(), output: vec![0; 4095] }).unwrap();
    pool.submit(Job { task: TASKS[1], input: noise, output: vec![0; 4096] }).unwrap();
    pool.submit(job(3)).unwrap();
    assert_eq!(pool.take().unwrap().length, None);
    assert_eq!(pool.take().unwrap().length, None);
    check(&pool.take().unwrap(), 3);
    assert!(pool.take().is_none() && pool.try_take().is_none() && !pool.help());
}

#[test]
fn two_pools_are_worked_for_side_by_side() {
    for workers in [0, 2] {
        let queues = queues(workers);
        let mut pools = [(); POOLS].map(|()| Pool::over(queues, &TASKS, workers, 8));
        for round in 0..20 {
            for number in 0..8 {
                for pool in &mut pools {
                    pool.submit(job(round * 8 + number)).unwrap();
                }
            }
            // The one whose jobs were submitted last first.
            for pool in pools.iter_mut().rev() {
                for number in 0..8 {
                    check(&pool.take().unwrap(), round * 8 + number);
                }
            }
        }
        assert!(pools.iter_mut().all(|pool| pool.take().is_none() && !pool.help()));
    }
}

#[test]
fn a_pool_that_is_dropped_takes_its_jobs_along() {
    let queues = queues(2);
    for _ in 0..50 {
        let mut pool = Pool::over(queues, &TASKS, 2, 8);
        for number in 0..8 {
            pool.submit(job(number)).unwrap();
        }
    }
    let mut pool = Pool::over(queues, &TASKS, 2, 8);
    assert!(pool.try_take().is_none());
    pool.submit(job(9)).unwrap();
    check(&pool.take().unwrap(), 9);
}
