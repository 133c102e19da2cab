/*
 * A transformer by hand: GPT-2 with two layers, forward and backward, from the single operations, trained on the
 * bytes of a text. Nothing is hidden: this file is the whole of training.
 *
 *     by_hand TEXT [STEPS]
 *
 * The library does forward and backward in one call, jostle_model_backward, and updates in a jostle_trainer. At every
 * step the program compares its loss, gradients and parameters with the library's: they must be equal bit for bit. That
 * is possible because each operation states its order of additions, and dropout masks are functions of their position.
 */

#include "common.h"

/* Sequences in a batch, tokens in a sequence, width, heads, layers, hidden width, vocabulary (all bytes). */
enum { B = 4, T = 32, C = 32, H = 2, L = 2, F = 4 * C, V = 256 };

static const float EPSILON = 1e-5f, DROPOUT = 0.1f, CLIP = 1.0f;
static const uint64_t SEED = 1337;

/* An array as two arguments, its address and its size in bytes. The library refuses one that is too short. */
#define ARRAY(x) (x), sizeof(x)

/* All parameters, in jostle's order and without gaps, so that a struct of arrays describes them. The gradients have
 * the same layout. Weights are [in, out]. */
struct block {
    float ln_1_weight[C], ln_1_bias[C];
    float c_attn_weight[C * 3 * C], c_attn_bias[3 * C];
    float c_proj_weight[C * C], c_proj_bias[C];
    float ln_2_weight[C], ln_2_bias[C];
    float c_fc_weight[C * F], c_fc_bias[F];
    float mlp_c_proj_weight[F * C], mlp_c_proj_bias[C];
};

struct model {
    float wte[V * C], wpe[T * C];
    struct block h[L];
    float ln_f_weight[C], ln_f_bias[C];
};

static struct model parameters, gradients;

/* The activations of one sequence, which forward keeps for backward. First, for each layer: */
static struct layer {
    float ln_1[T * C], ln_1_mean[T], ln_1_rstd[T];
    float qkv[T * 3 * C];
    float attended[T * C], stats[H * T * 2];
    float middle[T * C]; /* the residual stream between attention and MLP */
    float ln_2[T * C], ln_2_mean[T], ln_2_rstd[T];
    float hidden[T * F], activated[T * F];
} layers[L];
static float x[L + 1][T * C]; /* the residual stream before each layer, and after the last */
static float ln_f[T * C], ln_f_mean[T], ln_f_rstd[T];
static float logits[T * V], losses[T];

/* The output of attention or MLP before dropout, and after it: the second is added to the residual stream. */
static float branch[T * C], dropped[T * C];

/* Scratch of the products and of attention. */
static float *scratch;
static size_t scratch_size;

/* One sequence of one step. */
struct sequence {
    int32_t tokens[T], targets[T];
    uint64_t step;
    uint64_t number; /* in the step's batch */
};

/* These numbers determine a mask. Backward computes the same mask again, so nothing is stored. */
static jostle_mask mask(uint32_t stream, uint64_t layer, const struct sequence *s)
{
    jostle_mask mask = {
        .struct_size = sizeof mask, .rate = DROPOUT, .stream = stream,
        .seed = SEED, .step = s->step, .layer = layer, .sequence = s->number,
    };
    return mask;
}

static void dropout(uint32_t stream, uint64_t layer, const struct sequence *s, float y[T * C], const float from[T * C])
{
    jostle_mask m = mask(stream, layer, s);
    size_t size = T * C * sizeof *y;
    check(jostle_dropout(NULL, T, C, &m, y, size, from, size, &error));
}

static void add(float sum[T * C], const float a[T * C], const float b[T * C])
{
    for (int i = 0; i < T * C; i++) sum[i] = a[i] + b[i];
}

/* From tokens to logits and losses. Returns the sum of losses. The first argument of all calls, NULL, stands for the
 * fastest instruction set on this thread. */
