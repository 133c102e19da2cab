/* The vector table and the reset handler of a Cortex-M. */
#include "board.h"

extern uint32_t stack_top[];
_Noreturn void start(void);

void reset(void);
void reset(void)
{
#if defined(__ARM_FP)
    /* CPACR: the floating-point unit. */
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb");
#endif
    start();
}

/* A stack overflow ends here too, because memory begins with the stack. */
static void fault(void)
{
    board_print("FAILED: the processor has stopped at a fault\n");
    board_exit(1);
}

/* NMI, and HardFault, which the other faults escalate to. */
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*reset)(void), (*nmi)(void), (*hard_fault)(void);
} vectors = {stack_top, reset, fault, fault};
