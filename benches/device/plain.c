/* A training step as in a textbook: arrays, loops, all activations kept, sizes known to the compiler. Reductions run in
 * registers. */
#include "plain.h"

#include <math.h>

#include "model.h"

enum {
    B = MODEL_BATCH, T = MODEL_CONTEXT, R = B * T, L = MODEL_LAYERS, C = MODEL_WIDTH, H = MODEL_HEADS, F = MODEL_HIDDEN,
    V = MODEL_VOCAB
};

/* For the dropout masks. */
static uint64_t seed, now;

#ifdef LLAMA
#include "plain_llama.h"
#else
#include "plain_gpt2.h"
#endif

enum { PARAMETERS = sizeof parameters / sizeof(float) };

static struct parameters first, second;

float *const plain_parameters = (float *)&parameters;
const size_t plain_parameters_size = sizeof parameters;
const size_t plain_memory_size =
    (MODEL_OPTIMIZER == JOSTLE_STATE_NONE ? 2 : 4) * sizeof parameters + sizeof a;

/* Overwrites the logits with their gradient. */
static float cross_entropy(const int32_t *targets)
{
    float loss = 0;
    for (int r = 0; r < R; r++) {
        float *x = a.logits[r], greatest = -1e30f, sum = 0;
        for (int v = 0; v < V; v++)
            if (x[v] > greatest) greatest = x[v];
        loss += greatest - x[targets[r]];
        for (int v = 0; v < V; v++) sum += x[v] = expf(x[v] - greatest);
        loss += logf(sum);
        for (int v = 0; v < V; v++) x[v] = (x[v] / sum - (v == targets[r])) / R;
    }
    return loss / R;
}

/* One array's part of the update. */
static void adamw(size_t offset, size_t count, float decay, const struct plain_recipe *recipe, uint64_t step,
                  float rate, float clipping)
{
    float *x = (float *)&parameters + offset, *m = (float *)&first + offset, *v = (float *)&second + offset;
    const float *g = (const float *)&gradients + offset, beta1 = recipe->beta1, beta2 = recipe->beta2;
    const float correction1 = 1 - powf(beta1, (float)step + 1), correction2 = 1 - powf(beta2, (float)step + 1);
    const float size = rate / correction1, scale = 1 / sqrtf(correction2), epsilon = recipe->epsilon;
    for (size_t i = 0; i < count; i++) {
        const float d = g[i] * clipping;
        m[i] = beta1 * m[i] + (1 - beta1) * d;
        v[i] = beta2 * v[i] + (1 - beta2) * d * d;
        x[i] = x[i] * (1 - rate * decay) - size * m[i] / (sqrtf(v[i]) * scale + epsilon);
    }
}

static void update(const struct plain_recipe *recipe, uint64_t step, float rate)
{
    float *x = (float *)&parameters, squares = 0;
    const float *g = (const float *)&gradients;
    if (MODEL_OPTIMIZER == JOSTLE_STATE_NONE) {
        for (size_t i = 0; i < PARAMETERS; i++) x[i] -= rate * g[i];
        return;
    }
    for (size_t i = 0; i < PARAMETERS; i++) squares += g[i] * g[i];
    const float norm = sqrtf(squares), clipping = norm > recipe->clip ? recipe->clip / (norm + 1e-6f) : 1;
    const float decay = recipe->weight_decay;
    const struct {
        size_t count;
        int decays;
    } block[] = {BLOCK};
    enum { TENSORS = sizeof block / sizeof *block };
    size_t offset = EMBEDDINGS;
    adamw(0, offset, decay, recipe, step, rate, clipping);
    for (int i = 0; i < L * TENSORS; i++) {
        adamw(offset, block[i % TENSORS].count, block[i % TENSORS].decays ? decay : 0, recipe, step, rate, clipping);
        offset += block[i % TENSORS].count;
    }
    adamw(offset, FINAL_NORM, 0, recipe, step, rate, clipping);
#if !MODEL_TIED
    adamw(offset + FINAL_NORM, V * C, decay, recipe, step, rate, clipping);
#endif
}

float plain_step(const struct plain_recipe *recipe, const int32_t *tokens, const int32_t *targets, uint64_t step,
                 float learning_rate)
{
    seed = recipe->seed;
    now = step;
    forward(tokens);
    const float loss = cross_entropy(targets);
    backward(tokens);
    update(recipe, step, learning_rate);
    return loss;
}
