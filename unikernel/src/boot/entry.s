# The two doors of the unikernel. Both end in `guest_main(start_info)`, in ring 3, in 64-bit mode.

.section .text._start, "ax"
.code64

# Door 1: entered in ring 3 by instar's own machine. rdi: address of hvm_start_info.
.global _start
_start:
        lea     rsp, [rip + __stack_top]
        xor     ebp, ebp
        call    guest_main
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
        jecxz   2f
1:      mov     [edi], eax
        mov     [edi + 4], edx
        add     edi, 8
        add     eax, esi
        loop    1b
2:      ret

# Maps [\start, \end) of the image, which lies in the second 2 MiB, page by page.
.macro map_pages start, end, flags, upper
        mov     eax, offset \start
        mov     edi, eax
        mov     ecx, offset \end
        sub     ecx, eax
        shr     ecx, 12
        shr     edi, 9
        add     edi, offset _image_table - 0x200000 / 512
        or      eax, \flags
        mov     edx, \upper
        call    _fill
.endm

.global _pvh_start
_pvh_start:
        cld
        mov     esp, offset __stack_top
        mov     ebp, ebx

        # 4 GiB one to one: page 0 not at all, the rest of the first 2 MiB read-only (the loader's data), the image by
        # its segments, everything above read-write. Nothing is writable and executable.
        mov     dword ptr [_pml4], offset _pdpt + (PRESENT | WRITE | USER)
        mov     edi, offset _pdpt
        mov     eax, offset _directories + (PRESENT | WRITE | USER)
        xor     edx, edx
        mov     esi, 4096
        mov     ecx, 4
        call    _fill

        mov     edi, offset _low_table + 8
        mov     eax, 4096 + (PRESENT | USER)
        mov     edx, NX
        mov     ecx, 511
        call    _fill
        map_pages __text_start, __text_end, PRESENT | USER, 0
        map_pages __rodata_start, __rodata_end, PRESENT | USER, NX
        map_pages __data_start, __data_end, PRESENT | WRITE | USER, NX
        map_pages __stack_bottom, __stack_top, PRESENT | WRITE | USER, NX
        map_pages __pvh_start, __pvh_end, PRESENT | WRITE, 0
        # What the image leaves of its 2 MiB is heap.
        map_pages __image_end, __window_end, PRESENT | WRITE | USER, NX

        mov     dword ptr [_directories], offset _low_table + (PRESENT | WRITE | USER)
        mov     dword ptr [_directories + 8], offset _image_table + (PRESENT | WRITE | USER)
        mov     edi, offset _directories + 16
        mov     eax, 0x400000 + (PRESENT | WRITE | USER | LARGE)
        mov     edx, NX
        mov     esi, 0x200000
        mov     ecx, 4 * 512 - 2
        call    _fill

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
_image_table:   .skip 4096
