/* Counts instructions under QEMU's -icount shift=0, which makes each instruction take a nanosecond. */
#ifndef COUNTER_H
#define COUNTER_H

#include <stdint.h>

/* Instructions since a fixed moment. Exact on RISC-V. On a Cortex-M it is exact to a tick of the timer, and wraps after
 * 2^24 ticks. */
uint32_t instructions(void);

/* Prints a line: a name, and a number. */
void print_figure(const char *name, uint32_t number);

#endif
