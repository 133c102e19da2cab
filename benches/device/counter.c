#include "counter.h"

#include "board.h"

#if defined(__riscv)
uint32_t instructions(void)
{
    uint32_t count;
    __asm__ volatile("csrr %0, minstret" : "=r"(count));
    return count;
}
#else
#define SYSTICK ((volatile uint32_t *)0xE000E010)

/* The timer counts down from 2^24 - 1 at the speed of the board's clock. */
static uint32_t ticks(void)
{
    if (!(SYSTICK[0] & 1)) {
        SYSTICK[1] = 0xFFFFFF;
        SYSTICK[2] = 0;
        SYSTICK[0] = 5;
        /* The first period begins a tick later. */
        while (SYSTICK[2] == 0) {}
    }
    return 0xFFFFFF - SYSTICK[2];
}

uint32_t instructions(void)
{
    static uint32_t nanoseconds;
    if (!nanoseconds) {
        /* Two million instructions. */
        uint32_t turns = 1000000;
        const uint32_t before = ticks();
        __asm__ volatile("1: subs %0, %0, #1\n\tbne 1b" : "+l"(turns) : : "cc");
        const uint32_t taken = ticks() - before;
        nanoseconds = (2000000 + taken / 2) / taken;
    }
    return nanoseconds * ticks();
}
#endif

void print_figure(const char *name, uint32_t number)
{
    char digits[11], *first = digits + sizeof digits - 1;
    *first = 0;
    do *--first = (char)('0' + number % 10);
    while (number /= 10);
    board_print(name);
    board_print(" ");
    board_print(first);
    board_print("\n");
}
