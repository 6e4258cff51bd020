/* What a guest has to do before KVM counts as working: the way from reset to user mode and back.
 *
 *   reset ─▶ 16 bit ─▶ 32 bit ─▶ 64 bit, paging ─▶ ring 3: SSE2, stack
 *                                                     │ ▲
 *                                             syscall ▼ │ sysretq
 *                                                  ring 0: swapgs, CR3 ─▶ the second time: 42 to port 0xf4
 *
 * Built with
 *   as probe.S -o probe.o && ld -Ttext=0xf0000 -e 0xf0000 probe.o -o probe.elf && objcopy -O binary -j .text probe.elf probe.bin
 * and kept as bytes in probe.bin, so that building firebuild needs no assembler. The test `oracle_probe` builds it anew
 * where an assembler is installed, and compares.
 *
 * The ROM holds this code from its start (guest address 0xf0000) and a jump to it at the reset vector.
 */
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

        .code64
long:   movl    $0xc0000081, %ecx       /* STAR: syscall loads CS 0x18, SS 0x20 */
        xorl    %eax, %eax
        movl    $0x00180018, %edx
        wrmsr
        movl    $0xc0000082, %ecx       /* LSTAR */
        movl    $kernel, %eax
        xorl    %edx, %edx
        wrmsr
        pushq   $0x2b                   /* to ring 3: SS, RSP, RFLAGS, CS, RIP */
        pushq   $0x9000
        pushq   $0x2
        pushq   $0x33
        pushq   $user
        iretq

user:   movl    $10, %eax               /* (10 + 0.5) * 4 = 42 */
        cvtsi2sdl %eax, %xmm0
        movl    $1, %eax
        cvtsi2sdl %eax, %xmm1
        movl    $2, %eax
        cvtsi2sdl %eax, %xmm2
        divsd   %xmm2, %xmm1
        addsd   %xmm1, %xmm0
        mulsd   %xmm2, %xmm0
        addsd   %xmm0, %xmm0
        cvttsd2si %xmm0, %eax
        movd    %eax, %xmm3
        pshufd  $0, %xmm3, %xmm3
        subq    $16, %rsp
        movdqu  %xmm3, (%rsp)
        movq    8(%rsp), %rdi
        addq    $16, %rsp
        shrq    $32, %rdi
        xorl    %ebp, %ebp
        syscall
        syscall

kernel: swapgs                          /* what every system call of Linux does in ring 0 */
        movq    %cr3, %rax
        movq    %rax, %cr3
        swapgs
        testl   %ebp, %ebp
        jnz     report
        incl    %ebp
        sysretq                         /* back to ring 3, behind the first syscall */

report: movl    %edi, %eax
        outb    %al, $0xf4
halt:   hlt
        jmp     halt

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      /* 0x08: code, 32 bit */
        .quad   0x00cf93000000ffff      /* 0x10: data */
        .quad   0x00af9b000000ffff      /* 0x18: code, 64 bit */
        .quad   0x00cf93000000ffff      /* 0x20: data */
        .quad   0x00cff3000000ffff      /* 0x28: data, ring 3 */
        .quad   0x00affb000000ffff      /* 0x30: code, 64 bit, ring 3 */
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt
