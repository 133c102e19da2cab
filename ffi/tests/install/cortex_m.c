/* The vector table of a Cortex-M4F at address 0: the initial stack pointer and the reset handler. For QEMU's mps2-an386,
 * which has 4 MiB of memory there. */
#include <stdint.h>

extern void _start(void);

static void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating-point unit */
    _start();
}

__attribute__((section(".vectors"))) const struct {
    uintptr_t stack;
    void (*reset)(void);
} vectors = {0x400000, reset};