static double forward(const struct sequence *s, double sum)
{
    const struct model *p = &parameters;

    /* x = dropout(token's embedding + position's embedding) */
    check(jostle_embedding_forward(NULL, T, T, C, V, T, ARRAY(branch), ARRAY(s->tokens), ARRAY(p->wte), ARRAY(p->wpe),
                                   &error));
    dropout(JOSTLE_EMBEDDING_DROPOUT, 0, s, x[0], branch);

    for (int l = 0; l < L; l++) {
        const struct block *b = &p->h[l];
        struct layer *a = &layers[l];
        jostle_mask attention = mask(JOSTLE_ATTENTION_DROPOUT, (uint64_t)l, s);

        /* Attention, across tokens: middle = x + dropout(projection(attention(norm(x)))) */
        check(jostle_layer_norm_forward(NULL, T, C, EPSILON, ARRAY(a->ln_1), ARRAY(a->ln_1_mean), ARRAY(a->ln_1_rstd),
                                        ARRAY(x[l]), ARRAY(b->ln_1_weight), ARRAY(b->ln_1_bias), &error));
        check(jostle_linear_forward(NULL, T, C, 3 * C, ARRAY(a->qkv), ARRAY(a->ln_1), ARRAY(b->c_attn_weight),
                                    ARRAY(b->c_attn_bias), scratch, scratch_size, &error));
        check(jostle_attention_forward(NULL, T, C, H, &attention, ARRAY(a->attended), ARRAY(a->stats), ARRAY(a->qkv),
                                       scratch, scratch_size, &error));
        check(jostle_linear_forward(NULL, T, C, C, ARRAY(branch), ARRAY(a->attended), ARRAY(b->c_proj_weight),
                                    ARRAY(b->c_proj_bias), scratch, scratch_size, &error));
        dropout(JOSTLE_ATTENTION_PROJECTION_DROPOUT, (uint64_t)l, s, dropped, branch);
        add(a->middle, x[l], dropped);

        /* The MLP, each token for itself: out = middle + dropout(projection(gelu(c_fc(norm(middle))))) */
        check(jostle_layer_norm_forward(NULL, T, C, EPSILON, ARRAY(a->ln_2), ARRAY(a->ln_2_mean), ARRAY(a->ln_2_rstd),
                                        ARRAY(a->middle), ARRAY(b->ln_2_weight), ARRAY(b->ln_2_bias), &error));
        check(jostle_linear_forward(NULL, T, C, F, ARRAY(a->hidden), ARRAY(a->ln_2), ARRAY(b->c_fc_weight),
                                    ARRAY(b->c_fc_bias), scratch, scratch_size, &error));
        check(jostle_gelu_forward(NULL, T * F, JOSTLE_GELU, ARRAY(a->activated), ARRAY(a->hidden), &error));
        check(jostle_linear_forward(NULL, T, F, C, ARRAY(branch), ARRAY(a->activated), ARRAY(b->mlp_c_proj_weight),
                                    ARRAY(b->mlp_c_proj_bias), scratch, scratch_size, &error));
        dropout(JOSTLE_MLP_PROJECTION_DROPOUT, (uint64_t)l, s, dropped, branch);
        add(x[l + 1], a->middle, dropped);
    }

    /* logits = norm(x) wte^T. The head is tied: its matrix is the token embedding, [V, C]. Exchanged strides transpose
     * it. */
    check(jostle_layer_norm_forward(NULL, T, C, EPSILON, ARRAY(ln_f), ARRAY(ln_f_mean), ARRAY(ln_f_rstd), ARRAY(x[L]),
                                    ARRAY(p->ln_f_weight), ARRAY(p->ln_f_bias), &error));
    jostle_matrix normed = {ARRAY(ln_f), C, 1}, head_transposed = {ARRAY(p->wte), 1, C};
    check(jostle_matmul(NULL, T, V, C, ARRAY(logits), V, JOSTLE_START_ZERO, NULL, 0, &normed, &head_transposed,
                        scratch, scratch_size, &error));
    check(jostle_cross_entropy_forward(NULL, T, V, ARRAY(losses), ARRAY(logits), ARRAY(s->targets), &error));
    for (int t = 0; t < T; t++) sum += losses[t];
    return sum;
}

/* From the losses to the gradient of every parameter, in the opposite order. d_x is the gradient of x. Gradients of
 * activations are overwritten. Gradients of parameters are added to the sum over earlier sequences. */
