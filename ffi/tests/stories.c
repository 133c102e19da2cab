/*
 * Reads a model and a tokenizer of llama2.c, and compares the text that the model writes with the one that llama2.c's own
 * program writes. Takes the path of a folder with stories260K.bin, tok512.bin and stories260K.txt.
 */
#include "test.h"

enum { TOKENS = 200 };

struct file {
    unsigned char *bytes;
    size_t size;
};

static struct file read_file(const char *folder, const char *name)
{
    char path[500];
    struct file file = {NULL, 0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *stream = fopen(path, "rb");
    need(stream != NULL, path);
    need(fseek(stream, 0, SEEK_END) == 0, path);
    file.size = (size_t)ftell(stream);
    rewind(stream);
    file.bytes = malloc(file.size);
    need(file.bytes != NULL && fread(file.bytes, 1, file.size, stream) == file.size, path);
    fclose(stream);
    return file;
}

/* The length of a text without what stands at its end. */
static size_t trimmed(const unsigned char *text, size_t length)
{
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == ' '))
        length--;
    return length;
}

int main(int argc, char **argv)
{
    need(argc == 2, "a folder");
    struct file file = read_file(argv[1], "stories260K.bin"), vocabulary = read_file(argv[1], "tok512.bin"),
                story = read_file(argv[1], "stories260K.txt");
    jostle_error e;

    jostle_config config;
    jostle_options options;
    jostle_plan plan;
    ok(jostle_llama2c_config(file.bytes, file.size, &config, sizeof config, &e), &e, "config");
    need(jostle_options_init(&options, sizeof options, 1) == JOSTLE_OK, "options");
    ok(jostle_plan_init(&plan, &config, &options, &e), &e, "plan");
    jostle_buffers buffers = {.struct_size = sizeof buffers, .parameters_size = plan.parameters_size};
    buffers.parameters = malloc(plan.parameters_size);
    ok(jostle_llama2c_read(file.bytes, file.size, &plan, buffers.parameters, plan.parameters_size, &e), &e, "read");

    jostle_llama2c_tokenizer tokenizer;
    size_t vocab, index_size;
    ok(jostle_llama2c_tokenizer_size(vocabulary.bytes, vocabulary.size, &vocab, &index_size, &e), &e, "size");
    need(vocab == config.vocab, "as many tokens as the model has");
    uint32_t *index = malloc(index_size);
    ok(jostle_llama2c_tokenizer_init(&tokenizer, vocabulary.bytes, vocabulary.size, index, index_size, &e), &e, "index");

    jostle_sampling greedy;
    jostle_generator generator;
    int32_t tokens[TOKENS + 1] = {1};
    float *memory = malloc(plan.generation_size), *logits;
    int32_t *window = malloc(plan.window_size);
    uint32_t *order = malloc(plan.order_size);
    need(jostle_sampling_init(&greedy, sizeof greedy) == JOSTLE_OK, "sampling");
    greedy.temperature = 0;
    ok(jostle_generator_init(&generator, &plan, NULL, &buffers, memory, plan.generation_size, window, plan.window_size, &e),
       &e, "generator");
    for (size_t i = 0; i < TOKENS; i++) {
        ok(jostle_generator_feed(&generator, tokens + i, sizeof *tokens, &logits, &e), &e, "feed");
        ok(jostle_generator_draw(&generator, &greedy, order, plan.order_size, 0, i, tokens + i + 1, &e), &e, "draw");
    }

    unsigned char text[16 * TOKENS];
    size_t length;
    ok(jostle_llama2c_decode(&tokenizer, -1, tokens, sizeof tokens, text, sizeof text, &length, &e), &e, "decode");
    length = trimmed(text, length);
    check(length == trimmed(story.bytes, story.size) && memcmp(text, story.bytes, length) == 0, "another story: %.*s",
          (int)length, text);

    int32_t again[4 * sizeof text + 6];
    size_t count;
    ok(jostle_llama2c_encode(&tokenizer, text, length, 1, 0, again, sizeof again, &count, &e), &e, "encode");
    unsigned char twice[sizeof text];
    size_t twice_length;
    ok(jostle_llama2c_decode(&tokenizer, -1, again, count * sizeof *again, twice, sizeof twice, &twice_length, &e), &e,
       "decode");
    check(twice_length == length && memcmp(twice, text, length) == 0, "the text does not come back");

    free(file.bytes), free(vocabulary.bytes), free(story.bytes), free(buffers.parameters), free(index), free(memory);
    free(window), free(order);
    return finish("stories");
}
