/* Firmware that trains: a text in flash, a model in static arrays whose sizes jostle-plan has written, nothing else.
 * One source for all targets; what differs between boards is in board.h and the linker scripts.
 *
 * It goes on from resume.safetensors where there is such a file, else from step 0, and leaves
 * trained.safetensors. It prints checksums of the parameters, which are the same on every processor. */
#include <stdint.h>

#include "board.h"
#include "model.h"

#ifndef STEPS
#define STEPS 200
#endif

enum { SEED = 1337, GENERATED = 64 };

#define LENGTH(bytes) ((bytes) / sizeof(float))

static float parameters[LENGTH(MODEL_PARAMETERS_SIZE)];
static float gradients[LENGTH(MODEL_GRADIENTS_SIZE)];
static float optimizer[LENGTH(MODEL_OPTIMIZER_SIZE)];
static float workspace[LENGTH(MODEL_WORKSPACE_SIZE)];
static int32_t batch[LENGTH(MODEL_BATCH_SIZE)];
static float memory[LENGTH(MODEL_GENERATION_SIZE)];
static int32_t window[LENGTH(MODEL_WINDOW_SIZE)];
static uint32_t order[LENGTH(MODEL_ORDER_SIZE)];
/* A checkpoint on its way from or to a file: its numbers, and a header that names them. */
static uint8_t file[MODEL_PARAMETERS_SIZE + MODEL_OPTIMIZER_SIZE + 8192];

static const jostle_buffers buffers = {
    .struct_size = sizeof buffers,
    .parameters = parameters, .parameters_size = sizeof parameters,
    .gradients = gradients, .gradients_size = sizeof gradients,
    .optimizer = optimizer, .optimizer_size = sizeof optimizer,
    .workspace = workspace, .workspace_size = sizeof workspace,
    .batch = batch, .batch_size = sizeof batch,
};

/* The text's tokens, in flash. One eighth, at the end, is for evaluation. */
extern const uint8_t text[], text_end[];

static jostle_plan plan;
static jostle_trainer trainer;
static jostle_error error;

static void print_number(uint64_t number)
{
    char digits[21], *first = digits + sizeof digits - 1;
    *first = 0;
    do *--first = (char)('0' + number % 10);
    while (number /= 10);
    board_print(first);
}

/* To three places. */
static void print_loss(float loss)
{
    const uint32_t thousandths = (uint32_t)(loss * 1000.0f + 0.5f);
    char places[] = {'.', (char)('0' + thousandths / 100 % 10), (char)('0' + thousandths / 10 % 10),
                     (char)('0' + thousandths % 10), 0};
    print_number(thousandths / 1000);
    board_print(places);
}

static void print_step(uint64_t step)
{
    board_print("step ");
    print_number(step);
    board_print(": ");
}

static void check(jostle_status status)
{
    char message[160];
    if (status == JOSTLE_OK) return;
    board_print("FAILED: ");
    board_print(jostle_error_message(&error, message, sizeof message) == JOSTLE_OK ? message
                                                                                   : jostle_status_string(status));
    board_print("\n");
    board_exit(1);
}

/* FNV-1a over the parameters' bytes, little-endian. */
static void print_checksum(uint64_t step)
{
    uint64_t sum = 0xcbf29ce484222325;
    const uint8_t *bytes = (const uint8_t *)parameters;
    char digits[17] = {0};
    for (size_t i = 0; i < sizeof parameters; i++) sum = (sum ^ bytes[i]) * 0x100000001b3;
    for (int i = 0; i < 16; i++) digits[i] = "0123456789abcdef"[sum >> (60 - 4 * i) & 15];
    print_step(step);
    board_print("checksum ");
    board_print(digits);
    board_print("\n");
}

static size_t evaluated(void)
{
    return (size_t)(text_end - text) / 8;
}

static void evaluate(uint64_t step)
{
    jostle_loss loss;
    check(jostle_trainer_evaluate(&trainer, text_end - evaluated(), evaluated(), JOSTLE_U8, &loss, &error));
    print_step(step);
    board_print("evaluation loss ");
    print_loss((float)(loss.sum / (double)loss.counted));
    board_print("\n");
}

static void generate(void)
{
    jostle_generator generator;
    jostle_sampling sampling;
    int32_t token = 26;
    check(jostle_sampling_init(&sampling, sizeof sampling));
    sampling.temperature = 0.5f;
    check(jostle_generator_init(&generator, &plan, NULL, parameters, sizeof parameters, memory, sizeof memory, window,
                                sizeof window, &error));
    for (uint64_t i = 0; i < GENERATED; i++) {
        float *logits;
        check(jostle_generator_feed(&generator, &token, sizeof token, &logits, &error));
        check(jostle_generator_draw(&generator, &sampling, order, sizeof order, SEED, i, &token, &error));
        const char letter[] = {token == 26 ? ' ' : (char)('a' + token), 0};
        board_print(letter);
    }
    board_print("\n");
}

/* Initial values, or those of a file, and the trainer that goes on with them. */
static void begin(void)
{
    static const jostle_config config = MODEL_CONFIG;
    static const jostle_options options = MODEL_OPTIONS;
    jostle_recipe recipe;
    check(jostle_plan_init(&plan, &config, &options, &error));
    check(jostle_recipe_init(&recipe, sizeof recipe));
    recipe.learning_rate = 1e-2f;
    recipe.final_learning_rate = 1e-3f;
    recipe.decay = JOSTLE_COSINE;
    recipe.warmup = 10;
    recipe.accumulate = 4;
    recipe.steps = 200;
    recipe.seed = SEED;

    jostle_progress progress = {.step = 0, .seed = SEED};
    const size_t size = board_read_file("resume.safetensors", file, sizeof file);
    if (size) {
        check(jostle_checkpoint_read(file, size, &plan, parameters, sizeof parameters, optimizer, sizeof optimizer,
                                     &progress, &error));
        board_print("resumed; ");
    } else {
        check(jostle_initialize(&plan, parameters, sizeof parameters, SEED, &error));
    }
    check(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, NULL, &error));
    check(jostle_trainer_resume(&trainer, progress.step, &error));
    print_number(plan.parameter_count);
    board_print(" parameters, ");
    print_number(plan.training_size);
    board_print(" bytes for training\n");
}

static void save(uint64_t step)
{
    const jostle_progress progress = {.step = step, .seed = SEED};
    size_t size;
    check(jostle_checkpoint_write(&plan, parameters, sizeof parameters, optimizer, sizeof optimizer, &progress, NULL, 0,
                                  file, sizeof file, &size, &error));
    if (board_write_file("trained.safetensors", file, size) != size)
        board_print("trained.safetensors cannot be written\n");
}

int main(void)
{
    uint64_t step;
    begin();
    check(jostle_trainer_steps(&trainer, &step, &error));
    evaluate(step);
    while (step < STEPS) {
        jostle_report report;
        const size_t size = (size_t)(text_end - text) - evaluated();
        check(jostle_trainer_step(&trainer, text, size, JOSTLE_U8, &report, &error));
        step++;
        if (step % 20 == 0) {
            print_step(step);
            board_print("loss ");
            print_loss(report.loss);
            board_print("\n");
        }
        if (step == 10 || step == 200) print_checksum(step);
    }
    evaluate(step);
    generate();
    save(step);
    board_print("stack ");
    print_number(board_stack_peak());
    board_print(" bytes at most\n");
    return 0;
}
