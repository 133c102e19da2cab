/* Measures training on an emulated device: the instructions of a step, whole and in pieces, and the stack of steps, an
 * evaluation and a generated text. */
#include "board.h"
#include "counter.h"
#include "model.h"

#ifndef ACCUMULATE
#define ACCUMULATE 1
#endif

enum { STEPS = 3, GENERATED = 20, SEED = 1 };

/* Tokens of a text, in flash. */
#define EIGHT(n) n, n + 5, n + 2, n + 11, n + 7, n + 1, n + 13, n + 3
#define FORTY(n) EIGHT(n), EIGHT(n + 1), EIGHT(n + 6), EIGHT(n + 3), EIGHT(n + 2)
static const uint8_t text[] = {FORTY(0), FORTY(3), FORTY(7), FORTY(5)};

static float parameters[MODEL_PARAMETERS_SIZE / sizeof(float)];
#if MODEL_OPTIMIZER_SIZE
static float optimizer[MODEL_OPTIMIZER_SIZE / sizeof(float)];
#define OPTIMIZER optimizer
#else
#define OPTIMIZER NULL
#endif
static float workspace[MODEL_WORKSPACE_SIZE / sizeof(float)];
static int32_t batch[MODEL_BATCH_SIZE / sizeof(int32_t)];
/* Between steps gradients and workspace are free: the generator's handle uses the first, its memory the second. */
static union {
    float gradients[MODEL_GRADIENTS_SIZE / sizeof(float)];
    struct {
        jostle_generator generator;
        int32_t window[MODEL_WINDOW_SIZE / sizeof(int32_t)];
        uint32_t order[MODEL_ORDER_SIZE / sizeof(uint32_t)];
    } use;
} between;
_Static_assert(MODEL_WORKSPACE_SIZE >= MODEL_GENERATION_SIZE, "a generator needs memory of its own");

static const jostle_buffers buffers = {
    .struct_size = sizeof buffers,
    .parameters = parameters, .parameters_size = MODEL_PARAMETERS_SIZE,
    .gradients = between.gradients, .gradients_size = MODEL_GRADIENTS_SIZE,
    .optimizer = OPTIMIZER, .optimizer_size = MODEL_OPTIMIZER_SIZE,
    .workspace = workspace, .workspace_size = MODEL_WORKSPACE_SIZE,
    .batch = batch, .batch_size = MODEL_BATCH_SIZE,
};

static jostle_plan plan;
static jostle_trainer trainer;
static jostle_error error;

static void check(jostle_status status)
{
    if (status == JOSTLE_OK) return;
    board_print("FAILED: ");
    board_print(jostle_status_string(status));
    board_print("\n");
    board_exit(1);
}

int main(void)
{
    static const jostle_config config = MODEL_CONFIG;
    static const jostle_options options = MODEL_OPTIONS;
    jostle_recipe recipe;
    check(jostle_plan_init(&plan, &config, &options, &error));
    check(jostle_recipe_init(&recipe, sizeof recipe));
    recipe.optimizer = MODEL_OPTIMIZER == JOSTLE_STATE_ADAMW ? JOSTLE_ADAMW : JOSTLE_SGD;
    recipe.seed = SEED;
    recipe.accumulate = ACCUMULATE;
    if (MODEL_FUSED) recipe.clip = 0;
    check(jostle_initialize(&plan, parameters, sizeof parameters, SEED, &error));
    check(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, NULL, &error));
    uint32_t taken = 0;
    for (int step = 0; step < STEPS; step++) {
        jostle_report report;
        const uint32_t before = instructions();
        check(jostle_trainer_step(&trainer, text, sizeof text, JOSTLE_U8, &report, &error));
        taken = instructions() - before;
    }
    /* The largest piece of a step in pieces. */
    uint32_t done = 0, largest = 0;
    while (!done) {
        jostle_report report;
        const uint32_t before = instructions();
        check(jostle_trainer_poll(&trainer, text, sizeof text, JOSTLE_U8, &done, &report, &error));
        const uint32_t piece = instructions() - before;
        if (piece > largest) largest = piece;
    }
    print_figure("parameters", (uint32_t)plan.parameter_count);
    print_figure("activations", (uint32_t)plan.activations_size);
    print_figure("scratch", (uint32_t)plan.scratch_size);
    print_figure("recomputed", (uint32_t)plan.recomputed);
    print_figure("instructions", taken);
    print_figure("piece", largest);
    print_figure("stack", (uint32_t)board_stack_peak());

    jostle_loss loss;
    jostle_sampling sampling;
    check(jostle_trainer_evaluate(&trainer, text, sizeof text, JOSTLE_U8, &loss, &error));
    print_figure("stack", (uint32_t)board_stack_peak());
    check(jostle_sampling_init(&sampling, sizeof sampling));
    check(jostle_generator_init(&between.use.generator, &plan, NULL, &buffers, workspace, sizeof workspace,
                                between.use.window, sizeof between.use.window, &error));
    int32_t token = 0;
    for (uint64_t i = 0; i < GENERATED; i++) {
        float *logits;
        check(jostle_generator_feed(&between.use.generator, &token, sizeof token, &logits, &error));
        check(jostle_generator_draw(&between.use.generator, &sampling, between.use.order,
                                    sizeof between.use.order, SEED, i, &token, &error));
    }
    print_figure("stack", (uint32_t)board_stack_peak());
    return 0;
}
