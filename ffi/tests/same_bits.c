/*
 * The training run of core/tests/contract, whose bits are in core/tests/golden/fifty_steps.txt. It runs on every
 * instruction set, with the library's threads and with this program's, in micro-batches, and resumed from a checkpoint.
 * Every variant must end in the same bits. The run with frozen tensors must give the checkpoint of
 * frozen_checkpoint.txt.
 *
 *     same_bits core/tests/golden [STEPS]
 *
 * With another number of steps, every variant must end in the bits of the first one.
 *
 * JOSTLE_INSTRUCTION_SETS lists the sets that must be available, e.g. portable,avx2. By default the program tests every
 * set that the library offers.
 */
#include <pthread.h>

#ifdef __SSE__
#include <xmmintrin.h>
#endif

#include "test.h"

enum { VOCAB = 27, CONTEXT = 35, TEXT = 2000, BATCH = 4 };

static uint8_t text[TEXT];
static char expected[17], expected_checkpoint[17];
static size_t run_steps = 50;

/* A model in training, with memory of exactly the required size. */
struct session {
    jostle_plan plan;
    jostle_recipe recipe;
    jostle_buffers buffers;
    jostle_trainer trainer;
};

static void *memory(size_t bytes)
{
    unsigned char *found = malloc(bytes);
    need(found != NULL, "memory");
    /* NaN, so that a read before the first write shows. */
    memset(found, 0xFF, bytes);
    return found;
}

/* Options of an update: whether it is fused, the head's rows, the clipping, frozen tensors, and a number that is added to the usual seed. */
struct update {
    uint32_t fused;
    size_t head_rows;
    float clip;
    const char *const *frozen;
    size_t frozen_count;
    uint64_t seed;
};

static void start_with(struct session *s, uint32_t batch, uint32_t accumulate, struct update update,
                       const jostle_compute *compute)
{
    jostle_config config;
    jostle_options options;
    jostle_error e;
    need(jostle_config_init(&config, sizeof config, VOCAB, CONTEXT, 2, 3, 21) == JOSTLE_OK, "config");
    config.embedding_dropout = config.attention_dropout = 0.2f;
    config.attention_projection_dropout = config.mlp_projection_dropout = 0.2f;
    need(jostle_options_init(&options, sizeof options, batch) == JOSTLE_OK, "options");
    options.threads = compute->threads;
    options.fused = update.fused;
    options.head_rows = update.head_rows;
    options.frozen = update.frozen;
    options.frozen_count = update.frozen_count;
    ok(jostle_plan_init(&s->plan, &config, &options, &e), &e, "plan");

    need(jostle_recipe_init(&s->recipe, sizeof s->recipe) == JOSTLE_OK, "recipe");
    s->recipe.learning_rate = 3e-3f;
    s->recipe.final_learning_rate = 1e-4f;
    s->recipe.decay = JOSTLE_COSINE;
    s->recipe.warmup = 5;
    s->recipe.steps = 60;
    s->recipe.accumulate = accumulate;
    s->recipe.clip = update.clip;
    s->recipe.seed = 1337 + update.seed;

    const jostle_plan *plan = &s->plan;
    s->buffers = (jostle_buffers){
        .struct_size = sizeof s->buffers,
        .parameters = memory(plan->parameters_size), .parameters_size = plan->parameters_size,
        .frozen = memory(plan->frozen_size), .frozen_size = plan->frozen_size,
        .gradients = memory(plan->gradients_size), .gradients_size = plan->gradients_size,
        .optimizer = memory(plan->optimizer_size), .optimizer_size = plan->optimizer_size,
        .workspace = memory(plan->workspace_size), .workspace_size = plan->workspace_size,
        .batch = memory(plan->batch_size), .batch_size = plan->batch_size,
    };
    memset(s->buffers.optimizer, 0, plan->optimizer_size);
    ok(jostle_initialize(plan, s->buffers.parameters, plan->parameters_size, s->recipe.seed, &e), &e, "initialize");
    ok(jostle_trainer_init(&s->trainer, plan, &s->recipe, &s->buffers, compute, &e), &e, "trainer");
}

static void start(struct session *s, uint32_t batch, uint32_t accumulate, const jostle_compute *compute)
{
    start_with(s, batch, accumulate, (struct update){.clip = 1}, compute);
}

