/* Firmware that trains. The text is in flash, and the model is in static arrays whose sizes jostle-plan has written.
 * There is one source for all targets; board.h and the linker scripts cover the differences between boards.
 *
 * It saves into two slots of flash memory. Whenever the power fails, the next run continues from the newest complete
 * checkpoint. Without one it begins with the built-in checkpoint, or, if that is empty, with random numbers. It prints
 * checksums of the parameters, which are the same on every processor, however often the power failed. It leaves the last
 * checkpoint in trained.safetensors. */
#include "board.h"
#include "model.h"

#ifndef STEPS
#define STEPS 200
#endif

#ifndef SAVE_EVERY
#define SAVE_EVERY 50
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

static const jostle_buffers buffers = {
    .struct_size = sizeof buffers,
    .parameters = parameters, .parameters_size = sizeof parameters,
    .gradients = gradients, .gradients_size = sizeof gradients,
    .optimizer = optimizer, .optimizer_size = sizeof optimizer,
    .workspace = workspace, .workspace_size = sizeof workspace,
    .batch = batch, .batch_size = sizeof batch,
};

/* In built_in.S: the text's tokens, whose last eighth is for evaluation, and a checkpoint. */
extern const uint8_t text[], text_end[], checkpoint[], checkpoint_end[];

/* This metadata lets Python's jostle.Trainer.resume() continue the checkpoints. */
static const jostle_metadata metadata[] = {{
    "trainer",
    "{\"batch\": 1, \"steps\": 200, \"clip\": 1.0, \"accumulate\": 4, \"evaluate_every\": 200, "
    "\"schedule\": {\"name\": \"cosine\", \"warmup\": 10, \"final\": 0.001}, "
    "\"optimizer\": {\"name\": \"adamw\", \"learning_rate\": 0.01, \"beta1\": 0.9, \"beta2\": 0.99, "
    "\"epsilon\": 1e-8, \"weight_decay\": 0.1}}",
}};

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

/* A number with three decimals. */
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

/* FNV-1a over the parameters' bytes, little-endian on every processor. */
static void print_checksum(uint64_t step)
{
    uint64_t sum = 0xcbf29ce484222325;
    char digits[17] = {0};
    for (size_t i = 0; i < sizeof parameters / sizeof(float); i++) {
        union {
            float number;
            uint32_t bits;
        } parameter = {parameters[i]};
        for (int shift = 0; shift < 32; shift += 8) sum = (sum ^ (parameter.bits >> shift & 0xff)) * 0x100000001b3;
    }
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
    check(jostle_generator_init(&generator, &plan, NULL, &buffers, memory, sizeof memory, window, sizeof window, &error));
    for (uint64_t i = 0; i < GENERATED; i++) {
        float *logits;
        check(jostle_generator_feed(&generator, &token, sizeof token, &logits, &error));
        check(jostle_generator_draw(&generator, &sampling, order, sizeof order, SEED, i, &token, &error));
        const char letter[] = {token == 26 ? ' ' : (char)('a' + token), 0};
        board_print(letter);
    }
    board_print("\n");
}

/* Reads or makes the first parameters, and returns their step. */
static uint64_t restore(void)
{
    jostle_progress progress = {.step = 0, .seed = SEED};
    const size_t built_in = (size_t)(checkpoint_end - checkpoint);
    /* The workspace is free between steps. */
    const jostle_status status = jostle_slots_load(&board_flash, &plan, &buffers, (uint8_t *)workspace,
                                                   sizeof workspace, &progress, &error);
    if (status != JOSTLE_NOT_FOUND) {
        check(status);
        board_print("resumed from flash memory");
    } else if (built_in) {
        check(jostle_checkpoint_read(checkpoint, built_in, &plan, &buffers, &progress, &error));
        board_print("resumed from the built-in checkpoint");
    } else {
        check(jostle_initialize(&plan, parameters, sizeof parameters, SEED, &error));
        board_print("initialized");
    }
    board_print(" at step ");
    print_number(progress.step);
    board_print("\n");
    return progress.step;
}

static uint64_t begin(void)
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
    print_number(plan.parameter_count);
    board_print(" parameters, ");
    print_number(plan.training_size);
    board_print(" bytes for training\n");

    const uint64_t step = restore();
    check(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, NULL, &error));
    check(jostle_trainer_resume(&trainer, step, &error));
    return step;
}

static void save(uint64_t step)
{
    const jostle_progress progress = {.step = step, .seed = SEED};
    check(jostle_slots_save(&board_flash, &plan, &buffers, &progress, metadata, 1, (uint8_t *)workspace,
                            sizeof workspace, &error));
    print_step(step);
    board_print("saved, ");
    print_number(board_flash_changes());
    board_print(" words and sectors of flash memory changed\n");
}

/* Writes the newest checkpoint as a file, directly from flash. */
static void export(void)
{
    jostle_slot slot;
    check(jostle_slots_newest(&board_flash, (uint8_t *)workspace, sizeof workspace, &slot, &error));
    if (board_write_file("trained.safetensors", board_flash_slot(slot.index) + slot.offset, slot.size) != slot.size)
        board_print("trained.safetensors cannot be written\n");
}

int main(void)
{
    board_flash_begin();
    uint64_t step = begin();
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
        if (step % SAVE_EVERY == 0 || step == STEPS) save(step);
    }
    evaluate(step);
    generate();
    export();
    board_flash_end();
    board_print("stack ");
    print_number(board_stack_peak());
    board_print(" bytes at most\n");
    return 0;
}
