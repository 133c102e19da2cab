/* The reset handler of a RISC-V. */
#if defined(__riscv_flen)
#define FLOATS 0x2000 /* mstatus.FS: the floating-point unit */
#else
#define FLOATS 0
#endif

    .section .vectors, "ax"
    .globl reset
reset:
    la sp, stack_top
    la t0, fault
    csrw mtvec, t0
    li t0, FLOATS
    csrs mstatus, t0
    j start

    .balign 4
fault:
    /* A stack overflow ends here too, so start again at the top of the stack. */
    la sp, stack_top
    la a0, message
    call board_print
    li a0, 1
    j board_exit

    .section .rodata
message:
    .asciz "FAILED: the processor has stopped at a fault\n"