static void end(struct session *s)
{
    free(s->buffers.parameters);
    free((void *)s->buffers.frozen);
    free(s->buffers.gradients);
    free(s->buffers.optimizer);
    free(s->buffers.workspace);
    free(s->buffers.batch);
}

static void steps(struct session *s, size_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        jostle_report report;
        jostle_error e;
        ok(jostle_trainer_step(&s->trainer, text, sizeof text, JOSTLE_U8, &report, &e), &e, "step");
        check(report.step == first + i && report.loss > 0 && report.gradient_norm > 0, "step %zu's report", first + i);
    }
}

/* Compares the FNV-1a of bytes with `written`. If that is empty, the result is stored there. */
static void expect_bytes(const void *bytes, size_t size, char *written, const char *how)
{
    uint64_t sum = 0xcbf29ce484222325;
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3;
    char found[17];
    snprintf(found, sizeof found, "%08x%08x", (unsigned)(sum >> 32), (unsigned)sum);
    if (written[0] == 0)
        strcpy(written, found);
    check(strcmp(found, written) == 0, "%s: %s, not %s", how, found, written);
    printf("%s: %s\n", how, found);
}

static void expect(const struct session *s, const char *how)
{
    expect_bytes(s->buffers.parameters, s->plan.parameters_size, expected, how);
}

static void fifty(const jostle_compute *compute, const char *how)
{
    struct session s;
    start(&s, BATCH, 1, compute);
    steps(&s, 0, run_steps);
    expect(&s, how);
    end(&s);
}

/* No threads: runs each index in turn, from the last to the first. */
static void backwards(void *context, size_t count, jostle_task task, void *argument)
{
    ++*(size_t *)context;
    while (count-- > 0)
        task(argument, count);
}

static void with_threads(jostle_compute compute)
{
    for (uint32_t threads = 2; threads <= 3; threads++) {
        jostle_pool *pool;
        jostle_error e;
        char how[40];
        ok(jostle_pool_start(threads, &pool, &e), &e, "pool");
        compute.threads = threads;
        compute.run = jostle_pool_run;
        compute.context = pool;
        snprintf(how, sizeof how, "pool of %u", (unsigned)threads);
        fifty(&compute, how);
        jostle_pool_stop(pool);
    }
    size_t calls = 0;
    compute.threads = 3;
    compute.run = backwards;
    compute.context = &calls;
    fifty(&compute, "indices backwards");
    check(calls > run_steps, "the callback was called %zu times", calls);
}

static void no_call(void *context, size_t count, jostle_task task, void *argument)
{
    (void)context, (void)count, (void)task, (void)argument;
}

static void from_one(void *context, size_t count, jostle_task task, void *argument)
{
    (void)context;
    for (size_t i = 1; i <= count; i++)
        task(argument, i);
}

static void first_twice(void *context, size_t count, jostle_task task, void *argument)
{
    task(argument, 0);
    backwards(context, count, task, argument);
}

static void far_outside(void *context, size_t count, jostle_task task, void *argument)
{
    backwards(context, count, task, argument);
    task(argument, 1000000);
}

static void all_but_last(void *context, size_t count, jostle_task task, void *argument)
{
    backwards(context, count - 1, task, argument);
}

/* Callbacks that are not quite right: each step that uses them says so, and has the right results. */
static void wrong_runs(jostle_compute compute)
{
    static const struct {
        const char *name;
        jostle_run run;
        const char *message;
    } wrong[] = {
        {"calls nothing", no_call, "it left out index 0 of 3"},
        {"counts from 1", from_one, "it left out index 0 of 3"},
        {"calls index 0 twice", first_twice, "it also called index 0 of 3"},
        {"calls an index far outside", far_outside, "it also called index 1000000 of 3"},
        {"leaves the last out", all_but_last, "it left out index 2 of 3"},
    };
    size_t calls = 0;
    compute.threads = 3;
    compute.context = &calls;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        struct session s;
        compute.run = wrong[i].run;
        start(&s, BATCH, 1, &compute);
        for (size_t step = 0; step < run_steps; step++) {
            char message[200], wanted[200];
            jostle_report report;
            jostle_error e;
            jostle_status status = jostle_trainer_step(&s.trainer, text, sizeof text, JOSTLE_U8, &report, &e);
            jostle_error_message(&e, message, sizeof message);
            snprintf(wanted, sizeof wanted, "run must call the task once for each index: %s", wrong[i].message);
            check(status == JOSTLE_RUN && strcmp(message, wanted) == 0 && report.step == step, "%s: status %d: %s",
                  wrong[i].name, (int)status, message);
        }
        expect(&s, wrong[i].name);
        end(&s);
    }
}

