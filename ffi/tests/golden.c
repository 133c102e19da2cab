/*
 * Compares the library with PyTorch's numbers (core/tests/golden, made by make.py): logits, loss, every gradient, and
 * twenty steps of training. The steps run once with single operations and once with a trainer. core/tests/golden.rs
 * makes the same comparisons and gives reasons for the tolerances.
 *
 *     golden FILE.safetensors...
 */
#include <math.h>

#include "test.h"

static const double LOGITS = 2e-6, GRADIENTS = 5e-6, LOSSES = 1e-6, NORMS = 2e-5;

enum { STEPS = 20 };

/* One golden file: a length, that many bytes of JSON without spaces between its tokens, and data. */
static struct {
    const char *name;
    char *json;
    const unsigned char *data;
    size_t data_size;
} file;

static void read_file(const char *path)
{
    FILE *stream = fopen(path, "rb");
    static unsigned char bytes[1 << 20];
    need(stream != NULL, path);
    size_t size = fread(bytes, 1, sizeof bytes, stream), length = 0;
    fclose(stream);
    need(8 < size && size < sizeof bytes, "a file of a plausible size");
    for (int i = 7; i >= 0; i--)
        length = length << 8 | bytes[i];
    need(length < size - 8, "a header");
    static char json[1 << 16];
    need(length < sizeof json, "room for the header");
    memcpy(json, bytes + 8, length);
    json[length] = 0;
    file.name = path;
    file.json = json;
    file.data = bytes + 8 + length;
    file.data_size = size - 8 - length;
}

/* The text behind "key": in the header, or NULL. */
static const char *optional(const char *key)
{
    char quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *found = strstr(file.json, quoted);
    return found ? found + strlen(quoted) : NULL;
}

static const char *value(const char *key)
{
    const char *found = optional(key);
    need(found != NULL, key);
    return found;
}

static int is(const char *key, const char *wanted)
{
    const char *text = optional(key);
    return text && strncmp(text + 1, wanted, strlen(wanted)) == 0 && text[1 + strlen(wanted)] == '"';
}

static uint32_t integer(const char *key) { return (uint32_t)strtoul(value(key) + 1, NULL, 10); }
static float real(const char *key) { return strtof(value(key) + 1, NULL); }

/* The `count` numbers of a tensor, which are float or int32_t, as `type` says. */
static void *numbers(const char *name, const char *type, size_t count)
{
    const char *entry = value(name);
    char dtype[40];
    snprintf(dtype, sizeof dtype, "{\"dtype\":\"%s\"", type);
    need(strncmp(entry, dtype, strlen(dtype)) == 0, name);
    char *end;
    const char *offsets = strstr(entry, "\"data_offsets\":[");
    need(offsets != NULL, name);
    size_t first = strtoul(offsets + 16, &end, 10), last = strtoul(end + 1, NULL, 10);
    need(last <= file.data_size && last - first == 4 * count, name);
    uint32_t *words = malloc(4 * count);
    need(words != NULL, "memory");
    for (size_t i = 0; i < count; i++) {
        const unsigned char *b = file.data + first + 4 * i;
        words[i] = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    }
    return words;
}

static float *floats(const char *name, size_t count) { return numbers(name, "F32", count); }
static int32_t *integers(const char *name, size_t count) { return numbers(name, "I32", count); }

/* Memory of exactly this size, filled with NaN, so that a read before the first write shows. */
static float *memory(size_t bytes)
{
    float *x = malloc(bytes ? bytes : 1);
    need(x != NULL, "memory");
    for (size_t i = 0; i < bytes / sizeof *x; i++)
        x[i] = NAN;
    return x;
}

/* The norm of the difference over the norm of the wanted values. */
static double relative_error(const float *given, const float *wanted, size_t count)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)given[i] - wanted[i]) * ((double)given[i] - wanted[i]);
        size += (double)wanted[i] * wanted[i];
    }
    check(size > 0, "the reference is zero: nothing can be wrong about it");
    return sqrt(difference) / sqrt(size);
}

/* The largest relative error of any element; not a number if any is not. */
static double worst_element(const float *given, const float *wanted, size_t count)
{
    double worst = 0;
    for (size_t i = 0; i < count; i++) {
        double error = relative_error(given + i, wanted + i, 1);
        if (!isnan(worst) && !(error <= worst))
            worst = error;
    }
    return worst;
}

