/* Checks that the plain implementation and jostle take the same steps: losses and parameters of twenty steps with
 * dropout, on this machine. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model.h"
#include "plain.h"

enum { STEPS = 20, POSITIONS = MODEL_BATCH * MODEL_CONTEXT };

static jostle_error error;

static void check(jostle_status status)
{
    if (status == JOSTLE_OK) return;
    fprintf(stderr, "FAILED: %s %s\n", jostle_status_string(status), error.what);
    exit(EXIT_FAILURE);
}

static void *memory(size_t size)
{
    void *bytes = calloc(1, size ? size : 1);
    if (!bytes) exit(EXIT_FAILURE);
    return bytes;
}

int main(void)
{
    const jostle_config config = MODEL_CONFIG;
    const jostle_options options = MODEL_OPTIONS;
    jostle_plan plan;
    jostle_recipe recipe;
    check(jostle_plan_init(&plan, &config, &options, &error));
    check(jostle_recipe_init(&recipe, sizeof recipe));
    recipe.learning_rate = 1e-2f;
    recipe.seed = 7;
    /* Small enough that gradients are clipped. */
    recipe.clip = 0.5f;
    if (MODEL_OPTIMIZER == JOSTLE_STATE_NONE) {
        recipe.optimizer = JOSTLE_SGD;
        recipe.momentum = recipe.clip = 0;
        recipe.learning_rate = 0.1f;
    }
    const jostle_buffers buffers = {
        .struct_size = sizeof buffers,
        .parameters = memory(plan.parameters_size), .parameters_size = plan.parameters_size,
        .gradients = memory(plan.gradients_size), .gradients_size = plan.gradients_size,
        .optimizer = memory(plan.optimizer_size), .optimizer_size = plan.optimizer_size,
        .workspace = memory(plan.workspace_size), .workspace_size = plan.workspace_size,
        .batch = memory(plan.batch_size), .batch_size = plan.batch_size,
    };
    jostle_trainer trainer;
    check(jostle_initialize(&plan, buffers.parameters, buffers.parameters_size, 1, &error));
    check(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, NULL, &error));
    if (plan.parameters_size != plain_parameters_size) return printf("FAILED: other parameters\n"), EXIT_FAILURE;
    for (size_t i = 0; i < plan.parameter_count; i++) plain_parameters[i] = buffers.parameters[i];
    const struct plain_recipe plain = {recipe.beta1, recipe.beta2, recipe.epsilon, recipe.weight_decay, recipe.clip,
                                       recipe.seed};

    float loss_apart = 0, parameters_apart = 0;
    uint32_t random = 1;
    for (uint64_t step = 0; step < STEPS; step++) {
        int32_t tokens[POSITIONS], targets[POSITIONS];
        for (int i = 0; i < POSITIONS; i++) {
            tokens[i] = (int32_t)((random = random * 1664525 + 1013904223) >> 16) % MODEL_VOCAB;
            targets[i] = (tokens[i] * 5 + 3) % (int32_t)MODEL_VOCAB;
        }
        jostle_loss loss;
        jostle_report report;
        const jostle_batch batch = {.tokens = tokens, .tokens_size = sizeof tokens,
                                    .targets = targets, .targets_size = sizeof targets,
                                    .sequences = MODEL_BATCH, .length = MODEL_CONTEXT};
        check(jostle_trainer_accumulate(&trainer, &batch, POSITIONS, &loss, &error));
        check(jostle_trainer_update(&trainer, &loss, &report, &error));
        const float plain_loss = plain_step(&plain, tokens, targets, step, recipe.learning_rate);
        loss_apart = fmaxf(loss_apart, fabsf(plain_loss - report.loss));
    }
    for (size_t i = 0; i < plan.parameter_count; i++)
        parameters_apart = fmaxf(parameters_apart, fabsf(plain_parameters[i] - buffers.parameters[i]));
    /* AdamW takes steps of the learning rate, however small a gradient: rounding shows where one is nearly zero. */
    const int same = loss_apart < 1e-4f && parameters_apart < 2e-3f;
    printf("%s%u parameters, %d steps: losses at most %.1e apart, parameters %.1e\n", same ? "" : "FAILED: ",
           (unsigned)plan.parameter_count, STEPS, loss_apart, parameters_apart);
    return same ? EXIT_SUCCESS : EXIT_FAILURE;
}