/* A guard refuses a loss that is far above those before it. The step can be skipped. */
static void spikes(const jostle_compute *compute)
{
    struct session s;
    jostle_report report;
    jostle_error e;
    jostle_status status = JOSTLE_OK;
    uint64_t done;
    char message[200];
    start(&s, BATCH, 1, compute);
    ok(jostle_trainer_guard(&s.trainer, 1e-6f, &e), &e, "guard");
    for (done = 0; done < 200 && status == JOSTLE_OK; done++)
        status = jostle_trainer_step(&s.trainer, text, sizeof text, JOSTLE_U8, &report, &e);
    jostle_error_message(&e, message, sizeof message);
    check(status == JOSTLE_SPIKE && e.value > 0 && e.given == (int64_t)done - 1 && done > 100, "spike: %s", message);
    ok(jostle_trainer_skip(&s.trainer, &e), &e, "skip");
    ok(jostle_trainer_guard(&s.trainer, 0, &e), &e, "no guard");
    steps(&s, done, 1);
    end(&s);
}

#ifdef __SSE__
/* As a program that was linked with -ffast-math begins. */
static void flushing_denormals(const jostle_compute *compute)
{
    struct session s;
    jostle_report report;
    jostle_error e;
    start(&s, BATCH, 1, compute);
    _mm_setcsr(_mm_getcsr() | 0x8040);
    jostle_status status = jostle_trainer_step(&s.trainer, text, sizeof text, JOSTLE_U8, &report, &e);
    _mm_setcsr(_mm_getcsr() & ~0x8040u);
    check(status == JOSTLE_FLOATING_POINT, "a processor that flushes denormals: status %d", (int)status);
    steps(&s, 0, 1);
    end(&s);
}
#endif

/* Two micro-batches a step give the bits of one batch of both. */
static void micro_batches(const jostle_compute *compute)
{
    struct session s;
    start(&s, BATCH / 2, 2, compute);
    steps(&s, 0, run_steps);
    expect(&s, "two micro-batches a step");
    end(&s);
}

/* Takes each step in pieces. */
static void in_pieces(const jostle_compute *compute)
{
    struct session s;
    start(&s, BATCH / 2, 2, compute);
    for (size_t i = 0; i < run_steps; i++) {
        jostle_report report = {0};
        jostle_loss loss;
        jostle_error e;
        uint32_t done = 0;
        size_t calls = 0;
        do {
            ok(jostle_trainer_poll(&s.trainer, text, sizeof text, JOSTLE_U8, &done, &report, &e), &e, "poll");
            calls++;
            if (!done)
                check(jostle_trainer_evaluate(&s.trainer, text, sizeof text, JOSTLE_U8, &loss, &e) == JOSTLE_UNFINISHED,
                      "evaluated within a step");
        } while (!done);
        check(report.step == i && report.loss > 0 && report.gradient_norm > 0, "step %zu's report", i);
        /* Two layers: 11 stages of each micro-batch, then norm and update. */
        check(calls > 22 && calls <= 22 + 2 * 64, "%zu pieces", calls);
    }
    expect(&s, "in pieces");
    end(&s);
}

/* The same for batches of this program: two halves through accumulate, against the whole. */
static void own_batches(const jostle_compute *compute)
{
    enum { ROWS = BATCH * CONTEXT };
    struct session whole, halves;
    start(&whole, BATCH, 1, compute);
    start(&halves, BATCH / 2, 1, compute);
    for (size_t step = 0; step < 3; step++) {
        int32_t tokens[ROWS], targets[ROWS];
        jostle_loss loss, first, second;
        jostle_report one, two;
        jostle_error e;
        for (size_t i = 0; i < ROWS; i++) {
            size_t at = 100 * step + i / CONTEXT * 50 + i % CONTEXT;
            tokens[i] = text[at];
            targets[i] = i % 9 == 0 ? -1 : text[at + 1];
        }
        size_t counted = ROWS - (ROWS + 8) / 9;
        jostle_batch all = {tokens, sizeof tokens, targets, sizeof targets, BATCH, CONTEXT};
        jostle_batch half = {tokens, sizeof tokens / 2, targets, sizeof targets / 2, BATCH / 2, CONTEXT};
        ok(jostle_trainer_accumulate(&whole.trainer, &all, counted, &loss, &e), &e, "accumulate");
        ok(jostle_trainer_accumulate(&halves.trainer, &half, counted, &first, &e), &e, "accumulate");
        half.tokens += ROWS / 2;
        half.targets += ROWS / 2;
        ok(jostle_trainer_accumulate(&halves.trainer, &half, counted, &second, &e), &e, "accumulate");
        check(loss.counted == counted && first.counted + second.counted == counted, "%d targets count",
              (int)loss.counted);
        first.sum += second.sum;
        first.counted += second.counted;
        ok(jostle_trainer_update(&whole.trainer, &loss, &one, &e), &e, "update");
        ok(jostle_trainer_update(&halves.trainer, &first, &two, &e), &e, "update");
        check(one.gradient_norm == two.gradient_norm, "the norm is another in halves");
    }
    check(memcmp(whole.buffers.parameters, halves.buffers.parameters, whole.plan.parameters_size) == 0,
          "two halves differ from the whole");
    end(&whole);
    end(&halves);
}

