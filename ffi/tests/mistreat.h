/*
 * Calls a function with correct arguments, and then with each argument wrong in every way that its kind allows. Checks
 * the status and every byte each time.
 *
 * With HEAP defined, malloc allocates every buffer with exactly its size, for valgrind.
 */
#ifndef MISTREAT_H
#define MISTREAT_H

#include "test.h"

/* Nonzero while the library has control. traps.c reads it. */
volatile int inside_library;

/* The functions that were called, and the statuses that they returned. */
static const char *functions[100];
static size_t function_count;
static int statuses[100];

static void record(const char *name)
{
    for (size_t i = 0; i < function_count; i++)
        if (strcmp(functions[i], name) == 0)
            return;
    need(function_count < COUNT(functions), "room for the functions' names");
    functions[function_count++] = name;
}

#define CALL(function) (record(#function), function)

/* Memory for a call's arguments, with guard bytes around each. */

#ifdef HEAP
enum { GUARD = 0 };
#else
enum { GUARD = 64 };
/* Aligned for any type. */
static union {
    unsigned char bytes[1 << 18];
    long double number;
    void *pointer;
} arena;
static size_t arena_used;
#endif

static unsigned char *take(size_t bytes)
{
#ifdef HEAP
    unsigned char *memory = malloc(bytes);
    need(memory != NULL, "memory");
    return memory;
#else
    size_t whole = (bytes + 2 * GUARD + 15) / 16 * 16;
    need(arena_used + whole <= sizeof arena.bytes, "room in the arena");
    unsigned char *memory = arena.bytes + arena_used;
    arena_used += whole;
    memset(memory, 0xA5, whole);
    return memory + GUARD;
#endif
}

/* The properties of an argument. */
enum {
    READ = 0,
    WRITTEN = 1,   /* by a call that succeeds */
    WORKSPACE = 2, /* by any call */
    OPTIONAL = 4,  /* may be NULL */
    BUFFER = 8,    /* must not overlap others that are written */
    SHORTENED = 16, /* too short with one byte less */
    HIDDEN = 32,   /* belongs to a handle: not an argument of the call itself */
    SOLID = 64,    /* its contents are checked before overlaps */
    OPAQUE = 128   /* may have padding without a value, which valgrind would report when compared */
};

struct argument {
    const char *name;
    const char *what; /* its name in jostle_error */
    int is;
    size_t alignment, bytes;
    unsigned char *memory;
    unsigned char *original, *before; /* the contents at first, and before the call */
    void *pointer; /* the pointer that the call gets, unless it is in a struct: */
    size_t size;
    void *pointer_at, *size_at;
};

struct number {
    const char *name;
    size_t value;
    int dimension; /* huge values must be refused */
};

/* One change that makes the call wrong. */
struct patch {
    void *at;
    unsigned char bytes[8];
    size_t length;
    jostle_status status;
    const char *what;
};

/* The call under test. */
static struct argument arguments[24];
static struct number numbers[12];
static struct patch patches[64];
static size_t argument_count, number_count, patch_count;
static int tells; /* whether the function takes a jostle_error */
static const char *function_name;
static jostle_status (*invoke)(void);

/* The error between guards, and the pointer that the call gets for it. */
static struct {
    unsigned char before[16];
    jostle_error error;
    unsigned char after[16];
} told;
static jostle_error *error;

static struct argument *find(const char *name)
{
    for (size_t i = 0; i < argument_count; i++)
        if (strcmp(arguments[i].name, name) == 0)
            return &arguments[i];
    printf("no argument %s\n", name);
    exit(1);
}

static struct number *find_number(const char *name)
{
    for (size_t i = 0; i < number_count; i++)
        if (strcmp(numbers[i].name, name) == 0)
            return &numbers[i];
    printf("no number %s\n", name);
    exit(1);
}

/* The values that an invocation passes: a pointer, its size, a number. */
static void *P(const char *name) { return find(name)->pointer; }
static size_t S(const char *name) { return find(name)->size; }
static size_t N(const char *name) { return find_number(name)->value; }

static void begin(void)
{
#ifdef HEAP
    for (size_t i = 0; i < argument_count; i++) {
        free(arguments[i].memory);
        free(arguments[i].original);
        free(arguments[i].before);
    }
#else
    arena_used = 0;
#endif
    argument_count = number_count = patch_count = 0;
    tells = 1;
}

static struct argument *argument(const char *name, int is, size_t alignment, size_t bytes, const void *contents)
{
    need(argument_count < COUNT(arguments), "room for arguments");
    struct argument *a = &arguments[argument_count++];
    *a = (struct argument){.name = name, .what = name, .is = is, .alignment = alignment, .bytes = bytes, .size = bytes};
    a->memory = take(bytes);
    a->original = take(bytes);
    a->before = take(bytes);
    if (contents)
        memcpy(a->memory, contents, bytes);
    else
        memset(a->memory, 0xB7, bytes);
    a->pointer = a->memory;
    a->pointer_at = &a->pointer;
    a->size_at = &a->size;
    return a;
}

