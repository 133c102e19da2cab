/*
 * Bad input to every function. Each pointer is NULL and misaligned; each buffer is too short and overlaps another; each
 * choice is out of range. Sizes overflow, structs are of other versions, and handles were never made. Each gives its own
 * status, and no byte is written that the header doesn't allow.
 *
 * Prints the functions and statuses that were covered, which header.py compares with the header. With FREESTANDING, the
 * library has no pool. mistreat.h makes a call wrong in every way.
 */
#include <float.h>
#include <math.h>

#include "mistreat.h"

/* Correct arguments, which a test makes wrong one by one. */

static jostle_config config;
static jostle_options options;
static jostle_recipe recipe;
static jostle_sampling sampling;
static jostle_compute compute;
static jostle_plan plan;

enum { ROWS = 3, WIDTH = 4, HEADS = 2, VOCAB = 11, CONTEXT = 4, SEQUENCES = 2, INNER = 5 };

static void fixtures(void)
{
    jostle_error e;
    need(jostle_config_init(&config, sizeof config, VOCAB, CONTEXT, 1, HEADS, WIDTH) == JOSTLE_OK, "config");
    need(jostle_options_init(&options, sizeof options, SEQUENCES) == JOSTLE_OK, "options");
    need(jostle_recipe_init(&recipe, sizeof recipe) == JOSTLE_OK, "recipe");
    need(jostle_sampling_init(&sampling, sizeof sampling) == JOSTLE_OK, "sampling");
    need(jostle_compute_init(&compute, sizeof compute) == JOSTLE_OK, "compute");
    ok(jostle_plan_init(&plan, &config, &options, &e), &e, "plan");
}

/* From now on, two tensors are frozen. */
static void freeze(void)
{
    static const char *const names[] = {"wpe.weight", "h.0.attn.c_attn.weight"};
    jostle_error e;
    options.frozen = names;
    options.frozen_count = COUNT(names);
    ok(jostle_plan_init(&plan, &config, &options, &e), &e, "a plan that freezes");
}

/* An instruction set that this processor cannot have. */
#if defined(__aarch64__)
enum { ABSENT = JOSTLE_AVX2 };
#else
enum { ABSENT = JOSTLE_NEON };
#endif

static void add_compute(void)
{
    structure("compute", &compute, sizeof compute)->is |= OPTIONAL;
    find("compute")->alignment = sizeof(void *);
    bad_u32("compute", offsetof(jostle_compute, instruction_set), 5, JOSTLE_UNKNOWN_CHOICE, "instruction_set");
    bad_u32("compute", offsetof(jostle_compute, instruction_set), ABSENT, JOSTLE_INSTRUCTION_SET, "instruction_set");
    bad_u32("compute", offsetof(jostle_compute, threads), 0, JOSTLE_ZERO, "threads");
    bad_u32("compute", offsetof(jostle_compute, threads), 2, JOSTLE_NULL_POINTER, "run");
}

static void add_plan(void)
{
    handle("plan", &plan, sizeof plan, offsetof(jostle_plan, opaque), READ);
}

static void add_recipe(void)
{
    structure("recipe", &recipe, sizeof recipe);
    find("recipe")->alignment = 8;
    bad_u32("recipe", offsetof(jostle_recipe, optimizer), 2, JOSTLE_UNKNOWN_CHOICE, "optimizer");
    bad_float("recipe", offsetof(jostle_recipe, beta1), 1, JOSTLE_OUT_OF_RANGE, "beta1");
    bad_float("recipe", offsetof(jostle_recipe, beta2), NAN, JOSTLE_OUT_OF_RANGE, "beta2");
    bad_float("recipe", offsetof(jostle_recipe, epsilon), 0, JOSTLE_OUT_OF_RANGE, "epsilon");
    bad_float("recipe", offsetof(jostle_recipe, weight_decay), -1, JOSTLE_OUT_OF_RANGE, "weight_decay");
}

static void add_mask(void)
{
    jostle_mask mask = {.struct_size = sizeof mask, .rate = 0.5f, .stream = JOSTLE_ATTENTION_DROPOUT};
    structure("mask", &mask, sizeof mask)->is |= OPTIONAL;
    find("mask")->alignment = 8;
    bad_u32("mask", offsetof(jostle_mask, stream), 3, JOSTLE_UNKNOWN_CHOICE, "stream");
    bad_u32("mask", offsetof(jostle_mask, stream), 8, JOSTLE_UNKNOWN_CHOICE, "stream");
    bad_float("mask", offsetof(jostle_mask, rate), 1, JOSTLE_OUT_OF_RANGE, "rate");
    bad_float("mask", offsetof(jostle_mask, rate), -0.1f, JOSTLE_OUT_OF_RANGE, "rate");
    bad_float("mask", offsetof(jostle_mask, rate), NAN, JOSTLE_OUT_OF_RANGE, "rate");
}

static void add_options(void)
{
    structure("options", &options, sizeof options)->alignment = sizeof(void *);
    if (options.frozen_count == 0)
        return;
    argument("frozen", READ, sizeof(char *), options.frozen_count * sizeof(char *), options.frozen);
    inside(find("frozen"), "options", offsetof(jostle_options, frozen), NULL);
    argument("name", READ, 1, sizeof "wpe.weight", "wpe.weight")->what = "frozen";
    inside(find("name"), "frozen", 0, NULL);
    bad(find("name")->memory, "b", 1, JOSTLE_NOT_FOUND, "bpe.weight");
    bad(find("name")->memory, "\xff", 1, JOSTLE_NOT_UTF8, "frozen");
}

static void add_frozen(int is)
{
    if (plan.frozen_size)
        read_floats("frozen", plan.frozen_size / sizeof(float))->is |= is;
}

static void add_parameters(void)
{
    read_floats("parameters", plan.parameter_count);
    add_frozen(0);
}

/* A jostle_buffers of the buffers that are arguments already; the others are NULL. */
static void add_buffers(void)
{
    static const struct { const char *name; size_t pointer, size; } fields[] = {
#define FIELD(name) {#name, offsetof(jostle_buffers, name), offsetof(jostle_buffers, name##_size)}
        FIELD(parameters), FIELD(frozen), FIELD(gradients), FIELD(optimizer), FIELD(workspace),
#undef FIELD
    };
    const jostle_buffers none = {.struct_size = sizeof none};
    size_t count = argument_count;
    structure("buffers", &none, sizeof none)->alignment = sizeof(void *);
    for (size_t i = 0; i < COUNT(fields); i++)
        for (size_t j = 0; j < count; j++)
            if (strcmp(arguments[j].name, fields[i].name) == 0)
                inside(&arguments[j], "buffers", fields[i].pointer, &fields[i].size);
}

static void add_batch(int targets)
{
    jostle_batch batch = {.sequences = SEQUENCES, .length = ROWS};
    argument("batch", READ, sizeof(size_t), sizeof batch, &batch);
    read_tokens("tokens", SEQUENCES * ROWS);
    INSIDE(find("tokens"), "batch", jostle_batch, tokens);
    bad_u32("tokens", 4, VOCAB, JOSTLE_TOKEN, "token");
    bad_u32("tokens", 4, UINT32_MAX, JOSTLE_TOKEN, "token");
    if (targets) {
        read_tokens("targets", SEQUENCES * ROWS);
        INSIDE(find("targets"), "batch", jostle_batch, targets);
        bad_u32("targets", 8, VOCAB, JOSTLE_TOKEN, "token");
        bad_u32("targets", 8, (uint32_t)-2, JOSTLE_TOKEN, "token");
    }
    bad_size("batch", offsetof(jostle_batch, sequences), 0, JOSTLE_ZERO, "sequences");
    bad_size("batch", offsetof(jostle_batch, length), 0, JOSTLE_ZERO, "length");
    bad_size("batch", offsetof(jostle_batch, sequences), SIZE_MAX, JOSTLE_TOO_LARGE, "tokens");
    bad_size("batch", offsetof(jostle_batch, length), SIZE_MAX / 2, JOSTLE_TOO_LARGE, "tokens");
    bad_size("batch", offsetof(jostle_batch, length), SIZE_MAX / 16, JOSTLE_BUFFER_TOO_SHORT, "tokens");
}

/* Functions without a jostle_error. */

static jostle_status call_compute_init(void) { return CALL(jostle_compute_init)(P("compute"), N("struct_size")); }
static jostle_status call_options_init(void) { return CALL(jostle_options_init)(P("options"), N("struct_size"), 3); }
static jostle_status call_recipe_init(void) { return CALL(jostle_recipe_init)(P("recipe"), N("struct_size")); }
static jostle_status call_sampling_init(void) { return CALL(jostle_sampling_init)(P("sampling"), N("struct_size")); }
static jostle_status call_config_init(void)
{
    return CALL(jostle_config_init)(P("config"), N("struct_size"), VOCAB, CONTEXT, 1, HEADS, WIDTH);
}

static jostle_status call_config_init_llama(void)
{
    return CALL(jostle_config_init_llama)(P("config"), N("struct_size"), VOCAB, CONTEXT, 1, HEADS, 1, WIDTH, WIDTH);
}

static void bad_struct_size(size_t size, const char *what)
{
    bad_number("struct_size", 0, JOSTLE_STRUCT_TOO_SMALL, what);
    bad_number("struct_size", size - 1, JOSTLE_STRUCT_TOO_SMALL, what);
    bad_number("struct_size", size + 1, JOSTLE_STRUCT_TOO_LARGE, what);
    bad_number("struct_size", SIZE_MAX, JOSTLE_STRUCT_TOO_LARGE, what);
}

static void init(const char *function, const char *name, size_t alignment, size_t bytes, jostle_status (*call)(void))
{
    begin();
    tells = 0;
    output(name, alignment, bytes);
    number("struct_size", bytes);
    bad_struct_size(bytes, name);
    exercise(function, call);
}

static jostle_status call_error_message(void)
{
    return CALL(jostle_error_message)(P("error"), P("text"), S("text"));
}

static void test_inits(void)
{
    init("jostle_compute_init", "compute", sizeof(void *), sizeof compute, call_compute_init);
    init("jostle_config_init", "config", 4, sizeof config, call_config_init);
    init("jostle_config_init_llama", "config", 4, sizeof config, call_config_init_llama);
    init("jostle_options_init", "options", 4, sizeof options, call_options_init);
    init("jostle_recipe_init", "recipe", 8, sizeof recipe, call_recipe_init);
    init("jostle_sampling_init", "sampling", 4, sizeof sampling, call_sampling_init);

    begin();
    tells = 0;
    jostle_error e = {.status = JOSTLE_ZERO, .what = "batch"};
    argument("error", READ, 8, sizeof e, &e);
    argument("text", WRITTEN, 1, 40, NULL);
    size_t zero = 0;
    bad(find("text")->size_at, &zero, sizeof zero, JOSTLE_BUFFER_TOO_SHORT, NULL);
    exercise("jostle_error_message", call_error_message);
}

/* Plans. */

static jostle_status call_plan_init(void)
{
    return CALL(jostle_plan_init)(P("plan"), P("config"), P("options"), error);
}

static jostle_status call_plan_fit(void)
{
    return CALL(jostle_plan_fit)(P("plan"), P("config"), P("options"), N("budget"), error);
}

static jostle_status call_plan_tensor(void)
{
    return CALL(jostle_plan_tensor)(P("plan"), N("index"), P("values"), S("values"), P("tensor"), error);
}

static jostle_status call_plan_tensor_named(void)
{
    return CALL(jostle_plan_tensor_named)(P("plan"), P("name"), P("values"), S("values"), P("tensor"), error);
}

static jostle_status call_initialize(void)
{
    return CALL(jostle_initialize)(P("plan"), P("parameters"), S("parameters"), 7, error);
}

static jostle_status call_buffers_init(void)
{
    return CALL(jostle_buffers_init)(P("buffers"), N("struct_size"), P("plan"), P("memory"), S("memory"), error);
}

/* The buffers lie in the block, apart from each other, whatever its first address is. */
static void blocks(void)
{
    enum { MARK = 0xA5 };
    static union {
        unsigned char bytes[1 << 16];
        uint64_t aligned;
    } whole;
    unsigned char *const memory = whole.bytes;
    const size_t size = CALL(jostle_buffers_size)(&plan);
    need(size >= plan.training_size && size + 64 <= sizeof whole, "the size of a block");
    for (size_t at = 0; at < 64; at++) {
        jostle_buffers found;
        jostle_error e;
        memset(memory, MARK, sizeof whole);
        ok(jostle_buffers_init(&found, sizeof found, &plan, memory + at, size, &e), &e, "buffers in a block");
        const struct { void *begin; size_t size, wanted; } parts[] = {
            {found.parameters, found.parameters_size, plan.parameters_size},
            {found.gradients, found.gradients_size, plan.gradients_size},
            {found.optimizer, found.optimizer_size, plan.optimizer_size},
            {found.workspace, found.workspace_size, plan.workspace_size},
            {found.batch, found.batch_size, plan.batch_size},
        };
        unsigned char *end = memory + at;
        for (size_t i = 0; i < COUNT(parts); i++) {
            unsigned char *begin = parts[i].begin;
            check(parts[i].size == parts[i].wanted, "buffer %zu has %zu bytes", i, parts[i].size);
            check(begin >= end && (uintptr_t)begin % JOSTLE_ALIGNMENT == 0, "the place of buffer %zu", i);
            end = begin + parts[i].size;
        }
        check(end <= memory + at + size, "the buffers end beyond their block");
        check(found.struct_size == sizeof found && !found.frozen && !found.frozen_size, "the other fields");
        size_t wrong = 0;
        for (size_t i = 0; i < sizeof whole; i++) {
            const int state = memory + i >= (unsigned char *)found.optimizer &&
                              memory + i < (unsigned char *)found.optimizer + found.optimizer_size;
            wrong += memory[i] != (state ? 0 : MARK);
        }
        check(wrong == 0, "%zu bytes of a block at %zu are not as they should be", wrong, at);
    }
    check(jostle_buffers_size(NULL) == 0, "the size without a plan");

    jostle_plan *in_block = (jostle_plan *)(void *)memory;
    jostle_buffers *over = (jostle_buffers *)(void *)(memory + 64), apart;
    *in_block = plan;
    check(jostle_buffers_init(over, sizeof *over, &plan, memory, size, NULL) == JOSTLE_OVERLAP, "buffers in their block");
    check(jostle_buffers_init(&apart, sizeof apart, in_block, memory, size, NULL) == JOSTLE_OVERLAP, "a plan in the block");
}

