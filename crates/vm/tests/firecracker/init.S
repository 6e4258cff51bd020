/* The init of the tests' guests: it asks to end. Built with
 *   as init.S -o init.o && ld -n --build-id=none init.o -o init.elf && strip init.elf
 */
        .globl _start
_start: movl    $60, %eax
        xorl    %edi, %edi
        syscall
