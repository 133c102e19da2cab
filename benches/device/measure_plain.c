/* Instructions of the plain step, from where jostle's begins. */
#include "board.h"
#include "counter.h"
#include "model.h"
#include "plain.h"

enum { STEPS = 3, POSITIONS = MODEL_BATCH * MODEL_CONTEXT };

static void fail(const char *what)
{
    board_print("FAILED: ");
    board_print(what);
    board_exit(1);
}

int main(void)
{
    static const struct plain_recipe recipe = {0.9f, 0.99f, 1e-8f, 0.1f, 1.0f, 1};
    static int32_t tokens[POSITIONS], targets[POSITIONS];
    uint32_t taken = 0;
    for (int i = 0; i < POSITIONS; i++) {
        tokens[i] = (int32_t)(i * i % MODEL_VOCAB);
        targets[i] = (int32_t)((i + 1) * (i + 1) % MODEL_VOCAB);
    }
    /* jostle's initial values. */
    static const jostle_config config = MODEL_CONFIG;
    static const jostle_options options = MODEL_OPTIONS;
    static jostle_plan plan;
    if (jostle_plan_init(&plan, &config, &options, NULL) != JOSTLE_OK ||
        jostle_initialize(&plan, plain_parameters, plain_parameters_size, 1, NULL) != JOSTLE_OK)
        fail("the parameters cannot be initialised");
    for (int step = 0; step < STEPS; step++) {
        const uint32_t before = instructions();
        const float loss = plain_step(&recipe, tokens, targets, (uint64_t)step, 1e-3f);
        taken = instructions() - before;
        if (!(loss > 3 && loss < 4)) fail("a loss that cannot be");
    }
    print_figure("instructions", taken);
    print_figure("memory", (uint32_t)plain_memory_size);
    return 0;
}