static void test_buffers(void)
{
    begin();
    argument("buffers", WRITTEN, sizeof(uint32_t), sizeof(jostle_buffers), NULL);
    number("struct_size", sizeof(jostle_buffers));
    add_plan();
    /* A block may have any alignment. Its size leaves room for that, so a block of the heap is used as a whole. */
    argument("memory", WRITTEN | BUFFER | SHORTENED, 1, jostle_buffers_size(&plan), NULL);
    bad_struct_size(sizeof(jostle_buffers), "buffers");
    exercise("jostle_buffers_init", call_buffers_init);
    blocks();
}

static void test_plans(void)
{
    begin();
    OUTPUT("plan", jostle_plan);
    structure("config", &config, sizeof config);
    add_options();
    static const struct { size_t offset; const char *name; } sizes[] = {
        {offsetof(jostle_config, vocab), "vocab"},   {offsetof(jostle_config, context), "context"},
        {offsetof(jostle_config, layers), "layers"}, {offsetof(jostle_config, heads), "heads"},
        {offsetof(jostle_config, width), "width"},   {offsetof(jostle_config, hidden), "hidden"},
    };
    for (size_t i = 0; i < COUNT(sizes); i++) {
        bad_u32("config", sizes[i].offset, 0, JOSTLE_ZERO, sizes[i].name);
        bad_u32("config", sizes[i].offset, UINT32_MAX, JOSTLE_TOO_LARGE, sizes[i].name);
    }
    bad_u32("config", offsetof(jostle_config, heads), 3, JOSTLE_HEADS, "heads");
    bad_u32("config", offsetof(jostle_config, activation), 3, JOSTLE_UNKNOWN_CHOICE, "activation");
    bad_u32("config", offsetof(jostle_config, bias), 2, JOSTLE_UNKNOWN_CHOICE, "bias");
    bad_u32("config", offsetof(jostle_config, tied), UINT32_MAX, JOSTLE_UNKNOWN_CHOICE, "tied");
    bad_float("config", offsetof(jostle_config, embedding_dropout), 1, JOSTLE_OUT_OF_RANGE, "embedding_dropout");
    bad_float("config", offsetof(jostle_config, attention_dropout), -1, JOSTLE_OUT_OF_RANGE, "attention_dropout");
    bad_float("config", offsetof(jostle_config, attention_projection_dropout), NAN, JOSTLE_OUT_OF_RANGE,
              "attention_projection_dropout");
    bad_float("config", offsetof(jostle_config, mlp_projection_dropout), INFINITY, JOSTLE_OUT_OF_RANGE,
              "mlp_projection_dropout");
    bad_float("config", offsetof(jostle_config, norm_epsilon), 0, JOSTLE_OUT_OF_RANGE, "norm_epsilon");
    bad_u32("options", offsetof(jostle_options, batch), 0, JOSTLE_ZERO, "batch");
    bad_u32("options", offsetof(jostle_options, threads), 0, JOSTLE_ZERO, "threads");
    bad_u32("options", offsetof(jostle_options, optimizer), 3, JOSTLE_UNKNOWN_CHOICE, "optimizer");
    bad_u32("options", offsetof(jostle_options, recompute), 2, JOSTLE_UNKNOWN_CHOICE, "recompute");
    bad_u32("options", offsetof(jostle_options, fused), 2, JOSTLE_UNKNOWN_CHOICE, "fused");
    exercise("jostle_plan_init", call_plan_init);

    /* The switches of the Llama family. */
    begin();
    jostle_config llama;
    need(jostle_config_init_llama(&llama, sizeof llama, 11, 8, 2, 4, 2, 24, 20) == JOSTLE_OK, "llama");
    OUTPUT("plan", jostle_plan);
    structure("config", &llama, sizeof llama);
    jostle_options plain = options;
    plain.frozen_count = 0;
    structure("options", &plain, sizeof plain)->alignment = sizeof(void *);
    bad_u32("config", offsetof(jostle_config, kv_heads), 3, JOSTLE_KV_HEADS, "kv_heads");
    bad_u32("config", offsetof(jostle_config, kv_heads), UINT32_MAX, JOSTLE_TOO_LARGE, "kv_heads");
    bad_u32("config", offsetof(jostle_config, head_width), 5, JOSTLE_OUT_OF_RANGE, "head_width");
    bad_u32("config", offsetof(jostle_config, head_width), 1u << 29, JOSTLE_TOO_LARGE, "heads times head_width");
    bad_u32("config", offsetof(jostle_config, norm), 2, JOSTLE_UNKNOWN_CHOICE, "norm");
    bad_u32("config", offsetof(jostle_config, positions), 2, JOSTLE_UNKNOWN_CHOICE, "positions");
    bad_u32("config", offsetof(jostle_config, qkv_bias), 2, JOSTLE_UNKNOWN_CHOICE, "qkv_bias");
    bad_u32("config", offsetof(jostle_config, qk_norm), 2, JOSTLE_UNKNOWN_CHOICE, "qk_norm");
    bad_u32("config", offsetof(jostle_config, context), (1u << 20) + 1, JOSTLE_CONTEXT, "length");
    bad_float("config", offsetof(jostle_config, rope_theta), 0.5f, JOSTLE_OUT_OF_RANGE, "rope_theta");
    bad_float("config", offsetof(jostle_config, rope_theta), -1, JOSTLE_OUT_OF_RANGE, "rope_theta");
    bad_float("config", offsetof(jostle_config, rope_theta), NAN, JOSTLE_OUT_OF_RANGE, "rope_theta");
    bad_float("config", offsetof(jostle_config, rope_theta), INFINITY, JOSTLE_OUT_OF_RANGE, "rope_theta");
    bad_float("config", offsetof(jostle_config, rope_factor), 0.5f, JOSTLE_OUT_OF_RANGE, "rope_factor");
    bad_float("config", offsetof(jostle_config, rope_low_freq_factor), 0, JOSTLE_OUT_OF_RANGE, "rope_low_freq_factor");
    bad_float("config", offsetof(jostle_config, rope_high_freq_factor), 1, JOSTLE_OUT_OF_RANGE, "rope_high_freq_factor");
    bad_u32("config", offsetof(jostle_config, rope_original_context), 0, JOSTLE_ZERO, "rope_original_context");
    bad_float("config", offsetof(jostle_config, initial_std), 0, JOSTLE_OUT_OF_RANGE, "initial_std");
#ifdef FREESTANDING
    /* Archives for devices have neither adapters nor chunked heads. */
    bad_u32("config", offsetof(jostle_config, lora_q_rank), 1, JOSTLE_UNSUPPORTED, "an adapter, without the feature lora");
    bad_u32("options", offsetof(jostle_options, freeze_base), 1, JOSTLE_UNSUPPORTED, "freeze_base, without the feature lora");
    size_t chunk = 1;
    bad((char *)find("options")->memory + offsetof(jostle_options, head_rows), &chunk, sizeof chunk, JOSTLE_UNSUPPORTED,
        "head_rows, without the feature head-rows");
#else
    bad_u32("config", offsetof(jostle_config, lora_q_rank), 4096, JOSTLE_OUT_OF_RANGE, "lora_q_rank");
    bad_u32("config", offsetof(jostle_config, lora_down_rank), UINT32_MAX, JOSTLE_TOO_LARGE, "lora_down_rank");
    bad_float("config", offsetof(jostle_config, lora_v_alpha), NAN, JOSTLE_OUT_OF_RANGE, "lora_v_alpha");
    bad_float("config", offsetof(jostle_config, lora_up_alpha), INFINITY, JOSTLE_OUT_OF_RANGE, "lora_up_alpha");
    bad_u32("config", offsetof(jostle_config, lora_rslora), 2, JOSTLE_UNKNOWN_CHOICE, "lora_rslora");
    bad_float("config", offsetof(jostle_config, lora_dropout), 1, JOSTLE_OUT_OF_RANGE, "lora_dropout");
    bad_u32("options", offsetof(jostle_options, freeze_base), 2, JOSTLE_UNKNOWN_CHOICE, "freeze_base");
    bad_u32("options", offsetof(jostle_options, freeze_base), 1, JOSTLE_ZERO, "trained parameters");
#endif
    exercise("jostle_plan_init", call_plan_init);

    begin();
    OUTPUT("plan", jostle_plan);
    structure("config", &config, sizeof config);
    add_options();
    number("budget", plan.training_size);
    bad_number("budget", 1000, JOSTLE_BUDGET, "budget");
    bad_u32("options", offsetof(jostle_options, batch), 0, JOSTLE_ZERO, "batch");
    bad_u32("options", offsetof(jostle_options, threads), 0, JOSTLE_ZERO, "threads");
    exercise("jostle_plan_fit", call_plan_fit);

    /* Each size is allowed, but not all at once. */
    begin();
    jostle_config huge = config;
    huge.vocab = huge.context = huge.layers = huge.width = huge.hidden = 1u << 30;
    OUTPUT("plan", jostle_plan);
    structure("config", &config, sizeof config);
    add_options();
    exercise("jostle_plan_init", call_plan_init);
    memcpy(find("config")->memory, &huge, sizeof huge);
    refused("a huge configuration", run_once("a huge configuration", &told.error), JOSTLE_TOO_LARGE, NULL);

    begin();
    add_plan();
    number("index", 2);
    bad_number("index", plan.tensor_count, JOSTLE_NOT_FOUND, "tensor");
    bad_number("index", SIZE_MAX, JOSTLE_NOT_FOUND, "tensor");
    read_floats("values", plan.parameter_count)->is |= OPTIONAL;
    OUTPUT("tensor", jostle_tensor);
    exercise("jostle_plan_tensor", call_plan_tensor);

    begin();
    add_plan();
    read_floats("values", plan.parameter_count)->is |= OPTIONAL;
    argument("name", READ, 1, sizeof "wte.weight", "wte.weight");
    bad(find("name")->memory, "b", 1, JOSTLE_NOT_FOUND, "bte.weight");
    bad(find("name")->memory, "", 1, JOSTLE_NOT_FOUND, "");
    bad(find("name")->memory, "\xff", 1, JOSTLE_NOT_UTF8, "name");
    OUTPUT("tensor", jostle_tensor);
    exercise("jostle_plan_tensor_named", call_plan_tensor_named);

    begin();
    add_plan();
    write_floats("parameters", plan.parameter_count);
    exercise("jostle_initialize", call_initialize);
}

/* Passes of a model. */

static jostle_status call_model_logits(void)
{
    return CALL(jostle_model_logits)(P("plan"), P("compute"), P("buffers"), P("batch"), P("logits"), error);
}

static jostle_status call_model_loss(void)
{
    return CALL(jostle_model_loss)(P("plan"), P("compute"), P("buffers"), P("batch"), P("loss"), error);
}

static jostle_status call_model_backward(void)
{
    return CALL(jostle_model_backward)(P("plan"), P("compute"), P("buffers"), N("add"), P("batch"), N("counted"),
                                       P("dropout"), P("loss"), error);
}

static void add_model(int targets, int gradients)
{
    begin();
    add_plan();
    add_compute();
    add_parameters();
    argument("workspace", WRITTEN | WORKSPACE | BUFFER | SHORTENED, sizeof(float), plan.workspace_size, NULL);
    if (gradients)
        write_floats("gradients", plan.parameter_count);
    add_buffers();
    add_batch(targets);
}

static void test_models(void)
{
    add_model(0, 0);
    output("logits", sizeof(void *), sizeof(void *));
    exercise("jostle_model_logits", call_model_logits);
#ifndef FREESTANDING
    jostle_options few = options;
    jostle_plan chunked_head;
    jostle_error e;
    few.head_rows = 2;
    ok(jostle_plan_init(&chunked_head, &config, &few, &e), &e, "a plan whose head is chunked");
    memcpy(find("plan")->memory, &chunked_head, sizeof chunked_head);
    jostle_buffers sized = *(jostle_buffers *)find("buffers")->memory;
    sized.workspace_size = chunked_head.workspace_size;
    memcpy(find("buffers")->memory, &sized, sizeof sized);
    refused("the logits of a chunked head", run_once("a chunked head", &told.error), JOSTLE_PLAN, NULL);
#endif

    add_model(1, 0);
    OUTPUT("loss", jostle_loss);
    exercise("jostle_model_loss", call_model_loss);

    add_model(1, 1);
    OUTPUT("loss", jostle_loss);
    number("add", 1);
    bad_choice("add", 2);
    number("counted", SEQUENCES * ROWS);
    jostle_dropout_key dropout = {1, 2, 3};
    argument("dropout", READ | OPTIONAL, 8, sizeof dropout, &dropout);
    bad_float("parameters", 16, NAN, JOSTLE_NOT_FINITE, "loss");
    exercise("jostle_model_backward", call_model_backward);

    /* A pass of one sequence more than the plan's, of one token more than the context. */
    static const int32_t tokens[20];
    jostle_batch more = {tokens, sizeof tokens, tokens, sizeof tokens, SEQUENCES + 1, ROWS};
    jostle_batch longer = {tokens, sizeof tokens, tokens, sizeof tokens, 1, CONTEXT + 1};
    memcpy(find("batch")->memory, &more, sizeof more);
    refused("a sequence more", run_once("a sequence more", &told.error), JOSTLE_PLAN, NULL);
    memcpy(find("batch")->memory, &longer, sizeof longer);
    refused("a token more", run_once("a token more", &told.error), JOSTLE_CONTEXT, "length");
}

/* Trainers. */

static jostle_status call_trainer_init(void)
{
    return CALL(jostle_trainer_init)(P("trainer"), P("plan"), P("recipe"), P("buffers"), P("compute"), error);
}

