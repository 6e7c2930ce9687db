//! Opening what is converted and what is written, and having the guest do it.

use std::ffi::OsStr;

use protocol::{
    Answer, BelowNew, Bitmaps, ConvertPart, ConvertRequest, ConvertTarget, ErrorKind, ErrorRecord, FileFacts,
    ImageSource, NewTarget, Op, Part,
};

use super::{Context, Convert, MAX_COROUTINES, coroutines};
use crate::{
    cli::{
        common::{self, Seconds, Terms},
        create,
        image::{How, Image, SOURCE},
        image_opts::{self, Description},
        snapshot,
    },
    devices::Cache,
    launch::{self, Command, Disk, IoMode},
    records::StreamError,
    references::References,
    report::{self, Failure, Speaker, escape, escape_name},
    source::{self, SourceOptions},
    target::{NewImage, TargetError, Targets},
};

/// Serial of the disk that the image is made on, and of the one with its data.
const TARGET: &str = "target";
const DATA: &str = "target.data";
/// Serial of the disk with the image below it.
const BELOW: &str = "below";

/// How long a file may become that nobody bounds: as long as any.
const CAPACITY: u64 = i64::MAX as u64 & !511;

/// What is converted, ready for a machine.
struct Sources {
    images: Vec<ImageSource>,
    disks: Vec<Disk>,
    references: References,
    /// Disk space that the files take, in bytes.
    allocated: u64,
}

