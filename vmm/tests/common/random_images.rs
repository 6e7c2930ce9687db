//! Random images of every writable format, with overlays, chains, snapshots and bitmaps. Seeds are fixed: a difference
//! found once is found again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use super::{Bench, Random, Said, differences, profile, qemu_img, settle};

/// Every format `qemu-img` can write to, the usual one more often.
const FORMATS: [&str; 12] =
    ["qcow2", "raw", "vmdk", "vpc", "vhdx", "vdi", "qcow", "qed", "parallels", "qcow2", "qcow2", "vmdk"];

/// Formats whose images can stand on others.
const OVERLAYS: [&str; 4] = ["qcow2", "qcow2", "qed", "qcow"];

/// One image on its way.
pub struct Maker<'a> {
    pub directory: &'a Path,
    pub random: Random,
}

/// What was made.
pub struct Made {
    pub name: String,
    pub format: &'static str,
    /// Names and ids of its snapshots.
    pub snapshots: Vec<String>,
    /// Whether it tells its format itself.
    pub probed: bool,
}

impl Maker<'_> {
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.below(of.len() as u64) as usize]
    }

    /// Whether something happens once in `times`.
    pub fn chance(&mut self, times: u64) -> bool {
        self.random.below(times) == 0
    }

    /// Runs a program of QEMU's. Some of what is tried at random is refused, and then nothing has changed.
    fn qemu(&self, program: &str, arguments: &[&str]) -> bool {
        let beside = Path::new(&qemu_img()).with_file_name(program);
        let tool = if beside.exists() { beside.as_path() } else { Path::new(program) };
        let said = Said::by(Command::new(tool).current_dir(self.directory).args(arguments));
        said.code == Some(0)
    }

    /// A disk of up to 12 MiB, not always a whole number of anything.
    fn size(&mut self) -> u64 {
        let sectors = 1 + self.random.below(24 << 10);
        let unit = self.one_of(&[1, 8, 128, 2048]);
        sectors.next_multiple_of(unit) * 512
    }

    fn options(&mut self, format: &str) -> String {
        let choices: &[&str] = match format {
            "qcow2" => &[
                "",
                "",
                "cluster_size=512",
                "cluster_size=4k",
                "cluster_size=2M",
                "compat=0.10",
                "extended_l2=on",
                "extended_l2=on,cluster_size=16k",
                "refcount_bits=1",
                "refcount_bits=64,cluster_size=1k",
                "preallocation=metadata",
                "preallocation=falloc",
                "compression_type=zstd",
            ],
            "vmdk" => &[
                "",
                "subformat=monolithicSparse,zeroed_grain=on",
                "subformat=monolithicFlat",
                "subformat=twoGbMaxExtentSparse",
                "subformat=twoGbMaxExtentFlat",
            ],
            "vpc" => &["", "force_size=on", "subformat=fixed", "subformat=fixed,force_size=on"],
            "vhdx" => &["", "subformat=fixed", "block_size=1M", "block_size=2M,block_state_zero=off"],
            "vdi" => &["", "", "static=on"],
            "qed" => &["", "cluster_size=4k,table_size=1", "cluster_size=16k"],
            "parallels" => &["", "cluster_size=64k"],
            _ => &[""],
        };
        self.one_of(choices).to_owned()
    }

    /// Makes an image `name` and writes to it; `below` is the name and the format of what it stands on.
    fn image(&mut self, name: &str, format: &'static str, below: Option<(&str, &str)>) -> Option<Made> {
        let (size, options) = (self.size().to_string(), self.options(format));
        let mut create = vec!["create", "-q", "-f", format];
        // With a size of its own an overlay can be shorter or longer than what it stands on.
        let (with_size, flat_extents) = (below.is_none() || self.chance(2), options.contains("fixed"));
        if let Some((base, format)) = below {
            create.extend(["-b", base, "-F", format]);
        }
        let usable = below.is_none() || !options.contains("preallocation");
        if !options.is_empty() && usable {
            create.extend(["-o", &options]);
        }
        create.push(name);
        if with_size {
            create.push(&size);
        }
        if !self.qemu("qemu-img", &create) {
            return None;
        }
        self.write(name, format, size.parse().unwrap());
        let probed = !(format == "vpc" && flat_extents) && format != "raw";
        let mut made = Made { name: name.into(), format, snapshots: Vec::new(), probed };
        if format == "qcow2" {
            self.extras(&mut made, size.parse().unwrap());
        }
        if self.chance(8) {
            self.copy(&mut made);
        }
        Some(made)
    }

    fn write(&mut self, name: &str, format: &str, size: u64) {
        let mut commands = Vec::new();
        for _ in 0..self.random.below(7) {
            let unit = self.one_of(&[512, 4096, 65536, 1 << 20]);
            let offset = self.random.below(size.div_ceil(unit)) * unit;
            let length = (1 + self.random.below(4)) * unit;
            let length = length.min(size.saturating_sub(offset)).max(512);
            let command = match self.random.below(8) {
                0 => format!("write -z {offset} {length}"),
                1 => format!("write -z -u {offset} {length}"),
                2 => format!("discard {offset} {length}"),
                3 if format == "qcow2" => format!("write -c -P 7 {} 65536", offset / 65536 * 65536),
                4 => format!("write -P 0 {offset} {length}"),
                _ => format!("write -P {} {offset} {length}", 1 + self.random.below(255)),
            };
            commands.push(command);
        }
        let mut arguments = vec!["-f", format];
        for command in &commands {
            arguments.extend(["-c", command]);
        }
        arguments.push(name);
        if !commands.is_empty() {
            self.qemu("qemu-io", &arguments);
        }
    }

    /// Snapshots and bitmaps.
    fn extras(&mut self, made: &mut Made, size: u64) {
        let name = made.name.clone();
        for number in 0..self.random.below(3) {
            let snapshot = self.one_of(&["first", "2", "with space", "first"]).to_owned();
            if self.qemu("qemu-img", &["snapshot", "-c", &snapshot, &name]) {
                made.snapshots.extend([snapshot, (number + 1).to_string()]);
                self.write(&name, "qcow2", size);
            }
        }
        if self.chance(4) {
            let more = format!("+{}k", 64 << self.random.below(6));
            self.qemu("qemu-img", &["resize", "-q", &name, &more]);
        }
        for number in 0..self.random.below(3) {
            let granularity = (512_u64 << self.random.below(10)).to_string();
            let bitmap = format!("{}{number}", "b".repeat(1 + self.random.below(40) as usize));
            self.qemu("qemu-img", &["bitmap", "--add", "-g", &granularity, "-f", "qcow2", &name, &bitmap]);
        }
    }

    /// The same disk in another shape: compressed, or in a subformat that is only written at once.
    fn copy(&mut self, made: &mut Made) {
        let copy = format!("copy-{}", made.name);
        let convert: &[&str] = match made.format {
            "qcow2" => &["-c", "-O", "qcow2"],
            "vmdk" => &["-O", "vmdk", "-o", "subformat=streamOptimized"],
            _ => return,
        };
        let arguments = [&["convert", "-f", made.format], convert, &[&made.name, &copy]].concat();
        if self.qemu("qemu-img", &arguments) {
            (made.name, made.snapshots) = (copy, Vec::new());
        }
    }

    /// An image, perhaps on top of a chain of up to five others.
    pub fn any(&mut self, number: u64) -> Option<Made> {
        let format = FORMATS[(number % FORMATS.len() as u64) as usize];
        let mut made = self.image(&format!("{number}.0.{format}"), format, None)?;
        if number.is_multiple_of(3) {
            for depth in 1..=1 + number / 3 % 5 {
                let top = self.one_of(&OVERLAYS);
                let name = format!("{number}.{depth}.{top}");
                let below = (made.name.clone(), made.format);
                match self.image(&name, top, Some((&below.0, below.1))) {
                    Some(overlay) => made = overlay,
                    None => break,
                }
            }
        }
        Some(made)
    }
}