/* Fused updates, in whole steps and in pieces, against updates after the backward pass. */
static void fused(const jostle_compute *compute)
{
    struct session after, within, pieces;
    start_with(&after, BATCH, 1, (struct update){.clip = 0}, compute);
    start_with(&within, BATCH, 1, (struct update){.fused = 1}, compute);
    start_with(&pieces, BATCH, 1, (struct update){.fused = 1, .head_rows = 5}, compute);
    check(within.plan.fused == 1 && within.plan.gradients_size < after.plan.gradients_size / 4, "room for %zu bytes",
          within.plan.gradients_size);
    steps(&after, 0, 5);
    steps(&within, 0, 5);
    for (size_t i = 0; i < 5; i++) {
        jostle_report report = {0};
        jostle_error e;
        uint32_t done = 0;
        size_t calls = 0;
        for (; !done; calls++)
            ok(jostle_trainer_poll(&pieces.trainer, text, sizeof text, JOSTLE_U8, &done, &report, &e), &e, "poll");
        check(calls == 11 && report.step == i && report.gradient_norm > 0, "step %zu in %zu pieces", i, calls);
    }
    struct session *both[] = {&within, &pieces};
    for (size_t i = 0; i < COUNT(both); i++) {
        check(memcmp(both[i]->buffers.parameters, after.buffers.parameters, after.plan.parameters_size) == 0 &&
                  memcmp(both[i]->buffers.optimizer, after.buffers.optimizer, after.plan.optimizer_size) == 0,
              "a fused update differs");
        end(both[i]);
    }
    end(&after);
}

static jostle_tensor tensor_of(const struct session *s, size_t i)
{
    jostle_tensor tensor;
    jostle_error e;
    ok(jostle_plan_tensor(&s->plan, i, NULL, 0, &tensor, &e), &e, "tensor");
    return tensor;
}

/* Training with frozen tensors, against training of all tensors that restores these after each step. */
static void frozen(const jostle_compute *compute)
{
    static const char *const names[] = {"wte.weight", "h.0.mlp.c_fc.weight", "h.1.ln_1.bias"};
    struct session whole, some;
    start_with(&whole, BATCH, 1, (struct update){.clip = 0}, compute);
    start_with(&some, BATCH, 1, (struct update){.fused = 1, .frozen = names, .frozen_count = COUNT(names)}, compute);
    float *before = memory(whole.plan.parameters_size);
    memcpy(before, whole.buffers.parameters, whole.plan.parameters_size);
    for (size_t step = 0; step < 5; step++) {
        for (size_t i = 0; i < whole.plan.tensor_count; i++) {
            jostle_tensor all = tensor_of(&whole, i), mine = tensor_of(&some, i);
            float *x = whole.buffers.parameters + all.offset;
            check(strcmp(all.name, mine.name) == 0, "%s is not %s", mine.name, all.name);
            if (mine.frozen) {
                memcpy(x, before + all.offset, all.count * sizeof *x);
                memcpy((float *)some.buffers.frozen + mine.offset, x, all.count * sizeof *x);
            } else {
                check(memcmp(x, some.buffers.parameters + mine.offset, all.count * sizeof *x) == 0,
                      "%s differs before step %zu", all.name, step);
            }
        }
        steps(&whole, step, 1);
        steps(&some, step, 1);
    }
    free(before);
    end(&whole);
    end(&some);
}

