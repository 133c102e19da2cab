/* What a Cortex-M4F needs before main: where its stack is and what comes first, at address 0. For QEMU's mps2-an386,
 * whose memory there has 4 MiB. */
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