impl Convert {
    /// Converts `sources` into `target`.
    pub(super) fn convert(
        &self,
        sources: &[&OsStr],
        target: &OsStr,
        context: &Context,
    ) -> Result<(), Failure> {
        let Context { secrets, shown, terms, .. } = context;
        let profile = terms.speaker.profile;
        let Sources { images, mut disks, mut references, allocated } = self.sources(sources, context)?;
        let snapshot = snapshot::choose(&self.snapshot).cloned();
        if snapshot.as_ref().is_some_and(|_| images.len() > 1) {
            return Err(Failure::usage("No support for concatenating multiple snapshot"));
        }
        let (cache, uncached) = match common::cache(&self.target_cache, "cache") {
            Ok(cache) => (cache, None),
            Err(why) => (Cache::default(), Some(ErrorRecord::new(ErrorKind::Usage, why))),
        };
        let rate =
            self.rate_limit.last().map(|text| common::bytes("rate limit", text, profile)).transpose()?;
        let rate = rate.unwrap_or(0);
        let mut targets = Targets::new(cache, rate);
        let lists = self.options();
        let of_lists = |name| lists.as_deref().and_then(|list| common::option_of(list, name));
        let backing = self.backing.last().cloned().or_else(|| of_lists("backing_file"));
        let backing_format = self.backing_format.last().cloned().or_else(|| of_lists("backing_fmt"));
        let asked = create::Asked {
            name: backing.as_deref().filter(|_| !self.no_create),
            format: backing_format.as_deref(),
            allow_references: &self.allow_references,
            cache,
            serial: BELOW,
        };
        let below = create::Below::open(target, asked, terms)?;
        references.join(below.references);
        disks.extend(below.disks);
        let opened = self.target(target, below.image, terms.speaker, &mut targets)?;
        let limit =
            self.max_output.last().map(|text| common::bytes("output limit", text, profile)).transpose()?;
        if let Some(limit) = limit {
            targets.limit(limit);
        }
        let at_once = match self.parallel.last() {
            Some(text) => coroutines(text, profile)?,
            None => MAX_COROUTINES,
        };
        let io = if at_once == 1 { IoMode::Inline } else { IoMode::for_reading(allocated) };
        disks.extend(io.for_all(targets.take_disks()));

        let mut keys: Vec<&str> = images.iter().flat_map(ImageSource::keys).collect();
        if let ConvertTarget::Existing { image, .. } = &opened {
            keys.extend(image.keys());
        }
        let key = of_lists("key-secret").or_else(|| of_lists("encrypt.key-secret"));
        keys.extend(key.as_deref());
        let (secrets, cpu) = secrets.for_keys(&keys)?;
        let request = ConvertRequest {
            profile,
            sources: images,
            snapshot,
            secrets,
            target: opened,
            refused: uncached.or_else(|| {
                let why = targets.uncached()?;
                let name = escape_name(target);
                Some(ErrorRecord::new(ErrorKind::Io, format!("Could not open '{name}': {why}")))
            }),
            sparse: match self.sparse_size.last() {
                Some(text) => common::sparse_size(text, profile)?,
                None => common::DEFAULT_SPARSE_SIZE,
            },
            part: None,
            align: self.preset.last().and_then(|preset| preset.alignment()),
            compress: self.compress || self.preset.last().is_some_and(|preset| preset.compresses()),
            backing: backing.is_some(),
            salvage: self.salvage,
            bitmaps: self.bitmaps.then_some(match self.skip_broken_bitmaps {
                true => Bitmaps::Consistent,
                false => Bitmaps::All,
            }),
            progress: Some(shown.pace()),
        };
        let timeout = if rate == 0 { Seconds::for_moving(allocated) } else { Seconds::MAX };
        let timeout = common::value(&self.timeout, "INSTAR_TIMEOUT", timeout)?;
        let terms = Terms { timeout, ..*terms };
        let command = common::command(Op::Convert, &request)?;
        let compresses =
            request.compress || lists.as_deref().is_some_and(|list| list.contains("streamOptimized"));
        let workers = match compresses {
            true => launch::all_workers(),
            false => launch::workers_for(allocated, &references),
        };
        let workers = workers.min(at_once.saturating_sub(1));
        let command = Command { disks, references, targets, cpu, workers, ..command };
        let name_of = |serial: &str| match serial {
            TARGET => target,
            _ => sources[index_of(serial).filter(|&index| index < sources.len()).unwrap_or(0)],
        };
        let finished = terms.launch_naming(command, &name_of, &mut |part, _| match part {
            Part::Convert(ConvertPart::Progress(progress)) => shown.tell(progress),
            Part::Convert(ConvertPart::Unreadable(_)) if self.quiet => Ok(()),
            Part::Convert(ConvertPart::Warning(text) | ConvertPart::Unreadable(text)) => {
                report::complain(&format!("{}: warning: {}\n", terms.speaker.name(), escape(&text)));
                Ok(())
            }
            _ => Err(StreamError::Operation.into()),
        })?;
        let Answer::Convert(_) = &finished.answer else { return Err(common::another_operation()) };
        finished.into_targets().commit().map_err(|error| {
            let message =
                format!("{}: error while converting {}: {error}", escape_name(target), escape(self.format()));
            Failure::new(error.kind(), message)
        })
    }

    fn sources(&self, names: &[&OsStr], context: &Context) -> Result<Sources, Failure> {
        let Context { cache, terms, .. } = context;
        let how = How {
            format: self.source_format.last().map(String::as_str),
            image_opts: self.image_opts,
            force_share: self.force_share,
            allow_references: &self.allow_references,
            cache: *cache,
            extents: true,
            ..How::on(terms)
        };
        let mut all =
            Sources { images: vec![], disks: vec![], references: References::denied(), allocated: 0 };
        for (index, name) in names.iter().enumerate() {
            let image = Image::open_as(&serial_of(index), name, how)?;
            all.images.push(image.source);
            all.disks.extend(image.disks);
            all.allocated += image.files.iter().map(|file| file.size.1).sum::<u64>();
            match index {
                0 => all.references = image.references,
                _ => all.references.join(image.references),
            }
        }
        Ok(all)
    }

    /// The `-o` lists with what a preset says, as one.
    fn options(&self) -> Option<String> {
        let preset = self.preset.last().and_then(|preset| preset.options());
        let lists: Vec<&str> =
            preset.into_iter().chain(self.target_format_options.iter().map(String::as_str)).collect();
        (!lists.is_empty()).then(|| lists.join(","))
    }

