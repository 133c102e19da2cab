// Trains a model on a sentence, forever. Prints the loss, and now and then a text from the model.
// jostle-plan wrote model.h; the command is in its first line.
#include <jostle.h>

#include "model.h"

static const char TEXT[] = "the water jostles the stone and the stone jostles the sand until it lies where it lies best ";
static const size_t LENGTH = sizeof TEXT - 1;

static float parameters[MODEL_PARAMETERS_SIZE / sizeof(float)];
static float gradients[MODEL_GRADIENTS_SIZE / sizeof(float)];
static float optimizer[MODEL_OPTIMIZER_SIZE / sizeof(float)];
static float workspace[MODEL_WORKSPACE_SIZE / sizeof(float)];
static int32_t batch[MODEL_BATCH_SIZE / sizeof(int32_t)];
static float memory[MODEL_GENERATION_SIZE / sizeof(float)];
static int32_t window[MODEL_WINDOW_SIZE / sizeof(int32_t)];
static uint32_t order[MODEL_ORDER_SIZE / sizeof(uint32_t)];

static uint8_t tokens[LENGTH];
static jostle_plan plan;
static jostle_trainer trainer;
static jostle_buffers buffers;
static jostle_error error;

// Prints the error and stops.
static void check(int32_t status) {
    if (status == JOSTLE_OK) return;
    char message[160];
    jostle_error_message(&error, message, sizeof message);
    for (;;) {
        Serial.println(status == error.status ? message : jostle_status_string(status));
        delay(5000);
    }
}

static void generate() {
    jostle_generator generator;
    jostle_sampling sampling;
    int32_t token = 26;
    check(jostle_sampling_init(&sampling, sizeof sampling));
    check(jostle_generator_init(&generator, &plan, nullptr, &buffers, memory, sizeof memory, window, sizeof window, &error));
    for (uint64_t i = 0; i < 64; i++) {
        float *logits;
        check(jostle_generator_feed(&generator, &token, sizeof token, &logits, &error));
        check(jostle_generator_draw(&generator, &sampling, order, sizeof order, 1337, i, &token, &error));
        Serial.print(token == 26 ? ' ' : char('a' + token));
    }
    Serial.println();
}

void setup() {
    Serial.begin(115200);
    for (size_t i = 0; i < LENGTH; i++) tokens[i] = TEXT[i] == ' ' ? 26 : TEXT[i] - 'a';

    static const jostle_config config = MODEL_CONFIG;
    static const jostle_options options = MODEL_OPTIONS;
    jostle_recipe recipe;
    check(jostle_plan_init(&plan, &config, &options, &error));
    check(jostle_recipe_init(&recipe, sizeof recipe));
    recipe.learning_rate = 1e-2f;
    recipe.warmup = 10;
    recipe.seed = 1337;

    buffers.struct_size = sizeof buffers;
    buffers.parameters = parameters, buffers.parameters_size = sizeof parameters;
    buffers.gradients = gradients, buffers.gradients_size = sizeof gradients;
    buffers.optimizer = optimizer, buffers.optimizer_size = sizeof optimizer;
    buffers.workspace = workspace, buffers.workspace_size = sizeof workspace;
    buffers.batch = batch, buffers.batch_size = sizeof batch;
    check(jostle_initialize(&plan, parameters, sizeof parameters, recipe.seed, &error));
    check(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, nullptr, &error));
}

void loop() {
    // One piece of a step. Between two pieces the sketch may do other things.
    jostle_report report;
    uint32_t done;
    check(jostle_trainer_poll(&trainer, tokens, sizeof tokens, JOSTLE_U8, &done, &report, &error));
    if (!done) return;
    if (report.step % 10 == 0) {
        Serial.print("step ");
        Serial.print((unsigned long)report.step);
        Serial.print(": loss ");
        Serial.println(report.loss, 3);
    }
    if (report.step % 100 == 0) generate();
}
