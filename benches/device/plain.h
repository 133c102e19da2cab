/* A training step in plain C, which jostle is compared with on emulated devices. model.h, from jostle-plan, has its
 * sizes. -DLLAMA makes it a Llama instead of a GPT-2. */
#ifndef PLAIN_H
#define PLAIN_H

#include <stddef.h>
#include <stdint.h>

struct plain_recipe {
    float beta1, beta2, epsilon, weight_decay, clip;
    /* The seed of the dropout masks. */
    uint64_t seed;
};

/* The model's parameters, in jostle's order: the caller sets them. */
extern float *const plain_parameters;
extern const size_t plain_parameters_size;

/* Bytes of everything that a step works on, the parameters included. */
extern const size_t plain_memory_size;

/* One step on a batch [B, T], counted from 0: forward, loss, backward, clipping, AdamW. If the optimiser keeps no state, it is
 * plain gradient descent without clipping. Returns the loss. */
float plain_step(const struct plain_recipe *recipe, const int32_t *tokens, const int32_t *targets, uint64_t step,
                 float learning_rate);

#endif
