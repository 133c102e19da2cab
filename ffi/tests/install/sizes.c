/* Checks that the sizes in a header of jostle-plan are exactly the sizes that the library needs. Compiled with a header
 * model.h for each of several models. */
#include "model.h"

#include <stdio.h>

#define LENGTH(bytes) ((bytes) / sizeof(float))

static float parameters[LENGTH(MODEL_PARAMETERS_SIZE)];
static float gradients[LENGTH(MODEL_GRADIENTS_SIZE)];
#if MODEL_OPTIMIZER_SIZE > 0
static float optimizer[LENGTH(MODEL_OPTIMIZER_SIZE)];
#else
static float *const optimizer = NULL;
#endif
static float workspace[LENGTH(MODEL_WORKSPACE_SIZE)];
static int32_t batch[LENGTH(MODEL_BATCH_SIZE)];
static float memory[LENGTH(MODEL_GENERATION_SIZE)];
static int32_t window[LENGTH(MODEL_WINDOW_SIZE)];
static uint32_t order[LENGTH(MODEL_ORDER_SIZE)];

static const jostle_config config = MODEL_CONFIG;
static const jostle_options options = MODEL_OPTIONS;

static int failures;

#define EXPECT(given, wanted) expect(#given, (unsigned long)(given), (unsigned long)(wanted))

static void expect(const char *what, unsigned long given, unsigned long wanted)
{
    if (given != wanted) {
        printf("FAILED: %s is %lu; wanted: %lu\n", what, given, wanted);
        failures++;
    }
}

static jostle_plan plan;
static jostle_recipe recipe;
static jostle_buffers buffers;
static jostle_trainer trainer;
static jostle_generator generator;
static jostle_error error;

static jostle_status init_trainer(void)
{
    return jostle_trainer_init(&trainer, &plan, &recipe, &buffers, NULL, &error);
}

static jostle_status init_generator(size_t memory_size, size_t window_size)
{
    return jostle_generator_init(&generator, &plan, NULL, &buffers, memory, memory_size, window, window_size, &error);
}

/* A trainer is refused if this size is one byte less. */
static void one_byte_shorter(const char *what, size_t *size)
{
    --*size;
    expect(what, (unsigned long)init_trainer(), JOSTLE_BUFFER_TOO_SHORT);
    ++*size;
}

int main(void)
{
    static uint8_t text[MODEL_CONTEXT + 1];
    size_t checkpoint_size = 0;
    int32_t token = 0;
    float *logits;
    jostle_report report;
    jostle_sampling sampling;

    EXPECT(jostle_plan_init(&plan, &config, &options, &error), JOSTLE_OK);
    EXPECT(MODEL_PARAMETERS_SIZE, plan.parameters_size);
    EXPECT(MODEL_GRADIENTS_SIZE, plan.gradients_size);
    EXPECT(MODEL_OPTIMIZER_SIZE, plan.optimizer_size);
    EXPECT(MODEL_WORKSPACE_SIZE, plan.workspace_size);
    EXPECT(MODEL_BATCH_SIZE, plan.batch_size);
    EXPECT(MODEL_TRAINING_SIZE, plan.training_size);
    EXPECT(MODEL_GENERATION_SIZE, plan.generation_size);
    EXPECT(MODEL_WINDOW_SIZE, plan.window_size);
    EXPECT(MODEL_ORDER_SIZE, plan.order_size);
    EXPECT(jostle_checkpoint_size(&plan, 1, NULL, 0, &checkpoint_size, &error), JOSTLE_OK);
    EXPECT(MODEL_CHECKPOINT_SIZE, checkpoint_size);

    jostle_recipe_init(&recipe, sizeof recipe);
    if (MODEL_OPTIMIZER != JOSTLE_STATE_ADAMW)
        recipe.optimizer = JOSTLE_SGD;
    if (MODEL_OPTIMIZER == JOSTLE_STATE_MOMENTUM)
        recipe.momentum = 0.9f;
    buffers.struct_size = sizeof buffers;
    buffers.parameters = parameters;
    buffers.parameters_size = MODEL_PARAMETERS_SIZE;
    buffers.gradients = gradients;
    buffers.gradients_size = MODEL_GRADIENTS_SIZE;
    buffers.optimizer = optimizer;
    buffers.optimizer_size = MODEL_OPTIMIZER_SIZE;
    buffers.workspace = workspace;
    buffers.workspace_size = MODEL_WORKSPACE_SIZE;
    buffers.batch = batch;
    buffers.batch_size = MODEL_BATCH_SIZE;

    one_byte_shorter("parameters one byte short", &buffers.parameters_size);
    one_byte_shorter("gradients one byte short", &buffers.gradients_size);
    if (MODEL_OPTIMIZER_SIZE > 0)
        one_byte_shorter("optimizer one byte short", &buffers.optimizer_size);
    one_byte_shorter("workspace one byte short", &buffers.workspace_size);
    one_byte_shorter("batch one byte short", &buffers.batch_size);
    EXPECT(jostle_initialize(&plan, parameters, sizeof parameters, 1, &error), JOSTLE_OK);
    EXPECT(init_trainer(), JOSTLE_OK);
    EXPECT(jostle_trainer_step(&trainer, text, sizeof text, JOSTLE_U8, &report, &error), JOSTLE_OK);

    EXPECT(init_generator(sizeof memory - 1, sizeof window), JOSTLE_BUFFER_TOO_SHORT);
    EXPECT(init_generator(sizeof memory, sizeof window - 1), JOSTLE_BUFFER_TOO_SHORT);
    EXPECT(init_generator(sizeof memory, sizeof window), JOSTLE_OK);
    EXPECT(jostle_generator_feed(&generator, &token, sizeof token, &logits, &error), JOSTLE_OK);
    jostle_sampling_init(&sampling, sizeof sampling);
    EXPECT(jostle_generator_draw(&generator, &sampling, order, sizeof order - 1, 1, 0, &token, &error),
           JOSTLE_BUFFER_TOO_SHORT);
    EXPECT(jostle_generator_draw(&generator, &sampling, order, sizeof order, 1, 0, &token, &error), JOSTLE_OK);

    if (!failures)
        printf("%lu bytes for training, as planned\n", (unsigned long)plan.training_size);
    return failures != 0;
}