/* Writes a checkpoint of a session at this step into memory of its own. */
static uint8_t *checkpoint(const struct session *s, uint64_t step, size_t *size)
{
    const jostle_plan *plan = &s->plan;
    jostle_progress progress = {step, s->recipe.seed};
    jostle_error e;
    size_t written;
    ok(jostle_checkpoint_size(plan, 1, NULL, 0, size, &e), &e, "size");
    uint8_t *bytes = memory(*size);
    ok(jostle_checkpoint_write(plan, &s->buffers, &progress, NULL, 0, bytes, *size, &written, &e), &e, "write");
    check(written == *size, "%zu bytes written, not %zu", written, *size);
    return bytes;
}

/* The checkpoint of a training with frozen tensors is the same as Rust's and Python's, to the byte. A plan that freezes
 * the same tensors reads back the values that were written, and so does a plan that trains all. */
static void frozen_checkpoint(const jostle_compute *compute)
{
    static const char *const names[] = {
        "wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.0.ln_1.bias", "h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias",
        "h.0.attn.c_proj.weight", "h.0.attn.c_proj.bias", "h.0.ln_2.weight", "h.0.ln_2.bias", "h.0.mlp.c_fc.weight",
        "h.0.mlp.c_fc.bias", "h.0.mlp.c_proj.weight", "h.0.mlp.c_proj.bias", "h.1.ln_1.bias",
    };
    struct update update = {.clip = 1, .frozen = names, .frozen_count = COUNT(names)};
    struct session whole, some, again;
    jostle_progress progress;
    jostle_error e;
    size_t size, count = run_steps * 2 / 5;
    start(&whole, BATCH, 1, compute);
    start_with(&some, BATCH, 1, update, compute);
    for (size_t i = 0; i < whole.plan.tensor_count; i++) {
        jostle_tensor all = tensor_of(&whole, i), mine = tensor_of(&some, i);
        if (mine.frozen)
            memcpy((float *)some.buffers.frozen + mine.offset, whole.buffers.parameters + all.offset,
                   all.count * sizeof(float));
    }
    steps(&some, 0, count);
    uint8_t *bytes = checkpoint(&some, count, &size);
    expect_bytes(bytes, size, expected_checkpoint, "checkpoint with frozen tensors");

    start_with(&again, BATCH, 1, update, compute);
    jostle_buffers *to = &again.buffers;
    ok(jostle_checkpoint_read(bytes, size, &again.plan, to, &progress, &e), &e, "read");
    check(progress.step == count && progress.seed == some.recipe.seed, "another progress");
    check(memcmp(to->parameters, some.buffers.parameters, some.plan.parameters_size) == 0 &&
              memcmp(to->optimizer, some.buffers.optimizer, some.plan.optimizer_size) == 0,
          "what is read is not what was written");
    jostle_buffers parameters_only = whole.buffers;
    parameters_only.optimizer = NULL;
    ok(jostle_checkpoint_read(bytes, size, &whole.plan, &parameters_only, &progress, &e), &e, "read all");
    for (size_t i = 0; i < whole.plan.tensor_count; i++) {
        jostle_tensor all = tensor_of(&whole, i), mine = tensor_of(&some, i);
        const float *from = mine.frozen ? some.buffers.frozen : some.buffers.parameters;
        check(memcmp(whole.buffers.parameters + all.offset, from + mine.offset, all.count * sizeof(float)) == 0,
              "another %s", all.name);
    }
    free(bytes);
    end(&whole);
    end(&some);
    end(&again);
}

static void resumed(const jostle_compute *compute)
{
    const size_t stop = run_steps * 17 / 50;
    struct session first, second;
    jostle_progress progress;
    jostle_error e;
    size_t size;
    start(&first, BATCH, 1, compute);
    steps(&first, 0, stop);
    ok(jostle_trainer_steps(&first.trainer, &progress.step, &e), &e, "steps");
    uint8_t *bytes = checkpoint(&first, progress.step, &size);
    end(&first);

    jostle_config config;
    ok(jostle_checkpoint_config(bytes, size, &config, sizeof config, &e), &e, "config");
    check(config.vocab == VOCAB && config.width == 21 && config.attention_dropout == 0.2f, "another configuration");
    start(&second, BATCH, 1, compute);
    progress.step = progress.seed = 0;
    ok(jostle_checkpoint_read(bytes, size, &second.plan, &second.buffers, &progress, &e), &e, "read");
    check(progress.step == stop && progress.seed == second.recipe.seed, "another progress");
    ok(jostle_trainer_resume(&second.trainer, progress.step, &e), &e, "resume");
    steps(&second, stop, run_steps - stop);
    expect(&second, "resumed from a checkpoint");
    end(&second);
    free(bytes);
}

