//! The installed `qemu-img` gives the answers that are stored for its release, so that `baselines.rs` holds instar to the real one;
//! and what instar means to answer otherwise about sizes.

mod common;
mod grid;

use common::{Bench, assert_none, differences, profile};
use grid::{sources, stored};

#[test]
fn the_installed_release_gives_the_answers_that_are_stored() {
    let bench = Bench::new();
    sources::make(bench.directory());
    let rows = stored::load(profile());
    let found = differences(&rows, |(question, stored)| {
        let json = question.is_turn_of(profile());
        let answer = question.ask(json, |arguments| bench.reference(arguments)).encode();
        let answer = answer.unwrap_or_else(|answer| answer);
        (answer != *stored).then(|| format!("{}\nqemu-img: {answer}\nstored:   {stored}", question.name()))
    });
    assert_none(&found, rows.len());
    println!("{} rows", rows.len());
}

/// docs/quirks.md: the size of a LUKS header does not depend on the key, so instar does not ask for one.
#[test]
fn luks_needs_no_secret() {
    let bench = Bench::new();
    let rows: [(&[&str], &str); 3] = [
        (&["-O", "luks"], "required size: 1075810304\nfully allocated size: 1075810304\n"),
        (
            &["-O", "luks", "-o", "cipher-alg=aes-128"],
            "required size: 1074794496\nfully allocated size: 1074794496\n",
        ),
        (
            &["-O", "qcow2", "-o", "encrypt.format=luks"],
            "required size: 2490368\nfully allocated size: 1076232192\n",
        ),
    ];
    let found = differences(&rows, |(target, answer)| {
        let arguments = [&["measure"], *target, &["--size", "1G"]].concat();
        let (ours, theirs) = (bench.drop_in(&arguments), bench.reference(&arguments));
        let refused = theirs.code == Some(1) && theirs.stderr.contains("key-secret' is required for cipher");
        let answered = ours.code == Some(0) && ours.stdout == *answer && ours.stderr.is_empty();
        (!refused || !answered).then(|| format!("{arguments:?}\ninstar: {ours}\nqemu-img: {theirs}"))
    });
    assert_none(&found, rows.len());
}

/// qemu-img derives a key for each of these rows, for seconds: so there are few, and short times are asked for.
#[test]
fn luks_sizes_are_qemu_imgs() {
    let bench = Bench::new();
    let mut rows = vec![];
    for (size, options) in [
        ("0", ""),
        ("1", ""),
        ("1G", "hash-alg=sha512"),
        ("1T", "cipher-alg=aes-192,cipher-mode=xts"),
        ("1000000007", "cipher-alg=aes-128"),
        ("1G", "cipher-alg=aes-256,cipher-mode=cbc"),
        ("1G", "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64"),
        ("1G", "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256"),
        ("1G", "cipher-alg=serpent-256"),
        ("1G", "cipher-alg=twofish-256"),
        ("1G", "preallocation=full"),
        ("1G", "preallocation=foo"),
        ("9223372036854775807", ""),
    ] {
        let options = format!("key-secret=sec0,iter-time=10,{options}");
        rows.push(("luks", size, options));
    }
    for (size, options) in [
        ("0", ""),
        ("1G", "cluster_size=512"),
        ("1G", "cluster_size=2M"),
        ("1T", "cluster_size=4k,refcount_bits=1"),
        ("1G", "compat=0.10"),
        ("1G", "extended_l2=on"),
        ("1G", "preallocation=falloc"),
        ("1G", "encrypt.cipher-alg=aes-128"),
        ("1G", "encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain64"),
        ("1G", "encrypt.cipher-alg=aes-192,cluster_size=1M"),
        ("3P", ""),
        ("1G", "backing_file=x"),
    ] {
        let options = format!("encrypt.format=luks,encrypt.key-secret=sec0,encrypt.iter-time=10,{options}");
        rows.push(("qcow2", size, options));
    }
    assert!(rows.len() >= 24);
    let secret = "secret,id=sec0,data=open sesame";
    let lines: Vec<Vec<String>> = rows
        .iter()
        .zip(["human", "json"].iter().cycle())
        .map(|((target, size, options), output)| {
            let options = options.trim_end_matches(',');
            let line = [
                "measure", "--output", output, "-O", target, "--object", secret, "-o", options, "--size",
                size,
            ];
            line.map(str::to_owned).into()
        })
        .collect();
    bench.assert_same(&lines);
}
