/* stories260K, a model of llama2.c, on a device whose flash has its weights (stories.S). With GENERATE it writes its story, and
 * the weights stay in flash. Otherwise it trains further on that story, with AdamW in backward. Frozen tensors, the first ones,
 * are used in flash, and the others are copied into RAM. The parameters end in trained.bin.
 *
 * With COUNT it prints the instructions of the last token or step. */
#include "board.h"
#include "model.h"
#ifdef COUNT
#include "counter.h"
#endif

enum { TOKENS = 200, STEPS = 20, BOS = 1 };

/* The weights in the plan's order, the tokenizer, and the story. */
extern const float weights[];
extern const uint8_t tokenizer_file[], tokenizer_end[], story[], story_end[];

static jostle_plan plan;
static jostle_error error;
static jostle_llama2c_tokenizer tokenizer;
static uint32_t index[2 * MODEL_VOCAB];

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

#ifdef COUNT
static uint32_t before;
#define BEGIN() before = instructions()
#define END() print_figure("instructions", instructions() - before)
#else
#define BEGIN()
#define END()
#endif

#ifdef GENERATE
static void run(void)
{
    static float memory[MODEL_GENERATION_SIZE / sizeof(float)];
    static int32_t window[MODEL_CONTEXT], tokens[TOKENS + 1] = {BOS};
    static uint32_t order[MODEL_VOCAB];
    static char text[16 * TOKENS];
    /* A generator only reads the parameters. */
    const jostle_buffers buffers = {
        .struct_size = sizeof buffers, .parameters = (float *)weights, .parameters_size = MODEL_PARAMETERS_SIZE,
    };
    jostle_generator generator;
    jostle_sampling greedy;
    check(jostle_sampling_init(&greedy, sizeof greedy));
    greedy.temperature = 0;
    check(jostle_generator_init(&generator, &plan, NULL, &buffers, memory, sizeof memory, window, sizeof window, &error));
    for (uint64_t i = 0; i < TOKENS; i++) {
        float *logits;
        BEGIN();
        check(jostle_generator_feed(&generator, tokens + i, sizeof *tokens, &logits, &error));
        check(jostle_generator_draw(&generator, &greedy, order, sizeof order, 0, i, tokens + i + 1, &error));
    }
    END();
    size_t length;
    check(jostle_llama2c_decode(&tokenizer, -1, tokens, sizeof tokens, (uint8_t *)text, sizeof text - 1, &length, &error));
    board_write_file("story.txt", text, length);
}
#else
static void run(void)
{
    static float parameters[MODEL_PARAMETERS_SIZE / sizeof(float)], gradients[MODEL_GRADIENTS_SIZE / sizeof(float)];
    static float optimizer[MODEL_OPTIMIZER_SIZE / sizeof(float)], workspace[MODEL_WORKSPACE_SIZE / sizeof(float)];
    static int32_t batch[MODEL_BATCH_SIZE / sizeof(int32_t)];
    static int32_t tokens[4 * 512 + 6];
    const jostle_buffers buffers = {
        .struct_size = sizeof buffers,
        .parameters = parameters, .parameters_size = sizeof parameters,
        .frozen = MODEL_FROZEN_SIZE ? weights : NULL, .frozen_size = MODEL_FROZEN_SIZE,
        .gradients = gradients, .gradients_size = sizeof gradients,
        .optimizer = optimizer, .optimizer_size = sizeof optimizer,
        .workspace = workspace, .workspace_size = sizeof workspace,
        .batch = batch, .batch_size = sizeof batch,
    };
    size_t count;
    check(jostle_llama2c_encode(&tokenizer, story, (size_t)(story_end - story), 1, 0, tokens, sizeof tokens, &count,
                                &error));
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++)
        parameters[i] = weights[MODEL_FROZEN_SIZE / sizeof(float) + i];
    jostle_recipe recipe;
    jostle_trainer trainer;
    check(jostle_recipe_init(&recipe, sizeof recipe));
    recipe.learning_rate = 1e-3f;
    recipe.clip = 0;
    recipe.seed = 1337;
    check(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, NULL, &error));
    for (int step = 0; step < STEPS; step++) {
        jostle_report report;
        BEGIN();
        check(jostle_trainer_step(&trainer, tokens, count * sizeof *tokens, JOSTLE_I32, &report, &error));
    }
    END();
    board_write_file("trained.bin", parameters, sizeof parameters);
}
#endif

int main(void)
{
    static const jostle_config config = MODEL_CONFIG;
    static const jostle_options options = MODEL_OPTIONS;
    check(jostle_plan_init(&plan, &config, &options, &error));
    check(jostle_llama2c_tokenizer_init(&tokenizer, tokenizer_file, (size_t)(tokenizer_end - tokenizer_file), index,
                                        sizeof index, &error));
    run();
#ifdef COUNT
    print_figure("stack", (uint32_t)board_stack_peak());
#endif
    return 0;
}