static jostle_status call_trainer_step(void)
{
    return CALL(jostle_trainer_step)(P("trainer"), P("text"), S("text"), N("token_type"), P("report"), error);
}

static jostle_status call_trainer_poll(void)
{
    return CALL(jostle_trainer_poll)(P("trainer"), P("text"), S("text"), N("token_type"), P("done"), P("report"), error);
}

static jostle_status call_trainer_evaluate(void)
{
    return CALL(jostle_trainer_evaluate)(P("trainer"), P("text"), S("text"), N("token_type"), P("loss"), error);
}

static jostle_status call_trainer_accumulate(void)
{
    return CALL(jostle_trainer_accumulate)(P("trainer"), P("batch"), N("counted"), P("loss"), error);
}

static jostle_status call_trainer_update(void)
{
    return CALL(jostle_trainer_update)(P("trainer"), P("loss"), P("report"), error);
}

static jostle_status call_trainer_steps(void) { return CALL(jostle_trainer_steps)(P("trainer"), P("steps"), error); }
static jostle_status call_trainer_resume(void) { return CALL(jostle_trainer_resume)(P("trainer"), 5, error); }
static jostle_status call_trainer_skip(void) { return CALL(jostle_trainer_skip)(P("trainer"), error); }

static float guard_limit = 6;

static jostle_status call_trainer_guard(void) { return CALL(jostle_trainer_guard)(P("trainer"), guard_limit, error); }

/* The buffers; `is` adds to their properties. */
static void add_training_memory(int is)
{
    write_floats("parameters", plan.parameter_count)->is |= is;
    add_frozen(is);
    write_floats("gradients", plan.parameter_count)->is |= is;
    write_floats("optimizer", plan.optimizer_size / sizeof(float))->is |= is;
    memset(find("optimizer")->memory, 0, plan.optimizer_size);
    argument("workspace", WRITTEN | WORKSPACE | BUFFER | SHORTENED | is, sizeof(float), plan.workspace_size, NULL);
    argument("batch", WRITTEN | WORKSPACE | BUFFER | SHORTENED | is, sizeof(int32_t), plan.batch_size, NULL);
}

static jostle_buffers training_memory(void)
{
    return (jostle_buffers){
        .struct_size = sizeof(jostle_buffers),
        .parameters = P("parameters"), .parameters_size = S("parameters"),
        .frozen = plan.frozen_size ? P("frozen") : NULL, .frozen_size = plan.frozen_size,
        .gradients = P("gradients"), .gradients_size = S("gradients"),
        .optimizer = P("optimizer"), .optimizer_size = S("optimizer"),
        .workspace = P("workspace"), .workspace_size = S("workspace"),
        .batch = P("batch"), .batch_size = S("batch"),
    };
}

static jostle_plan fused_plan(void)
{
    jostle_options fusing = options;
    jostle_plan fused;
    jostle_error e;
    fusing.fused = 1;
    ok(jostle_plan_init(&fused, &config, &fusing, &e), &e, "a plan with a fused update");
    return fused;
}

/* A trainer on buffers that are not arguments themselves. */
static void add_trainer_of(const jostle_plan *its_plan, const jostle_recipe *its_recipe)
{
    begin();
    add_training_memory(HIDDEN);
    jostle_buffers buffers = training_memory();
    /* An argument of jostle_trainer_accumulate has the same name. */
    find("batch")->name = "batch's memory";
    jostle_trainer trainer;
    jostle_error e;
    ok(jostle_trainer_init(&trainer, its_plan, its_recipe, &buffers, NULL, &e), &e, "trainer");
    handle("trainer", &trainer, sizeof trainer, 0, WRITTEN);
}

static void add_trainer(void)
{
    add_trainer_of(&plan, &recipe);
}

static void add_text(size_t alignment, size_t count)
{
    static unsigned char text[64];
    for (size_t i = 0; i < COUNT(text); i++)
        text[i] = alignment == 1 || i % alignment == 0 ? (unsigned char)(i / alignment % VOCAB) : 0;
    struct argument *a = argument("text", READ | BUFFER, alignment, count * alignment, text);
    if (alignment > 1) {
        size_t odd = a->bytes - 1;
        bad(&a->size, &odd, sizeof odd, JOSTLE_LENGTH, "text");
    }
    number("token_type", alignment);
    bad_choice("token_type", 3);
    bad_number("token_type", 0, JOSTLE_UNKNOWN_CHOICE, "token_type");
}

static void fill(const char *name, float value)
{
    jostle_tensor tensor;
    jostle_error e;
    float *parameters = (float *)find("parameters")->memory;
    ok(jostle_plan_tensor_named(&plan, name, NULL, 0, &tensor, &e), &e, name);
    for (size_t i = 0; i < tensor.count; i++)
        parameters[tensor.offset + i] = value;
}

/* The loss is finite and a gradient is not: tensors behind it have been updated by then. */
static void test_partial_update(void)
{
    jostle_plan fused = fused_plan();
    jostle_recipe unclipped = recipe;
    unclipped.clip = 0;
    add_trainer_of(&fused, &unclipped);
    find("parameters")->is |= WORKSPACE;
    find("gradients")->is |= WORKSPACE;
    find("optimizer")->is |= WORKSPACE;
    fill("h.0.mlp.c_fc.bias", 3e38f);
    fill("h.0.mlp.c_proj.weight", 0);
    add_text(1, 12);
    OUTPUT("report", jostle_report);
    invoke = call_trainer_step;
    jostle_status status = run_once("a gradient that is not finite", &told.error);
#ifdef FREESTANDING
    const char *what = "tensor";
#else
    const char *what = "h.0.mlp.c_proj.weight";
#endif
    refused("a gradient that is not finite", status, JOSTLE_PARTLY_UPDATED, what);
}

/* Names that do not exist, and the tensors of names that do. */
static void test_frozen(void)
{
    static const char *const names[] = {"wte.weight", "wpe.weight", "h.9.ln_1.weight"};
    static const char *const nothing[] = {NULL};
    jostle_options freezing = options;
    jostle_plan frozen, before;
    jostle_error e = {0};
    memset(&before, 0x5A, sizeof before);
    frozen = before;
    freezing.frozen_count = 3;
    check(jostle_plan_init(&frozen, &config, &freezing, &e) == JOSTLE_NULL_POINTER, "no names: %d", (int)e.status);
    freezing.frozen = nothing;
    check(jostle_plan_init(&frozen, &config, &freezing, &e) == JOSTLE_NULL_POINTER, "no name: %d", (int)e.status);
    freezing.frozen = names;
    check(jostle_plan_init(&frozen, &config, &freezing, &e) == JOSTLE_NOT_FOUND &&
              strcmp(e.what, "h.9.ln_1.weight") == 0 && memcmp(&frozen, &before, sizeof frozen) == 0,
          "a name of no tensor: %d, %s", (int)e.status, e.what);
    freezing.frozen_count = 2;
    ok(jostle_plan_init(&frozen, &config, &freezing, &e), &e, "a plan that freezes");
    check(frozen.frozen_size > 0 && frozen.parameters_size + frozen.frozen_size == plan.parameters_size &&
              frozen.parameter_count * sizeof(float) == frozen.parameters_size && frozen.tensor_count == plan.tensor_count,
          "%zu bytes frozen", frozen.frozen_size);
    jostle_tensor tensor;
    static float values[100000];
    ok(jostle_plan_tensor_named(&frozen, "wpe.weight", values, sizeof values, &tensor, &e), &e, "tensor");
    check(tensor.frozen == 1 && tensor.data == NULL && tensor.offset > 0, "wpe.weight at %zu", tensor.offset);
    ok(jostle_plan_tensor(&frozen, 2, values, sizeof values, &tensor, &e), &e, "tensor");
    check(tensor.frozen == 0 && tensor.data == values, "the first that is trained at %zu", tensor.offset);
}

/* With a billion layers, names are whole. */
static void test_long_names(void)
{
    jostle_config many;
    jostle_plan planned;
    jostle_tensor tensor, same;
    jostle_error e = {0};
    need(jostle_config_init_llama(&many, sizeof many, 1, 1, 1000000000, 1, 1, 2, 1) == JOSTLE_OK, "llama");
    ok(jostle_plan_init(&planned, &many, &options, &e), &e, "a plan of many layers");
    for (size_t i = planned.tensor_count - 20; i < planned.tensor_count; i++) {
        ok(jostle_plan_tensor(&planned, i, NULL, 0, &tensor, &e), &e, "tensor");
        ok(jostle_plan_tensor_named(&planned, tensor.name, NULL, 0, &same, &e), &e, tensor.name);
        check(same.offset == tensor.offset, "%s at %zu", tensor.name, same.offset);
    }
}

static void test_trainers(void)
{
    begin();
    add_training_memory(0);
    add_buffers();
    INSIDE(find("batch"), "buffers", jostle_buffers, batch);
    OUTPUT("trainer", jostle_trainer);
    add_plan();
    add_compute();
    add_recipe();
    bad_u32("recipe", offsetof(jostle_recipe, decay), 4, JOSTLE_UNKNOWN_CHOICE, "decay");
    bad_u32("recipe", offsetof(jostle_recipe, accumulate), 0, JOSTLE_ZERO, "accumulate");
    bad_float("recipe", offsetof(jostle_recipe, clip), -1, JOSTLE_OUT_OF_RANGE, "clip");
    bad_float("recipe", offsetof(jostle_recipe, learning_rate), NAN, JOSTLE_OUT_OF_RANGE, "learning_rate");
    bad_u32("recipe", offsetof(jostle_recipe, decay), JOSTLE_LINEAR, JOSTLE_ZERO, "steps");
    bad_u32("recipe", offsetof(jostle_recipe, optimizer), JOSTLE_SGD, JOSTLE_PLAN, NULL);
    exercise("jostle_trainer_init", call_trainer_init);
    jostle_recipe late = recipe;
    late.decay = JOSTLE_COSINE;
    late.warmup = 11;
    late.steps = 10;
    memcpy(find("recipe")->memory, &late, sizeof late);
    refused("a long warm-up", run_once("a long warm-up", &told.error), JOSTLE_STEPS, "warmup");
    late.warmup = 0;
    late.final_learning_rate = 1;
    memcpy(find("recipe")->memory, &late, sizeof late);
    refused("a rising rate", run_once("a rising rate", &told.error), JOSTLE_OUT_OF_RANGE, "final_learning_rate");

    const jostle_plan fused = fused_plan();
    memcpy(find("plan")->memory, &fused, sizeof fused);
    memcpy(find("recipe")->memory, &recipe, sizeof recipe);
    refused("clipping where the update is fused", run_once("fused", &told.error), JOSTLE_FUSED, "clip");
    jostle_recipe twice = recipe;
    twice.clip = 0;
    twice.accumulate = 2;
    memcpy(find("plan")->memory, &fused, sizeof fused);
    memcpy(find("recipe")->memory, &twice, sizeof twice);
    refused("two passes where the update is fused", run_once("fused", &told.error), JOSTLE_FUSED, "accumulate");

    static const size_t types[] = {JOSTLE_U8, JOSTLE_U16, JOSTLE_I32};
    for (size_t i = 0; i < COUNT(types); i++) {
        size_t one = types[i], four = CONTEXT * types[i];
        add_trainer();
        add_text(types[i], 12);
        /* A window is one token longer than the context. */
        bad(find("text")->size_at, &four, sizeof four, JOSTLE_TOO_FEW_TOKENS, "tokens");
        OUTPUT("report", jostle_report);
        exercise("jostle_trainer_step", call_trainer_step);

        add_trainer();
        add_text(types[i], 12);
        bad(find("text")->size_at, &four, sizeof four, JOSTLE_TOO_FEW_TOKENS, "tokens");
        OUTPUT("done", uint32_t);
        OUTPUT("report", jostle_report);
        exercise("jostle_trainer_poll", call_trainer_poll);
        need(call_trainer_poll() == JOSTLE_OK, "a piece");
        invoke = call_trainer_step;
        refused("a step within a step", run_once("a step within a step", &told.error), JOSTLE_UNFINISHED, NULL);

        add_trainer();
        add_text(types[i], 12);
        bad(find("text")->memory + types[i], "\x7f", 1, JOSTLE_TOKEN, "token");
        bad(find("text")->size_at, &one, sizeof one, JOSTLE_TOO_FEW_TOKENS, "tokens");
        OUTPUT("loss", jostle_loss);
        exercise("jostle_trainer_evaluate", call_trainer_evaluate);
    }

    add_trainer();
    add_batch(1);
    number("counted", SEQUENCES * ROWS);
    OUTPUT("loss", jostle_loss);
    bad_float("parameters", 16, NAN, JOSTLE_NOT_FINITE, "loss");
    exercise("jostle_trainer_accumulate", call_trainer_accumulate);

    add_trainer();
    jostle_loss loss = {2.5, 1};
    argument("loss", READ, 8, sizeof loss, &loss);
    OUTPUT("report", jostle_report);
    bad_float("gradients", 16, INFINITY, JOSTLE_NOT_FINITE, "gradient norm");
    exercise("jostle_trainer_update", call_trainer_update);

    add_trainer();
    OUTPUT("steps", uint64_t);
    exercise("jostle_trainer_steps", call_trainer_steps);

    add_trainer();
    exercise("jostle_trainer_resume", call_trainer_resume);

    add_trainer();
    exercise("jostle_trainer_skip", call_trainer_skip);

    add_trainer();
    exercise("jostle_trainer_guard", call_trainer_guard);
    add_trainer();
    guard_limit = -1;
    invoke = call_trainer_guard;
    refused("a negative limit", run_once("a negative limit", &told.error), JOSTLE_OUT_OF_RANGE, "limit");
    guard_limit = 6;
}

/* Generators. */

static jostle_status call_generator_init(void)
{
    return CALL(jostle_generator_init)(P("generator"), P("plan"), P("compute"), P("buffers"), P("memory"), S("memory"),
                                       P("window"), S("window"), error);
}

static jostle_status call_generator_feed(void)
{
    return CALL(jostle_generator_feed)(P("generator"), P("tokens"), S("tokens"), P("logits"), error);
}

