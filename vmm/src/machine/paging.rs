//! Page tables for a guest that lives in ring 3 and can never change them: 4 levels, 4 KiB and 2 MiB pages.

/// Bytes of a page and of a table.
pub const PAGE: u64 = 4096;
/// Bytes a large page maps.
pub const LARGE_PAGE: u64 = 2 << 20;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Both are set from the start: a processor or KVM that has to set them later takes a fault for it.
const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const ENTRIES: usize = 512;

/// What the guest may do with a page. There is no way to ask for a page that is writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
    /// Read and execute.
    Execute,
}

impl Access {
    fn flags(self) -> u64 {
        PRESENT
            | USER
            | ACCESSED_DIRTY
            | match self {
                Self::ReadOnly => NO_EXECUTE,
                Self::ReadWrite => WRITE | NO_EXECUTE,
                Self::Execute => 0,
            }
    }
}

/// Tables being made for guest addresses from `base` on; the first one is the root.
pub struct PageTables {
    base: u64,
    tables: Vec<[u64; ENTRIES]>,
}

impl PageTables {
    /// Empty tables that will stand at guest address `base`, a multiple of [`PAGE`].
    pub fn new(base: u64) -> Self {
        Self { base, tables: vec![[0; ENTRIES]] }
    }

    /// Maps `[start, end)` one to one, with large pages where they fit. Both ends are multiples of [`PAGE`].
    pub fn map(&mut self, start: u64, end: u64, access: Access) {
        let mut address = start;
        while address < end {
            if address.is_multiple_of(LARGE_PAGE) && end - address >= LARGE_PAGE {
                let directory = self.table_for(address, 1);
                self.tables[directory][index(address, 1)] = address | access.flags() | LARGE;
                address += LARGE_PAGE;
            } else {
                let table = self.table_for(address, 0);
                self.tables[table][index(address, 0)] = address | access.flags();
                address += PAGE;
            }
        }
    }

    /// The table of `level` (0: of pages, 1: of 2 MiB, 2: of 1 GiB) that covers `address`, made when missing.
    fn table_for(&mut self, address: u64, level: u32) -> usize {
        let mut table = 0;
        for upper in (level + 1..=3).rev() {
            let entry = self.tables[table][index(address, upper)];
            table = if entry & PRESENT == 0 {
                self.tables.push([0; ENTRIES]);
                let next = self.tables.len() - 1;
                let link = (self.base + next as u64 * PAGE) | PRESENT | WRITE | USER | ACCESSED_DIRTY;
                self.tables[table][index(address, upper)] = link;
                next
            } else {
                (((entry & ADDRESS) - self.base) / PAGE) as usize
            };
        }
        table
    }

    /// The tables as they go into guest memory.
    pub fn bytes(&self) -> Vec<u8> {
        self.tables.iter().flatten().flat_map(|entry| entry.to_le_bytes()).collect()
    }
}

/// Index into a table of `level` for `address`.
fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level)) as usize % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the tables as the processor does; answers the entry that maps `address`.
    fn walk(tables: &PageTables, address: u64) -> Option<u64> {
        let mut table = 0;
        for level in (0..=3).rev() {
            let entry = tables.tables[table][index(address, level)];
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || entry & LARGE != 0 {
                return Some(entry);
            }
            table = (((entry & ADDRESS) - tables.base) / PAGE) as usize;
        }
        None
    }

    #[test]
    fn pages_have_the_access_asked_for_and_no_more() {
        let mut tables = PageTables::new(0x30_0000);
        tables.map(0x20_0000, 0x20_3000, Access::Execute);
        tables.map(0x20_3000, 0x20_4000, Access::ReadOnly);
        tables.map(0x20_5000, 0x90_0000, Access::ReadWrite);
        tables.map(0xd000_0000, 0xd000_1000, Access::ReadWrite);
        const READ: u64 = PRESENT | USER | ACCESSED_DIRTY;
        assert_eq!(walk(&tables, 0x20_2000), Some(0x20_2000 | READ));
        assert_eq!(walk(&tables, 0x20_3000), Some(0x20_3000 | READ | NO_EXECUTE));
        assert_eq!(walk(&tables, 0x20_5000), Some(0x20_5000 | READ | WRITE | NO_EXECUTE));
        assert_eq!(walk(&tables, 0x40_0000), Some(0x40_0000 | READ | WRITE | NO_EXECUTE | LARGE));
        assert_eq!(walk(&tables, 0xd000_0000), Some(0xd000_0000 | READ | WRITE | NO_EXECUTE));
        for unmapped in [0, 0x1f_f000, 0x20_4000, 0x90_0000, 0xcfff_f000, 0xd000_1000, 1 << 40] {
            assert_eq!(walk(&tables, unmapped), None, "{unmapped:#x}");
        }
    }
}
