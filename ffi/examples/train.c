/*
 * Trains a model of characters on a text, nanoGPT's recipe for one processor, and lets it write.
 *
 *     train TEXT [--steps N] [--stop N] [--seed N] [--threads N] [--generate N] [--save FILE] [--resume FILE]
 *
 * Its twin in Rust, core/pool/examples/train.rs, writes the same checkpoint, byte for byte, for the same text, steps
 * and seed. Each program resumes the other's.
 */

/* For clock_gettime and isatty. */
#define _POSIX_C_SOURCE 200112L

#include <inttypes.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "vocabulary.h"

/* The sizes of the model and of a batch. For a smaller model compile with, for example, -DWIDTH=32. */
#ifndef WIDTH
#define WIDTH 128
#endif
#ifndef LAYERS
#define LAYERS 4
#endif
#ifndef CONTEXT
#define CONTEXT 64
#endif
#ifndef BATCH
#define BATCH 12
#endif
#define HEADS 4

#define PROMPT "The "

/* The metadata key of the planned number of steps. */
#define PLANNED_STEPS "train.steps"

struct arguments {
    const char *text, *save, *resume;
    uint64_t steps;    /* the planned steps, which the learning rate depends on */
    uint64_t stop;     /* the step to stop at, to resume later */
    uint64_t seed;     /* the seed of everything random */
    uint64_t threads;
    uint64_t generate; /* the number of characters to generate */
};

