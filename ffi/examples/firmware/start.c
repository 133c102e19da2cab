/* From reset to main on any processor. Sets the initial values of variables, and paints the stack, so that its peak can
 * be measured. The symbols are defined in sections.ld. */
#include "board.h"

extern uint32_t data_begin[], data_end[], bss_begin[], bss_end[], stack_bottom[], stack_top[];
extern const uint32_t data_load[];

int main(void);

enum { PAINT = 0x51AC4BED };

/* The reset handler calls it when only the stack is set up. */
_Noreturn void start(void)
{
    const uint32_t *from = data_load;
    for (uint32_t *to = data_begin; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_begin; to < bss_end;) *to++ = 0;
    /* Spare the frame of this function. */
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
