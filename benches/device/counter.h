/* Counts instructions under QEMU's -icount shift=0, where an instruction takes a nanosecond. */
#ifndef COUNTER_H
#define COUNTER_H

#include <stdint.h>

/* Instructions since some moment; at most the nanoseconds of a tick of a Cortex-M's timer apart, and not for longer than
 * 2^24 ticks. On a RISC-V exact. */
uint32_t instructions(void);

/* Prints a line: a name, and a number. */
void print_figure(const char *name, uint32_t number);

#endif