static struct arguments parse(int count, char **words)
{
    struct arguments given = {NULL, NULL, NULL, 0, UINT64_MAX, 1337, 1, 500};
    int seeded = 0;
    for (int i = 1; i < count; i++) {
        const char *word = words[i], *value = i + 1 < count ? words[i + 1] : "";
        if (strncmp(word, "--", 2) != 0 && !given.text) {
            given.text = word;
            continue;
        }
        i++;
        if (strcmp(word, "--steps") == 0) {
            given.steps = number(word, value, 1);
        } else if (strcmp(word, "--stop") == 0) {
            given.stop = number(word, value, 0);
        } else if (strcmp(word, "--seed") == 0) {
            given.seed = number(word, value, 0);
            seeded = 1;
        } else if (strcmp(word, "--threads") == 0) {
            given.threads = number(word, value, 1);
        } else if (strcmp(word, "--generate") == 0) {
            given.generate = number(word, value, 0);
        } else if (strcmp(word, "--save") == 0 && *value) {
            given.save = value;
        } else if (strcmp(word, "--resume") == 0 && *value) {
            given.resume = value;
        } else {
            given.text = NULL;
            break;
        }
    }
    if (!given.text) {
        fail("usage: %s TEXT [--steps N] [--stop N] [--seed N] [--threads N] [--generate N] [--save FILE] "
             "[--resume FILE]", words[0]);
    }
    if (given.resume && seeded) fail("--seed can't be changed: a resumed training has the checkpoint's");
    return given;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Trains up to step `stop` and shows progress: one changing line on a terminal, elsewhere a line every five seconds.
 * `tokens`: the number in a step. */
static void train(jostle_trainer *trainer, const int32_t *text, size_t count, uint64_t first, uint64_t stop,
                  double tokens)
{
    const int watched = isatty(STDOUT_FILENO);
    const double begin = seconds();
    double printed = begin;
    for (uint64_t done = first; done < stop;) {
        jostle_report report;
        double now, speed;
        check(jostle_trainer_step(trainer, text, count * sizeof *text, JOSTLE_I32, &report, &error));
        done++;
        now = seconds();
        if (!watched && now - printed < 5 && done < stop) continue;
        printed = now;
        speed = (double)(done - first) / (now - begin);
        printf("%sstep %" PRIu64 "/%" PRIu64 "  loss %.3f  %.0f tokens/s  %.0f s left%s", watched ? "\r" : "", done,
               stop, report.loss, speed * tokens, (double)(stop - done) / speed, watched ? "   " : "\n");
        fflush(stdout);
    }
    if (watched && first < stop) putchar('\n');
}

static void show_loss(jostle_trainer *trainer, const int32_t *text, size_t count, uint64_t step)
{
    jostle_loss loss;
    check(jostle_trainer_evaluate(trainer, text, count * sizeof *text, JOSTLE_I32, &loss, &error));
    printf("validation loss %.6f at step %" PRIu64 "\n", loss.sum / (double)loss.counted, step);
}

/* Saves everything needed to resume: parameters, optimiser state, step, seed and characters. */
static void save(struct save file, const jostle_plan *plan, const jostle_buffers *buffers,
                 const jostle_progress *progress, const struct vocabulary *vocabulary, uint64_t steps)
{
    char planned[24];
    jostle_metadata metadata[2] = {{CHARACTERS, vocabulary->characters}, {PLANNED_STEPS, planned}};
    size_t size, written;
    uint8_t *bytes;
    sprintf(planned, "%" PRIu64, steps);
    check(jostle_checkpoint_size(plan, 1, metadata, 2, &size, &error));
    bytes = allocate(size);
    check(jostle_checkpoint_write(plan, buffers, progress, metadata, 2, bytes, size, &written, &error));
    finish_save(file, bytes, written);
    printf("saved to %s\n", file.path);
    free(bytes);
}

/* Prints the prompt and the model's continuation, character by character. */
static void write_on(const jostle_plan *plan, const jostle_buffers *buffers, const int32_t *prompt, size_t prompt_count,
                     const struct vocabulary *vocabulary, uint64_t count, uint64_t seed)
{
    float *memory = allocate(plan->generation_size), *logits;
    int32_t *window = allocate(plan->window_size), token;
    uint32_t *order = allocate(plan->order_size);
    jostle_generator generator;
    jostle_sampling sampling;

    check(jostle_sampling_init(&sampling, sizeof sampling));
    sampling.temperature = 0.8f;
    check(jostle_generator_init(&generator, plan, NULL, buffers, memory, plan->generation_size, window,
                                plan->window_size, &error));
    putchar('\n');
    for (size_t i = 0; i < prompt_count; i++) print_token(vocabulary, prompt[i]);
    check(jostle_generator_feed(&generator, prompt, prompt_count * sizeof *prompt, &logits, &error));
    for (uint64_t i = 0; i < count; i++) {
        check(jostle_generator_draw(&generator, &sampling, order, plan->order_size, seed, i, &token, &error));
        check(jostle_generator_feed(&generator, &token, sizeof token, &logits, &error));
        print_token(vocabulary, token);
        fflush(stdout);
    }
    putchar('\n');
    free(memory);
    free(window);
    free(order);
}

int main(int count, char **words)
{
    const struct arguments arguments = parse(count, words);
    struct vocabulary vocabulary;
    struct save file = {NULL, NULL, NULL};
    uint8_t *text, *checkpoint = NULL;
    size_t text_size, checkpoint_size = 0, length, training, strangers, prompt_count;
    int32_t *tokens, prompt[sizeof PROMPT];
    uint64_t steps = arguments.steps, stop;

    /* The configuration: nanoGPT's for characters, or the checkpoint's. */
    jostle_config config;
    text = read_file(arguments.text, &text_size);
    if (arguments.resume) {
        char *planned;
        checkpoint = read_file(arguments.resume, &checkpoint_size);
        check_about(arguments.resume,
                    jostle_checkpoint_config(checkpoint, checkpoint_size, &config, sizeof config, &error));
        vocabulary = vocabulary_in(arguments.resume, checkpoint, checkpoint_size, &config);
        planned = metadata(arguments.resume, checkpoint, checkpoint_size, PLANNED_STEPS);
        if (planned && !steps) steps = number(PLANNED_STEPS, planned, 1);
        free(planned);
    } else {
        vocabulary = vocabulary_of(arguments.text, text, text_size);
        check(jostle_config_init(&config, sizeof config, vocabulary.count, CONTEXT, LAYERS, HEADS, WIDTH));
        /* With so few characters a head of its own costs little, and predicts better than a tied one. */
        config.tied = 0;
        config.embedding_dropout = config.attention_dropout = 0.1f;
        config.attention_projection_dropout = config.mlp_projection_dropout = 0.1f;
    }
    if (!steps) steps = 1400;
    stop = arguments.stop < steps ? arguments.stop : steps;

    /* The text as tokens. The last tenth is for validation. Training needs at least a window and its last target. */
    tokens = allocate(text_size * sizeof *tokens);
    length = encode(&vocabulary, arguments.text, text, text_size, tokens, &strangers);
    if (strangers) fail("%zu characters in %s are not ones that the model knows", strangers, arguments.text);
    training = length - (length + 9) / 10;
    if (training <= config.context) fail("%s is too short: it has %zu characters", arguments.text, length);
    prompt_count = encode(&vocabulary, "the prompt", (const uint8_t *)PROMPT, sizeof PROMPT - 1, prompt, &strangers);
    if (strangers) {
        prompt[0] = tokens[0];
        prompt_count = 1;
    }

    /* The plan tells how much memory everything takes before any is allocated. */
    jostle_options options;
    jostle_plan plan;
    check(jostle_options_init(&options, sizeof options, BATCH));
    options.threads = (uint32_t)arguments.threads;
    check(jostle_plan_init(&plan, &config, &options, &error));
    void *memory;
    jostle_buffers buffers = allocate_buffers(&plan, &memory);

    /* Initial values, or the checkpoint's values. */
    jostle_progress progress = {.step = 0, .seed = arguments.seed};
    if (checkpoint) {
        check_about(arguments.resume,
                    jostle_checkpoint_read(checkpoint, checkpoint_size, &plan, &buffers, &progress, &error));
    } else {
        check(jostle_initialize(&plan, buffers.parameters, buffers.parameters_size, progress.seed, &error));
    }
    free(checkpoint);
    free(text);
    if (progress.step > stop) fail("%" PRIu64 " steps are done already, more than %" PRIu64, progress.step, stop);
    if (arguments.save) file = begin_save(arguments.save);

    /* The recipe: the learning rate rises for 100 steps, then falls along half a cosine. */
    jostle_recipe recipe;
    check(jostle_recipe_init(&recipe, sizeof recipe));
    recipe.learning_rate = 1e-3f;
    recipe.final_learning_rate = 1e-4f;
    recipe.decay = JOSTLE_COSINE;
    recipe.warmup = steps < 100 ? steps : 100;
    recipe.steps = steps;
    recipe.seed = progress.seed;

    /* A pool's threads compute. Their number changes the time, and no bit of the result. */
    jostle_pool *pool;
    jostle_compute compute;
    check(jostle_pool_start((uint32_t)arguments.threads, &pool, &error));
    check(jostle_compute_init(&compute, sizeof compute));
    compute.threads = (uint32_t)arguments.threads;
    compute.run = jostle_pool_run;
    compute.context = pool;

    jostle_trainer trainer;
    check(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, &compute, &error));
    check(jostle_trainer_resume(&trainer, progress.step, &error));
    printf("%zu parameters, %zu characters of text (%" PRIu32 " different), %zu KiB, threads: %" PRIu64 "\n",
           plan.parameter_count, length, config.vocab, plan.training_size / 1024, arguments.threads);
    show_loss(&trainer, tokens + training, length - training, progress.step);
    train(&trainer, tokens, training, progress.step, stop, (double)options.batch * config.context);
    show_loss(&trainer, tokens + training, length - training, stop);
    progress.step = stop;
    jostle_pool_stop(pool);

    if (arguments.save) save(file, &plan, &buffers, &progress, &vocabulary, steps);
    write_on(&plan, &buffers, prompt, prompt_count, &vocabulary, arguments.generate, progress.seed);

    free(tokens);
    free(memory);
    free_vocabulary(vocabulary);
    return 0;
}