static jostle_status call_generator_draw(void)
{
    return CALL(jostle_generator_draw)(P("generator"), P("sampling"), P("order"), S("order"), 1, 2, P("token"), error);
}

static jostle_status call_generator_clear(void) { return CALL(jostle_generator_clear)(P("generator"), error); }

static void add_generation_memory(int is)
{
    read_floats("parameters", plan.parameter_count)->is |= is;
    add_frozen(is);
    argument("memory", WRITTEN | BUFFER | SHORTENED | is, sizeof(float), plan.generation_size, NULL);
    argument("window", WRITTEN | BUFFER | SHORTENED | is, sizeof(int32_t), plan.window_size, NULL);
}

static float *add_generator(void)
{
    static const int32_t tokens[] = {1, 2};
    jostle_generator generator;
    jostle_error e;
    float *logits;
    begin();
    add_generation_memory(HIDDEN);
    const jostle_buffers buffers = {
        .struct_size = sizeof buffers,
        .parameters = P("parameters"), .parameters_size = S("parameters"),
        .frozen = plan.frozen_size ? P("frozen") : NULL, .frozen_size = plan.frozen_size,
    };
    ok(jostle_generator_init(&generator, &plan, NULL, &buffers, P("memory"), S("memory"), P("window"), S("window"), &e),
       &e, "generator");
    ok(jostle_generator_feed(&generator, tokens, sizeof tokens, &logits, &e), &e, "feed");
    handle("generator", &generator, sizeof generator, 0, WRITTEN);
    return logits;
}

static void test_generators(void)
{
    begin();
    add_plan();
    add_compute();
    add_generation_memory(0);
    add_buffers();
    OUTPUT("generator", jostle_generator);
    exercise("jostle_generator_init", call_generator_init);

    add_generator();
    read_tokens("tokens", 5);
    find("tokens")->is &= ~SHORTENED;
    const size_t none = 0, counted = 5;
    bad(find("tokens")->size_at, &none, sizeof none, JOSTLE_ZERO, "number of tokens");
    bad(find("tokens")->size_at, &counted, sizeof counted, JOSTLE_LENGTH, "tokens");
    bad_u32("tokens", 8, VOCAB, JOSTLE_TOKEN, "token");
    output("logits", sizeof(void *), sizeof(void *));
    exercise("jostle_generator_feed", call_generator_feed);

    float *logits = add_generator();
    structure("sampling", &sampling, sizeof sampling);
    argument("order", WRITTEN | WORKSPACE | BUFFER | SHORTENED, 4, plan.order_size, NULL);
    OUTPUT("token", int32_t);
    bad_float("sampling", offsetof(jostle_sampling, temperature), -1, JOSTLE_OUT_OF_RANGE, "temperature");
    bad_float("sampling", offsetof(jostle_sampling, temperature), INFINITY, JOSTLE_OUT_OF_RANGE, "temperature");
    bad_float("sampling", offsetof(jostle_sampling, top_p), 0, JOSTLE_OUT_OF_RANGE, "top_p");
    bad_float("sampling", offsetof(jostle_sampling, top_p), 1.5f, JOSTLE_OUT_OF_RANGE, "top_p");
    bad_float("sampling", offsetof(jostle_sampling, min_p), NAN, JOSTLE_OUT_OF_RANGE, "min_p");
    size_t at = (size_t)((unsigned char *)logits - find("memory")->memory);
    bad_float("memory", at, NAN, JOSTLE_NOT_FINITE, "logit");
    exercise("jostle_generator_draw", call_generator_draw);

    add_generator();
    exercise("jostle_generator_clear", call_generator_clear);
}

/* Tokenizers of llama2.c. */

enum { PIECES = 259 + 3 };

static jostle_status call_tokenizer_write(void)
{
    return CALL(jostle_llama2c_tokenizer_write)(P("texts"), S("texts"), P("lengths"), S("lengths"), P("scores"), S("scores"),
                                                N("vocab"), P("file"), S("file"), P("written"), error);
}

static jostle_status call_tokenizer_size(void)
{
    return CALL(jostle_llama2c_tokenizer_size)(P("file"), S("file"), P("vocab"), P("index_size"), error);
}

static jostle_status call_tokenizer_init(void)
{
    return CALL(jostle_llama2c_tokenizer_init)(P("tokenizer"), P("file"), S("file"), P("index"), S("index"), error);
}

static jostle_status call_encode(void)
{
    return CALL(jostle_llama2c_encode)(P("tokenizer"), P("text"), S("text"), (uint32_t)N("bos"), (uint32_t)N("eos"),
                                       P("tokens"), S("tokens"), P("count"), error);
}

static jostle_status call_decode(void)
{
    return CALL(jostle_llama2c_decode)(P("tokenizer"), (int32_t)N("previous"), P("tokens"), S("tokens"), P("text"),
                                       S("text"), P("length"), error);
}

/* The texts of the control tokens, of the bytes, and of "a", "b" and "ab". Returns their size. */
static size_t the_pieces(char *texts, uint32_t *lengths)
{
    static const char *const names[] = {"<unk>", "\n<s>\n", "\n</s>\n", "a", "b", "ab"};
    char *end = texts;
    for (int i = 0; i < PIECES; i++) {
        int length = i < 3 || i >= 259 ? sprintf(end, "%s", names[i < 3 ? i : i - 256]) : sprintf(end, "<0x%02X>", i - 3);
        lengths[i] = (uint32_t)length;
        end += length;
    }
    return (size_t)(end - texts);
}

static void add_pieces(void)
{
    static char texts[2048];
    static uint32_t lengths[PIECES];
    size_t size = the_pieces(texts, lengths);
    const uint32_t zero = 0;
    begin();
    argument("texts", READ | BUFFER | SHORTENED | SOLID, 1, size, texts);
    argument("lengths", READ | BUFFER | SHORTENED | SOLID, sizeof *lengths, sizeof lengths, lengths);
    read_floats("scores", PIECES);
    dimension("vocab", PIECES);
    argument("file", WRITTEN | BUFFER | SHORTENED, 1, 4 + 8 * PIECES + size, NULL);
    OUTPUT("written", size_t);
    bad_number("vocab", 258, JOSTLE_LLAMA2C_VOCAB, "vocab");
    bad(find("texts")->memory + lengths[0] + lengths[1] + lengths[2], "(", 1, JOSTLE_LLAMA2C_BYTE, "token");
    bad(find("lengths")->memory + 4, &zero, sizeof zero, JOSTLE_LLAMA2C_PIECE, "token");
}

static const unsigned char *a_tokenizer_file(size_t *size)
{
    static unsigned char file[8192];
    static float scores[PIECES];
    char texts[2048];
    uint32_t lengths[PIECES];
    jostle_error e;
    size_t texts_size = the_pieces(texts, lengths);
    ok(jostle_llama2c_tokenizer_write((unsigned char *)texts, texts_size, lengths, sizeof lengths, scores, sizeof scores,
                                      PIECES, file, sizeof file, size, &e), &e, "tokenizer file");
    return file;
}

static void add_tokenizer_file(int is)
{
    size_t size;
    const unsigned char *file = a_tokenizer_file(&size);
    argument("file", READ | BUFFER | is, 1, size, file)->is |= is == HIDDEN ? 0 : SOLID;
}

static void damage_tokenizer_file(void)
{
    const size_t none = 0, shorter = S("file") - 1, three = 4 + 13 + 13 + 14;
    const int32_t lengths[] = {0, -1, INT32_MIN, 7, INT32_MAX};
    bad(find("file")->size_at, &none, sizeof none, JOSTLE_LLAMA2C_TRUNCATED, "file");
    bad(find("file")->size_at, &shorter, sizeof shorter, JOSTLE_LLAMA2C_TRUNCATED, "file");
    bad(find("file")->size_at, &three, sizeof three, JOSTLE_LLAMA2C_VOCAB, "vocab");
    for (size_t i = 0; i < COUNT(lengths); i++)
        bad(find("file")->memory + 8, &lengths[i], sizeof lengths[i], JOSTLE_LLAMA2C_PIECE, "token");
    bad(find("file")->memory + three + 8, "?", 1, JOSTLE_LLAMA2C_BYTE, "token");
}

/* A tokenizer, whose file and index are not arguments. */
static void add_tokenizer(void)
{
    jostle_llama2c_tokenizer tokenizer;
    jostle_error e;
    size_t vocab, index_size;
    begin();
    add_tokenizer_file(HIDDEN);
    ok(jostle_llama2c_tokenizer_size(P("file"), S("file"), &vocab, &index_size, &e), &e, "size");
    need(vocab == PIECES && index_size == 4 * (2 * PIECES - 259), "the tokenizer's sizes");
    argument("index", READ | BUFFER | HIDDEN, sizeof(uint32_t), index_size, NULL);
    ok(jostle_llama2c_tokenizer_init(&tokenizer, P("file"), S("file"), P("index"), S("index"), &e), &e, "tokenizer");
    memcpy(find("index")->original, P("index"), index_size);
    handle("tokenizer", &tokenizer, sizeof tokenizer, 0, READ);
}

static void test_tokenizers(void)
{
    add_pieces();
    exercise("jostle_llama2c_tokenizer_write", call_tokenizer_write);

    begin();
    add_tokenizer_file(0);
    damage_tokenizer_file();
    OUTPUT("vocab", size_t);
    OUTPUT("index_size", size_t);
    exercise("jostle_llama2c_tokenizer_size", call_tokenizer_size);

    begin();
    add_tokenizer_file(0);
    damage_tokenizer_file();
    argument("index", WRITTEN | BUFFER | SHORTENED, sizeof(uint32_t), 4 * (2 * PIECES - 259), NULL);
    OUTPUT("tokenizer", jostle_llama2c_tokenizer);
    exercise("jostle_llama2c_tokenizer_init", call_tokenizer_init);

    add_tokenizer();
    argument("text", READ | BUFFER, 1, 4, "abba");
    number("bos", 1);
    number("eos", 0);
    argument("tokens", WRITTEN | BUFFER | SHORTENED, sizeof(int32_t), 16 * 4 + 24, NULL);
    OUTPUT("count", size_t);
    bad_choice("bos", 2);
    bad_choice("eos", 2);
    exercise("jostle_llama2c_encode", call_encode);

    static const int32_t tokens[] = {1, 261, 13};
    add_tokenizer();
    argument("tokens", READ | BUFFER | SOLID, sizeof *tokens, sizeof tokens, tokens);
    number("previous", (size_t)-1);
    argument("text", WRITTEN | BUFFER | SHORTENED, 1, 3, NULL);
    OUTPUT("length", size_t);
    bad_u32("tokens", 4, PIECES, JOSTLE_TOKEN, "token");
    bad_u32("tokens", 4, UINT32_MAX, JOSTLE_TOKEN, "token");
    exercise("jostle_llama2c_decode", call_decode);
}

/* Models of llama2.c. */

static jostle_config llama_config;
static jostle_plan llama_plan;

static jostle_status call_llama2c_config(void)
{
    return CALL(jostle_llama2c_config)(P("file"), S("file"), P("config"), N("struct_size"), error);
}

static jostle_status call_llama2c_read(void)
{
    return CALL(jostle_llama2c_read)(P("file"), S("file"), P("plan"), P("parameters"), S("parameters"), error);
}

static jostle_status call_llama2c_size(void)
{
    return CALL(jostle_llama2c_size)(P("plan"), (uint32_t)N("version"), P("size"), error);
}

static jostle_status call_llama2c_write(void)
{
    return CALL(jostle_llama2c_write)(P("plan"), P("buffers"), (uint32_t)N("version"), P("file"), S("file"), P("written"),
                                      error);
}

static size_t llama2c_size(uint32_t version)
{
    jostle_error e;
    size_t size;
    ok(jostle_llama2c_size(&llama_plan, version, &size, &e), &e, "size");
    return size;
}

static void add_llama_plan(void)
{
    handle("plan", &llama_plan, sizeof llama_plan, offsetof(jostle_plan, opaque), READ);
}

/* A file of version 1, and the ways in which it can lie. */
static void add_llama2c_file(void)
{
    static unsigned char file[8192];
    static float parameters[1024];
    jostle_error e;
    size_t size, none = 0, three = 3, header = 255;
    const jostle_buffers buffers = {
        .struct_size = sizeof buffers, .parameters = parameters, .parameters_size = llama_plan.parameters_size,
    };
    need(llama_plan.parameters_size <= sizeof parameters, "room for parameters");
    ok(jostle_llama2c_write(&llama_plan, &buffers, 1, file, sizeof file, &size, &e), &e, "file");
    argument("file", READ | BUFFER | SOLID, 1, size, file);
    size_t shorter = size - 1;
    bad(find("file")->size_at, &none, sizeof none, JOSTLE_LLAMA2C_TRUNCATED, "file");
    bad(find("file")->size_at, &three, sizeof three, JOSTLE_LLAMA2C_TRUNCATED, "file");
    bad(find("file")->size_at, &header, sizeof header, JOSTLE_LLAMA2C_TRUNCATED, "file");
    bad(find("file")->size_at, &shorter, sizeof shorter, JOSTLE_LLAMA2C_LENGTH, "file");
    bad_u32("file", 4, 2, JOSTLE_LLAMA2C_HEADER, "version");
    bad_u32("file", 8, UINT32_MAX, JOSTLE_LLAMA2C_HEADER, "width");
    bad_u32("file", 12, INT32_MAX, JOSTLE_TOO_LARGE, "hidden");
    bad_u32("file", 16, 0, JOSTLE_LLAMA2C_HEADER, "layers");
    bad_u32("file", 20, 7, JOSTLE_HEADS, "heads");
    bad_u32("file", 24, 3, JOSTLE_KV_HEADS, "kv_heads");
    bad_u32("file", 28, 12, JOSTLE_LLAMA2C_LENGTH, "file");
    bad_u32("file", 36, 2, JOSTLE_LLAMA2C_HEADER, "tied");
}

