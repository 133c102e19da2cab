/*
 * Converts characters to tokens and back. A character's token is its index among the sorted code points of a text, as in
 * Python's sorted(set(text)). The library knows nothing of this: it trains on numbers, whatever they stand for. A
 * checkpoint keeps the characters as metadata, so that the numbers keep their meaning.
 */

#ifndef EXAMPLES_VOCABULARY_H
#define EXAMPLES_VOCABULARY_H

#include "common.h"

#define CODE_POINTS 0x110000u

/* The metadata key of the characters. */
#define CHARACTERS "train.characters"

struct vocabulary {
    uint32_t count;   /* V */
    char *characters; /* in UTF-8, in the order of their tokens, zero-terminated */
    size_t *starts;   /* where each begins, and where the last ends */
    int32_t *tokens;  /* by code point; -1 for characters outside the vocabulary */
};

/* Returns the code point at `*at` and moves `*at` behind it. Ends the program if the bytes are not UTF-8. */
static inline uint32_t next_character(const char *name, const uint8_t *text, size_t size, size_t *at)
{
    static const uint32_t least[] = {1, 0x80, 0x800, 0x10000};
    size_t first = *at, more;
    uint32_t c = text[(*at)++];
    more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : 4;
    if (more == 4 || size - *at < more) fail("%s is not UTF-8 text (byte %zu and following)", name, first);
    c &= 0xFFu >> (more ? more + 2 : 0);
    for (; *at <= first + more; (*at)++) {
        c = (text[*at] & 0xC0u) == 0x80 ? c << 6 | (text[*at] & 0x3Fu) : CODE_POINTS;
        if (c == CODE_POINTS) break;
    }
    /* Overlong forms and halves of UTF-16 pairs are not UTF-8. A zero would end a C string. */
    if (c < least[more] || c >= CODE_POINTS || c >> 11 == 0x1B) {
        fail("%s is not UTF-8 text (byte %zu and following)", name, first);
    }
    return c;
}

/* Writes a code point in UTF-8. Returns the number of bytes. */
static inline size_t put_character(char *to, uint32_t c)
{
    size_t more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    for (size_t i = more; i > 0; i--, c >>= 6) to[i] = (char)(0x80 | (c & 0x3F));
    to[0] = (char)(more ? (0xFF00u >> (more + 1) | c) & 0xFF : c);
    return more + 1;
}

/* The characters of a text. */
static inline struct vocabulary vocabulary_of(const char *name, const uint8_t *text, size_t size)
{
    struct vocabulary v = {0, NULL, NULL, allocate(CODE_POINTS * sizeof *v.tokens)};
    size_t end = 0;
    uint32_t c;
    for (c = 0; c < CODE_POINTS; c++) v.tokens[c] = -1;
    for (size_t at = 0; at < size;) {
        c = next_character(name, text, size, &at);
        if (v.tokens[c] < 0) v.count++;
        v.tokens[c] = 0;
    }
    v.characters = allocate(4 * (size_t)v.count + 1);
    v.starts = allocate(((size_t)v.count + 1) * sizeof *v.starts);
    v.count = 0;
    for (c = 0; c < CODE_POINTS; c++) {
        if (v.tokens[c] < 0) continue;
        v.tokens[c] = (int32_t)v.count;
        v.starts[v.count++] = end;
        end += put_character(v.characters + end, c);
    }
    v.starts[v.count] = end;
    v.characters[end] = '\0';
    return v;
}

/* The characters that a checkpoint's model was trained on. */
static inline struct vocabulary vocabulary_in(const char *path, const uint8_t *bytes, size_t size,
                                              const jostle_config *config)
{
    char *characters = metadata(path, bytes, size, CHARACTERS);
    struct vocabulary v;
    if (!characters) fail("%s holds no table of characters", path);
    v = vocabulary_of(path, (const uint8_t *)characters, strlen(characters));
    if (v.count != config->vocab || strcmp(v.characters, characters) != 0) {
        fail("%s holds a table of characters that is not its model's", path);
    }
    free(characters);
    return v;
}

/* Writes the tokens of a text and returns their number; there must be room for one token per byte. Characters outside
 * the vocabulary are left out and counted in `strangers`. */
static inline size_t encode(const struct vocabulary *v, const char *name, const uint8_t *text, size_t size,
                            int32_t *tokens, size_t *strangers)
{
    size_t count = 0;
    *strangers = 0;
    for (size_t at = 0; at < size;) {
        int32_t token = v->tokens[next_character(name, text, size, &at)];
        if (token < 0) {
            ++*strangers;
        } else {
            tokens[count++] = token;
        }
    }
    return count;
}

static inline void print_token(const struct vocabulary *v, int32_t token)
{
    fwrite(v->characters + v->starts[token], 1, v->starts[token + 1] - v->starts[token], stdout);
}

static inline void free_vocabulary(struct vocabulary v)
{
    free(v.characters);
    free(v.starts);
    free(v.tokens);
}

#endif