/// Makes images by their numbers, each in a directory of its own in the bench's, and settles what is known of their files.
pub fn make_all(bench: &Bench, numbers: &[u64]) -> Vec<Option<Made>> {
    let results = Mutex::new(Vec::new());
    differences(numbers, |&number| {
        let directory = directory(bench, number);
        fs::create_dir(&directory).unwrap();
        let made = Maker { directory: &directory, random: random(number) }.any(number);
        results.lock().unwrap().push((number, made));
        None
    });
    // Space that is not written back yet counts differently a moment later.
    settle(bench.directory());
    read_all(&numbers.iter().map(|&number| directory(bench, number)).collect::<Vec<_>>());
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, made)| made).collect()
}

/// Where the image of a number is.
pub fn directory(bench: &Bench, number: u64) -> PathBuf {
    bench.path(&number.to_string())
}

/// The source of random numbers for a number.
pub fn random(number: u64) -> Random {
    Random(0x9e37_79b9_7f4a_7c15 ^ (number + 1))
}

/// What both programs say in the directory of an image, what it names being allowed there, if they differ.
pub fn difference_in(bench: &Bench, directory: &Path, row: &[String]) -> Option<String> {
    let allowed = ("INSTAR_ALLOW_REFERENCES", directory);
    let profile = ("INSTAR_QEMU_VERSION", profile());
    let mut ours = bench.command(bench.path("qemu-img"));
    let ours =
        Said::by(ours.current_dir(directory).env(allowed.0, allowed.1).env(profile.0, profile.1).args(row));
    let theirs = Said::by(bench.command(qemu_img()).current_dir(directory).args(row));
    (ours != theirs).then(|| format!("{}: {row:?}\ninstar: {ours}\nqemu-img: {theirs}", directory.display()))
}

/// Space that is reserved and not written, as a new cluster around a small write, is a hole to ext4 until somebody has
/// read it: the first program to measure the file would be told otherwise than the second.
fn read_all(directories: &[std::path::PathBuf]) {
    for directory in directories {
        for entry in fs::read_dir(directory).unwrap() {
            fs::read(entry.unwrap().path()).unwrap();
        }
    }
}