static void test_llama2c(void)
{
    jostle_error e;
    need(jostle_config_init_llama(&llama_config, sizeof llama_config, 11, 4, 1, 4, 2, 8, 5) == JOSTLE_OK, "llama");
    ok(jostle_plan_init(&llama_plan, &llama_config, &options, &e), &e, "llama's plan");

    begin();
    add_llama2c_file();
    output("config", sizeof(uint32_t), sizeof(jostle_config));
    number("struct_size", sizeof(jostle_config));
    bad_struct_size(sizeof(jostle_config), "config");
    exercise("jostle_llama2c_config", call_llama2c_config);

    begin();
    add_llama_plan();
    add_llama2c_file();
    write_floats("parameters", llama_plan.parameter_count);
    exercise("jostle_llama2c_read", call_llama2c_read);
    memcpy(find("plan")->memory, &plan, sizeof plan);
    refused("another model", run_once("another model", &told.error), JOSTLE_LLAMA2C_CONFIGURATION, "heads");

    begin();
    add_llama_plan();
    number("version", 0);
    bad_choice("version", 2);
    OUTPUT("size", size_t);
    exercise("jostle_llama2c_size", call_llama2c_size);
    memcpy(find("plan")->memory, &plan, sizeof plan);
    refused("a GPT-2", run_once("a GPT-2", &told.error), JOSTLE_LLAMA2C_UNSUPPORTED, "activation");

    begin();
    add_llama_plan();
    read_floats("parameters", llama_plan.parameter_count);
    add_buffers();
    number("version", 0);
    bad_choice("version", 2);
    argument("file", WRITTEN | BUFFER | SHORTENED, 1, llama2c_size(0), NULL);
    OUTPUT("written", size_t);
    exercise("jostle_llama2c_write", call_llama2c_write);
}

/* Checkpoints. */

static jostle_progress progress = {17, 1337};

static jostle_status call_checkpoint_size(void)
{
    return CALL(jostle_checkpoint_size)(P("plan"), N("optimizer"), P("metadata"), N("metadata_count"), P("size"), error);
}

static jostle_status call_checkpoint_write(void)
{
    return CALL(jostle_checkpoint_write)(P("plan"), P("buffers"), P("progress"), P("metadata"), N("metadata_count"),
                                         P("bytes"), S("bytes"), P("written"), error);
}

static jostle_status call_checkpoint_config(void)
{
    return CALL(jostle_checkpoint_config)(P("bytes"), S("bytes"), P("config"), N("struct_size"), error);
}

static jostle_status call_checkpoint_read(void)
{
    return CALL(jostle_checkpoint_read)(P("bytes"), S("bytes"), P("plan"), P("buffers"), P("progress"), error);
}

static jostle_status call_checkpoint_read_parameters(void)
{
    return CALL(jostle_checkpoint_read_parameters)(P("bytes"), S("bytes"), P("plan"), P("parameters"), S("parameters"),
                                                   error);
}

static jostle_status call_checkpoint_metadata(void)
{
    return CALL(jostle_checkpoint_metadata)(P("bytes"), S("bytes"), P("key"), P("text"), S("text"), P("length"), error);
}

static void add_metadata(void)
{
    jostle_metadata metadata;
    memset(&metadata, 0, sizeof metadata);
    argument("metadata", READ, sizeof(void *), sizeof metadata, &metadata);
    argument("metadata key", READ, 1, 5, "note");
    argument("metadata value", READ, 1, 6, "hello");
    inside(find("metadata key"), "metadata", offsetof(jostle_metadata, key), NULL);
    inside(find("metadata value"), "metadata", offsetof(jostle_metadata, value), NULL);
    number("metadata_count", 1);
    bad(find("metadata key")->memory, "\xff", 1, JOSTLE_NOT_UTF8, "metadata key");
    bad(find("metadata value")->memory, "\xc3(", 2, JOSTLE_NOT_UTF8, "metadata value");
}

/* Parameters, frozen ones and the optimiser's state, all zero. */
static jostle_buffers zeros(void)
{
    static float values[4096], state[4096];
    need(plan.parameters_size <= sizeof values && plan.optimizer_size <= sizeof state, "room for parameters");
    return (jostle_buffers){
        .struct_size = sizeof(jostle_buffers),
        .parameters = values, .parameters_size = plan.parameters_size,
        .frozen = values, .frozen_size = plan.frozen_size,
        .optimizer = state, .optimizer_size = plan.optimizer_size,
    };
}

/* A checkpoint with a note, in memory that stays. */
static const unsigned char *a_checkpoint(size_t *size)
{
    static unsigned char bytes[16384];
    const jostle_buffers values = zeros();
    const jostle_metadata metadata = {"note", "hello"};
    jostle_error e;
    ok(jostle_checkpoint_write(&plan, &values, &progress, &metadata, 1, bytes, sizeof bytes, size, &e), &e, "checkpoint");
    return bytes;
}

static void add_file(void)
{
    size_t size;
    const unsigned char *bytes = a_checkpoint(&size);
    begin();
    argument("bytes", READ | BUFFER | SOLID, 1, size, bytes);
    unsigned char other = (unsigned char)(bytes[size - 1] ^ 1);
    size_t shorter = size - 1, seven = 7, none = 0;
    bad(find("bytes")->size_at, &shorter, sizeof shorter, JOSTLE_CHECKPOINT_TRUNCATED, "checkpoint");
    bad(find("bytes")->size_at, &seven, sizeof seven, JOSTLE_CHECKPOINT_TRUNCATED, "checkpoint");
    bad(find("bytes")->size_at, &none, sizeof none, JOSTLE_CHECKPOINT_TRUNCATED, "checkpoint");
    bad(find("bytes")->memory + 8, "x", 1, JOSTLE_CHECKPOINT_HEADER, "checkpoint");
    bad_u64("bytes", 0, UINT64_MAX, JOSTLE_CHECKPOINT_HEADER, "checkpoint");
    bad(find("bytes")->memory + size - 1, &other, 1, JOSTLE_CHECKPOINT_CHECKSUM, "checkpoint");
}

/* A safetensors file of this header and so many bytes of zeros, read as parameters and as a checkpoint. */
static void says(const jostle_error *e, const char *wanted)
{
    char text[160];
    need(jostle_error_message(e, text, sizeof text) == JOSTLE_OK, "a message");
    check(strcmp(text, wanted) == 0, "\"%s\", not \"%s\"", text, wanted);
}

/* A safetensors file of this header and so many bytes of zeros is refused with this message. */
static void refuse_file(const char *header, size_t data, jostle_status wanted, int whole, const char *message)
{
    jostle_error e;
    static unsigned char bytes[512];
    jostle_buffers values = zeros();
    jostle_progress read;
    size_t length = strlen(header);
    values.optimizer = NULL;
    need(8 + length + data <= sizeof bytes, "room for a file");
    memset(bytes, 0, sizeof bytes);
    bytes[0] = (unsigned char)length;
    bytes[1] = (unsigned char)(length >> 8);
    memcpy(bytes + 8, header, length);
    size_t size = 8 + length + data;
    jostle_status status =
        whole ? jostle_checkpoint_read(bytes, size, &plan, &values, &read, &e)
              : jostle_checkpoint_read_parameters(bytes, size, &plan, values.parameters, plan.parameters_size, &e);
    check(status == wanted, "%s: status %d, not %d", header, (int)status, (int)wanted);
#ifdef FREESTANDING
    /* Devices have no room for the names of tensors. */
    (void)message;
#else
    says(&e, message);
#endif
    statuses[status] = 1;
}

static void test_checkpoints(void)
{
    begin();
    add_plan();
    add_metadata();
    number("optimizer", 1);
    bad_choice("optimizer", 2);
    OUTPUT("size", size_t);
    exercise("jostle_checkpoint_size", call_checkpoint_size);
    jostle_metadata many[JOSTLE_METADATA_MOST + 1];
    static const char keys[] = "abcdefghijklmnopqrstuvwxyz";
    for (size_t i = 0; i < COUNT(many); i++)
        many[i] = (jostle_metadata){keys + i, ""};
    jostle_error e;
    size_t size;
    jostle_status status = jostle_checkpoint_size(&plan, 0, many, COUNT(many), &size, &e);
    check(status == JOSTLE_TOO_LARGE && strcmp(e.what, "metadata") == 0, "17 entries: status %d", (int)status);
    ok(jostle_checkpoint_size(&plan, 0, many, COUNT(many) - 1, &size, &e), &e, "16 entries");

    a_checkpoint(&size);
    begin();
    add_plan();
    add_metadata();
    add_parameters();
    read_floats("optimizer", plan.optimizer_size / sizeof(float))->is |= OPTIONAL;
    add_buffers();
    argument("progress", READ, 8, sizeof progress, &progress);
    argument("bytes", WRITTEN | BUFFER | SHORTENED, 1, size, NULL);
    OUTPUT("written", size_t);
    exercise("jostle_checkpoint_write", call_checkpoint_write);
    memcpy(find("metadata key")->memory, "form", 5);
    jostle_metadata format = {"format", "pt"};
    memcpy(find("metadata")->memory, &format, sizeof format);
    refused("a reserved key", run_once("a reserved key", &told.error), JOSTLE_CHECKPOINT_KEY, "metadata");

    add_file();
    OUTPUT("config", jostle_config);
    number("struct_size", sizeof config);
    bad_struct_size(sizeof config, "config");
    exercise("jostle_checkpoint_config", call_checkpoint_config);

    add_file();
    add_plan();
    write_floats("parameters", plan.parameter_count);
    write_floats("optimizer", plan.optimizer_size / sizeof(float))->is |= OPTIONAL;
    add_buffers();
    OUTPUT("progress", jostle_progress);
    exercise("jostle_checkpoint_read", call_checkpoint_read);
    jostle_config other = config;
    jostle_plan another;
    other.activation = JOSTLE_GELU_TANH;
    ok(jostle_plan_init(&another, &other, &options, &e), &e, "another plan");
    memcpy(find("plan")->memory, &another, sizeof another);
    refused("another model", run_once("another model", &told.error), JOSTLE_CHECKPOINT_CONFIGURATION, NULL);

    add_file();
    add_plan();
    write_floats("parameters", plan.parameter_count);
    exercise("jostle_checkpoint_read_parameters", call_checkpoint_read_parameters);

    add_file();
    argument("key", READ, 1, 5, "note");
    bad(find("key")->memory, "N", 1, JOSTLE_NOT_FOUND, "metadata");
    bad(find("key")->memory, "\xff", 1, JOSTLE_NOT_UTF8, "key");
    argument("text", WRITTEN | BUFFER | SHORTENED, 1, 6, NULL);
    OUTPUT("length", size_t);
    exercise("jostle_checkpoint_metadata", call_checkpoint_metadata);

    refuse_file("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, JOSTLE_CHECKPOINT_DUPLICATE, 0,
                "a name occurs twice in the checkpoint: checkpoint at byte 62");
    refuse_file("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, JOSTLE_CHECKPOINT_OFFSETS, 0,
                "the checkpoint's tensors overlap or leave a gap: checkpoint: given 4, wanted 8");
    refuse_file("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, JOSTLE_CHECKPOINT_MISSING, 0,
                "a tensor is missing from the checkpoint: wte.weight, number 0");
    refuse_file("{\"wte.weight\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]}}", 4,
                JOSTLE_CHECKPOINT_SHAPE, 0,
                "a tensor in the checkpoint has another shape: wte.weight is [1, 1]; expected [11, 4]");
    refuse_file("{\"wte.weight\":{\"dtype\":\"I8\",\"shape\":[11,4],\"data_offsets\":[0,44]}}", 44,
                JOSTLE_CHECKPOINT_TYPE, 0,
                "a tensor in the checkpoint is not F32, F16 or BF16: wte.weight is I8; expected F32, F16 or BF16");
    refuse_file("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, JOSTLE_CHECKPOINT_METADATA, 1,
                "the checkpoint's metadata is missing or malformed: jostle.step");

    /* A file of another program's, since no key begins with "jostle.", has tensors that the model does not have. */
    unsigned char altered[16384];
    memcpy(altered, a_checkpoint(&size), size);
    for (size_t i = 0; i + 8 < size; i++)
        if (memcmp(altered + i, "\"jostle.", 8) == 0)
            altered[i + 1] = 'J';
    jostle_buffers values = zeros();
    status = jostle_checkpoint_read_parameters(altered, size, &plan, values.parameters, plan.parameters_size, &e);
    statuses[status] = 1;
    check(status == JOSTLE_CHECKPOINT_UNUSED, "status %d, not unused", (int)status);
#ifndef FREESTANDING
    check(strcmp(e.what, "optimizer.first_moment.wte.weight") == 0, "unused: %s", e.what);
#endif
}

/* Flash memory. */

enum { SLOT = 12288, WRITE_SIZE = 8 };
static unsigned char flash_memory[2][SLOT];

static int32_t erase_flash(void *context, size_t slot)
{
    (void)context;
    memset(flash_memory[slot], 0xFF, SLOT);
    return 0;
}

static int32_t program_flash(void *context, size_t slot, size_t at, const uint8_t *bytes, size_t size)
{
    (void)context;
    if (at % WRITE_SIZE || size % WRITE_SIZE)
        return -1;
    memcpy(flash_memory[slot] + at, bytes, size);
    return 0;
}

static int32_t read_flash(void *context, size_t slot, size_t at, uint8_t *bytes, size_t size)
{
    (void)context;
    memcpy(bytes, flash_memory[slot] + at, size);
    return 0;
}

static int32_t refuse_erase(void *context, size_t slot)
{
    (void)context, (void)slot;
    return -77;
}

static int32_t refuse_program(void *context, size_t slot, size_t at, const uint8_t *bytes, size_t size)
{
    (void)bytes, (void)at, (void)size;
    return refuse_erase(context, slot);
}

static int32_t pretend_program(void *context, size_t slot, size_t at, const uint8_t *bytes, size_t size)
{
    (void)bytes, (void)at, (void)size, (void)context, (void)slot;
    return 0;
}

static int32_t refuse_read(void *context, size_t slot, size_t at, uint8_t *bytes, size_t size)
{
    (void)bytes, (void)at, (void)size;
    return refuse_erase(context, slot);
}

