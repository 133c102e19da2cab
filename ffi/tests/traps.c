/*
 * Functions that the library must never call. They trap while the library has control; otherwise they call the
 * original. The linker replaces each function `f` in this file (--wrap=f, see scripts/test/c/abi.sh).
 *
 * Linked with bad_input.c, whose main becomes bad_input.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jostle.h"

extern volatile int inside_library;
int bad_input(void);

static void refuse(void)
{
    if (inside_library)
        __builtin_trap();
}

#define WRAP(result, name, parameters, arguments) \
    result __real_##name parameters;              \
    result __wrap_##name parameters;              \
    result __wrap_##name parameters               \
    {                                             \
        refuse();                                 \
        return __real_##name arguments;           \
    }

WRAP(void *, malloc, (size_t size), (size))
WRAP(void *, calloc, (size_t count, size_t size), (count, size))
WRAP(void *, realloc, (void *memory, size_t size), (memory, size))
WRAP(int, posix_memalign, (void **memory, size_t alignment, size_t size), (memory, alignment, size))
WRAP(void *, aligned_alloc, (size_t alignment, size_t size), (alignment, size))
WRAP(int, puts, (const char *text), (text))
WRAP(int, putchar, (int character), (character))
WRAP(int, vprintf, (const char *format, va_list arguments), (format, arguments))
WRAP(size_t, fwrite, (const void *data, size_t size, size_t count, FILE *file), (data, size, count, file))
WRAP(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))

void __real_free(void *memory);
void __wrap_free(void *memory);
void __wrap_free(void *memory)
{
    refuse();
    __real_free(memory);
}

int __wrap_printf(const char *format, ...);
int __wrap_printf(const char *format, ...)
{
    refuse();
    va_list arguments;
    va_start(arguments, format);
    int written = __real_vprintf(format, arguments);
    va_end(arguments);
    return written;
}

void __real_exit(int status) __attribute__((noreturn));
void __wrap_exit(int status) __attribute__((noreturn));
void __wrap_exit(int status)
{
    refuse();
    __real_exit(status);
}

void __wrap_abort(void) __attribute__((noreturn));
void __wrap_abort(void)
{
    __builtin_trap();
}

/* Whether a child process traps when it does this inside of the library. */
static int traps(void (*act)(void))
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        inside_library = 1;
        act();
        _exit(0);
    }
    return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
           (WTERMSIG(status) == SIGILL || WTERMSIG(status) == SIGTRAP);
}

static void allocate(void)
{
    void *(*volatile function)(size_t) = malloc;
    free(function(1));
}

static void print(void)
{
    printf("%d\n", (int)getpid());
}

#ifndef FREESTANDING
/* The only call of the library that allocates. Inside of the library it must trap. */
static void start_pool(void)
{
    jostle_pool *pool;
    jostle_pool_start(2, &pool, NULL);
}
#endif

int main(void)
{
    int all = traps(allocate) && traps(print);
#ifndef FREESTANDING
    all = all && traps(start_pool);
#endif
    if (!all) {
        printf("FAILED: the traps don't trap\n");
        return 1;
    }
    return bad_input();
}
