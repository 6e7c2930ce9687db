//! The life of the guest: find the devices, read a command, dispatch it, stream its records back.

use alloc::{format, vec, vec::Vec};

use drivers::Block;
use protocol::{
    Answer, CommandHeader, ErrorKind, ErrorRecord, FileFacts, HEADER_LENGTH, MeasureRequest, Op, Record,
};

use crate::{
    boot::{self, BootInfo, Disks},
    disk::{Disk, Extents},
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
    match dispatch(header.op, payload, disks) {
        Ok(answer) => Record::Result { request_id, answer },
        Err(error) => Record::Error { request_id, error },
    }
}

fn dispatch(op: Op, payload: &[u8], disks: &mut Disks) -> Result<Answer, ErrorRecord> {
    match op {
        Op::Measure => {
            let request: MeasureRequest = serde_json::from_slice(payload)
                .map_err(|error| ErrorRecord::new(ErrorKind::Usage, format!("command payload: {error}")))?;
            ops::measure::run(&request, |file| open(disks, file)).map(Answer::Measure)
        }
    }
}

fn take(disks: &mut Disks, serial: &str) -> Result<Block, ErrorRecord> {
    disks.take(serial).ok_or_else(|| ErrorRecord::new(ErrorKind::Io, format!("no disk '{serial}'")))
}

fn open(disks: &mut Disks, file: &FileFacts) -> Result<Disk, ErrorRecord> {
    let block = take(disks, &file.disk)?;
    let extents = Extents::new(&file.extents, |serial| take(disks, serial))?;
    Ok(Disk::new(block, file.length, file.allocated, extents))
}
