/* What a guest has to do before KVM counts as working: the way from reset to user mode and back.
 *
 *   reset ─▶ 16 bit ─▶ 32 bit ─▶ 64 bit, paging ─▶ ring 3: SSE2, stack
 *                                                     │ ▲
 *                                             syscall ▼ │ sysretq
 *                                                  ring 0: swapgs, CR3 ─▶ the second time: 42 to port 0xf4
 *
 * Built with
 *   as -I . probe.S -o probe.o && ld -Ttext=0xf0000 -e 0xf0000 probe.o -o probe.elf && objcopy -O binary -j .text probe.elf probe.bin
 * and kept as bytes in probe.bin, so that building firebuild needs no assembler. The test `oracle_probe` builds it anew
 * where an assembler is installed, and compares.
 *
 * The ROM holds this code from its start (guest address 0xf0000) and a jump to it at the reset vector.
 */
        .macro  answer
        movl    %edi, %eax
        outb    %al, $0xf4
        .endm

        .text
        .code16
start:  cli
        cld
        lgdtl   %cs:(gdt_pointer - start)
        movl    %cr0, %eax
        orb     $1, %al                 /* PE */
        movl    %eax, %cr0
        ljmpl   $0x08, $protected

        .code32
protected:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x8000, %esp
        xorl    %eax, %eax              /* page tables at 0x1000, 0x2000 and 0x3000 */
        movl    $0x1000, %edi
        movl    $(0x3000 / 4), %ecx
        rep stosl
        movl    $0x2007, 0x1000         /* present, writable, for users */
        movl    $0x3007, 0x2000
        movl    $0x0087, 0x3000         /* one page of 2 MiB, mapped to itself */
        movl    $0x1000, %eax
        movl    %eax, %cr3
        movl    $0x620, %eax            /* PAE, OSFXSR, OSXMMEXCPT */
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx       /* EFER: LME, SCE */
        rdmsr
        orl     $0x101, %eax
        wrmsr
        movl    $0x80000033, %eax       /* PG, NE, ET, MP, PE */
        movl    %eax, %cr0
        ljmpl   $0x18, $long

        .include "ring3.inc"
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt
