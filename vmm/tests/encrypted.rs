//! Encrypted sources of `measure` and the secrets that open them, against the real `qemu-img`.

mod common;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use common::{Bench, Said};

/// The password of every image, as `data=` has it: with a comma, a quote, a control character and more than ASCII.
const PASSWORD: &str = "pä\"ss,,wörd\\\t";
/// The same as it is.
const PLAIN: &str = "pä\"ss,wörd\\\t";

/// Images made by `qemu-img`, with the options that open them but for the key: name, format, prefix of `key-secret`.
const IMAGES: [(&str, &str, &str); 4] = [
    ("disk.luks", "luks", ""),
    ("luks.qcow2", "qcow2", "encrypt."),
    ("aes.qcow2", "qcow2", "encrypt."),
    ("aes.qcow", "qcow", "encrypt."),
];

fn secret(data: &str) -> String {
    format!("secret,id=s,data={data}")
}

/// Makes one of [`IMAGES`], 2 MiB with some data in it.
fn make(bench: &Bench, name: &str) {
    let (_, format, prefix) = IMAGES.iter().find(|image| image.0 == name).unwrap();
    let (method, _) = name.split_once('.').unwrap();
    let options = match method {
        "disk" => "key-secret=s,iter-time=1".to_owned(),
        "luks" => "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1".to_owned(),
        _ => format!("encrypt.format={method},encrypt.key-secret=s"),
    };
    bench.make(&["create", "-q", "-f", format, "--object", &secret(PASSWORD), "-o", &options, name, "2M"]);
    fs::write(bench.path("plain.raw"), vec![7; 2 << 20]).unwrap();
    let target = format!("driver={format},{prefix}key-secret=s,file.filename={name}");
    let source = ["convert", "-n", "--image-opts", "--target-image-opts", "--object", &secret(PASSWORD)];
    // The second half stays empty where the format can tell.
    bench.make(&[&source[..], &["driver=raw,size=1M,file.filename=plain.raw", &target]].concat());
}

#[test]
fn encrypted_images_are_measured_as_qemu_img_measures_them() {
    let bench = Bench::new();
    let mut rows: Vec<Vec<String>> = vec![];
    for (name, format, prefix) in IMAGES {
        make(&bench, name);
        let mut add = |object: &str, image: &str, more: &[&str]| {
            let fixed = ["measure", "--object", object, "--image-opts", image];
            rows.push(fixed.iter().chain(more).map(|&text| text.to_owned()).collect());
        };
        let image = format!("driver={format},{prefix}key-secret=s,file.filename={name}");
        for more in
            [&["-O", "qcow2"][..], &["-O", "raw", "--output=json"], &["-O", "qcow2", "-o", "cluster_size=4k"]]
        {
            add(&secret(PASSWORD), &image, more);
        }
        add(&secret("wrong"), &image, &["-O", "qcow2"]);
        add(&secret(PASSWORD), &format!("driver={format},file.filename={name}"), &["-O", "qcow2"]);
        add(&secret(PASSWORD), &image.replace("secret=s", "secret=t"), &["-O", "qcow2"]);
        add("secret,id=s,data=/w==,format=base64", &image, &["-O", "qcow2"]);
        // Probed.
        add(&secret(PASSWORD), &format!("{prefix}key-secret=s,file.filename={name}"), &["-O", "qcow2"]);
        if format != "luks" {
            for method in ["aes", "luks", "foo"] {
                add(&secret(PASSWORD), &format!("{image},encrypt.format={method}"), &["-O", "qcow2"]);
            }
        }
        let key = format!("\"{prefix}key-secret\":\"s\"");
        let json = format!("json:{{\"driver\":\"{format}\",{key},\"file.filename\":\"{name}\"}}");
        rows.push(
            ["measure", "--object", &secret(PASSWORD), "-O", "qcow2", &json].map(str::to_owned).to_vec(),
        );
    }
    bench.assert_same(&rows);
}

#[test]
fn secrets_are_read_as_qemu_img_reads_them() {
    let bench = Bench::new();
    make(&bench, "disk.luks");
    for (name, bytes) in [
        ("right", PLAIN.as_bytes()),
        ("line", format!("{PLAIN}\n").as_bytes()),
        ("nul", format!("{PLAIN}\0").as_bytes()),
        ("latin1", b"p\xe4ss"),
        ("empty", b""),
        ("base64", b"cMOkInNzLHfDtnJkXAk=\n"),
        // AES-256-CBC with the key below and a vector of zeros.
        ("key", &[b'k'; 32]),
    ] {
        fs::write(bench.path(name), bytes).unwrap();
    }
    let key = "secret,id=k,file=key";
    let zeros = "iv=AAAAAAAAAAAAAAAAAAAAAA==";
    // `openssl enc -aes-256-cbc` of the password.
    let encrypted = "TN8JSKckIIHqFbfTdYf7bw==";
    let mut rows: Vec<Vec<String>> = vec![];
    let mut add = |objects: &[&str]| {
        let mut row = vec!["measure", "-O", "qcow2"];
        row.extend(objects.iter().flat_map(|object| ["--object", object]));
        row.extend(["--image-opts", "driver=luks,key-secret=s,file.filename=disk.luks"]);
        rows.push(row.into_iter().map(str::to_owned).collect());
    };
    for properties in [
        "file=right",
        "file=line",
        "file=nul",
        "file=latin1",
        "file=empty",
        "file=missing",
        "file=.",
        "data=",
        "file=base64,format=base64",
        "file=right,format=base64",
        "file=nul,format=base64",
        "data=cMOkInNzLHfDtnJkXAk=,format=base64",
        "data=cMOkInNzLHfDtnJkXAk,format=base64",
        "data=!,format=base64",
        "data=,format=base64",
    ] {
        add(&[&format!("secret,id=s,{properties}")]);
    }
    for properties in [
        &format!("data={encrypted},format=base64,keyid=k,{zeros}"),
        &format!("data={encrypted},format=base64,keyid=k"),
        &format!("data={encrypted},format=base64,keyid=k,iv=AAAA"),
        &format!("data={encrypted},format=base64,keyid=k,iv=!"),
        &format!("data={encrypted},keyid=k,{zeros}"),
        &format!("data=AAAA,format=base64,keyid=k,{zeros}"),
        &format!("data=AAAAAAAAAAAAAAAAAAAAAA==,format=base64,keyid=k,{zeros}"),
    ] {
        add(&[key, &format!("secret,id=s,{properties}")]);
    }
    add(&["secret,id=k,data=short", &format!("secret,id=s,data={encrypted},format=base64,keyid=k,{zeros}")]);
    bench.assert_same(&rows);
    // Not every password is wrong.
    let right = rows.iter().filter(|row| bench.drop_in(row).code == Some(0)).count();
    assert_eq!(right, 4);
}

