/*
 * Continues a checkpoint of `train` on another text. The learning rate is low and constant, so that the model learns
 * the new text without forgetting all of the old one. Shows how far each tensor has moved, and saves the parameters
 * alone.
 *
 *     finetune CHECKPOINT TEXT SAVE [STEPS]
 */

#include <inttypes.h>
#include <math.h>

#include "common.h"
#include "vocabulary.h"

static double evaluate(jostle_trainer *trainer, const int32_t *text, size_t count)
{
    jostle_loss loss;
    check(jostle_trainer_evaluate(trainer, text, count * sizeof *text, JOSTLE_I32, &loss, &error));
    return loss.sum / (double)loss.counted;
}

/* Prints each tensor's name, its shape, and how far it has moved: the norm of the change over its norm before. */
static void show_changes(const jostle_plan *plan, const float *before, float *after)
{
    printf("%-28s %12s %12s %10s\n", "tensor", "shape", "change", "relative");
    for (size_t i = 0; i < plan->tensor_count; i++) {
        double change = 0, norm = 0;
        jostle_tensor tensor;
        char shape[48];
        check(jostle_plan_tensor(plan, i, after, plan->parameters_size, &tensor, &error));
        /* `data` points into the buffer that was passed; `offset` holds for every buffer in the same order. */
        for (size_t j = 0; j < tensor.count; j++) {
            double was = before[tensor.offset + j], moved = tensor.data[j] - was;
            change += moved * moved;
            norm += was * was;
        }
        if (tensor.rank == 2) {
            sprintf(shape, "[%zu, %zu]", tensor.shape[0], tensor.shape[1]);
        } else {
            sprintf(shape, "[%zu]", tensor.shape[0]);
        }
        printf("%-28s %12s %12.6f", tensor.name, shape, sqrt(change));
        if (norm > 0) printf(" %10.6f", sqrt(change / norm));
        putchar('\n');
    }
}

int main(int count, char **words)
{
    if (count < 4 || count > 5) fail("usage: %s CHECKPOINT TEXT SAVE [STEPS]", words[0]);
    const char *const path = words[1];
    const uint64_t steps = count > 4 ? number("STEPS", words[4], 1) : 100;

    /* The checkpoint's model and its characters. */
    size_t bytes_size, text_size;
    uint8_t *bytes = read_file(path, &bytes_size), *text = read_file(words[2], &text_size);
    jostle_config config;
    check_about(path, jostle_checkpoint_config(bytes, bytes_size, &config, sizeof config, &error));
    struct vocabulary vocabulary = vocabulary_in(path, bytes, bytes_size, &config);

    /* The text, without characters outside the model's vocabulary. The last tenth is for validation. */
    size_t strangers;
    int32_t *tokens = allocate(text_size * sizeof *tokens);
    size_t length = encode(&vocabulary, words[2], text, text_size, tokens, &strangers);
    size_t training = length - (length + 9) / 10;
    if (training <= config.context) fail("%s is too short: the model knows %zu characters of it", words[2], length);
    printf("%zu characters of text; left out, since the model does not know them: %zu\n", length, strangers);

    /* Parameters alone. The optimiser starts anew, because its moments belong to the other text. */
    jostle_options options;
    jostle_plan plan;
    const uint32_t batch = 12;
    check(jostle_options_init(&options, sizeof options, batch));
    check(jostle_plan_init(&plan, &config, &options, &error));
    void *memory;
    jostle_buffers buffers = allocate_buffers(&plan, &memory);
    jostle_progress progress;
    /* Without the optimiser's state: fine-tuning begins with a new one, and nobody resumes it. */
    jostle_buffers parameters_only = buffers;
    parameters_only.optimizer = NULL;
    check_about(path, jostle_checkpoint_read(bytes, bytes_size, &plan, &parameters_only, &progress, &error));
    float *before = allocate(plan.parameters_size);
    memcpy(before, buffers.parameters, plan.parameters_size);
    struct save file = begin_save(words[3]);

    /* A tenth of train's learning rate. */
    jostle_recipe recipe;
    jostle_trainer trainer;
    check(jostle_recipe_init(&recipe, sizeof recipe));
    recipe.learning_rate = 1e-4f;
    recipe.seed = progress.seed;
    check(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, NULL, &error));
    printf("validation loss %.6f before\n", evaluate(&trainer, tokens + training, length - training));
    for (uint64_t step = 0; step < steps; step++) {
        jostle_report report;
        check(jostle_trainer_step(&trainer, tokens, training * sizeof *tokens, JOSTLE_I32, &report, &error));
        if (step % 20 == 0) {
            printf("step %" PRIu64 "/%" PRIu64 "  loss %.3f\n", step, steps, report.loss);
            fflush(stdout);
        }
    }
    printf("validation loss %.6f after\n", evaluate(&trainer, tokens + training, length - training));
    show_changes(&plan, before, buffers.parameters);

    /* Without the optimiser's state a checkpoint is a third as long. It can be used and fine-tuned, but not resumed. */
    jostle_metadata characters = {CHARACTERS, vocabulary.characters};
    size_t size, written;
    check(jostle_checkpoint_size(&plan, 0, &characters, 1, &size, &error));
    uint8_t *saved = allocate(size);
    progress.step = steps;
    check(jostle_checkpoint_write(&plan, &parameters_only, &progress, &characters, 1, saved, size, &written, &error));
    finish_save(file, saved, written);
    printf("saved to %s\n", words[3]);

    free(bytes);
    free(text);
    free(tokens);
    free(before);
    free(saved);
    free(memory);
    free_vocabulary(vocabulary);
    return 0;
}
