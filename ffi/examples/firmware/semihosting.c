/* Input and output through the debugger or emulator that the processor is attached to: Arm's semihosting, which RISC-V
 * adopted. */
#include "board.h"

enum { OPEN = 0x01, CLOSE = 0x02, WRITE0 = 0x04, WRITE = 0x05, READ = 0x06, EXIT_EXTENDED = 0x20 };
enum { READ_BINARY = 1, WRITE_BINARY = 5 };
enum { APPLICATION_EXIT = 0x20026 };

static uintptr_t call(uintptr_t operation, const void *argument)
{
#if defined(__riscv)
    register uintptr_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = argument;
    /* The debugger looks for these three instructions, uncompressed and in one page. */
    __asm__ volatile(".balign 16\n\t.option push\n\t.option norvc\n\t"
                     "slli x0, x0, 0x1f\n\tebreak\n\tsrai x0, x0, 7\n\t.option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
    return a0;
#else
    register uintptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
#endif
}

void board_print(const char *text)
{
    call(WRITE0, text);
}

_Noreturn void board_exit(int status)
{
    const uintptr_t block[] = {APPLICATION_EXIT, (uintptr_t)status};
    for (;;) call(EXIT_EXTENDED, block);
}

/* A file's handle; -1 if it cannot be opened. */
static intptr_t open_file(const char *name, uintptr_t mode)
{
    uintptr_t length = 0;
    while (name[length]) length++;
    const uintptr_t block[] = {(uintptr_t)name, mode, length};
    return (intptr_t)call(OPEN, block);
}

/* Reads or writes, and closes. Both calls return the number of bytes that they did not transfer. */
static size_t transfer(uintptr_t operation, const char *name, uintptr_t mode, const void *bytes, size_t size)
{
    const intptr_t handle = open_file(name, mode);
    if (handle == -1) return 0;
    const uintptr_t block[] = {(uintptr_t)handle, (uintptr_t)bytes, size};
    const uintptr_t left = call(operation, block);
    call(CLOSE, block);
    return left > size ? 0 : size - left;
}

size_t board_write_file(const char *name, const void *bytes, size_t size)
{
    return transfer(WRITE, name, WRITE_BINARY, bytes, size);
}

size_t board_read_file(const char *name, void *bytes, size_t size)
{
    return transfer(READ, name, READ_BINARY, bytes, size);
}