static void backward(const struct sequence *s)
{
    static float d_x[T * C]; /* the gradient of the residual stream, from the last layer to the first */
    static float d_branch[T * C], d_normed[T * C];
    static float d_attended[T * C], d_qkv[T * 3 * C];
    static float d_activated[T * F], d_hidden[T * F];
    const struct model *p = &parameters;
    struct model *g = &gradients;

    /* The loss is a mean over all targets of the batch. `logits` becomes its own gradient. */
    check(jostle_cross_entropy_backward(NULL, T, V, B * T, ARRAY(losses), ARRAY(logits), ARRAY(s->targets), &error));
    jostle_matrix d_logits = {ARRAY(logits), V, 1}, d_logits_transposed = {ARRAY(logits), 1, V};
    jostle_matrix normed = {ARRAY(ln_f), C, 1}, head = {ARRAY(p->wte), C, 1};
    check(jostle_matmul(NULL, T, C, V, ARRAY(d_normed), C, JOSTLE_START_ZERO, NULL, 0, &d_logits, &head, scratch,
                        scratch_size, &error));
    check(jostle_matmul(NULL, V, C, T, ARRAY(g->wte), C, JOSTLE_START_ACCUMULATE, NULL, 0, &d_logits_transposed,
                        &normed, scratch, scratch_size, &error));
    memset(d_x, 0, sizeof d_x);
    check(jostle_layer_norm_backward(NULL, T, C, ARRAY(d_x), ARRAY(d_normed), ARRAY(x[L]), ARRAY(ln_f_mean),
                                     ARRAY(ln_f_rstd), ARRAY(p->ln_f_weight), &error));
    check(jostle_layer_norm_backward_parameters(NULL, T, C, ARRAY(g->ln_f_weight), ARRAY(g->ln_f_bias),
                                                ARRAY(d_normed), ARRAY(x[L]), ARRAY(ln_f_mean), ARRAY(ln_f_rstd),
                                                &error));

    for (int l = L - 1; l >= 0; l--) {
        const struct block *b = &p->h[l];
        struct block *d = &g->h[l];
        const struct layer *a = &layers[l];
        jostle_mask attention = mask(JOSTLE_ATTENTION_DROPOUT, (uint64_t)l, s);

        /* The MLP. The gradient of the residual sum passes around it unchanged, and the gradient through it is added.
         * That is why jostle_layer_norm_backward adds to d_x. */
        dropout(JOSTLE_MLP_PROJECTION_DROPOUT, (uint64_t)l, s, d_branch, d_x);
        check(jostle_linear_backward(NULL, T, F, C, ARRAY(d_activated), ARRAY(d_branch), ARRAY(b->mlp_c_proj_weight),
                                     scratch, scratch_size, &error));
        check(jostle_linear_backward_parameters(NULL, T, F, C, ARRAY(d->mlp_c_proj_weight), ARRAY(d->mlp_c_proj_bias),
                                                ARRAY(a->activated), ARRAY(d_branch), scratch, scratch_size, &error));
        check(jostle_gelu_backward(NULL, T * F, JOSTLE_GELU, ARRAY(d_hidden), ARRAY(d_activated), ARRAY(a->hidden),
                                   &error));
        check(jostle_linear_backward(NULL, T, C, F, ARRAY(d_normed), ARRAY(d_hidden), ARRAY(b->c_fc_weight), scratch,
                                     scratch_size, &error));
        check(jostle_linear_backward_parameters(NULL, T, C, F, ARRAY(d->c_fc_weight), ARRAY(d->c_fc_bias),
                                                ARRAY(a->ln_2), ARRAY(d_hidden), scratch, scratch_size, &error));
        check(jostle_layer_norm_backward(NULL, T, C, ARRAY(d_x), ARRAY(d_normed), ARRAY(a->middle),
                                         ARRAY(a->ln_2_mean), ARRAY(a->ln_2_rstd), ARRAY(b->ln_2_weight), &error));
        check(jostle_layer_norm_backward_parameters(NULL, T, C, ARRAY(d->ln_2_weight), ARRAY(d->ln_2_bias),
                                                    ARRAY(d_normed), ARRAY(a->middle), ARRAY(a->ln_2_mean),
                                                    ARRAY(a->ln_2_rstd), &error));

        /* Attention. */
        dropout(JOSTLE_ATTENTION_PROJECTION_DROPOUT, (uint64_t)l, s, d_branch, d_x);
        check(jostle_linear_backward(NULL, T, C, C, ARRAY(d_attended), ARRAY(d_branch), ARRAY(b->c_proj_weight),
                                     scratch, scratch_size, &error));
        check(jostle_linear_backward_parameters(NULL, T, C, C, ARRAY(d->c_proj_weight), ARRAY(d->c_proj_bias),
                                                ARRAY(a->attended), ARRAY(d_branch), scratch, scratch_size, &error));
        check(jostle_attention_backward(NULL, T, C, H, &attention, ARRAY(d_qkv), ARRAY(d_attended), ARRAY(a->qkv),
                                        ARRAY(a->attended), ARRAY(a->stats), scratch, scratch_size, &error));
        check(jostle_linear_backward(NULL, T, C, 3 * C, ARRAY(d_normed), ARRAY(d_qkv), ARRAY(b->c_attn_weight),
                                     scratch, scratch_size, &error));
        check(jostle_linear_backward_parameters(NULL, T, C, 3 * C, ARRAY(d->c_attn_weight), ARRAY(d->c_attn_bias),
                                                ARRAY(a->ln_1), ARRAY(d_qkv), scratch, scratch_size, &error));
        check(jostle_layer_norm_backward(NULL, T, C, ARRAY(d_x), ARRAY(d_normed), ARRAY(x[l]), ARRAY(a->ln_1_mean),
                                         ARRAY(a->ln_1_rstd), ARRAY(b->ln_1_weight), &error));
        check(jostle_layer_norm_backward_parameters(NULL, T, C, ARRAY(d->ln_1_weight), ARRAY(d->ln_1_bias),
                                                    ARRAY(d_normed), ARRAY(x[l]), ARRAY(a->ln_1_mean),
                                                    ARRAY(a->ln_1_rstd), &error));
    }

    /* The embeddings. The tied matrix gets a gradient from the head, and then one from here, sequence after sequence.
     * Sums of floats depend on their order, and this is jostle's order. */
    dropout(JOSTLE_EMBEDDING_DROPOUT, 0, s, d_branch, d_x);
    check(jostle_embedding_backward(NULL, T, T, C, V, T, ARRAY(g->wte), ARRAY(g->wpe), ARRAY(d_branch),
                                    ARRAY(s->tokens), &error));
}

