/*
 * Files, memory and error messages for all examples. The library never opens a file and never prints, and only
 * jostle_pool_start allocates. The program does all of that, here.
 */

#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jostle.h"

/* A failing call writes the reason here. One is enough for one thread. */
static jostle_error error;

/* Ends the program with a sentence. */
static inline void fail(const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fputs("error: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* Ends the program if a call of the library has failed. `about` is the name of the file concerned, or NULL. These
 * programs cannot continue without their plan or trainer; others may. */
static inline void check_about(const char *about, jostle_status status)
{
    char text[160];
    if (status == JOSTLE_OK) return;
    if (jostle_error_message(&error, text, sizeof text) != JOSTLE_OK) fail("%s", jostle_status_string(status));
    fail("%s%s%s", about ? about : "", about ? ": " : "", text);
}

static inline void check(jostle_status status)
{
    check_about(NULL, status);
}

/* Memory, not cleared. malloc's alignment is more than JOSTLE_ALIGNMENT. */
static inline void *allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (!memory) fail("no memory for %zu bytes", size);
    return memory;
}

/* All buffers of training, in one block of memory, which the caller frees. */
static inline jostle_buffers allocate_buffers(const jostle_plan *plan, void **memory)
{
    jostle_buffers buffers;
    const size_t size = jostle_buffers_size(plan);
    *memory = allocate(size);
    check(jostle_buffers_init(&buffers, sizeof buffers, plan, *memory, size, &error));
    return buffers;
}

/* The contents of a file. The caller frees them. */
static inline uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = NULL;
    size_t room = 0;
    if (!file) fail("%s cannot be opened", path);
    *size = 0;
    do {
        if (*size == room) {
            room = room ? 2 * room : 1 << 16;
            bytes = realloc(bytes, room);
            if (!bytes) fail("no memory for %zu bytes", room);
        }
        *size += fread(bytes + *size, 1, room - *size, file);
    } while (!feof(file) && !ferror(file));
    if (ferror(file)) fail("%s cannot be read", path);
    fclose(file);
    return bytes;
}

/* A file for the end of the program. It is opened at the beginning, so that a path that is not writable fails early.
 * It gets its name when it is complete, so that a crash never destroys an older file. */
struct save {
    const char *path;
    char *partial;
    FILE *file;
};

static inline struct save begin_save(const char *path)
{
    struct save save = {path, allocate(strlen(path) + sizeof ".partial"), NULL};
    strcat(strcpy(save.partial, path), ".partial");
    save.file = fopen(save.partial, "wb");
    if (!save.file) fail("%s cannot be written", save.partial);
    return save;
}

static inline void finish_save(struct save save, const uint8_t *bytes, size_t size)
{
    size_t written = fwrite(bytes, 1, size, save.file);
    if (fclose(save.file) != 0 || written != size) fail("%s cannot be written", save.partial);
    if (rename(save.partial, save.path) != 0) fail("%s cannot be replaced", save.path);
    free(save.partial);
}

/* The value of a metadata key in a checkpoint, NULL if it is missing. The caller frees it. */
static inline char *metadata(const char *path, const uint8_t *bytes, size_t size, const char *key)
{
    size_t length, room = 1;
    char *text = allocate(room);
    jostle_status status = jostle_checkpoint_metadata(bytes, size, key, text, room, &length, &error);
    if (status == JOSTLE_BUFFER_TOO_SHORT) {
        /* The error tells its length. */
        room = (size_t)error.wanted;
        free(text);
        text = allocate(room);
        status = jostle_checkpoint_metadata(bytes, size, key, text, room, &length, &error);
    }
    if (status == JOSTLE_NOT_FOUND) {
        free(text);
        return NULL;
    }
    check_about(path, status);
    return text;
}

/* A number on the command line, at least `least`. */
static inline uint64_t number(const char *what, const char *text, uint64_t least)
{
    uint64_t value = 0;
    const char *digit;
    for (digit = text; *digit >= '0' && *digit <= '9' && value <= UINT32_MAX; digit++) {
        value = 10 * value + (uint64_t)(*digit - '0');
    }
    if (digit == text || *digit || value < least || value > UINT32_MAX) {
        fail("%s must be a number from %u to 4294967295, not \"%s\"", what, (unsigned)least, text);
    }
    return value;
}

#endif