/* Eight trainers at once, each with a thread and a seed of its own, have the bits that each has alone. */

enum { AT_ONCE = 8 };

static void *fifty_steps(void *argument)
{
    struct session *s = argument;
    for (size_t i = 0; i < run_steps; i++) {
        jostle_report report;
        if (jostle_trainer_step(&s->trainer, text, sizeof text, JOSTLE_U8, &report, NULL) != JOSTLE_OK)
            return NULL;
    }
    return s;
}

static void start_all(struct session sessions[AT_ONCE], const jostle_compute *compute)
{
    for (uint64_t i = 0; i < AT_ONCE; i++)
        start_with(&sessions[i], BATCH, 1, (struct update){.clip = 1, .seed = i}, compute);
}

static void at_once(const jostle_compute *compute)
{
    struct session sessions[AT_ONCE];
    pthread_t threads[AT_ONCE];
    char alone[AT_ONCE][17] = {""};
    start_all(sessions, compute);
    strcpy(alone[0], expected);
    for (int i = 0; i < AT_ONCE; i++) {
        need(fifty_steps(&sessions[i]) != NULL, "a step alone");
        expect_bytes(sessions[i].buffers.parameters, sessions[i].plan.parameters_size, alone[i], "alone");
        end(&sessions[i]);
    }
    start_all(sessions, compute);
    for (int i = 0; i < AT_ONCE; i++)
        need(pthread_create(&threads[i], NULL, fifty_steps, &sessions[i]) == 0, "a thread");
    for (int i = 0; i < AT_ONCE; i++) {
        void *done;
        need(pthread_join(threads[i], &done) == 0, "a thread's end");
        check(done != NULL, "a step failed");
        expect_bytes(sessions[i].buffers.parameters, sessions[i].plan.parameters_size, alone[i], "eight trainers at once");
        end(&sessions[i]);
    }
}

static void read_written(const char *folder, const char *name, char *written)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    need(file != NULL && fscanf(file, "%16s", written) == 1, path);
    fclose(file);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        uint32_t number;
    } sets[] = {{"fastest", JOSTLE_FASTEST}, {"portable", JOSTLE_PORTABLE}, {"avx2", JOSTLE_AVX2}, {"avx512", JOSTLE_AVX512}, {"neon", JOSTLE_NEON}};
    const char *wanted = getenv("JOSTLE_INSTRUCTION_SETS");
    need(argc == 2 || argc == 3, "the folder of what is written down");
    if (argc == 3) {
        run_steps = strtoul(argv[2], NULL, 10);
    } else {
        read_written(argv[1], "fifty_steps.txt", expected);
        read_written(argv[1], "frozen_checkpoint.txt", expected_checkpoint);
    }
    /* A text with structure: its stride changes slowly. */
    for (uint32_t i = 0; i < TEXT; i++)
        text[i] = (uint8_t)((i * i / 97 + 5 * i) % VOCAB);

    jostle_compute compute;
    need(jostle_compute_init(&compute, sizeof compute) == JOSTLE_OK, "compute");
    for (size_t i = 0; i < COUNT(sets); i++) {
        if (wanted ? strstr(wanted, sets[i].name) == NULL : jostle_instruction_set_check(sets[i].number, NULL) != JOSTLE_OK)
            continue;
        jostle_error e;
        ok(jostle_instruction_set_check(sets[i].number, &e), &e, sets[i].name);
        compute.instruction_set = sets[i].number;
        fifty(&compute, sets[i].name);
    }
    compute.instruction_set = JOSTLE_FASTEST;
    with_threads(compute);
    wrong_runs(compute);
    if (argc == 2) {
        /* Hundreds of steps, which take minutes under valgrind. */
        spikes(&compute);
        at_once(&compute);
#ifdef __SSE__
        /* Valgrind has no such mode. */
        flushing_denormals(&compute);
#endif
    }
    micro_batches(&compute);
    in_pieces(&compute);
    own_batches(&compute);
    fused(&compute);
    frozen(&compute);
    frozen_checkpoint(&compute);
    resumed(&compute);
    return finish("same bits");
}