/* From gradients to new parameters: clips the global norm, then AdamW changes tensor after tensor. */
static void update(const jostle_plan *plan, const jostle_recipe *recipe, uint64_t step)
{
    static float moments[2 * sizeof(struct model) / sizeof(float)]; /* zero before the first step */
    float norm, factor;
    check(jostle_gradient_norm(NULL, plan->parameter_count, (float *)&gradients, sizeof gradients, &norm, &error));
    factor = jostle_clip_factor(norm, CLIP);
    for (size_t i = 0; i < plan->tensor_count; i++) {
        jostle_tensor tensor, gradient;
        check(jostle_plan_tensor(plan, i, (float *)&parameters, sizeof parameters, &tensor, &error));
        check(jostle_plan_tensor(plan, i, (float *)&gradients, sizeof gradients, &gradient, &error));
        size_t size = tensor.count * sizeof(float);
        check(jostle_optimizer_update(NULL, recipe, tensor.count, tensor.data, size, gradient.data, size,
                                      moments + 2 * tensor.offset, 2 * size, tensor.rank == 2, step,
                                      recipe->learning_rate, factor, &error));
    }
}

/* A batch: consecutive windows of the text, which start over at its end. The targets are the tokens one place
 * later. */
static void fill(struct sequence batch[B], const uint8_t *text, size_t size, uint64_t step)
{
    for (uint64_t b = 0; b < B; b++) {
        size_t first = (size_t)((step * B + b) * T % (size - T));
        batch[b].step = step;
        batch[b].number = b;
        for (size_t t = 0; t < T; t++) {
            batch[b].tokens[t] = text[first + t];
            batch[b].targets[t] = text[first + t + 1];
        }
    }
}