/* Reads the first slot alone. */
static int32_t read_first(void *context, size_t slot, size_t at, uint8_t *bytes, size_t size)
{
    return slot == 0 ? read_flash(context, slot, at, bytes, size) : 77;
}

static void add_flash(void)
{
    const jostle_flash flash = {
        .struct_size = sizeof flash, .write_size = WRITE_SIZE, .slot_size = SLOT,
        .erase = erase_flash, .program = program_flash, .read = read_flash,
    };
    const jostle_flash none = {.struct_size = 0};
    structure("flash", &flash, sizeof flash)->alignment = sizeof(void *);
    unsigned char *memory = find("flash")->memory;
    bad(memory + offsetof(jostle_flash, erase), &none.erase, sizeof none.erase, JOSTLE_NULL_POINTER, "erase");
    bad(memory + offsetof(jostle_flash, program), &none.program, sizeof none.program, JOSTLE_NULL_POINTER, "program");
    bad(memory + offsetof(jostle_flash, read), &none.read, sizeof none.read, JOSTLE_NULL_POINTER, "read");
    bad_u32("flash", offsetof(jostle_flash, write_size), 0, JOSTLE_ZERO, "write_size");
    const jostle_flash failing = {.struct_size = 0, .read = refuse_read};
    bad(memory + offsetof(jostle_flash, read), &failing.read, sizeof failing.read, JOSTLE_FLASH, "read");
}

/* May have any length: the required length differs between calls. */
static void add_block(size_t bytes)
{
    static const size_t none = 0, short_size = 31;
    argument("block", WRITTEN | WORKSPACE | BUFFER, 1, bytes, NULL);
    bad(find("block")->size_at, &short_size, sizeof short_size, JOSTLE_BUFFER_TOO_SHORT, "block");
    bad(find("block")->size_at, &none, sizeof none, JOSTLE_BUFFER_TOO_SHORT, "block");
    bad_u32("flash", offsetof(jostle_flash, write_size), (uint32_t)bytes + 1, JOSTLE_BUFFER_TOO_SHORT, "block");
}

static jostle_status call_slots_size(void)
{
    return CALL(jostle_slots_size)(N("checkpoint_size"), (uint32_t)N("write_size"), P("size"), error);
}

static jostle_status call_slots_newest(void)
{
    return CALL(jostle_slots_newest)(P("flash"), P("block"), S("block"), P("slot"), error);
}

static jostle_status call_slots_save(void)
{
    return CALL(jostle_slots_save)(P("flash"), P("plan"), P("buffers"), P("progress"), P("metadata"),
                                   N("metadata_count"), P("block"), S("block"), error);
}

static jostle_status call_slots_load(void)
{
    return CALL(jostle_slots_load)(P("flash"), P("plan"), P("buffers"), P("block"), S("block"), P("progress"), error);
}

static void test_slots(void)
{
    begin();
    number("checkpoint_size", 1000);
    number("write_size", WRITE_SIZE);
    bad_number("write_size", 0, JOSTLE_ZERO, "write_size");
    bad_number("checkpoint_size", SIZE_MAX, JOSTLE_TOO_LARGE, "slot");
    OUTPUT("size", size_t);
    exercise("jostle_slots_size", call_slots_size);

    memset(flash_memory, 0xFF, sizeof flash_memory);
    begin();
    add_plan();
    add_flash();
    add_metadata();
    add_parameters();
    read_floats("optimizer", plan.optimizer_size / sizeof(float))->is |= OPTIONAL;
    add_buffers();
    argument("progress", READ, 8, sizeof progress, &progress);
    add_block(100);
    size_t size, slot_size;
    const unsigned char *bytes = a_checkpoint(&size);
    jostle_error e;
    ok(jostle_slots_size(size, WRITE_SIZE, &slot_size, &e), &e, "slots' size");
    bad_size("flash", offsetof(jostle_flash, slot_size), slot_size - 1, JOSTLE_BUFFER_TOO_SHORT, "slot");
    unsigned char *memory = find("flash")->memory;
    const jostle_flash failing = {.erase = refuse_erase, .program = refuse_program};
    const jostle_flash pretending = {.program = pretend_program};
    bad(memory + offsetof(jostle_flash, erase), &failing.erase, sizeof failing.erase, JOSTLE_FLASH, "erase");
    bad(memory + offsetof(jostle_flash, program), &failing.program, sizeof failing.program, JOSTLE_FLASH, "program");
    bad(memory + offsetof(jostle_flash, program), &pretending.program, sizeof pretending.program, JOSTLE_FLASH_CONTENTS,
        "slot");
    exercise("jostle_slots_save", call_slots_save);

    memset(flash_memory, 0xFF, sizeof flash_memory);
    begin();
    add_flash();
    add_block(100);
    OUTPUT("slot", jostle_slot);
    const jostle_buffers values = zeros();
    static unsigned char block[16384];
    const jostle_metadata metadata = {"note", "hello"};
    jostle_flash flash;
    memcpy(&flash, find("flash")->memory, sizeof flash);
    for (int i = 0; i < 2; i++)
        ok(jostle_slots_save(&flash, &plan, &values, &progress, &metadata, 1, block, sizeof block, &e), &e, "save");
    exercise("jostle_slots_newest", call_slots_newest);
    jostle_slot slot;
    ok(jostle_slots_newest(&flash, block, sizeof block, &slot, &e), &e, "newest");
    check(slot.index == 1 && slot.sequence == 2 && slot.offset == 32 && slot.size == size, "the second save");
    check(memcmp(flash_memory[1] + slot.offset, bytes, size) == 0, "a slot has other bytes than jostle_checkpoint_write's");
    check(slot.other_error == 0, "the other slot can be read");

    /* The newer slot cannot be read: the older one is found, and the error is told. */
    jostle_flash half = flash;
    half.read = read_first;
    ok(jostle_slots_newest(&half, block, sizeof block, &slot, &e), &e, "the older");
    check(slot.index == 0 && slot.sequence == 1 && slot.other_error == 77, "slot %zu, error %d", slot.index,
          (int)slot.other_error);
    memset(flash_memory[0], 0xFF, sizeof flash_memory[0]);
    check(jostle_slots_newest(&half, block, sizeof block, &slot, &e) == JOSTLE_NOT_FOUND, "nothing that can be read");
    says(&e, "not found: checkpoint; reading slot 1: error 77");

    begin();
    add_flash();
    add_plan();
    write_floats("parameters", plan.parameter_count);
    write_floats("optimizer", plan.optimizer_size / sizeof(float))->is |= OPTIONAL;
    add_buffers();
    OUTPUT("progress", jostle_progress);
    size_t header = (size_t)bytes[0] | (size_t)bytes[1] << 8, shorter = header - 1;
    add_block(header);
    bad(find("block")->size_at, &shorter, sizeof shorter, JOSTLE_BUFFER_TOO_SHORT, "block");
    exercise("jostle_slots_load", call_slots_load);
    jostle_config other = config;
    jostle_plan another;
    other.activation = JOSTLE_GELU_TANH;
    ok(jostle_plan_init(&another, &other, &options, &e), &e, "another plan");
    memcpy(find("plan")->memory, &another, sizeof another);
    refused("another model", run_once("another model", &told.error), JOSTLE_CHECKPOINT_CONFIGURATION, NULL);
    memset(flash_memory, 0xFF, sizeof flash_memory);
    refused("no checkpoint", run_once("no checkpoint", &told.error), JOSTLE_NOT_FOUND, "checkpoint");
}

/* Single operations. */

static jostle_status call_matmul(void)
{
    return CALL(jostle_matmul)(P("compute"), N("m"), N("n"), N("k"), P("c"), S("c"), N("c_stride"), N("start"),
                               P("bias"), S("bias"), P("a"), P("b"), P("scratch"), S("scratch"), error);
}

static jostle_status call_linear_forward(void)
{
    return CALL(jostle_linear_forward)(P("compute"), N("rows"), N("inputs"), N("outputs"), P("y"), S("y"), P("x"),
                                       S("x"), P("weight"), S("weight"), P("bias"), S("bias"), P("scratch"),
                                       S("scratch"), error);
}

static jostle_status call_linear_backward(void)
{
    return CALL(jostle_linear_backward)(P("compute"), N("rows"), N("inputs"), N("outputs"), P("d_x"), S("d_x"),
                                        P("d_y"), S("d_y"), P("weight"), S("weight"), P("scratch"), S("scratch"),
                                        error);
}

static jostle_status call_linear_backward_parameters(void)
{
    return CALL(jostle_linear_backward_parameters)(P("compute"), N("rows"), N("inputs"), N("outputs"), P("d_weight"),
                                                   S("d_weight"), P("d_bias"), S("d_bias"), P("x"), S("x"), P("d_y"),
                                                   S("d_y"), P("scratch"), S("scratch"), error);
}

static void add_matrix(const char *name, const char *data, size_t rows, size_t columns)
{
    jostle_matrix matrix = {.row_stride = columns, .column_stride = 1};
    argument(name, READ, sizeof(void *), sizeof matrix, &matrix);
    read_floats(data, rows * columns)->what = name;
    inside(find(data), name, offsetof(jostle_matrix, data), &(size_t){offsetof(jostle_matrix, size)});
    bad_size(name, offsetof(jostle_matrix, row_stride), SIZE_MAX, JOSTLE_TOO_LARGE, name);
    bad_size(name, offsetof(jostle_matrix, column_stride), SIZE_MAX / 2, JOSTLE_TOO_LARGE, name);
    bad_size(name, offsetof(jostle_matrix, row_stride), columns + 1, JOSTLE_BUFFER_TOO_SHORT, name);
}

static void add_linear(size_t m, size_t n, size_t k)
{
    begin();
    add_compute();
    dimension("rows", ROWS);
    dimension("inputs", WIDTH);
    dimension("outputs", INNER);
    scratch(jostle_matmul_scratch_size(m, n, k));
}

static void test_products(void)
{
    begin();
    add_compute();
    dimension("m", ROWS);
    dimension("n", INNER);
    dimension("k", WIDTH);
    dimension("c_stride", INNER + 1);
    bad_number("c_stride", INNER - 1, JOSTLE_LENGTH, "c_stride");
    number("start", JOSTLE_START_BIAS);
    bad_choice("start", 3);
    write_floats("c", (ROWS - 1) * (INNER + 1) + INNER);
    read_floats("bias", INNER);
    add_matrix("a", "a's data", ROWS, WIDTH);
    add_matrix("b", "b's data", WIDTH, INNER);
    scratch(jostle_matmul_scratch_size(ROWS, INNER, WIDTH));
    exercise("jostle_matmul", call_matmul);

    add_linear(ROWS, INNER, WIDTH);
    write_floats("y", ROWS * INNER);
    read_floats("x", ROWS * WIDTH);
    read_floats("weight", WIDTH * INNER);
    read_floats("bias", INNER)->is |= OPTIONAL;
    exercise("jostle_linear_forward", call_linear_forward);

    add_linear(ROWS, WIDTH, INNER);
    write_floats("d_x", ROWS * WIDTH);
    read_floats("d_y", ROWS * INNER);
    read_floats("weight", WIDTH * INNER);
    exercise("jostle_linear_backward", call_linear_backward);

    add_linear(WIDTH, INNER, ROWS);
    write_floats("d_weight", WIDTH * INNER);
    write_floats("d_bias", INNER)->is |= OPTIONAL;
    read_floats("x", ROWS * WIDTH);
    read_floats("d_y", ROWS * INNER);
    exercise("jostle_linear_backward_parameters", call_linear_backward_parameters);
}

static jostle_status call_attention_forward(void)
{
    return CALL(jostle_attention_forward)(P("compute"), N("length"), N("width"), N("heads"), P("mask"), P("out"),
                                          S("out"), P("stats"), S("stats"), P("qkv"), S("qkv"), P("scratch"),
                                          S("scratch"), error);
}

static jostle_status call_attention_backward(void)
{
    return CALL(jostle_attention_backward)(P("compute"), N("length"), N("width"), N("heads"), P("mask"), P("d_qkv"),
                                           S("d_qkv"), P("d_out"), S("d_out"), P("qkv"), S("qkv"), P("out"), S("out"),
                                           P("stats"), S("stats"), P("scratch"), S("scratch"), error);
}

static jostle_status call_attention_weights(void)
{
    return CALL(jostle_attention_weights)(P("compute"), N("length"), N("width"), N("heads"), P("weights"),
                                          S("weights"), P("qkv"), S("qkv"), P("scratch"), S("scratch"), error);
}

static void add_attention(void)
{
    begin();
    add_compute();
    dimension("length", ROWS);
    dimension("width", WIDTH);
    dimension("heads", HEADS);
    bad_number("heads", 0, JOSTLE_ZERO, "heads");
    read_floats("qkv", ROWS * 3 * WIDTH);
    scratch(jostle_attention_scratch_size(ROWS, WIDTH));
}

static void test_attention(void)
{
    add_attention();
    add_mask();
    write_floats("out", ROWS * WIDTH);
    write_floats("stats", HEADS * ROWS * 2);
    exercise("jostle_attention_forward", call_attention_forward);

    add_attention();
    add_mask();
    write_floats("d_qkv", ROWS * 3 * WIDTH);
    read_floats("d_out", ROWS * WIDTH);
    read_floats("out", ROWS * WIDTH);
    read_floats("stats", HEADS * ROWS * 2);
    exercise("jostle_attention_backward", call_attention_backward);

    add_attention();
    write_floats("weights", HEADS * ROWS * ROWS);
    exercise("jostle_attention_weights", call_attention_weights);
    jostle_error e;
    float weights[27], qkv[36] = {0}, memory[2048];
    need(jostle_attention_scratch_size(ROWS, WIDTH) <= sizeof memory, "room for scratch");
    jostle_status status = jostle_attention_weights(NULL, ROWS, WIDTH, 3, weights, sizeof weights, qkv, sizeof qkv,
                                                    memory, sizeof memory, &e);
    check(status == JOSTLE_HEADS && e.given == 3 && e.wanted == WIDTH, "three heads of a width of four");
}

static jostle_status call_softmax_forward(void)
{
    return CALL(jostle_softmax_forward)(P("compute"), N("rows"), N("width"), P("x"), S("x"), error);
}

