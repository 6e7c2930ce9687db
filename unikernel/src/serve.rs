//! The life of the guest: find the devices, read a command, dispatch it, stream its records back.

use alloc::{boxed::Box, format, vec, vec::Vec};

use drivers::Block;
use protocol::{
    Answer, CheckRequest, CommandHeader, CompareRequest, ConvertRequest, CreateRequest, ErrorKind,
    ErrorRecord, FileFacts, HEADER_LENGTH, InfoRequest, InspectRequest, MapRequest, MeasureRequest, Need, Op,
    OptionsRequest, Part, Record, Reply,
};
use serde::Deserialize;

use crate::{
    boot::{self, BootInfo, Disks},
    disk::{Disk, Extents, Heads},
    file::File,
    files::Files,
    ops,
};

/// Finds the devices, and answers commands until the machine is thrown away.
pub fn serve(boot: &BootInfo) -> ! {
    let mut disks = boot::start_devices(boot.command_line);
    loop {
        let record = match read_command() {
            Ok((header, payload)) => answer(&header, &payload, &mut disks),
            Err(error) => Record::Error { request_id: 0, error },
        };
        boot::console(|console| console.write(&record.to_line()));
    }
}

/// Reads a command from the console.
pub fn read_command() -> Result<(CommandHeader, Vec<u8>), ErrorRecord> {
    boot::console(|console| {
        let mut header = [0; HEADER_LENGTH];
        console.read_exact(&mut header);
        let header = CommandHeader::decode(&header)
            .map_err(|error| ErrorRecord::new(ErrorKind::Usage, format!("{error}")))?;
        let mut payload = vec![0; header.length as usize];
        console.read_exact(&mut payload);
        Ok((header, payload))
    })
    .expect("no console")
}

fn answer(header: &CommandHeader, payload: &[u8], disks: &mut Disks) -> Record {
    let request_id = header.request_id;
    let mut files = Attached { disks, request_id, heads: Heads::new() };
    match dispatch(header.op, payload, &mut files) {
        Ok(answer) => Record::Result { request_id, answer },
        Err(error) => Record::Error { request_id, error },
    }
}

fn dispatch(op: Op, payload: &[u8], files: &mut Attached) -> Result<Answer, ErrorRecord> {
    match op {
        Op::Measure => {
            let request: MeasureRequest = parse(payload)?;
            ops::measure::run(&request, files).map(Answer::Measure)
        }
        Op::Create => {
            let request: CreateRequest = parse(payload)?;
            let request_id = files.request_id;
            let mut tell = |part| tell(request_id, Part::Create(part));
            ops::create::run(&request, files, &mut tell).map(Answer::Create)
        }
        Op::Options => {
            let request: OptionsRequest = parse(payload)?;
            ops::options::run(&request).map(Answer::Options)
        }
        Op::Info => {
            let request: InfoRequest = parse(payload)?;
            let request_id = files.request_id;
            let mut tell = |part| tell(request_id, Part::Info(part));
            ops::info::run(&request, files, &mut tell).map(|image| Answer::Info(Box::new(image)))
        }
        Op::Check => {
            let request: CheckRequest = parse(payload)?;
            let request_id = files.request_id;
            let mut tell = |part| tell(request_id, Part::Check(part));
            // What is not for counts is for tables, of up to 2 MiB each, and for what the disks keep.
            let memory = boot::heap_size() / 4 * 3;
            ops::check::run(&request, files, memory, &mut tell).map(Answer::Check)
        }
        Op::Inspect => {
            let request: InspectRequest = parse(payload)?;
            let request_id = files.request_id;
            let mut tell = |part| tell(request_id, Part::Inspect(part));
            ops::inspect::run(&request, files, &mut tell).map(|answer| Answer::Inspect(Box::new(answer)))
        }
        Op::Map => {
            let request: MapRequest = parse(payload)?;
            let request_id = files.request_id;
            let mut tell = |part| tell(request_id, Part::Map(part));
            ops::map::run(&request, files, &mut tell).map(Answer::Map)
        }
        Op::Convert => {
            let request: ConvertRequest = parse(payload)?;
            let request_id = files.request_id;
            let mut tell = |part| tell(request_id, Part::Convert(part));
            ops::convert::run(&request, files, &mut tell).map(Answer::Convert)
        }
        Op::Compare => {
            let request: CompareRequest = parse(payload)?;
            let request_id = files.request_id;
            let mut tell = |part| tell(request_id, Part::Compare(part));
            ops::compare::run(&request, files, &mut tell).map(Answer::Compare)
        }
        Op::Reply => Err(ErrorRecord::new(ErrorKind::Usage, "a reply to nothing")),
    }
}

/// Sends what was found so far.
fn tell(request_id: u64, part: Part) {
    let record = Record::Part { request_id, part };
    boot::console(|console| console.write(&record.to_line()));
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, ErrorRecord> {
    serde_json::from_slice(payload)
        .map_err(|error| ErrorRecord::new(ErrorKind::Usage, format!("command payload: {error}")))
}

/// The disks of the machine as the files of one command.
struct Attached<'a> {
    disks: &'a mut Disks,
    request_id: u64,
    heads: Heads,
}

impl Attached<'_> {
    fn take(&mut self, serial: &str) -> Result<Block, ErrorRecord> {
        self.disks.take(serial).ok_or_else(|| ErrorRecord::new(ErrorKind::Io, format!("no disk '{serial}'")))
    }
}

impl Files for Attached<'_> {
    type Storage = File;

    fn open(&mut self, facts: &FileFacts) -> Result<File, ErrorRecord> {
        let block = self.take(&facts.disk)?;
        let extents = Extents::new(&facts.extents, |serial| self.take(serial))?;
        let (request_id, disk) = (self.request_id, facts.disk.clone());
        let tell_length = move |length| {
            let record = Record::Length { request_id, disk: disk.clone(), length };
            boot::console(|console| console.write(&record.to_line()));
        };
        let disk = Disk::new(block, facts, extents, &mut self.heads, Box::new(tell_length));
        Ok(File::new(&facts.disk, disk))
    }

    fn need(&mut self, need: &Need) -> Result<FileFacts, ErrorRecord> {
        let record = Record::Need { request_id: self.request_id, need: need.clone() };
        boot::console(|console| console.write(&record.to_line()));
        let (header, payload) = read_command()?;
        if header.op != Op::Reply || header.request_id != self.request_id {
            return Err(ErrorRecord::new(ErrorKind::Usage, "a command in place of a reply"));
        }
        match parse(&payload)? {
            Reply::File(facts) => Ok(facts),
            Reply::Refused(error) => Err(error),
        }
    }
}
