/* From reset to main on any processor: initial values of variables, and a painted stack, so that its peak can be
 * read off. The symbols are sections.ld's. */
#include "board.h"

extern uint32_t data_begin[], data_end[], bss_begin[], bss_end[], stack_bottom[], stack_top[];
extern const uint32_t data_load[];

int main(void);

enum { PAINT = 0x51AC4BED };

/* Called by the reset handler, with a stack and nothing else. */
_Noreturn void start(void)
{
    const uint32_t *from = data_load;
    for (uint32_t *to = data_begin; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_begin; to < bss_end;) *to++ = 0;
    /* Not what this function stands on. */
    const uint32_t *const used = (uint32_t *)__builtin_frame_address(0) - 16;
    for (volatile uint32_t *to = stack_bottom; to < used;) *to++ = PAINT;
    board_exit(main());
}

size_t board_stack_peak(void)
{
    const volatile uint32_t *deepest = stack_bottom;
    while (deepest < stack_top && *deepest == PAINT) deepest++;
    return (size_t)((uintptr_t)stack_top - (uintptr_t)deepest);
}
