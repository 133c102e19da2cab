/* The board functions under an operating system. */
#include <stdio.h>
#include <stdlib.h>

#include "board.h"

void board_print(const char *text)
{
    fputs(text, stdout);
}

_Noreturn void board_exit(int status)
{
    exit(status);
}

size_t board_write_file(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(name, "wb");
    if (!file) return 0;
    size = fwrite(bytes, 1, size, file);
    return fclose(file) == 0 ? size : 0;
}

size_t board_read_file(const char *name, void *bytes, size_t size)
{
    FILE *file = fopen(name, "rb");
    if (!file) return 0;
    size = fread(bytes, 1, size, file);
    fclose(file);
    return size;
}

size_t board_stack_peak(void)
{
    return 0;
}
