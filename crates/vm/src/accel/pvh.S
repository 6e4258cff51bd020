/* The KVM probe's guest as a kernel, for VMMs that boot kernels and nothing else (Firecracker): an ELF with a PVH entry,
 * and with the entry of the 64 bit boot protocol, which Firecracker before 1.12 takes.
 *
 * Built with
 *   as -I . pvh.S -o pvh.o && ld -n -Ttext=0x100000 -e start64 --build-id=none pvh.o -o pvh.elf && strip pvh.elf
 * It tells its number on the serial port, as a character between < and >, and restarts.
 */
        .macro  answer
        movw    $0x3f8, %dx
        movb    $'<', %al
        outb    %al, %dx
        movl    %edi, %eax
        outb    %al, %dx
        movb    $'>', %al
        outb    %al, %dx
        movb    $0xfe, %al              /* the keyboard controller pulls the reset line */
        outb    %al, $0x64
        .endm

        .macro  tables                  /* page tables at 0x1000, 0x2000 and 0x3000, as in probe.S */
        xorl    %eax, %eax
        movl    $0x1000, %edi
        movl    $(0x3000 / 4), %ecx
        rep stosl
        movl    $0x2007, 0x1000
        movl    $0x3007, 0x2000
        movl    $0x0087, 0x3000
        .endm

        .section .note.pvh, "a", @note
        .long   4, 4, 18                /* sizes of name and value; XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz  "Xen"
        .long   start32

        .text
        .code64
        .globl  start64
start64:
        cli
        cld
        lgdt    gdt_pointer
        movl    $0x8000, %esp
        tables
        movl    $0x1000, %eax
        movq    %rax, %cr3
        movl    $0x620, %eax            /* PAE, OSFXSR, OSXMMEXCPT */
        movq    %rax, %cr4
        movl    $0xc0000080, %ecx       /* EFER: SCE beside what is there */
        rdmsr
        orl     $1, %eax
        wrmsr
        movl    $0x80000033, %eax       /* PG, NE, ET, MP, PE */
        movq    %rax, %cr0
        pushq   $0x18
        pushq   $long
        lretq

        .code32
start32:
        cli
        cld
        lgdtl   gdt_pointer
        ljmpl   $0x08, $protected
protected:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x8000, %esp
        tables
        movl    $0x1000, %eax
        movl    %eax, %cr3
        movl    $0x620, %eax
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx       /* EFER: LME, SCE */
        rdmsr
        orl     $0x101, %eax
        wrmsr
        movl    $0x80000033, %eax
        movl    %eax, %cr0
        ljmpl   $0x18, $long

        .include "ring3.inc"
gdt_pointer:
        .word   . - gdt - 1
        .quad   gdt