    /// Opens OUTPUT. That it cannot be opened is for the guest to tell, when it comes to it.
    fn target(
        &self,
        name: &OsStr,
        backing: BelowNew,
        speaker: Speaker,
        targets: &mut Targets,
    ) -> Result<ConvertTarget, Failure> {
        let options = self.options();
        let chance = create::chance(options.as_deref())?;
        if self.no_create {
            return Ok(match self.existing(name, speaker, targets) {
                Ok(image) => {
                    ConvertTarget::Existing { image: Box::new(image), zero: self.target_is_zero, chance }
                }
                Err(record) => ConvertTarget::Refused(record),
            });
        }
        let file = match targets.create(name, NewImage { serial: TARGET, capacity: CAPACITY }) {
            Err(error @ TargetError::Name(_)) => return Ok(ConvertTarget::Refused(error.record())),
            other => create::reply(other),
        };
        let data_file = options.as_deref().and_then(|list| common::option_of(list, "data_file"));
        let data_file = data_file.map(|data| {
            create::reply(targets.create(OsStr::new(&data), NewImage { serial: DATA, capacity: CAPACITY }))
        });
        let layout = options.as_deref().and_then(|list| common::option_of(list, "subformat"));
        if layout.is_some_and(|layout| layout.contains("Flat") || layout.starts_with("twoGb")) {
            // A file that cannot be made is told of first.
            let _ = targets.allow_parts(name, CAPACITY);
        }
        Ok(ConvertTarget::New(Box::new(NewTarget {
            name: name.to_string_lossy().into_owned(),
            file,
            data_file,
            format: self.format().to_owned(),
            options,
            backing_file: self.backing.last().cloned(),
            backing_format: self.backing_format.last().cloned(),
            backing,
            strict_stream: self.preset.last().is_some_and(|preset| preset.is_strict_stream()),
            chance,
        })))
    }

    /// An OUTPUT that is there.
    fn existing(
        &self,
        name: &OsStr,
        speaker: Speaker,
        targets: &mut Targets,
    ) -> Result<ImageSource, ErrorRecord> {
        let failed = |kind, why: &str| {
            ErrorRecord::new(kind, format!("Could not open '{}': {why}", escape_name(name)))
        };
        let text = name.to_str().unwrap_or_default();
        let described = match self.target_image_opts {
            true => {
                Some(image_opts::parse_list(text, speaker).map_err(|why| failed(ErrorKind::Usage, &why))?)
            }
            false => None,
        };
        let path = match &described {
            Some(description) => OsStr::new(&description.path),
            None => source::local_path(name).map_err(|error| failed(error.kind(), &error.to_string()))?,
        };
        let format = match &described {
            Some(description) => description.format.clone(),
            None => Some(self.format().to_owned()),
        };
        let lock = match format.as_deref() {
            Some("raw") => source::Format::Raw,
            _ => source::Format::Structured,
        };
        let options = SourceOptions {
            serial: TARGET,
            write: true,
            lock: Some(lock),
            cache: Cache::default(),
            extents: false,
            deadline: std::time::Instant::now(),
        };
        let file = targets
            .existing(path, options, CAPACITY)
            .map_err(|error| failed(error.kind(), &error.text(speaker.profile)))?;
        Ok(image(file, format, described))
    }
}

/// An image as it is described, in its file.
fn image(file: FileFacts, format: Option<String>, described: Option<Description>) -> ImageSource {
    let plain = ImageSource::new(file, format);
    match described {
        None => plain,
        Some(Description { window, key_secret, encrypt_format, .. }) => {
            ImageSource { window, key_secret, encrypt_format, ..plain }
        }
    }
}

/// Serial of the disk with one of the images.
fn serial_of(index: usize) -> String {
    match index {
        0 => SOURCE.to_owned(),
        _ => format!("{SOURCE}{index}"),
    }
}

/// Which image is on a disk, if one of them is.
fn index_of(serial: &str) -> Option<usize> {
    match serial.strip_prefix(SOURCE)? {
        "" => Some(0),
        index => index.parse().ok(),
    }
}
