/* Instructions of the plain step, from where jostle's begins. */
#include "board.h"
#include "counter.h"
#include "model.h"
#include "plain.h"

enum { STEPS = 3, POSITIONS = MODEL_BATCH * MODEL_CONTEXT };

int main(void)
{
    static const struct plain_recipe recipe = {0.9f, 0.99f, 1e-8f, 0.1f, 1.0f, 1};
    static int32_t tokens[POSITIONS], targets[POSITIONS];
    uint32_t random = 1, taken = 0;
    for (int i = 0; i < POSITIONS; i++) {
        tokens[i] = (int32_t)(i * i % MODEL_VOCAB);
        targets[i] = (int32_t)((i + 1) * (i + 1) % MODEL_VOCAB);
    }
    /* A sum of uniform numbers is normal enough. Weights of norms are 1 in jostle; here they take part in nothing that
     * depends on their size. */
    for (size_t i = 0; i < plain_parameters_size / sizeof(float); i++) {
        random = random * 1664525 + 1013904223;
        plain_parameters[i] = ((float)(random >> 8) / 8388608.0f - 1) * 0.05f;
    }
    for (int step = 0; step < STEPS; step++) {
        const uint32_t before = instructions();
        const float loss = plain_step(&recipe, tokens, targets, (uint64_t)step, 1e-3f);
        taken = instructions() - before;
        if (!(loss > 0 && loss < 10)) {
            board_print("FAILED: the loss is not finite\n");
            board_exit(1);
        }
    }
    print_figure("instructions", taken);
    print_figure("memory", (uint32_t)plain_memory_size);
    return 0;
}