/// What instar says of `disk.luks` with the password in `data`.
fn measure(bench: &Bench, object: &str, more: &[&str]) -> Said {
    let image = "driver=luks,key-secret=s,file.filename=disk.luks";
    bench.instar(&[&["measure", "-O", "qcow2", "--object", object, "--image-opts", image], more].concat())
}

#[test]
fn a_secret_is_bounded() {
    let bench = Bench::new();
    make(&bench, "disk.luks");
    fs::write(bench.path("long"), vec![b'x'; (128 << 10) + 1]).unwrap();
    for object in ["secret,id=s,file=/dev/zero", "secret,id=s,file=long"] {
        let said = measure(&bench, object, &[]);
        assert_eq!(said.stderr, "instar: A secret is longer than 131072 bytes (limit)\n", "{object}");
    }
    // The longest one, each of whose bytes is six as JSON, comes through.
    fs::write(bench.path("long"), vec![1; 128 << 10]).unwrap();
    let said = measure(&bench, "secret,id=s,file=long", &[]);
    assert!(said.stderr.contains("Invalid password, cannot unlock any keyslot"), "{said}");
}

#[test]
fn nothing_of_a_secret_is_printed() {
    let bench = Bench::new();
    make(&bench, "disk.luks");
    for object in [
        "secret,id=s,data=hunter2",
        "secret,id=s,data=hunter2!,format=base64",
        "secret,id=s,data=hunter2,keyid=k",
        "secret,id=s,data=hunter2,bogus=on",
        r#"{"qom-type":"secret","id":"s","data":["hunter2"]}"#,
        r#"{"qom-type":"secret","id":"s","data":"hunter2""#,
    ] {
        let said = measure(&bench, object, &[]);
        assert_eq!(said.code, Some(1), "{object}: {said}");
        assert!(!format!("{said}").contains("hunter2"), "{object}: {said}");
    }
}

/// `qemu-img` computes for hours.
#[test]
fn an_image_that_takes_hours_to_unlock_is_refused() {
    let bench = Bench::new();
    make(&bench, "disk.luks");
    let file = File::options().write(true).open(bench.path("disk.luks")).unwrap();
    file.write_all_at(&u32::MAX.to_be_bytes(), 212).unwrap();
    let text = "instar: Could not open 'driver=luks,key-secret=s,file.filename=disk.luks': \
                Keyslot 0 takes more than 268435456 iterations to unlock (limit: iterations)\n";
    assert_eq!(measure(&bench, &secret(PASSWORD), &[]).stderr, text);
}

/// 5.2 has no quotes there.
#[test]
fn names_in_a_luks_header_are_quoted_for_every_release() {
    let bench = Bench::new();
    make(&bench, "disk.luks");
    let file = File::options().write(true).open(bench.path("disk.luks")).unwrap();
    file.write_all_at(b"foo\0", 8).unwrap();
    for release in ["5.2", "11.1"] {
        let said = measure(&bench, &secret(PASSWORD), &["--qemu-version", release]);
        assert!(said.stderr.contains("Algorithm 'foo' with key size 32 bytes not supported"), "{said}");
    }
}

/// To `qemu-img` the name must be that of the format that it finds.
#[test]
fn a_key_has_either_name_while_the_format_is_not_known() {
    let bench = Bench::new();
    make(&bench, "disk.luks");
    make(&bench, "luks.qcow2");
    for (name, option) in [("disk.luks", "encrypt.key-secret"), ("luks.qcow2", "key-secret")] {
        let image = format!("{option}=s,file.filename={name}");
        let said = bench.instar(&["measure", "--object", &secret(PASSWORD), "--image-opts", &image]);
        assert_eq!(said.code, Some(0), "{said}");
    }
    // A format that is told takes its own name only.
    let image = "driver=luks,encrypt.key-secret=s,file.filename=disk.luks";
    let said = bench.instar(&["measure", "--object", &secret(PASSWORD), "--image-opts", image]);
    assert!(said.stderr.contains("Block format 'luks' does not support the option"), "{said}");
}