/* A pointer and, unless that is NULL, a size, both in a struct that is itself an argument. */
static void inside(struct argument *a, const char *owner, size_t pointer_offset, const size_t *size_offset)
{
    a->pointer_at = find(owner)->memory + pointer_offset;
    memcpy(a->pointer_at, &a->pointer, sizeof a->pointer);
    if (size_offset) {
        a->size_at = find(owner)->memory + *size_offset;
        memcpy(a->size_at, &a->size, sizeof a->size);
    }
}

#define INSIDE(a, owner, type, field) \
    inside(a, owner, offsetof(type, field), &(size_t){offsetof(type, field##_size)})

static struct argument *read_floats(const char *name, size_t count)
{
    static float values[4096];
    need(count <= COUNT(values), "room for floats");
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((i * 7 + 3) % 19) / 19.0f - 0.4f;
    return argument(name, READ | BUFFER | SHORTENED, sizeof(float), count * sizeof(float), values);
}

static struct argument *write_floats(const char *name, size_t count)
{
    struct argument *a = read_floats(name, count);
    a->is |= WRITTEN;
    return a;
}

static void scratch(size_t bytes)
{
    argument("scratch", WRITTEN | WORKSPACE | BUFFER | SHORTENED, sizeof(float), bytes, NULL);
}

static void read_tokens(const char *name, size_t count)
{
    static const int32_t tokens[] = {3, 1, 4, 1, 5, 9, 2, 6};
    argument(name, READ | BUFFER | SHORTENED, sizeof *tokens, count * sizeof *tokens, tokens);
}

/* A result that is not a buffer. */
static void output(const char *name, size_t alignment, size_t bytes)
{
    argument(name, WRITTEN, alignment, bytes, NULL);
}
#define OUTPUT(name, type) output(name, offsetof(struct { char c; type t; }, t), sizeof(type))

static void number(const char *name, size_t value)
{
    need(number_count < COUNT(numbers), "room for numbers");
    numbers[number_count++] = (struct number){name, value, 0};
}

static void dimension(const char *name, size_t value)
{
    number(name, value);
    numbers[number_count - 1].dimension = 1;
}

static void bad(void *at, const void *value, size_t length, jostle_status status, const char *what)
{
    need(patch_count < COUNT(patches), "room for patches");
    struct patch *patch = &patches[patch_count++];
    *patch = (struct patch){.at = at, .length = length, .status = status, .what = what};
    memcpy(patch->bytes, value, length);
}

static void bad_number(const char *name, size_t value, jostle_status status, const char *what)
{
    bad(&find_number(name)->value, &value, sizeof value, status, what);
}

static void bad_choice(const char *name, size_t value)
{
    bad_number(name, value, JOSTLE_UNKNOWN_CHOICE, name);
    bad_number(name, UINT32_MAX, JOSTLE_UNKNOWN_CHOICE, name);
}

static void bad_u32(const char *name, size_t offset, uint32_t value, jostle_status status, const char *what)
{
    bad(find(name)->memory + offset, &value, sizeof value, status, what);
}

static void bad_float(const char *name, size_t offset, float value, jostle_status status, const char *what)
{
    bad(find(name)->memory + offset, &value, sizeof value, status, what);
}

static void bad_size(const char *name, size_t offset, size_t value, jostle_status status, const char *what)
{
    bad(find(name)->memory + offset, &value, sizeof value, status, what);
}

static void bad_u64(const char *name, size_t offset, uint64_t value, jostle_status status, const char *what)
{
    bad(find(name)->memory + offset, &value, sizeof value, status, what);
}

/* A struct that begins with struct_size. */
static struct argument *structure(const char *name, const void *value, size_t bytes)
{
    struct argument *a = argument(name, READ, sizeof(uint32_t), bytes, value);
    bad_u32(name, 0, 0, JOSTLE_STRUCT_TOO_SMALL, name);
    bad_u32(name, 0, (uint32_t)bytes - 1, JOSTLE_STRUCT_TOO_SMALL, name);
    bad_u32(name, 0, (uint32_t)bytes + 4, JOSTLE_STRUCT_TOO_LARGE, name);
    bad_u32(name, 0, UINT32_MAX, JOSTLE_STRUCT_TOO_LARGE, name);
    return a;
}

/* A plan, trainer or generator. */
static struct argument *handle(const char *name, const void *value, size_t bytes, size_t mark, int is)
{
    struct argument *a = argument(name, is | OPAQUE, 8, bytes, value);
    bad_u64(name, mark, 0, JOSTLE_NOT_INITIALIZED, name);
    bad_u64(name, mark, 0x5555555555555555, JOSTLE_NOT_INITIALIZED, name);
    return a;
}

/* Runs the call as it is, and checks all memory afterwards. */
static jostle_status run_once(const char *how, jostle_error *error_given)
{
    unsigned char pattern[sizeof told];
    memset(&told, 0xC3, sizeof told);
    memset(pattern, 0xC3, sizeof pattern);
    for (size_t i = 0; i < argument_count; i++)
        memcpy(arguments[i].before, arguments[i].memory, arguments[i].bytes);

    error = error_given;
    inside_library = 1;
    jostle_status status = invoke();
    inside_library = 0;

    if (status >= 0 && (size_t)status < COUNT(statuses))
        statuses[status] = 1;
    for (size_t i = 0; i < argument_count; i++) {
        struct argument *a = &arguments[i];
        int may_change = (a->is & WORKSPACE) || (status == JOSTLE_OK && (a->is & WRITTEN));
        if (GUARD == 0 && (a->is & OPAQUE))
            may_change = 1;
        if (!may_change)
            check(memcmp(a->memory, a->before, a->bytes) == 0, "%s, %s: %s was written", function_name, how, a->name);
        for (int j = 0; j < GUARD; j++)
            if (a->memory[-1 - j] != 0xA5 || a->memory[a->bytes + j] != 0xA5) {
                check(0, "%s, %s: written beyond %s", function_name, how, a->name);
                break;
            }
    }
    if (tells && status != JOSTLE_OK && error_given == &told.error) {
        check(told.error.status == status, "%s, %s: error.status %d", function_name, how, (int)told.error.status);
        check(memchr(told.error.what, 0, sizeof told.error.what) && memchr(told.error.range, 0, sizeof told.error.range),
              "%s, %s: text without an end", function_name, how);
        check(memcmp(told.before, pattern, sizeof told.before) == 0 && memcmp(told.after, pattern, sizeof told.after) == 0,
              "%s, %s: written beyond the error", function_name, how);
    } else {
        check(memcmp(&told, pattern, sizeof told) == 0, "%s, %s: the error was written", function_name, how);
    }
    for (size_t i = 0; i < argument_count; i++)
        memcpy(arguments[i].memory, arguments[i].original, arguments[i].bytes);
    return status;
}

/* Runs the call with one change, and reverts the change. */
static jostle_status run_with(const char *how, void *at, const void *bytes, size_t length)
{
    unsigned char saved[8];
    jostle_status given[3];
    jostle_error *errors[3] = {NULL, (jostle_error *)(void *)((char *)&told.error + 1), &told.error};
    memcpy(saved, at, length);
    for (int i = 0; i < 3; i++) {
        memcpy(at, bytes, length);
        given[i] = run_once(how, errors[i]);
    }
    memcpy(at, saved, length);
    check(given[0] == given[2] && given[1] == given[2], "%s, %s: another status with another error", function_name, how);
    return given[2];
}

static void refused(const char *how, jostle_status given, jostle_status wanted, const char *what)
{
    check(given == wanted, "%s, %s: status %d, not %d", function_name, how, (int)given, (int)wanted);
    if (tells && what && given == wanted)
        check(strcmp(told.error.what, what) == 0, "%s, %s: about \"%s\", not \"%s\"", function_name, how,
              told.error.what, what);
}

/* A result that begins or ends in a handle. */
static void overlap_handles(struct argument *a)
{
    for (size_t i = 0; i < argument_count; i++) {
        struct argument *b = &arguments[i];
        if (b == a || !(b->is & OPAQUE))
            continue;
        uintptr_t first = (uintptr_t)b->memory, places[] = {first + b->bytes - a->alignment,
                                                            first - (a->bytes - a->alignment), first};
        for (size_t j = 0; j < COUNT(places); j++) {
            char how[120];
            void *place = (void *)places[j];
            snprintf(how, sizeof how, "%s over %s (%zu)", a->name, b->name, j);
            refused(how, run_with(how, a->pointer_at, &place, sizeof place), JOSTLE_OVERLAP, a->what);
        }
    }
}

static int is_buffer(const char *what)
{
    for (size_t i = 0; i < argument_count; i++)
        if ((arguments[i].is & BUFFER) && strcmp(arguments[i].what, what) == 0)
            return 1;
    return 0;
}

/* Makes one argument wrong in every way that its kind allows. */
static void mistreat(struct argument *a)
{
    char how[120];
    void *null = NULL, *moved = a->memory + 1;
    snprintf(how, sizeof how, "%s NULL", a->name);
    jostle_status status = run_with(how, a->pointer_at, &null, sizeof null);
    if (a->is & OPTIONAL)
        check(status == JOSTLE_OK, "%s, %s: status %d, though it is optional", function_name, how, (int)status);
    else
        refused(how, status, JOSTLE_NULL_POINTER, a->what);

    if (a->alignment > 1) {
        snprintf(how, sizeof how, "%s misaligned", a->name);
        refused(how, run_with(how, a->pointer_at, &moved, sizeof moved), JOSTLE_MISALIGNED, a->what);
    }
    if (a->is & SHORTENED) {
        size_t sizes[] = {a->bytes - 1, 0};
        for (size_t i = 0; i < COUNT(sizes); i++) {
            snprintf(how, sizeof how, "%s of %zu bytes", a->name, sizes[i]);
            status = run_with(how, a->size_at, &sizes[i], sizeof sizes[i]);
            refused(how, status, JOSTLE_BUFFER_TOO_SHORT, a->what);
            if (status == JOSTLE_BUFFER_TOO_SHORT && tells)
                check(told.error.given == (int64_t)sizes[i] && told.error.wanted == (int64_t)a->bytes,
                      "%s, %s: %ld given, %ld wanted, it says", function_name, how, (long)told.error.given,
                      (long)told.error.wanted);
        }
        size_t longer = a->bytes + 3;
        snprintf(how, sizeof how, "%s of %zu bytes", a->name, longer);
        check(run_with(how, a->size_at, &longer, sizeof longer) == JOSTLE_OK, "%s, %s: refused", function_name, how);
    }
    if ((a->is & WRITTEN) && !(a->is & BUFFER))
        overlap_handles(a);
    if (!(a->is & BUFFER) || (a->is & SOLID))
        return;
    for (size_t i = 0; i < argument_count; i++) {
        struct argument *b = &arguments[i];
        if (b == a || !(b->is & BUFFER) || !((a->is | b->is) & WRITTEN))
            continue;
        /* It begins with the other's last element, ends with the other's first, or is the same. */
        uintptr_t first = (uintptr_t)b->memory, last = first + (b->bytes - 1) / a->alignment * a->alignment;
        uintptr_t places[] = {last, first - (a->bytes - a->alignment), first};
        for (size_t j = 0; j < COUNT(places); j++) {
            void *place = (void *)places[j];
            snprintf(how, sizeof how, "%s over %s (%zu)", a->name, b->name, j);
            refused(how, run_with(how, a->pointer_at, &place, sizeof place), JOSTLE_OVERLAP, NULL);
            check(is_buffer(told.error.what), "%s, %s: about \"%s\"", function_name, how, told.error.what);
        }
    }
}

/* One dimension with sizes that overflow, or that no buffer can have. */
static void overflow(struct number *n)
{
    static const size_t values[] = {SIZE_MAX, SIZE_MAX / 2 + 1, SIZE_MAX / 4, SIZE_MAX / 4 + 1, SIZE_MAX / 8 + 2,
                                    SIZE_MAX / 12 + 1, (size_t)1 << (sizeof(size_t) * 4)};
    for (size_t i = 0; i < COUNT(values); i++) {
        char how[120];
        snprintf(how, sizeof how, "%s %zu", n->name, values[i]);
        jostle_status status = run_with(how, &n->value, &values[i], sizeof values[i]);
        check(status == JOSTLE_TOO_LARGE || status == JOSTLE_BUFFER_TOO_SHORT || status == JOSTLE_LENGTH ||
                  status == JOSTLE_CONTEXT || status == JOSTLE_HEADS,
              "%s, %s: status %d", function_name, how, (int)status);
    }
    /* May succeed or fail, but must not write elsewhere. */
    size_t zero = 0;
    run_with("a size of 0", &n->value, &zero, sizeof zero);
}

static void exercise(const char *name, jostle_status (*call)(void))
{
    function_name = name;
    invoke = call;
    for (size_t i = 0; i < argument_count; i++)
        memcpy(arguments[i].original, arguments[i].memory, arguments[i].bytes);
    need(run_once("as it should be", &told.error) == JOSTLE_OK, name);
    for (size_t i = 0; i < argument_count; i++)
        if (!(arguments[i].is & HIDDEN))
            mistreat(&arguments[i]);
    for (size_t i = 0; i < patch_count; i++) {
        struct patch *p = &patches[i];
        char how[120];
        snprintf(how, sizeof how, "patch %zu (%s)", i, p->what ? p->what : "");
        refused(how, run_with(how, p->at, p->bytes, p->length), p->status, p->what);
    }
    for (size_t i = 0; i < number_count; i++)
        if (numbers[i].dimension)
            overflow(&numbers[i]);
}

#endif
