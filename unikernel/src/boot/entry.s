# The two doors of the unikernel. Both end in `guest_main(start_info)`, in ring 3, in 64-bit mode; the first one also in
# `guest_worker(idle, number)`.

.section .text._start, "ax"
.code64

# Door 1: entered in ring 3 by instar's own machine. esi: 0, and rdi: address of hvm_start_info; or a processor beside the
# first one. esi: its number, counted from 1; rdi: address of the idle register; rsp: its stack.
.global _start
_start:
        test    esi, esi
        jnz     _worker
        lea     rsp, [rip + __stack_top]
        xor     ebp, ebp
        call    guest_main
        ud2
_worker:
        xor     ebp, ebp
        call    guest_worker
        ud2

# Door 2: PVH. Entered by any PVH boot loader in 32-bit protected mode, paging off. ebx: address of hvm_start_info.
.section .note.pvh, "a", @note
.align 4
        .long   4                       # length of the name
        .long   4                       # length of the address
        .long   18                      # XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .long   _pvh_start

.equ    PRESENT, 1
.equ    WRITE, 2
.equ    USER, 4
.equ    LARGE, 0x80
.equ    NX, 0x80000000                  # in the upper half of an entry

.section .pvh, "awx", @progbits
.code32
# Fills a run of entries: edi the first entry, eax address and flags, edx upper half, ecx the count, esi the step.
_fill:
        mov     [edi], eax
        mov     [edi + 4], edx
        add     edi, 8
        add     eax, esi
        loop    _fill
        ret

# Maps the 2 MiB page at \address.
.macro map_large address, flags, upper
        mov     edi, offset \address
        shr     edi, 21 - 3
        mov     dword ptr [edi + _directories], offset \address + (PRESENT | LARGE | \flags)
        mov     dword ptr [edi + _directories + 4], \upper
.endm

.global _pvh_start
_pvh_start:
        cld
        mov     esp, offset __stack_top
        mov     ebp, ebx

        # 4 GiB one to one: page 0 not at all, the rest of the first 2 MiB read-only (the loader's data), the image by
        # its segments, everything above read-write. Nothing that ring 3 can write is executable.
        mov     dword ptr [_pml4], offset _pdpt + (PRESENT | WRITE | USER)
        xor     edx, edx
        mov     edi, offset _pdpt
        mov     eax, offset _directories + (PRESENT | WRITE | USER)
        mov     esi, 4096
        mov     ecx, 4
        call    _fill
        mov     dword ptr [_directories], offset _low_table + (PRESENT | WRITE | USER)

        mov     edx, NX
        mov     edi, offset _low_table + 8
        mov     eax, 4096 + (PRESENT | USER)
        mov     ecx, 511
        call    _fill
        mov     edi, offset _directories + 8
        mov     eax, 0x200000 + (PRESENT | WRITE | USER | LARGE)
        mov     esi, 0x200000
        mov     ecx, 4 * 512 - 1
        call    _fill
        map_large __text_start, USER, 0
        map_large __pvh_start, WRITE, 0

        mov     eax, 0x620              # PAE | OSFXSR | OSXMMEXCPT
        mov     cr4, eax
        mov     eax, offset _pml4
        mov     cr3, eax
        mov     ecx, 0xc0000080         # EFER
        mov     eax, 0x900              # LME | NXE
        xor     edx, edx
        wrmsr
        mov     eax, 0x80050033         # PG | AM | WP | NE | ET | MP | PE
        mov     cr0, eax
        lgdt    [_gdt_pointer]
        .byte   0xea                    # far jump: offset, selector
        .long   _long_mode
        .word   0x08

.code64
_long_mode:
        lidt    [rip + _no_idt]
        mov     ecx, 0x23
        mov     ds, ecx
        mov     es, ecx
        mov     edi, ebp
        xor     esi, esi
        push    0x23                    # ss
        lea     rax, [rip + __stack_top]
        push    rax
        push    2                       # rflags
        push    0x1b                    # cs
        lea     rax, [rip + _start]
        push    rax
        iretq

.align 8
_gdt:
        .quad   0
        .quad   0x00af9b000000ffff      # 0x08: ring 0 code
        .quad   0x00cf93000000ffff      # 0x10: ring 0 data
        .quad   0x00affb000000ffff      # 0x18: ring 3 code
        .quad   0x00cff3000000ffff      # 0x20: ring 3 data
_gdt_pointer:
        .word   _gdt_pointer - _gdt - 1
        .long   _gdt
        .long   0
_no_idt:
        .word   0
        .quad   0

.section .pvh_tables, "aw", @nobits
.align 4096
_pml4:          .skip 4096
_pdpt:          .skip 4096
_directories:   .skip 4 * 4096
_low_table:     .skip 4096