/* Ends the program if the library's numbers differ. */
static void compare(const char *what, const jostle_plan *plan, const struct model *ours, const float *theirs)
{
    for (size_t i = 0; i < plan->tensor_count; i++) {
        jostle_tensor tensor;
        check(jostle_plan_tensor(plan, i, NULL, 0, &tensor, &error));
        if (memcmp((const float *)ours + tensor.offset, theirs + tensor.offset, tensor.count * sizeof *theirs) != 0) {
            fail("the %s of %s differ from the library's", what, tensor.name);
        }
    }
}

int main(int count, char **words)
{
    size_t text_size;
    if (count < 2 || count > 3) fail("usage: %s TEXT [STEPS]", words[0]);
    uint8_t *text = read_file(words[1], &text_size);
    uint64_t steps = count > 2 ? number("STEPS", words[2], 1) : 200;
    if (text_size <= T) fail("%s has %zu bytes; at least %d are needed", words[1], text_size, T + 1);

    /* The same model, described to the library. */
    jostle_config config;
    jostle_options options;
    jostle_recipe recipe;
    jostle_plan plan;
    check(jostle_config_init(&config, sizeof config, V, T, L, H, C));
    config.embedding_dropout = config.attention_dropout = DROPOUT;
    config.attention_projection_dropout = config.mlp_projection_dropout = DROPOUT;
    check(jostle_options_init(&options, sizeof options, B));
    check(jostle_plan_init(&plan, &config, &options, &error));
    check(jostle_recipe_init(&recipe, sizeof recipe));
    recipe.clip = CLIP;
    recipe.seed = SEED;
    if (plan.parameters_size != sizeof(struct model)) fail("the struct is not the library's model");

    /* No product here is larger than this one, so none needs more scratch. */
    size_t product = jostle_matmul_scratch_size(V, V, V), attention = jostle_attention_scratch_size(T, C);
    scratch_size = product > attention ? product : attention;
    scratch = allocate(scratch_size);

    /* The library's trainer to compare with, from the same initial values. */
    void *memory;
    jostle_buffers buffers = allocate_buffers(&plan, &memory);
    float *expected = allocate(plan.gradients_size);
    jostle_trainer trainer;
    check(jostle_initialize(&plan, (float *)&parameters, sizeof parameters, SEED, &error));
    check(jostle_initialize(&plan, buffers.parameters, buffers.parameters_size, SEED, &error));
    check(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, NULL, &error));

    for (uint64_t step = 0; step < steps; step++) {
        struct sequence batch[B];
        double sum = 0;
        fill(batch, text, text_size, step);

        /* The lesson. */
        memset(&gradients, 0, sizeof gradients);
        for (int b = 0; b < B; b++) {
            sum = forward(&batch[b], sum);
            backward(&batch[b]);
        }

        /* The library, on the same parameters and the same batch. */
        int32_t tokens[B * T], targets[B * T];
        for (int b = 0; b < B; b++) {
            memcpy(tokens + b * T, ARRAY(batch[b].tokens));
            memcpy(targets + b * T, ARRAY(batch[b].targets));
        }
        jostle_batch whole = {ARRAY(tokens), ARRAY(targets), B, T};
        jostle_dropout_key dropout = {.seed = SEED, .step = step, .first_sequence = 0};
        jostle_loss loss;
        jostle_report report;
        jostle_buffers own = buffers;
        own.parameters = (float *)&parameters;
        own.gradients = expected;
        check(jostle_model_backward(&plan, NULL, &own, 0, &whole, B * T, &dropout, &loss, &error));
        if (sum != loss.sum) fail("the loss of step %d differs from the library's", (int)step);
        compare("gradients", &plan, &gradients, expected);

        update(&plan, &recipe, step);
        check(jostle_trainer_accumulate(&trainer, &whole, B * T, &loss, &error));
        check(jostle_trainer_update(&trainer, &loss, &report, &error));
        compare("parameters", &plan, &parameters, buffers.parameters);
        if (step % 20 == 0 || step + 1 == steps) printf("step %d: loss %.4f\n", (int)step, sum / (B * T));
    }
    printf("losses, gradients and parameters of all steps are the library's, bit for bit\n");

    free(text);
    free(scratch);
    free(expected);
    free(memory);
    return 0;
}