static jostle_status call_softmax_backward(void)
{
    return CALL(jostle_softmax_backward)(P("compute"), N("rows"), N("width"), P("d_x"), S("d_x"), P("d_y"), S("d_y"),
                                         P("y"), S("y"), error);
}

static jostle_status call_causal_mask(void)
{
    return CALL(jostle_causal_mask)(N("rows"), N("width"), N("offset"), P("scores"), S("scores"), error);
}

static jostle_status call_layer_norm_forward(void)
{
    return CALL(jostle_layer_norm_forward)(P("compute"), N("rows"), N("width"), 1e-5f, P("y"), S("y"), P("mean"),
                                           S("mean"), P("rstd"), S("rstd"), P("x"), S("x"), P("weight"), S("weight"),
                                           P("bias"), S("bias"), error);
}

static jostle_status call_layer_norm_backward(void)
{
    return CALL(jostle_layer_norm_backward)(P("compute"), N("rows"), N("width"), P("d_x"), S("d_x"), P("d_y"),
                                            S("d_y"), P("x"), S("x"), P("mean"), S("mean"), P("rstd"), S("rstd"),
                                            P("weight"), S("weight"), error);
}

static jostle_status call_layer_norm_backward_parameters(void)
{
    return CALL(jostle_layer_norm_backward_parameters)(P("compute"), N("rows"), N("width"), P("d_weight"),
                                                       S("d_weight"), P("d_bias"), S("d_bias"), P("d_y"), S("d_y"),
                                                       P("x"), S("x"), P("mean"), S("mean"), P("rstd"), S("rstd"),
                                                       error);
}

static jostle_status call_dropout(void)
{
    return CALL(jostle_dropout)(P("compute"), N("rows"), N("width"), P("mask"), P("y"), S("y"), P("x"), S("x"), error);
}

static void add_rows(void)
{
    begin();
    add_compute();
    dimension("rows", ROWS);
    dimension("width", WIDTH);
}

static jostle_status call_rms_norm_forward(void)
{
    return CALL(jostle_rms_norm_forward)(P("compute"), N("rows"), N("width"), 1e-5f, P("y"), S("y"), P("rstd"),
                                         S("rstd"), P("x"), S("x"), P("weight"), S("weight"), error);
}

static jostle_status call_rms_norm_backward(void)
{
    return CALL(jostle_rms_norm_backward)(P("compute"), N("rows"), N("width"), P("d_x"), S("d_x"), P("d_y"), S("d_y"),
                                          P("x"), S("x"), P("rstd"), S("rstd"), P("weight"), S("weight"), error);
}

static jostle_status call_rms_norm_backward_parameters(void)
{
    return CALL(jostle_rms_norm_backward_parameters)(P("compute"), N("rows"), N("width"), P("d_weight"), S("d_weight"),
                                                     P("d_y"), S("d_y"), P("x"), S("x"), P("rstd"), S("rstd"), error);
}

static void test_rows(void)
{
    add_rows();
    write_floats("x", ROWS * WIDTH);
    exercise("jostle_softmax_forward", call_softmax_forward);

    add_rows();
    write_floats("d_x", ROWS * WIDTH);
    read_floats("d_y", ROWS * WIDTH);
    read_floats("y", ROWS * WIDTH);
    exercise("jostle_softmax_backward", call_softmax_backward);

    begin();
    dimension("rows", ROWS);
    dimension("width", WIDTH);
    number("offset", 1);
    bad_number("width", 0, JOSTLE_ZERO, "width");
    write_floats("scores", ROWS * WIDTH);
    exercise("jostle_causal_mask", call_causal_mask);
    find_number("offset")->value = SIZE_MAX;
    check(run_once("a huge offset", &told.error) == JOSTLE_OK, "a huge offset");

    add_rows();
    write_floats("y", ROWS * WIDTH);
    write_floats("mean", ROWS);
    write_floats("rstd", ROWS);
    read_floats("x", ROWS * WIDTH);
    read_floats("weight", WIDTH);
    read_floats("bias", WIDTH)->is |= OPTIONAL;
    exercise("jostle_layer_norm_forward", call_layer_norm_forward);

    add_rows();
    write_floats("d_x", ROWS * WIDTH);
    read_floats("d_y", ROWS * WIDTH);
    read_floats("x", ROWS * WIDTH);
    read_floats("mean", ROWS);
    read_floats("rstd", ROWS);
    read_floats("weight", WIDTH);
    exercise("jostle_layer_norm_backward", call_layer_norm_backward);

    add_rows();
    write_floats("d_weight", WIDTH);
    write_floats("d_bias", WIDTH)->is |= OPTIONAL;
    read_floats("d_y", ROWS * WIDTH);
    read_floats("x", ROWS * WIDTH);
    read_floats("mean", ROWS);
    read_floats("rstd", ROWS);
    exercise("jostle_layer_norm_backward_parameters", call_layer_norm_backward_parameters);

    add_rows();
    write_floats("y", ROWS * WIDTH);
    write_floats("rstd", ROWS);
    read_floats("x", ROWS * WIDTH);
    read_floats("weight", WIDTH);
    exercise("jostle_rms_norm_forward", call_rms_norm_forward);

    add_rows();
    write_floats("d_x", ROWS * WIDTH);
    read_floats("d_y", ROWS * WIDTH);
    read_floats("x", ROWS * WIDTH);
    read_floats("rstd", ROWS);
    read_floats("weight", WIDTH);
    exercise("jostle_rms_norm_backward", call_rms_norm_backward);

    add_rows();
    write_floats("d_weight", WIDTH);
    read_floats("d_y", ROWS * WIDTH);
    read_floats("x", ROWS * WIDTH);
    read_floats("rstd", ROWS);
    exercise("jostle_rms_norm_backward_parameters", call_rms_norm_backward_parameters);

    add_rows();
    add_mask();
    write_floats("y", ROWS * WIDTH);
    read_floats("x", ROWS * WIDTH);
    exercise("jostle_dropout", call_dropout);
}

static jostle_status call_gelu_forward(void)
{
    return CALL(jostle_gelu_forward)(P("compute"), N("count"), N("activation"), P("y"), S("y"), P("x"), S("x"), error);
}

static jostle_status call_gelu_backward(void)
{
    return CALL(jostle_gelu_backward)(P("compute"), N("count"), N("activation"), P("d_x"), S("d_x"), P("d_y"),
                                      S("d_y"), P("x"), S("x"), error);
}

static jostle_status call_swiglu_forward(void)
{
    return CALL(jostle_swiglu_forward)(P("compute"), N("count"), P("y"), S("y"), P("gate"), S("gate"), P("up"), S("up"),
                                       error);
}

static jostle_status call_swiglu_backward(void)
{
    return CALL(jostle_swiglu_backward)(P("compute"), N("count"), P("d_gate"), S("d_gate"), P("d_up"), S("d_up"),
                                        P("d_y"), S("d_y"), P("gate"), S("gate"), P("up"), S("up"), error);
}

static jostle_status call_gradient_norm(void)
{
    return CALL(jostle_gradient_norm)(P("compute"), N("count"), P("gradients"), S("gradients"), P("norm"), error);
}

static jostle_status call_optimizer_update(void)
{
    return CALL(jostle_optimizer_update)(P("compute"), P("recipe"), N("count"), P("x"), S("x"), P("gradient"),
                                         S("gradient"), P("state"), S("state"), N("decays"), 0, 1e-3f, 1.0f, error);
}

static void add_elements(void)
{
    begin();
    add_compute();
    dimension("count", 7);
}

static void test_elements(void)
{
    add_elements();
    number("activation", JOSTLE_GELU);
    bad_choice("activation", 3);
    bad_number("activation", JOSTLE_SWIGLU, JOSTLE_UNSUPPORTED, "swiglu as a form of GELU");
    write_floats("y", 7);
    read_floats("x", 7);
    exercise("jostle_gelu_forward", call_gelu_forward);

    add_elements();
    number("activation", JOSTLE_GELU_TANH);
    bad_choice("activation", 3);
    bad_number("activation", JOSTLE_SWIGLU, JOSTLE_UNSUPPORTED, "swiglu as a form of GELU");
    write_floats("d_x", 7);
    read_floats("d_y", 7);
    read_floats("x", 7);
    exercise("jostle_gelu_backward", call_gelu_backward);

    add_elements();
    write_floats("y", 7);
    read_floats("gate", 7);
    read_floats("up", 7);
    exercise("jostle_swiglu_forward", call_swiglu_forward);

    add_elements();
    write_floats("d_gate", 7);
    write_floats("d_up", 7);
    read_floats("d_y", 7);
    read_floats("gate", 7);
    read_floats("up", 7);
    exercise("jostle_swiglu_backward", call_swiglu_backward);

    add_elements();
    read_floats("gradients", 7);
    OUTPUT("norm", float);
    exercise("jostle_gradient_norm", call_gradient_norm);

    add_elements();
    add_recipe();
    number("decays", 1);
    bad_choice("decays", 2);
    write_floats("x", 7);
    read_floats("gradient", 7);
    write_floats("state", 14);
    memset(find("state")->memory, 0, 14 * sizeof(float));
    exercise("jostle_optimizer_update", call_optimizer_update);

    check(CALL(jostle_clip_factor)(4.0f, 1.0f) < 0.26f && jostle_clip_factor(0.5f, 1.0f) == 1.0f, "clipping");
    /* Products are cut into blocks: their scratch has a limit. */
    size_t most = CALL(jostle_matmul_scratch_size)(SIZE_MAX, SIZE_MAX, SIZE_MAX);
    check(most >= jostle_matmul_scratch_size(5000, 5000, 5000) && most < 1 << 24, "a product's scratch: %zu", most);
    check(CALL(jostle_attention_scratch_size)(SIZE_MAX, SIZE_MAX) == SIZE_MAX, "the attention's scratch");
}

static jostle_status call_grouped_attention_forward(void)
{
    return CALL(jostle_grouped_attention_forward)(P("compute"), N("length"), N("heads"), N("kv_heads"), N("head_width"),
                                                  P("mask"), P("out"), S("out"), P("stats"), S("stats"), P("qkv"),
                                                  S("qkv"), P("scratch"), S("scratch"), error);
}

static jostle_status call_grouped_attention_backward(void)
{
    return CALL(jostle_grouped_attention_backward)(P("compute"), N("length"), N("heads"), N("kv_heads"), N("head_width"),
                                                   P("mask"), P("d_qkv"), S("d_qkv"), P("d_out"), S("d_out"), P("qkv"),
                                                   S("qkv"), P("out"), S("out"), P("stats"), S("stats"), P("scratch"),
                                                   S("scratch"), error);
}

/* Two query heads share each of two key/value heads. */
static void add_grouped(void)
{
    begin();
    add_compute();
    dimension("length", ROWS);
    dimension("heads", 4);
    number("kv_heads", 2);
    dimension("head_width", 3);
    bad_number("heads", 0, JOSTLE_ZERO, "heads");
    bad_number("kv_heads", 0, JOSTLE_ZERO, "kv_heads");
    bad_number("kv_heads", SIZE_MAX, JOSTLE_TOO_LARGE, NULL);
    bad_number("heads", 3, JOSTLE_KV_HEADS, "kv_heads");
    bad_number("head_width", 0, JOSTLE_ZERO, "head_width");
    add_mask();
    scratch(jostle_attention_scratch_size(ROWS, 12));
}

static void test_grouped_attention(void)
{
    add_grouped();
    write_floats("out", ROWS * 12);
    write_floats("stats", 4 * ROWS * 2);
    read_floats("qkv", ROWS * 24);
    exercise("jostle_grouped_attention_forward", call_grouped_attention_forward);

    add_grouped();
    write_floats("d_qkv", ROWS * 24);
    read_floats("d_out", ROWS * 12);
    read_floats("qkv", ROWS * 24);
    read_floats("out", ROWS * 12);
    read_floats("stats", 4 * ROWS * 2);
    exercise("jostle_grouped_attention_backward", call_grouped_attention_backward);
}

/* The numbers of the table of rotary angles, which are no size_t. */
static struct { float theta, factor, low, high; } angles;

static jostle_status call_rotary_table(void)
{
    return CALL(jostle_rotary_table)(N("length"), N("head_width"), angles.theta, angles.factor, angles.low, angles.high,
                                     N("original"), P("cos"), S("cos"), P("sin"), S("sin"), error);
}

static jostle_status call_rotary_forward(void)
{
    return CALL(jostle_rotary_forward)(P("compute"), N("rows"), N("heads"), N("head_width"), P("x"), S("x"), P("cos"),
                                       S("cos"), P("sin"), S("sin"), error);
}

static jostle_status call_rotary_backward(void)
{
    return CALL(jostle_rotary_backward)(P("compute"), N("rows"), N("heads"), N("head_width"), P("x"), S("x"), P("cos"),
                                        S("cos"), P("sin"), S("sin"), error);
}

static void add_rotary(void)
{
    begin();
    add_compute();
    dimension("rows", ROWS);
    dimension("heads", HEADS);
    dimension("head_width", WIDTH);
    bad_number("heads", 0, JOSTLE_ZERO, "heads");
    bad_number("head_width", 0, JOSTLE_ZERO, "head_width");
    bad_number("head_width", WIDTH - 1, JOSTLE_OUT_OF_RANGE, "head_width");
    read_floats("cos", ROWS * WIDTH / 2);
    read_floats("sin", ROWS * WIDTH / 2);
}

