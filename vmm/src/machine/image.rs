//! The guest's ELF: loaded by `linux-loader`; its segments say what is mapped and how, its symbols name faults.

use std::{
    io::{self, Cursor, Read, Seek, SeekFrom},
    ops::Range,
};

use linux_loader::loader::{KernelLoader, elf::Elf};
use object::{
    LittleEndian, Object, ObjectSymbol, SymbolKind,
    elf::{PF_R, PF_W, PF_X, PT_LOAD},
    read::elf::{ElfFile64, ProgramHeader},
};

use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, bitmap::BitmapSlice};

use super::{
    GuestMemory, IMAGE_BASE, MachineError,
    paging::{Access, LARGE_PAGE, PAGE},
};

/// The unikernel that answers every command.
pub static UNIKERNEL: &[u8] = include_bytes!(env!("INSTAR_UNIKERNEL"));

/// Bytes of the program that are copied at once.
const PIECE: usize = 256 << 10;

/// The bytes of a guest on their way into its memory. Of the unikernel, which is a part of this program, what is behind is given
/// up: it is in the machine then, and need not take memory twice. Whoever looks at it again has it read again.
struct Unloaded<'data>(Cursor<&'data [u8]>);

impl Read for Unloaded<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for Unloaded<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

impl ReadVolatile for Unloaded<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let own = std::ptr::eq(*self.0.get_ref(), UNIKERNEL);
        let mut count = 0;
        while count < buf.len() {
            let from = self.0.position() as usize;
            let mut piece = buf.subslice(count, (buf.len() - count).min(PIECE))?;
            let read = self.0.read_volatile(&mut piece)?;
            if read == 0 {
                break;
            }
            if own {
                forget(&UNIKERNEL[from..from + read]);
            }
            count += read;
        }
        Ok(count)
    }
}

/// Gives up the memory of a part of this program, but for pages that it begins or ends in.
fn forget(part: &'static [u8]) {
    let range = part.as_ptr_range();
    let page = PAGE as usize;
    let (first, last) = ((range.start as usize).next_multiple_of(page), range.end as usize / page * page);
    if first < last {
        // SAFETY: whole pages of a constant of this program, which are its file's, mapped for reading: they come back as they
        // were. That it fails is no matter.
        unsafe { libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_DONTNEED) };
    }
}

/// A loadable segment. Addresses are multiples of [`PAGE`].
pub struct Segment {
    pub start: u64,
    pub end: u64,
    /// `None`: loaded, but not mapped in ring 3.
    pub access: Option<Access>,
}

impl Segment {
    /// The pages the segment is mapped with. They are large: a page that is touched for the first time costs more than
    /// what it holds, and what the others of its access have behind their ends are zeros.
    pub fn mapped_pages(&self) -> Range<u64> {
        self.start / LARGE_PAGE * LARGE_PAGE..self.end.next_multiple_of(LARGE_PAGE)
    }
}

/// The guest's program.
pub struct Image<'data> {
    bytes: &'data [u8],
    pub entry: u64,
    pub segments: Vec<Segment>,
}

impl<'data> Image<'data> {
    /// Reads the headers of an ELF for x86-64.
    pub fn parse(bytes: &'data [u8]) -> Result<Self, MachineError> {
        let broken = |error: object::Error| MachineError::Image(error.to_string());
        let file = ElfFile64::<LittleEndian>::parse(bytes).map_err(broken)?;
        let segments: Vec<Segment> = file
            .elf_program_headers()
            .iter()
            .filter(|header| header.p_type(LittleEndian) == PT_LOAD && header.p_memsz(LittleEndian) > 0)
            .map(Segment::read)
            .collect::<Result<_, _>>()?;
        let clash = |a: &Segment, b: &Segment| {
            a.access != b.access
                && a.mapped_pages().start < b.mapped_pages().end
                && b.mapped_pages().start < a.mapped_pages().end
        };
        if segments.iter().any(|a| segments.iter().any(|b| clash(a, b))) {
            return Err(MachineError::Image("segments of different access share a large page".into()));
        }
        Ok(Self { bytes, entry: file.entry(), segments })
    }

    /// First address behind the segments that are mapped (`true`) or are not (`false`).
    pub fn end(&self, mapped: bool) -> u64 {
        let ends = self
            .segments
            .iter()
            .filter(|segment| segment.access.is_some() == mapped)
            .map(|segment| segment.end);
        ends.max().unwrap_or(IMAGE_BASE)
    }

    /// Copies the segments to their places.
    pub fn load(&self, memory: &GuestMemory) -> Result<(), MachineError> {
        // Of what is not mapped little is ever touched.
        for segment in self.segments.iter().filter(|segment| segment.access.is_none()) {
            let pages = segment.mapped_pages();
            memory.use_small_pages(pages.start, pages.end);
        }
        Elf::load(memory.get(), None, &mut Unloaded(Cursor::new(self.bytes)), None)
            .map(|_| ())
            .map_err(|error| MachineError::Image(error.to_string()))
    }
}

impl Segment {
    fn read(header: &object::elf::ProgramHeader64<LittleEndian>) -> Result<Self, MachineError> {
        let start = header.p_vaddr(LittleEndian);
        let end = start
            .checked_add(header.p_memsz(LittleEndian))
            .and_then(|end| end.checked_next_multiple_of(PAGE));
        let Some(end) = end.filter(|_| {
            start >= IMAGE_BASE && start.is_multiple_of(PAGE) && start == header.p_paddr(LittleEndian)
        }) else {
            return Err(MachineError::Image(format!("segment at {start:#x} is out of place")));
        };
        let access = match header.p_flags(LittleEndian) & (PF_R | PF_W | PF_X) {
            0 => None,
            flags if flags == PF_R => Some(Access::ReadOnly),
            flags if flags == PF_R | PF_W => Some(Access::ReadWrite),
            flags if flags == PF_R | PF_X => Some(Access::Execute),
            _ => {
                return Err(MachineError::Image(format!("segment at {start:#x} is writable and executable")));
            }
        };
        Ok(Self { start, end, access })
    }
}

/// Name of the function of the ELF `image` that `address` lies in.
pub fn symbol_at(image: &[u8], address: u64) -> Option<String> {
    let file = ElfFile64::<LittleEndian>::parse(image).ok()?;
    let function = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
        .find(|symbol| (symbol.address()..symbol.address() + symbol.size().max(1)).contains(&address))?;
    function.name().ok().map(|name| format!("{:#}", rustc_demangle::demangle(name)))
}