static double within(const char *what, double error, double tolerance)
{
    check(error <= tolerance, "%s: %s: %.1e > %.0e", file.name, what, error, tolerance);
    return error;
}

static size_t counted(const int32_t *targets, size_t rows)
{
    size_t count = 0;
    for (size_t i = 0; i < rows; i++)
        count += targets[i] != -1;
    return count;
}

static float mean(jostle_loss loss) { return (float)(loss.sum / (double)loss.counted); }

static jostle_config config;
static jostle_plan plan;
static jostle_recipe recipe;
static size_t sequences, length, rows;
/* The parameters that adapters do not train. */
static float *frozen;

static void settings(void)
{
    jostle_options options;
    jostle_error e;
    need(jostle_config_init(&config, sizeof config, integer("vocab"), integer("context"), integer("layers"),
                            integer("heads"), integer("width")) == JOSTLE_OK, "config");
    config.hidden = integer("hidden");
    static const char *const activations[] = {"gelu", "gelu_tanh", "swiglu"};
    for (config.activation = 0; !is("activation", activations[config.activation]); config.activation++)
        need(config.activation < 2, "activation");
    config.bias = is("bias", "true");
    config.tied = is("tied", "true");
    /* Files have the settings of the Llama family only where they differ from GPT-2's. */
    config.norm = is("norm", "rms");
    config.positions = is("positions", "rotary");
    config.qkv_bias = is("qkv_bias", "true");
    config.qk_norm = is("qk_norm", "true");
    const struct { const char *key; uint32_t *place; } sizes[] = {{"kv_heads", &config.kv_heads},
        {"head_width", &config.head_width}, {"rope_original_context", &config.rope_original_context}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (optional(sizes[i].key))
            *sizes[i].place = integer(sizes[i].key);
    const struct { const char *key; float *place; } reals[] = {{"rope_theta", &config.rope_theta},
        {"rope_factor", &config.rope_factor}, {"rope_low_freq_factor", &config.rope_low_freq_factor},
        {"rope_high_freq_factor", &config.rope_high_freq_factor}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (optional(reals[i].key))
            *reals[i].place = real(reals[i].key);
#define MATRIX(name) {"lora_" #name "_rank", "lora_" #name "_alpha", &config.lora_##name##_rank, &config.lora_##name##_alpha}
    const struct { const char *rank_key, *alpha_key; uint32_t *rank; float *alpha; } matrices[] = {
        MATRIX(qkv), MATRIX(q), MATRIX(k), MATRIX(v), MATRIX(o), MATRIX(gate), MATRIX(up), MATRIX(down)};
    uint32_t adapters = 0;
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        if (optional(matrices[i].rank_key)) {
            adapters += *matrices[i].rank = integer(matrices[i].rank_key);
            *matrices[i].alpha = real(matrices[i].alpha_key);
        }
    config.lora_rslora = is("lora_rslora", "true");
    config.norm_epsilon = real("norm_epsilon");
    sequences = integer("batch");
    length = integer("length");
    rows = sequences * length;
    need(jostle_options_init(&options, sizeof options, (uint32_t)sequences) == JOSTLE_OK, "options");
    options.freeze_base = adapters > 0;
    ok(jostle_plan_init(&plan, &config, &options, &e), &e, "plan");
    need(jostle_recipe_init(&recipe, sizeof recipe) == JOSTLE_OK, "recipe");
    recipe.learning_rate = real("learning_rate");
    recipe.beta1 = real("beta1");
    recipe.beta2 = real("beta2");
    recipe.epsilon = real("epsilon");
    recipe.weight_decay = real("weight_decay");
    recipe.clip = real("clip");
}

static jostle_tensor tensor(size_t index, float *values)
{
    jostle_tensor found;
    jostle_error e;
    ok(jostle_plan_tensor(&plan, index, values, values ? plan.parameters_size : 0, &found, &e), &e, "tensor");
    return found;
}

/* The parameters that are trained, those that are frozen or, with the prefix "grad.", all gradients, in the order of the
 * library's buffer. */
static float *parameters(const char *prefix, uint32_t of_frozen)
{
    float *all = memory(of_frozen ? plan.frozen_size : plan.parameters_size);
    for (size_t i = 0; i < plan.tensor_count; i++) {
        jostle_tensor t = tensor(i, NULL);
        if (t.frozen != of_frozen)
            continue;
        char name[80], shape[80];
        snprintf(name, sizeof name, "%s%s", prefix, t.name);
        float *x = floats(name, t.count);
        if (t.rank == 1)
            snprintf(shape, sizeof shape, "{\"dtype\":\"F32\",\"shape\":[%zu],", t.shape[0]);
        else
            snprintf(shape, sizeof shape, "{\"dtype\":\"F32\",\"shape\":[%zu,%zu],", t.shape[0], t.shape[1]);
        check(strncmp(value(name), shape, strlen(shape)) == 0, "%s: another shape", name);
        memcpy(all + t.offset, x, t.count * sizeof *x);
        free(x);
    }
    return all;
}

static jostle_batch batch(const int32_t *tokens, const int32_t *targets)
{
    size_t size = rows * sizeof *tokens;
    return (jostle_batch){tokens, size, targets, size, sequences, length};
}

static jostle_loss backward(float *x, float *gradients, float *workspace, jostle_batch batch)
{
    jostle_loss loss;
    jostle_error e;
    const jostle_buffers buffers = {
        .struct_size = sizeof buffers,
        .parameters = x, .parameters_size = plan.parameters_size,
        .frozen = frozen, .frozen_size = plan.frozen_size,
        .gradients = gradients, .gradients_size = plan.gradients_size,
        .workspace = workspace, .workspace_size = plan.workspace_size,
    };
    ok(jostle_model_backward(&plan, NULL, &buffers, 0, &batch, counted(batch.targets, rows), NULL, &loss, &e), &e,
       "backward");
    check(loss.counted == counted(batch.targets, rows), "%d targets count", (int)loss.counted);
    return loss;
}

/* Logits, loss and gradients of one batch; returns the worst gradient's error. */
static double one_batch(float *x, float *gradients, float *workspace, double *logits_error)
{
    jostle_error e;
    const float *logits;
    jostle_loss evaluated, loss;
    int32_t *tokens = integers("tokens", rows), *targets = integers("targets", rows);
    jostle_batch b = batch(tokens, targets);

    float *wanted = floats("logits", rows * config.vocab);
    const jostle_buffers buffers = {
        .struct_size = sizeof buffers,
        .parameters = x, .parameters_size = plan.parameters_size,
        .frozen = frozen, .frozen_size = plan.frozen_size,
        .workspace = workspace, .workspace_size = plan.workspace_size,
    };
    ok(jostle_model_logits(&plan, NULL, &buffers, &b, &logits, &e), &e, "logits");
    *logits_error = within("logits", relative_error(logits, wanted, rows * config.vocab), LOGITS);
    free(wanted);

    ok(jostle_model_loss(&plan, NULL, &buffers, &b, &evaluated, &e), &e, "loss");
    loss = backward(x, gradients, workspace, b);
    wanted = floats("loss", 1);
    within("evaluated loss", relative_error(&(float){mean(evaluated)}, wanted, 1), LOSSES);
    within("loss", relative_error(&(float){mean(loss)}, wanted, 1), LOSSES);
    free(wanted);

    wanted = parameters("grad.", 0);
    double worst = 0;
    for (size_t i = 0; i < plan.tensor_count; i++) {
        jostle_tensor t = tensor(i, gradients);
        if (t.frozen)
            continue;
        double error = within(t.name, relative_error(t.data, wanted + t.offset, t.count), GRADIENTS);
        worst = error > worst ? error : worst;
    }
    free(wanted);
    free(tokens);
    free(targets);
    return worst;
}

/* Twenty steps with single operations. */
static void train_by_hand(float *x, float *gradients, float *workspace, float *losses, float *norms)
{
    int32_t *tokens = integers("train_tokens", STEPS * rows), *targets = integers("train_targets", STEPS * rows);
    /* For each tensor its first moments, then its second moments. */
    float *state = calloc(plan.optimizer_size, 1);
    jostle_error e;
    need(state != NULL, "memory");
    for (size_t step = 0; step < STEPS; step++) {
        losses[step] = mean(backward(x, gradients, workspace, batch(tokens + step * rows, targets + step * rows)));
        ok(jostle_gradient_norm(NULL, plan.parameter_count, gradients, plan.gradients_size, &norms[step], &e), &e, "norm");
        float factor = jostle_clip_factor(norms[step], recipe.clip);
        for (size_t i = 0; i < plan.tensor_count; i++) {
            jostle_tensor t = tensor(i, NULL);
            if (t.frozen)
                continue;
            size_t size = t.count * sizeof *x;
            ok(jostle_optimizer_update(NULL, &recipe, t.count, x + t.offset, size, gradients + t.offset, size,
                                       state + 2 * t.offset, 2 * size, t.rank == 2, step, recipe.learning_rate, factor,
                                       &e),
               &e, "update");
        }
    }
    free(state);
    free(tokens);
    free(targets);
}

/* The same with a trainer. */
static void train(float *x, float *gradients, float *workspace, float *losses, float *norms)
{
    int32_t *tokens = integers("train_tokens", STEPS * rows), *targets = integers("train_targets", STEPS * rows);
    jostle_buffers buffers = {
        .struct_size = sizeof buffers,
        .parameters = x, .parameters_size = plan.parameters_size,
        .frozen = frozen, .frozen_size = plan.frozen_size,
        .gradients = gradients, .gradients_size = plan.gradients_size,
        .optimizer = calloc(plan.optimizer_size, 1), .optimizer_size = plan.optimizer_size,
        .workspace = workspace, .workspace_size = plan.workspace_size,
        .batch = malloc(plan.batch_size), .batch_size = plan.batch_size,
    };
    jostle_trainer trainer;
    jostle_error e;
    need(buffers.optimizer != NULL && buffers.batch != NULL, "memory");
    ok(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, NULL, &e), &e, "trainer");
    for (size_t step = 0; step < STEPS; step++) {
        jostle_batch b = batch(tokens + step * rows, targets + step * rows);
        jostle_loss loss;
        jostle_report report;
        ok(jostle_trainer_accumulate(&trainer, &b, counted(b.targets, rows), &loss, &e), &e, "accumulate");
        ok(jostle_trainer_update(&trainer, &loss, &report, &e), &e, "update");
        check(report.step == step && report.learning_rate == recipe.learning_rate, "step %zu's report", step);
        losses[step] = report.loss;
        norms[step] = report.gradient_norm;
    }
    free(buffers.optimizer);
    free(buffers.batch);
    free(tokens);
    free(targets);
}

static void compare(const char *path)
{
    read_file(path);
    settings();
    frozen = parameters("", 1);
    float *x = parameters("", 0), *gradients = memory(plan.gradients_size), *workspace = memory(plan.workspace_size);
    double logits;
    double gradient = one_batch(x, gradients, workspace, &logits);

    float losses[2][STEPS], norms[2][STEPS];
    train_by_hand(x, gradients, workspace, losses[0], norms[0]);
    float *again = parameters("", 0);
    train(again, gradients, workspace, losses[1], norms[1]);
    check(memcmp(x, again, plan.parameters_size) == 0, "%s: the trainer ends in other bits", path);

    float *wanted_losses = floats("losses", STEPS), *wanted_norms = floats("norms", STEPS);
    double loss = 0, norm = 0;
    for (int i = 0; i < 2; i++) {
        loss = within("losses", worst_element(losses[i], wanted_losses, STEPS), LOSSES);
        norm = within("norms", worst_element(norms[i], wanted_norms, STEPS), NORMS);
    }
    const char *slash = strrchr(path, '/');
    printf("%s: logits %.1e, losses %.1e, norms %.1e, worst gradient %.1e\n", slash ? slash + 1 : path, logits, loss,
           norm, gradient);
    free(wanted_losses);
    free(wanted_norms);
    free(x);
    free(frozen);
    free(again);
    free(gradients);
    free(workspace);
}

int main(int argc, char **argv)
{
    need(argc > 1, "golden files to read");
    for (int i = 1; i < argc; i++)
        compare(argv[i]);
    return finish("golden");
}