static void test_rotary(void)
{
    begin();
    dimension("length", ROWS);
    dimension("head_width", WIDTH);
    number("original", 8);
    bad_number("head_width", 0, JOSTLE_ZERO, "head_width");
    bad_number("head_width", WIDTH - 1, JOSTLE_OUT_OF_RANGE, "head_width");
    write_floats("cos", ROWS * WIDTH / 2);
    write_floats("sin", ROWS * WIDTH / 2);
    angles.theta = 10000, angles.factor = 8, angles.low = 1, angles.high = 4;
    static const struct { float *number; float value; const char *name; } wrong[] = {
        {&angles.theta, 0, "theta"},    {&angles.theta, -1, "theta"},      {&angles.theta, NAN, "theta"},
        {&angles.theta, INFINITY, "theta"}, {&angles.factor, 0.5f, "factor"}, {&angles.factor, NAN, "factor"},
        {&angles.low, 0, "low"},        {&angles.low, NAN, "low"},         {&angles.high, 1, "high"},
        {&angles.high, INFINITY, "high"},
    };
    for (size_t i = 0; i < COUNT(wrong); i++)
        bad(wrong[i].number, &wrong[i].value, sizeof(float), JOSTLE_OUT_OF_RANGE, wrong[i].name);
    exercise("jostle_rotary_table", call_rotary_table);
    find_number("original")->value = 0;
    angles.factor = angles.low = angles.high = NAN;
    check(run_once("no scaling", &told.error) == JOSTLE_OK, "no scaling");

    add_rotary();
    write_floats("x", ROWS * HEADS * WIDTH);
    exercise("jostle_rotary_forward", call_rotary_forward);

    add_rotary();
    write_floats("x", ROWS * HEADS * WIDTH)->what = "d_x";
    exercise("jostle_rotary_backward", call_rotary_backward);
}

static jostle_status call_cross_entropy_forward(void)
{
    return CALL(jostle_cross_entropy_forward)(P("compute"), N("rows"), N("vocab"), P("losses"), S("losses"),
                                              P("logits"), S("logits"), P("targets"), S("targets"), error);
}

static jostle_status call_cross_entropy_backward(void)
{
    return CALL(jostle_cross_entropy_backward)(P("compute"), N("rows"), N("vocab"), N("counted"), P("losses"),
                                               S("losses"), P("logits"), S("logits"), P("targets"), S("targets"),
                                               error);
}

static jostle_status call_embedding_forward(void)
{
    return CALL(jostle_embedding_forward)(P("compute"), N("rows"), N("length"), N("width"), N("vocab"), N("context"),
                                          P("x"), S("x"), P("tokens"), S("tokens"), P("wte"), S("wte"), P("wpe"),
                                          S("wpe"), error);
}

static jostle_status call_embedding_backward(void)
{
    return CALL(jostle_embedding_backward)(P("compute"), N("rows"), N("length"), N("width"), N("vocab"), N("context"),
                                           P("d_wte"), S("d_wte"), P("d_wpe"), S("d_wpe"), P("d_x"), S("d_x"),
                                           P("tokens"), S("tokens"), error);
}

static void add_losses(void)
{
    begin();
    add_compute();
    dimension("rows", ROWS);
    dimension("vocab", VOCAB);
    write_floats("losses", ROWS);
    read_tokens("targets", ROWS);
    bad_u32("targets", 4, VOCAB, JOSTLE_TOKEN, "token");
    bad_u32("targets", 4, (uint32_t)-2, JOSTLE_TOKEN, "token");
}

static void add_embedding(void)
{
    begin();
    add_compute();
    dimension("rows", 2 * ROWS);
    number("length", ROWS);
    dimension("width", WIDTH);
    dimension("vocab", VOCAB);
    dimension("context", CONTEXT);
    bad_number("length", 0, JOSTLE_ZERO, "length");
    bad_number("length", CONTEXT + 1, JOSTLE_CONTEXT, "length");
    bad_number("length", SIZE_MAX, JOSTLE_CONTEXT, "length");
    read_tokens("tokens", 2 * ROWS);
    bad_u32("tokens", 4, VOCAB, JOSTLE_TOKEN, "token");
    bad_u32("tokens", 4, UINT32_MAX, JOSTLE_TOKEN, "token");
}

static void test_tokens(void)
{
    add_losses();
    read_floats("logits", ROWS * VOCAB);
    exercise("jostle_cross_entropy_forward", call_cross_entropy_forward);

    add_losses();
    write_floats("logits", ROWS * VOCAB);
    number("counted", ROWS);
    exercise("jostle_cross_entropy_backward", call_cross_entropy_backward);

    add_embedding();
    write_floats("x", 2 * ROWS * WIDTH);
    read_floats("wte", VOCAB * WIDTH);
    read_floats("wpe", CONTEXT * WIDTH);
    exercise("jostle_embedding_forward", call_embedding_forward);

    add_embedding();
    write_floats("d_wte", VOCAB * WIDTH);
    write_floats("d_wpe", CONTEXT * WIDTH);
    read_floats("d_x", 2 * ROWS * WIDTH);
    exercise("jostle_embedding_backward", call_embedding_backward);
}

/* The library as a whole. */

static void test_instruction_sets(void)
{
    jostle_error e;
    ok(CALL(jostle_instruction_set_check)(JOSTLE_FASTEST, &e), &e, "the fastest instruction set");
    ok(jostle_instruction_set_check(JOSTLE_PORTABLE, NULL), &e, "portable code");
    jostle_status status = jostle_instruction_set_check(5, &e);
    check(status == JOSTLE_UNKNOWN_CHOICE && e.given == 5 && strcmp(e.what, "instruction_set") == 0, "a set of no name");
    check(jostle_instruction_set_check(ABSENT, NULL) == JOSTLE_INSTRUCTION_SET, "an absent set");
}

static void test_version(void)
{
    uint32_t header = JOSTLE_VERSION_MAJOR << 16 | JOSTLE_VERSION_MINOR << 8 | JOSTLE_VERSION_PATCH;
    check(CALL(jostle_version)() == header, "version %x", (unsigned)jostle_version());
}

static void message_is(const jostle_error *e, const char *wanted)
{
    char text[200];
    size_t length = strlen(wanted);
    check(jostle_error_message(e, text, sizeof text) == JOSTLE_OK, "no message");
    check(strcmp(text, wanted) == 0, "\"%s\", not \"%s\"", text, wanted);
    /* Cut at every length, with the terminating zero and no further byte. */
    for (size_t size = 1; size <= length + 2; size++) {
        size_t kept = size - 1 < length ? size - 1 : length;
        memset(text, '~', sizeof text);
        check(jostle_error_message(e, text, size) == JOSTLE_OK, "no message in %zu bytes", size);
        check(memcmp(text, wanted, kept) == 0 && text[kept] == 0 && text[kept + 1] == '~', "cut off at %zu: %.*s", size,
              (int)size, text);
    }
}

static void test_messages(void)
{
    jostle_error e;
    jostle_config wrong = config;
    jostle_plan unused;
    float x[4] = {0};
    const int32_t targets[] = {0, 7};

    need(jostle_gelu_forward(NULL, 2, JOSTLE_GELU, x, 7, x + 2, 8, &e) == JOSTLE_BUFFER_TOO_SHORT, "a short buffer");
    check(e.given == 7 && e.wanted == 8 && e.index == 0 && e.value == 0, "a short buffer's numbers");
    message_is(&e, "a buffer is too short: y: given 7, wanted 8");

    need(jostle_gelu_forward(NULL, 2, JOSTLE_GELU, NULL, 8, x, 8, &e) == JOSTLE_NULL_POINTER, "NULL");
    check(e.given == 0 && e.wanted == 0 && e.range[0] == 0, "NULL's numbers");
    message_is(&e, "a pointer is NULL: y");

    need(jostle_gelu_forward(NULL, 2, 9, x, 8, x + 2, 8, &e) == JOSTLE_UNKNOWN_CHOICE, "a choice");
    message_is(&e, "an unknown value for a choice: activation is 9");

    wrong.norm_epsilon = 1.5f;
    need(jostle_plan_init(&unused, &wrong, &options, &e) == JOSTLE_OUT_OF_RANGE, "a range");
    check(e.value == 1.5f && strcmp(e.range, "more than 0 and less than 1") == 0, "a range's numbers");
    message_is(&e, "a number is out of range: norm_epsilon is 1.5; expected more than 0 and less than 1");

    wrong = config;
    wrong.struct_size += 8;
    need(jostle_plan_init(&unused, &wrong, &options, &e) == JOSTLE_STRUCT_TOO_LARGE, "a later version");
    check(e.given == (int64_t)sizeof config + 8 && e.wanted == (int64_t)sizeof config, "a later version's numbers");

    wrong = config;
    wrong.layers = 0;
    need(jostle_plan_init(&unused, &wrong, &options, &e) == JOSTLE_ZERO, "zero");
    message_is(&e, "a size is 0: layers");

    wrong = config;
    wrong.heads = 3;
    wrong.width = 25;
    need(jostle_plan_init(&unused, &wrong, &options, &e) == JOSTLE_HEADS, "heads");
    message_is(&e, "the width is not divisible by the heads: heads is 3; width is 25");

    need(jostle_cross_entropy_forward(NULL, 2, 2, x, 8, (float[4]){0}, 16, targets, 8, &e) == JOSTLE_TOKEN, "a token");
    check(e.index == 1 && e.given == 7 && e.wanted == 2, "a token's numbers");
    message_is(&e, "a token is outside the vocabulary: token 7 at index 1; expected less than 2");

    need(jostle_plan_tensor(&plan, 99, NULL, 0, &(jostle_tensor){.rank = 0}, &e) == JOSTLE_NOT_FOUND, "no tensor");
    check(e.index == 99, "a tensor's number");
    message_is(&e, "not found: tensor: number 99");

    const jostle_flash no_flash = {.struct_size = sizeof no_flash, .write_size = 1, .slot_size = 1 << 16,
                                   .erase = refuse_erase, .program = pretend_program, .read = read_flash};
    const jostle_progress done = {1, 1};
    const jostle_buffers values = zeros();
    unsigned char block[32];
    need(jostle_slots_save(&no_flash, &plan, &values, &done, NULL, 0, block, sizeof block, &e) == JOSTLE_FLASH,
         "flash memory");
    check(e.index == 0 && e.given == -77 && e.wanted == 0, "flash memory's numbers");
    message_is(&e, "a flash memory function failed: erase of slot 0: error -77");

    static const struct {
        float value;
        const char *text;
    } samples[] = {
        {0, "0"}, {1, "1"}, {-0.25f, "-0.25"}, {0.1f, "0.1"}, {1.0f / 3, "0.3333333"}, {1e-5f, "0.00001"},
        {1e-8f, "1e-8"}, {1234567, "1234567"}, {1500000, "1500000"}, {9999999.5f, "1e7"}, {16777216, "1.677722e7"},
        {FLT_MAX, "3.402823e38"}, {FLT_MIN, "1.175494e-38"}, {1e-45f, "1.401298e-45"}, {NAN, "NaN"},
        {-INFINITY, "-infinity"},
    };
    for (size_t i = 0; i < COUNT(samples); i++) {
        char text[200], wanted[200];
        jostle_error range = {.status = JOSTLE_OUT_OF_RANGE, .value = samples[i].value, .what = "x", .range = "y"};
        snprintf(wanted, sizeof wanted, "a number is out of range: x is %s; expected y", samples[i].text);
        check(jostle_error_message(&range, text, sizeof text) == JOSTLE_OK && strcmp(text, wanted) == 0, "%s", text);
    }

    /* Status numbers that do not exist, and text without a terminating zero. */
    check(strcmp(CALL(jostle_status_string)(JOSTLE_OK), "success") == 0, "success");
    check(strcmp(jostle_status_string(-1), "unknown status") == 0 && strcmp(jostle_status_string(70), "unknown status") == 0,
          "a status that is none");
    memset(&e, 'x', sizeof e);
    char text[300];
    check(jostle_error_message(&e, text, sizeof text) == JOSTLE_OK && strlen(text) < sizeof text - 1, "text without an end");
    for (int status = 0; status < (int)COUNT(statuses); status++) {
        const char *string = jostle_status_string(status);
        check(strlen(string) > 5 && string[strlen(string) - 1] != '.', "status %d: %s", status, string);
    }
}

#ifndef FREESTANDING
static void count_up(void *argument, size_t index)
{
    ((int *)argument)[index]++;
}

/* Pools allocate, so they are made outside of `inside_library`. */
static void test_pool(void)
{
    jostle_error e;
    jostle_pool *pool = NULL;
    int counts[9] = {0};
    check(CALL(jostle_pool_start)(0, &pool, &e) == JOSTLE_ZERO && strcmp(e.what, "threads") == 0, "no thread");
    check(jostle_pool_start(1025, &pool, &e) == JOSTLE_THREADS && e.given == 1025, "too many threads");
    check(jostle_pool_start(2, NULL, &e) == JOSTLE_NULL_POINTER && strcmp(e.what, "pool") == 0, "no pool");
    check(jostle_pool_start(2, (jostle_pool **)(void *)((char *)&pool + 1), NULL) == JOSTLE_MISALIGNED, "misaligned");
    check(pool == NULL, "a pool was written");
    ok(jostle_pool_start(2, &pool, &e), &e, "pool");
    CALL(jostle_pool_run)(pool, COUNT(counts), count_up, counts);
    jostle_pool_run(NULL, COUNT(counts), count_up, counts);
    for (size_t i = 0; i < COUNT(counts); i++)
        check(counts[i] == 1, "index %zu: %d times", i, counts[i]);
    CALL(jostle_pool_stop)(pool);
    jostle_pool_stop(NULL);
}
#endif

/* All functions that take a plan. */
static void test_what_takes_plans(void)
{
    test_plans();
    test_buffers();
    test_models();
    test_trainers();
    test_generators();
    test_checkpoints();
    test_slots();
}

int main(void)
{
    fixtures();
    test_inits();
    test_what_takes_plans();
    test_partial_update();
    test_frozen();
    test_long_names();
    test_products();
    test_attention();
    test_rows();
    test_elements();
    test_grouped_attention();
    test_rotary();
    test_tokens();
    test_tokenizers();
    test_llama2c();
    test_instruction_sets();
    test_version();
    test_messages();
#ifndef FREESTANDING
    test_pool();
#endif
    freeze();
    test_what_takes_plans();
    begin();
    for (size_t i = 0; i < function_count; i++)
        printf("function %s\n", functions[i]);
    for (size_t i = 0; i < COUNT(statuses); i++)
        if (statuses[i])
            printf("status %zu\n", i);
    return finish("bad input");
}
