/* Shared by the C tests: counted checks, and the training run with known bits. */
#ifndef TEST_H
#define TEST_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jostle.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static size_t checks, failures;

/* Counts a check, and reports it if it fails. */
static inline int check(int holds, const char *format, ...)
{
    checks++;
    if (!holds) {
        va_list arguments;
        va_start(arguments, format);
        printf("FAILED: ");
        vprintf(format, arguments);
        printf("\n");
        va_end(arguments);
        failures++;
    }
    return holds;
}

/* Ends a program that cannot continue its checks. */
static inline void need(int holds, const char *what)
{
    if (!check(holds, "%s", what))
        exit(1);
}

/* A call that must succeed; `error` is the one that it got. */
static inline void ok(jostle_status status, const jostle_error *error, const char *what)
{
    char text[200] = "";
    if (status != JOSTLE_OK)
        jostle_error_message(error, text, sizeof text);
    if (!check(status == JOSTLE_OK, "%s: status %d: %s", what, (int)status, text))
        exit(1);
}

static inline int finish(const char *name)
{
    printf("%s: %zu checks, %zu failed\n", name, checks, failures);
    return failures != 0;
}

#endif
