/*
 * jostle: trains small transformer language models, on buffers that the caller hands over.
 *
 * CONVENTIONS
 *
 * Names       Everything begins with jostle_ or JOSTLE_.
 * Status      A function that can fail returns a jostle_status, whose numbers never change; 0 is
 *             success. Most take a jostle_error as the last argument, which receives the given and
 *             the wanted numbers; it may be NULL.
 * Outputs     are written only on success (the error is the exception) and are never inputs as
 *             well: a struct behind a pointer is either read (const) or written. Only handles, and
 *             buffers that a comment calls added to or replaced, are both.
 * Buffers     are a pointer and a size in BYTES; longer than needed is fine. They must be aligned
 *             to JOSTLE_ALIGNMENT and must not overlap. They stay the caller's: jostle keeps no
 *             pointer to them beyond a call. Trainers and generators are the exception: they use
 *             their buffers as long as they are used. A refused call has written nothing, except
 *             that a workspace may be written in part.
 * Memory      Nothing is allocated, so nothing is to be freed; jostle_pool_start is the exception.
 *             Sizes come from jostle_plan_init and the functions whose names end in _size.
 *             Firmware takes the sizes of its static arrays from the header that jostle-plan writes.
 * Structs     that the caller fills in begin with struct_size, which is their sizeof. Those that
 *             have defaults have an init function, which takes the sizeof and writes no byte beyond
 *             it. Later versions of the library only append fields. A program that was built with
 *             an older header keeps working: fields that its struct lacks have the defaults of the
 *             init function, or 0. A struct larger than the library knows is refused with
 *             JOSTLE_STRUCT_TOO_LARGE; one smaller than in the first header, with
 *             JOSTLE_STRUCT_TOO_SMALL. Fields called reserved are 0.
 * Results     Structs that the library writes, handles among them, have no struct_size: they keep
 *             their size and their fields for as long as JOSTLE_VERSION_MAJOR is the same, and
 *             before version 1 for as long as JOSTLE_VERSION_MINOR is.
 * Choices     cross the border as uint32_t; the enums name their values.
 * Threads     const means: several threads may call with the same argument at once. A trainer or
 *             generator is for one thread at a time. The caller lends threads to compute with
 *             through jostle_compute.
 * Failure     Nothing panics, prints, exits, aborts or throws. NULL, misaligned, short and
 *             overlapping buffers are refused, each with a status; wild pointers are not detected.
 * Numbers     The same configuration, seed and data give the same bits on every processor, with
 *             every instruction set and number of threads. The processor must round to nearest
 *             and not flush denormals to zero.
 *
 * Shapes: B sequences in a batch, T their length, C the width, F the hidden width, V the
 * vocabulary, L layers, H heads. Matrices are row-major; weights are [in, out].
 */

#ifndef JOSTLE_H
#define JOSTLE_H

#include <stddef.h>
#include <stdint.h>

// The version of the header, to be compared with jostle_version().
#define JOSTLE_VERSION_MAJOR 0

// The version's second number.
#define JOSTLE_VERSION_MINOR 1

// The version's third number.
#define JOSTLE_VERSION_PATCH 0

// The most metadata entries that jostle_checkpoint_write takes.
#define JOSTLE_METADATA_MOST 16

// The alignment in bytes of every buffer of numbers. On x86-64, buffers that begin with a cache line (64 bytes) make
// training steps 3 % and generation up to a fifth faster.
#define JOSTLE_ALIGNMENT 4

// How a call ended. A number never changes its meaning and is never used again.
enum jostle_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The call did what it is for.
    JOSTLE_OK = 0,
    // A pointer that must not be NULL is.
    JOSTLE_NULL_POINTER = 1,
    // A pointer is not aligned for what it points to.
    JOSTLE_MISALIGNED = 2,
    // A buffer has fewer bytes than the call needs.
    JOSTLE_BUFFER_TOO_SHORT = 3,
    // A buffer to be written shares bytes with another buffer of the call.
    JOSTLE_OVERLAP = 4,
    // A struct's `struct_size` is smaller than this library knows the struct to be.
    JOSTLE_STRUCT_TOO_SMALL = 5,
    // A struct's `struct_size` is that of a later version, whose fields this library doesn't know.
    JOSTLE_STRUCT_TOO_LARGE = 6,
    // A plan, trainer or generator was not made by its init function, or that function failed.
    JOSTLE_NOT_INITIALIZED = 7,
    // An integer that stands for a choice is none of the choices.
    JOSTLE_UNKNOWN_CHOICE = 8,
    // A size or number that must be at least 1 is 0.
    JOSTLE_ZERO = 9,
    // A size, or a product of sizes, exceeds what this machine can address.
    JOSTLE_TOO_LARGE = 10,
    // The width is not divisible by the number of heads.
    JOSTLE_HEADS = 11,
    // A number is outside its range.
    JOSTLE_OUT_OF_RANGE = 12,
    // Sizes that must agree do not.
    JOSTLE_LENGTH = 13,
    // A token or target is outside the vocabulary.
    JOSTLE_TOKEN = 14,
    // A sequence is longer than the model's context.
    JOSTLE_CONTEXT = 15,
    // A text has too few tokens.
    JOSTLE_TOO_FEW_TOKENS = 16,
    // The loss, the gradient norm or a logit is NaN or infinite; parameters are as they were.
    JOSTLE_NOT_FINITE = 17,
    // The instruction set is absent from this processor or build.
    JOSTLE_INSTRUCTION_SET = 18,
    // The plan was made for something else: it did not reserve what the call needs.
    JOSTLE_PLAN = 19,
    // A part of the learning-rate schedule is longer than the room left for it.
    JOSTLE_STEPS = 20,
    // There is no tensor or metadata of that name or number, or no checkpoint in flash memory.
    JOSTLE_NOT_FOUND = 21,
    // A string is not UTF-8.
    JOSTLE_NOT_UTF8 = 22,
    // The system refuses to start a thread.
    JOSTLE_THREADS = 23,
    // A budget of memory is too small for any plan.
    JOSTLE_BUDGET = 24,
    // A step that jostle_trainer_poll began is not done yet.
    JOSTLE_UNFINISHED = 25,
    // What needs the gradients of all parameters at once, and the update is fused into the backward pass.
    JOSTLE_FUSED = 26,
    // A gradient is not finite in a step whose update is fused into the backward pass: parameters and optimiser state
    // have changed in part. Training can go on from a checkpoint.
    JOSTLE_PARTLY_UPDATED = 27,
    // A checkpoint ends before its header or its data does.
    JOSTLE_CHECKPOINT_TRUNCATED = 40,
    // A checkpoint's header is not what safetensors prescribes.
    JOSTLE_CHECKPOINT_HEADER = 41,
    // A name occurs twice in a checkpoint.
    JOSTLE_CHECKPOINT_DUPLICATE = 42,
    // A checkpoint's tensors overlap, or leave a gap.
    JOSTLE_CHECKPOINT_OFFSETS = 43,
    // A tensor that the model has is missing from a checkpoint.
    JOSTLE_CHECKPOINT_MISSING = 44,
    // A tensor in a checkpoint has another type or shape than the model's.
    JOSTLE_CHECKPOINT_SHAPE = 45,
    // A checkpoint was altered: its checksum does not match.
    JOSTLE_CHECKPOINT_CHECKSUM = 46,
    // A metadata entry that a checkpoint needs is missing or malformed.
    JOSTLE_CHECKPOINT_METADATA = 47,
    // A checkpoint is of another model.
    JOSTLE_CHECKPOINT_CONFIGURATION = 48,
    // A metadata key is reserved or occurs twice.
    JOSTLE_CHECKPOINT_KEY = 49,
    // A function of a jostle_flash has returned an error.
    JOSTLE_FLASH = 50,
    // Flash memory does not hold what was just programmed.
    JOSTLE_FLASH_CONTENTS = 51,
    // A refusal that this version of the header has no number for.
    JOSTLE_OTHER = 99,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_status jostle_status;
#else
typedef int32_t jostle_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The activation between the two products of the MLP.
enum jostle_activation
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // x (1 + erf(x / sqrt 2)) / 2, PyTorch's GELU().
    JOSTLE_GELU = 0,
    // GPT-2's approximation by tanh, PyTorch's GELU(approximate="tanh").
    JOSTLE_GELU_TANH = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_activation jostle_activation;
#else
typedef uint32_t jostle_activation;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How the learning rate falls after warm-up.
enum jostle_decay
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Not at all.
    JOSTLE_CONSTANT = 0,
    // In a straight line down to final_learning_rate at step `steps`.
    JOSTLE_LINEAR = 1,
    // Along half a cosine, as nanoGPT's.
    JOSTLE_COSINE = 2,
    // Not until decay_steps before `steps`, then in a straight line.
    JOSTLE_WARMUP_STABLE_DECAY = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_decay jostle_decay;
#else
typedef uint32_t jostle_decay;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Which vector instructions to use. All give the same bits.
enum jostle_instruction_set
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The fastest that this processor has.
    JOSTLE_FASTEST = 0,
    // None: portable code.
    JOSTLE_PORTABLE = 1,
    // x86-64 with AVX2 and FMA.
    JOSTLE_AVX2 = 2,
    // x86-64 with AVX-512 F and DQ.
    JOSTLE_AVX512 = 3,
    // 64-bit Arm.
    JOSTLE_NEON = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_instruction_set jostle_instruction_set;
#else
typedef uint32_t jostle_instruction_set;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How gradients change parameters.
enum jostle_optimizer
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Stochastic gradient descent, with momentum where that is not 0; PyTorch's SGD.
    JOSTLE_SGD = 0,
    // Adam with decoupled weight decay of matrices (Loshchilov & Hutter 2019); PyTorch's AdamW.
    JOSTLE_ADAMW = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_optimizer jostle_optimizer;
#else
typedef uint32_t jostle_optimizer;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What an optimiser keeps for each parameter between steps.
enum jostle_optimizer_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Nothing: SGD.
    JOSTLE_STATE_NONE = 0,
    // One number: SGD with momentum.
    JOSTLE_STATE_MOMENTUM = 1,
    // Two numbers: AdamW.
    JOSTLE_STATE_ADAMW = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_optimizer_state jostle_optimizer_state;
#else
typedef uint32_t jostle_optimizer_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Where every element of a product starts.
enum jostle_start
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // At zero; C is not read.
    JOSTLE_START_ZERO = 0,
    // At the bias of its column; C is not read.
    JOSTLE_START_BIAS = 1,
    // At what C holds.
    JOSTLE_START_ACCUMULATE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_start jostle_start;
#else
typedef uint32_t jostle_start;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Which dropout masks: streams with the same seed share nothing.
enum jostle_stream
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Of the embedding sum.
    JOSTLE_EMBEDDING_DROPOUT = 4,
    // Of the attention weights.
    JOSTLE_ATTENTION_DROPOUT = 5,
    // Of the attention's projection.
    JOSTLE_ATTENTION_PROJECTION_DROPOUT = 6,
    // Of the MLP's projection.
    JOSTLE_MLP_PROJECTION_DROPOUT = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_stream jostle_stream;
#else
typedef uint32_t jostle_stream;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The integers that a text of tokens is made of.
enum jostle_token_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // uint8_t: up to 256 different tokens.
    JOSTLE_U8 = 1,
    // uint16_t: up to 65536 different tokens.
    JOSTLE_U16 = 2,
    // int32_t.
    JOSTLE_I32 = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_token_type jostle_token_type;
#else
typedef uint32_t jostle_token_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Threads that wait for work. Only in the hosted library.
typedef struct jostle_pool jostle_pool;

// How many bytes each buffer must have at least, for one configuration and one set of options. All buffers are
// aligned to JOSTLE_ALIGNMENT. A plan is a value: it may be copied, and used by several threads at once.
typedef struct jostle_plan {
    // float: all parameters that are trained, tensor after tensor; jostle_plan_tensor tells where each lies.
    size_t parameters_size;
    // float: all that are not, likewise; only read, and no part of training_size: they may lie in flash.
    size_t frozen_size;
    // float: a gradient for each parameter, in the same order; for some rows of a tensor where the update is fused.
    size_t gradients_size;
    // float: what the optimiser keeps (AdamW: all first moments, then all second moments); may be 0.
    size_t optimizer_size;
    // Of the workspace: what a forward pass leaves for the backward pass.
    size_t activations_size;
    // Of the workspace: intermediate results of one layer, and each thread's packing space.
    size_t scratch_size;
    // float: activations and scratch, one buffer.
    size_t workspace_size;
    // int32_t: tokens and targets of one micro-batch.
    size_t batch_size;
    // All that training needs, the sum of the above but for frozen_size.
    size_t training_size;
    // float: a generator's memory, besides the parameters.
    size_t generation_size;
    // int32_t: a generator's window, the tokens that it looks at.
    size_t window_size;
    // uint32_t: scratch for drawing a token.
    size_t order_size;
    // The largest number of sequences that one pass takes.
    size_t batch;
    // How many threads may work at once.
    size_t threads;
    // 1 where the backward pass makes activations again, otherwise 0.
    size_t recompute;
    // The multiply-adds that this adds to a pass over a full batch.
    size_t recomputed;
    // 1 where the backward pass updates parameters, otherwise 0.
    size_t fused;
    // The number of parameters that are trained.
    size_t parameter_count;
    // The number of tensors that they are made of.
    size_t tensor_count;
    // The configuration and the options.
    uint64_t opaque[12];
    // And these.
    size_t more[24];
} jostle_plan;

// A metadata entry of the caller's own: text in UTF-8, zero-terminated. Keys differ from each other, are not
// "format" and do not begin with "jostle.".
typedef struct jostle_metadata {
    // Its name.
    const char *key;
    // What it says.
    const char *value;
} jostle_metadata;

// What was given and what was wanted: the numbers behind a status other than JOSTLE_OK. Never grows.
typedef struct jostle_error {
    // What the call returned.
    int32_t status;
    // JOSTLE_OUT_OF_RANGE, JOSTLE_NOT_FINITE: the number; otherwise 0.
    float value;
    // The name of the argument or field that was refused; zero-terminated; may be empty.
    char what[48];
    // JOSTLE_OUT_OF_RANGE: the range that was wanted, in words; zero-terminated; otherwise empty.
    char range[48];
    // JOSTLE_TOKEN, JOSTLE_CHECKPOINT_KEY: the element's index; checkpoints: the byte or the tensor; JOSTLE_FLASH: the
    // slot; else 0.
    int64_t index;
    // What was given, in bytes for buffers; JOSTLE_FLASH: the function's error; 0 where there is nothing to tell.
    int64_t given;
    // What was wanted, in bytes for buffers; 0 where there is nothing to tell.
    int64_t wanted;
} jostle_error;

// The caller's memory for a model. Each function says which of the buffers it uses, and the others may be NULL. Those
// that it uses must not overlap. Trainers and generators use theirs as long as they are used: until then the buffers
// stay where they are, and nobody else writes them.
typedef struct jostle_buffers {
    // sizeof(jostle_buffers).
    uint32_t struct_size;
    // 0.
    uint32_t reserved;
    // The parameters that are trained; see jostle_initialize. Passes without a trainer, generators and functions that
    // write checkpoints only read them.
    float *parameters;
    // Bytes; at least the plan's parameters_size.
    size_t parameters_size;
    // The parameters that are frozen, which are only read. May be NULL if the plan's frozen_size is 0.
    const float *frozen;
    // Bytes; at least the plan's frozen_size.
    size_t frozen_size;
    // The gradients; need not be cleared.
    float *gradients;
    // Bytes; at least the plan's gradients_size.
    size_t gradients_size;
    // The optimiser's state; zero before the first step. May be NULL if the plan's optimizer_size is 0.
    float *optimizer;
    // Bytes; at least the plan's optimizer_size.
    size_t optimizer_size;
    // Activations and scratch; need not be cleared.
    float *workspace;
    // Bytes; at least the plan's workspace_size.
    size_t workspace_size;
    // Tokens and targets of a trainer's micro-batch; need not be cleared.
    int32_t *batch;
    // Bytes; at least the plan's batch_size.
    size_t batch_size;
} jostle_buffers;

// How far training has come.
typedef struct jostle_progress {
    // The number of steps done.
    uint64_t step;
    // The seed of batches and dropout.
    uint64_t seed;
} jostle_progress;

// What the model is. jostle_config_init fills in GPT-2's choices.
typedef struct jostle_config {
    // sizeof(jostle_config).
    uint32_t struct_size;
    // V: the number of different tokens.
    uint32_t vocab;
    // The longest sequence that the model can look at.
    uint32_t context;
    // L: the number of blocks.
    uint32_t layers;
    // H: the number of attention heads; divides the width.
    uint32_t heads;
    // C: the width of the residual stream.
    uint32_t width;
    // F: the width of the MLP between its products; 4C in GPT-2.
    uint32_t hidden;
    // A jostle_activation.
    uint32_t activation;
    // 1 where products and norms have biases, else 0.
    uint32_t bias;
    // 1 where the head's matrix is the token embedding, else 0.
    uint32_t tied;
    // Added to the variance in every norm; more than 0.
    float norm_epsilon;
    // Rate of dropout on the sum of the embeddings, in [0, 1). All rates act in training only.
    float embedding_dropout;
    // Rate of dropout on the attention weights, after the softmax.
    float attention_dropout;
    // Rate of dropout on the output of the attention's projection.
    float attention_projection_dropout;
    // Rate of dropout on the output of the MLP's projection.
    float mlp_projection_dropout;
} jostle_config;

// One call of it does the part of a work that has this index.
typedef void (*jostle_task)(void *argument,
                            size_t index);

// How the caller lends threads: calls `task(argument, index)` once for each index in 0..count, in any order and
// on any threads, and returns when all calls have. A call may wait for others that have begun before it, though for none
// that has not. jostle_pool_run is one.
typedef void (*jostle_run)(void *context,
                           size_t count,
                           jostle_task task,
                           void *argument);

// What computes. jostle_compute_init fills in the fastest instruction set on the caller's thread alone, which is
// also what NULL stands for wherever a `const jostle_compute *` is wanted.
typedef struct jostle_compute {
    // sizeof(jostle_compute).
    uint32_t struct_size;
    // A jostle_instruction_set.
    uint32_t instruction_set;
    // How many calls of a task `run` makes at once; at least 1.
    uint32_t threads;
    // 0.
    uint32_t reserved;
    // Lends threads; NULL for none, where `threads` is then 1.
    jostle_run run;
    // Passed to `run`; may be NULL.
    void *context;
} jostle_compute;

// How the model is trained, as far as memory depends on it.
typedef struct jostle_options {
    // sizeof(jostle_options).
    uint32_t struct_size;
    // B: the largest number of sequences that one pass takes.
    uint32_t batch;
    // How many threads may work at once; each has scratch of its own.
    uint32_t threads;
    // A jostle_optimizer_state.
    uint32_t optimizer;
    // 1: the backward pass makes each block's activations again, in one block's memory; the same bits for fewer
    // activations and more work. 0: all are kept.
    uint32_t recompute;
    // 1: the backward pass updates parameters as soon as it has made their gradients, which then need memory for some
    // rows of one tensor only; the same bits, in one pass a step and without clipping (JOSTLE_FUSED). 0: after it.
    uint32_t fused;
    // The names of tensors that are not trained, as jostle_tensor tells them; NULL for none. Read by jostle_plan_init and
    // jostle_plan_fit alone.
    const char *const *frozen;
    // How many these are.
    size_t frozen_count;
} jostle_options;

// How to train. jostle_recipe_init fills in nanoGPT's choices for small models.
typedef struct jostle_recipe {
    // sizeof(jostle_recipe).
    uint32_t struct_size;
    // A jostle_optimizer.
    uint32_t optimizer;
    // SGD: the velocity's memory, in [0, 1).
    float momentum;
    // AdamW: the first moment's memory, in [0, 1).
    float beta1;
    // AdamW: the second moment's memory, in [0, 1).
    float beta2;
    // AdamW: added to the root of the second moment.
    float epsilon;
    // AdamW: the share, times the learning rate, by which matrices shrink at each step.
    float weight_decay;
    // The gradient's largest global norm, to which a larger one is scaled down; 0 for none.
    float clip;
    // The greatest learning rate.
    float learning_rate;
    // The rate that the decay ends at; at most learning_rate.
    float final_learning_rate;
    // A jostle_decay.
    uint32_t decay;
    // Micro-batches per step of jostle_trainer_step; at least 1.
    uint32_t accumulate;
    // Steps of linear warm-up.
    uint64_t warmup;
    // The step at which the decay has reached its end. JOSTLE_CONSTANT doesn't look at it.
    uint64_t steps;
    // JOSTLE_WARMUP_STABLE_DECAY: how many steps before the last the fall begins.
    uint64_t decay_steps;
    // The seed of batches and dropout.
    uint64_t seed;
} jostle_recipe;

// How a token is drawn. jostle_sampling_init gives the softmax without filters.
typedef struct jostle_sampling {
    // sizeof(jostle_sampling).
    uint32_t struct_size;
    // Divides the logits; 0 takes the token of the greatest logit.
    float temperature;
    // Keep so many of the greatest logits; 0 keeps all.
    uint32_t top_k;
    // Keep the fewest tokens with so much probability; in (0, 1], 1 keeps all (Holtzman et al. 2020).
    float top_p;
    // Keep the tokens with this share of the greatest probability; in [0, 1], 0 keeps all (Nguyen et al. 2024).
    float min_p;
} jostle_sampling;

// A model in use. Holds pointers to the caller's buffers and owns nothing: there is nothing to free.
typedef struct jostle_generator {
    // Made by jostle_generator_init.
    uint64_t opaque[56];
} jostle_generator;

// Tokens and targets of a pass: `sequences` rows of `length` tokens.
typedef struct jostle_batch {
    // [sequences, length], each in 0..vocab.
    const int32_t *tokens;
    // Bytes that `tokens` has.
    size_t tokens_size;
    // [sequences, length], each in 0..vocab, or -1: ignored. Not looked at where only logits are wanted.
    const int32_t *targets;
    // Bytes that `targets` has.
    size_t targets_size;
    // How many sequences; at most the plan's batch.
    size_t sequences;
    // Tokens in each; at most the context.
    size_t length;
} jostle_batch;

// The loss of a pass, or of several.
typedef struct jostle_loss {
    // The sum over targets that count, in nats.
    double sum;
    // How many targets count (are not -1).
    uint64_t counted;
} jostle_loss;

// Selects the dropout masks of a pass: each mask is a function of these numbers.
typedef struct jostle_dropout_key {
    // The run's seed.
    uint64_t seed;
    // The step, from 0.
    uint64_t step;
    // The number of the pass's first sequence, counted from 0 over the whole step: micro-batches together then have
    // the masks of one large batch.
    uint64_t first_sequence;
} jostle_dropout_key;

// A mask of dropout: which elements are zeroed is a function of these numbers, of row and column. Survivors are
// divided by the probability to survive. Where NULL is given for a mask, nothing is dropped.
typedef struct jostle_mask {
    // sizeof(jostle_mask).
    uint32_t struct_size;
    // The probability that an element is zeroed, in [0, 1).
    float rate;
    // A jostle_stream.
    uint32_t stream;
    // 0.
    uint32_t reserved;
    // The run's seed.
    uint64_t seed;
    // The step.
    uint64_t step;
    // The layer.
    uint64_t layer;
    // The sequence's number in the step.
    uint64_t sequence;
} jostle_mask;

// A matrix to be read.
typedef struct jostle_matrix {
    // Its first element.
    const float *data;
    // Bytes that `data` has.
    size_t size;
    // From one row to the next, in elements.
    size_t row_stride;
    // From one column to the next, in elements: 1 for rows that lie as they are.
    size_t column_stride;
} jostle_matrix;

// One of the parameters' tensors.
typedef struct jostle_tensor {
    // Hugging Face GPT-2's name, e.g. h.0.attn.c_attn.weight; zero-terminated.
    char name[48];
    // 1 for biases and norms, 2 for matrices.
    uint32_t rank;
    // 1 where it is not trained, otherwise 0.
    uint32_t frozen;
    // The shape [rows, columns] of a matrix, row-major; a vector's length and 1.
    size_t shape[2];
    // The number of elements.
    size_t count;
    // Where it begins among the parameters, or among the frozen ones, in elements.
    size_t offset;
    // Its elements in the buffer that was handed over; NULL where none was, or the tensor is frozen.
    float *data;
} jostle_tensor;

// Erases a whole slot, 0 or 1. Returns 0, or an error of its own, which a jostle_error passes on as `given`.
typedef int32_t (*jostle_flash_erase)(void *context,
                                      size_t slot);

// Programs `size` erased bytes from byte `at` of a slot on; both are multiples of `write_size`. Returns as
// jostle_flash_erase.
typedef int32_t (*jostle_flash_program)(void *context,
                                        size_t slot,
                                        size_t at,
                                        const uint8_t *bytes,
                                        size_t size);

// Reads `size` bytes from byte `at` of a slot on, whatever the slot holds. Returns as jostle_flash_erase: an error, for
// example, where a word was programmed in part and the memory notices.
typedef int32_t (*jostle_flash_read)(void *context,
                                     size_t slot,
                                     size_t at,
                                     uint8_t *bytes,
                                     size_t size);

// Two slots of flash memory. A slot holds, from its beginning: the number of the save (8 bytes), the length of the
// checkpoint (8), a CRC-32 of the checkpoint and these (4), all little-endian, and what fills up 32 bytes or as many as
// are programmed at once; then the checkpoint.
typedef struct jostle_flash {
    // sizeof(jostle_flash).
    uint32_t struct_size;
    // Bytes that are programmed at once; at least 1.
    uint32_t write_size;
    // Bytes of each slot: as many as jostle_slots_size says, or more.
    size_t slot_size;
    // Erases.
    jostle_flash_erase erase;
    // Programs.
    jostle_flash_program program;
    // Reads.
    jostle_flash_read read;
    // Passed to the three; may be NULL.
    void *context;
} jostle_flash;

// Where a whole checkpoint lies in flash memory. Memory-mapped, these bytes are what the jostle_checkpoint functions
// read.
typedef struct jostle_slot {
    // The number of the save that made it, counted from 1.
    uint64_t sequence;
    // The slot, 0 or 1.
    size_t index;
    // Bytes of the slot before it.
    size_t offset;
    // Its bytes.
    size_t size;
} jostle_slot;

// A model in training. Holds pointers to the caller's buffers and owns nothing: there is nothing to free.
typedef struct jostle_trainer {
    // Made by jostle_trainer_init.
    uint64_t opaque[12];
    // Likewise.
    size_t more[76];
} jostle_trainer;

// What one step did.
typedef struct jostle_report {
    // The step's number, from 0.
    uint64_t step;
    // The mean loss before the update, dropout included, in nats.
    float loss;
    // The learning rate that was used.
    float learning_rate;
    // The global norm of the gradient, before clipping.
    float gradient_norm;
    // 0.
    uint32_t reserved;
} jostle_report;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library: major * 65536 + minor * 256 + patch.
uint32_t jostle_version(void);

// The exact bytes of a checkpoint, with the optimiser's state where `optimizer` is 1, without where it is 0, and
// with these metadata entries.
//
// Pointers:
// `plan` is readable, `metadata` readable for `metadata_count` entries (NULL for none), `size` writable, `error`
// NULL or writable.
jostle_status jostle_checkpoint_size(const struct jostle_plan *plan,
                                     uint32_t optimizer,
                                     const struct jostle_metadata *metadata,
                                     size_t metadata_count,
                                     size_t *size,
                                     struct jostle_error *error);

// Writes a checkpoint in the safetensors format, with Hugging Face GPT-2's names and a checksum: parameters, optimiser
// state, configuration, progress and metadata. `written` receives the number of bytes, which is the one that
// jostle_checkpoint_size tells.
//
// Of `buffers`, it uses `parameters`, `frozen` and `optimizer`. If `optimizer` is NULL, the file has no optimiser state:
// it can be used, but training cannot go on from it.
//
// Pointers:
// `plan`, `buffers` and `progress` are readable. The buffers that it uses are readable, `bytes` is writable for so many
// bytes. `metadata` is readable for `metadata_count` entries (NULL for none), `written` is writable, `error` is NULL or
// writable.
jostle_status jostle_checkpoint_write(const struct jostle_plan *plan,
                                      const struct jostle_buffers *buffers,
                                      const struct jostle_progress *progress,
                                      const struct jostle_metadata *metadata,
                                      size_t metadata_count,
                                      uint8_t *bytes,
                                      size_t bytes_size,
                                      size_t *written,
                                      struct jostle_error *error);

// Writes the configuration of the model in a checkpoint of exactly `bytes_size` bytes.
//
// Pointers:
// `bytes` is readable for so many bytes, `config` is writable for `struct_size` bytes, which is
// sizeof(jostle_config), `error` NULL or writable.
jostle_status jostle_checkpoint_config(const uint8_t *bytes,
                                       size_t bytes_size,
                                       struct jostle_config *config,
                                       size_t struct_size,
                                       struct jostle_error *error);

// Reads a checkpoint of exactly `bytes_size` bytes into the parameters and, unless it is NULL, the optimiser's state. Of
// `buffers`, it uses `parameters` and `optimizer`. The plan may have other dropout rates, batch and threads than the
// checkpoint was trained with. A file that is refused leaves the buffers as they were.
//
// Pointers:
// `bytes` is readable for so many bytes, `buffers` and `plan` are readable, the buffers that it uses are writable,
// `progress` is writable, `error` NULL or writable.
jostle_status jostle_checkpoint_read(const uint8_t *bytes,
                                     size_t bytes_size,
                                     const struct jostle_plan *plan,
                                     const struct jostle_buffers *buffers,
                                     struct jostle_progress *progress,
                                     struct jostle_error *error);

// Reads only the parameters, also from safetensors files that others wrote, of exactly `bytes_size` bytes:
// GPT-2's names, with or without "transformer." before them, as F32. Tensors that the model doesn't have are
// ignored.
//
// Pointers:
// As for jostle_checkpoint_read.
jostle_status jostle_checkpoint_read_parameters(const uint8_t *bytes,
                                                size_t bytes_size,
                                                const struct jostle_plan *plan,
                                                float *parameters,
                                                size_t parameters_size,
                                                struct jostle_error *error);

// Writes the value of a metadata key into `text`, zero-terminated, and its length without the zero into `length`.
// JOSTLE_BUFFER_TOO_SHORT tells in `error` how many bytes are wanted.
//
// Pointers:
// `bytes` is readable and `text` writable for so many bytes, `key` is zero-terminated, `length` writable, `error`
// NULL or writable.
jostle_status jostle_checkpoint_metadata(const uint8_t *bytes,
                                         size_t bytes_size,
                                         const char *key,
                                         char *text,
                                         size_t text_size,
                                         size_t *length,
                                         struct jostle_error *error);

// Fills in the fastest instruction set on the caller's thread alone.
//
// Pointers:
// `compute` is writable for `struct_size` bytes, which is sizeof(jostle_compute).
jostle_status jostle_compute_init(struct jostle_compute *compute,
                                  size_t struct_size);

// Refuses an instruction set that this processor or this build doesn't have.
//
// Pointers:
// `error` is NULL or writable.
jostle_status jostle_instruction_set_check(uint32_t instruction_set,
                                           struct jostle_error *error);

// Fills in a configuration of these sizes with GPT-2's choices: hidden 4C, exact GELU, biases, tied head, epsilon
// 1e-5, no dropout. jostle_plan_init says whether it can be a model.
//
// Pointers:
// `config` is writable for `struct_size` bytes, which is sizeof(jostle_config).
jostle_status jostle_config_init(struct jostle_config *config,
                                 size_t struct_size,
                                 uint32_t vocab,
                                 uint32_t context,
                                 uint32_t layers,
                                 uint32_t heads,
                                 uint32_t width);

// Fills in options: `batch` sequences a pass, one thread, AdamW.
//
// Pointers:
// `options` is writable for `struct_size` bytes, which is sizeof(jostle_options).
jostle_status jostle_options_init(struct jostle_options *options,
                                  size_t struct_size,
                                  uint32_t batch);

// Fills in a recipe: AdamW with betas 0.9 and 0.99, epsilon 1e-8 and weight decay 0.1; the norm clipped at 1; a
// constant learning rate of 1e-3 without warm-up; one micro-batch a step; seed 0.
//
// Pointers:
// `recipe` is writable for `struct_size` bytes, which is sizeof(jostle_recipe).
jostle_status jostle_recipe_init(struct jostle_recipe *recipe,
                                 size_t struct_size);

// Fills in sampling at temperature 1 without filters.
//
// Pointers:
// `sampling` is writable for `struct_size` bytes, which is sizeof(jostle_sampling).
jostle_status jostle_sampling_init(struct jostle_sampling *sampling,
                                   size_t struct_size);

// Makes a generator with an empty text. `compute` may be NULL; only its instruction set is used. Of `buffers`, a generator
// uses `parameters` and `frozen`.
//
// `memory`, `window`: as many bytes as the plan's generation_size and window_size.
//
// Pointers:
// `generator` is writable, `plan` and `buffers` are readable, `compute` is NULL or readable, `error` NULL or writable.
// The parameters and the frozen parameters are readable, `memory` and `window` are writable for so many bytes. As long as
// the generator is used, these four stay where they are, and nobody else writes `memory` or `window`.
jostle_status jostle_generator_init(struct jostle_generator *generator,
                                    const struct jostle_plan *plan,
                                    const struct jostle_compute *compute,
                                    const struct jostle_buffers *buffers,
                                    float *memory,
                                    size_t memory_size,
                                    int32_t *window,
                                    size_t window_size,
                                    struct jostle_error *error);

// Appends tokens, at least one, to the text. On success `logits` points to the logits [vocab] of the token that
// comes next; they lie in the generator's memory, may be changed, and stay until the generator is used again.
//
// Text longer than the context goes on with the last `context` tokens, computed anew for each further token.
//
// Pointers:
// `generator` is writable and its buffers are as they were at its init; `tokens` is readable for `tokens_size`
// bytes; `logits` is writable; `error` is NULL or writable.
jostle_status jostle_generator_feed(struct jostle_generator *generator,
                                    const int32_t *tokens,
                                    size_t tokens_size,
                                    float **logits,
                                    struct jostle_error *error);

// Draws the next token by the logits of the last jostle_generator_feed, which it overwrites, and doesn't feed it.
// The token is a function of the logits, the seed and `number`, which counts the tokens drawn.
//
// Pointers:
// As for jostle_generator_feed; `sampling` is readable, `order` writable for `order_size` bytes (the plan's),
// `token` writable.
jostle_status jostle_generator_draw(struct jostle_generator *generator,
                                    const struct jostle_sampling *sampling,
                                    uint32_t *order,
                                    size_t order_size,
                                    uint64_t seed,
                                    uint64_t number,
                                    int32_t *token,
                                    struct jostle_error *error);

// Forgets the text.
//
// Pointers:
// `generator` is writable and its buffers are as they were at its init; `error` is NULL or writable.
jostle_status jostle_generator_clear(struct jostle_generator *generator,
                                     struct jostle_error *error);

// Computes the logits [sequences, length, vocab] of a batch, without dropout. On success `logits` points to them
// in the workspace, where they stay until it is used again.
//
// Of `buffers`, it uses `parameters`, `frozen` and `workspace`.
//
// Pointers:
// `plan`, `buffers` and `batch` are readable, `compute` is NULL or readable. The parameters, the frozen parameters and
// the batch's tokens are readable, the workspace is writable. `logits` is writable, `error` NULL or writable.
jostle_status jostle_model_logits(const struct jostle_plan *plan,
                                  const struct jostle_compute *compute,
                                  const struct jostle_buffers *buffers,
                                  const struct jostle_batch *batch,
                                  const float **logits,
                                  struct jostle_error *error);

// Writes the loss on a batch's targets, without dropout. Of `buffers`, it uses `parameters`, `frozen` and `workspace`.
//
// Pointers:
// As for jostle_model_logits. The batch's targets are readable; `loss` is writable.
jostle_status jostle_model_loss(const struct jostle_plan *plan,
                                const struct jostle_compute *compute,
                                const struct jostle_buffers *buffers,
                                const struct jostle_batch *batch,
                                struct jostle_loss *loss,
                                struct jostle_error *error);

// Forward, loss and backward: the gradient of the sum of the batch's losses divided by `counted`, the number of
// targets other than -1 in all batches of the step. Adds to the gradients if `add` is 1, overwrites them if it is 0.
// Of `buffers`, it uses `parameters`, `frozen`, `gradients` and `workspace`.
//
// `dropout`: selects the dropout masks, or NULL for no dropout. JOSTLE_NOT_FINITE leaves the gradients as they were.
//
// Pointers:
// As for jostle_model_loss. The gradients are writable, `dropout` is NULL or readable.
jostle_status jostle_model_backward(const struct jostle_plan *plan,
                                    const struct jostle_compute *compute,
                                    const struct jostle_buffers *buffers,
                                    uint32_t add,
                                    const struct jostle_batch *batch,
                                    size_t counted,
                                    const struct jostle_dropout_key *dropout,
                                    struct jostle_loss *loss,
                                    struct jostle_error *error);

// Bytes of scratch that the attention functions need.
size_t jostle_attention_scratch_size(size_t length,
                                     size_t width);

// Causal multi-head attention over one sequence (Vaswani et al. 2017): for each head, scores q k^T / sqrt(C / H),
// minus infinity where a key comes later than its query, softmax, dropout, times v.
//
// Writes `out` [length, width] and `stats` [heads, length, 2] (each row's greatest score, and one over its sum of
// exponentials, for jostle_attention_backward) from `qkv` [length, 3 width].
//
// `scratch`: jostle_attention_scratch_size bytes.
//
// Pointers:
// `compute` and `mask` are NULL or readable; `out`, `stats` and `scratch` are writable, `qkv` readable for so many
// bytes; `error` is NULL or writable.
jostle_status jostle_attention_forward(const struct jostle_compute *compute,
                                       size_t length,
                                       size_t width,
                                       size_t heads,
                                       const struct jostle_mask *mask,
                                       float *out,
                                       size_t out_size,
                                       float *stats,
                                       size_t stats_size,
                                       const float *qkv,
                                       size_t qkv_size,
                                       float *scratch,
                                       size_t scratch_size,
                                       struct jostle_error *error);

// Writes `d_qkv` [length, 3 width] from `d_out` [length, width] and what jostle_attention_forward read and wrote,
// with the same mask.
//
// Pointers:
// As for jostle_attention_forward; `d_qkv` is writable, `d_out`, `out` and `stats` readable for so many bytes.
jostle_status jostle_attention_backward(const struct jostle_compute *compute,
                                        size_t length,
                                        size_t width,
                                        size_t heads,
                                        const struct jostle_mask *mask,
                                        float *d_qkv,
                                        size_t d_qkv_size,
                                        const float *d_out,
                                        size_t d_out_size,
                                        const float *qkv,
                                        size_t qkv_size,
                                        const float *out,
                                        size_t out_size,
                                        const float *stats,
                                        size_t stats_size,
                                        float *scratch,
                                        size_t scratch_size,
                                        struct jostle_error *error);

// Writes the attention weights [heads, length, length] of one sequence before dropout, for looking at.
//
// Pointers:
// As for jostle_attention_forward; `weights` is writable for so many bytes.
jostle_status jostle_attention_weights(const struct jostle_compute *compute,
                                       size_t length,
                                       size_t width,
                                       size_t heads,
                                       float *weights,
                                       size_t weights_size,
                                       const float *qkv,
                                       size_t qkv_size,
                                       float *scratch,
                                       size_t scratch_size,
                                       struct jostle_error *error);

// Writes `losses` [rows], minus the logarithm of each target's probability, from `logits` [rows, vocab] and
// `targets` [rows], each in 0..vocab or -1: ignored, loss 0.
//
// Pointers:
// `compute` is NULL or readable; `losses` is writable, `logits` and `targets` readable for so many bytes; `error`
// is NULL or writable.
jostle_status jostle_cross_entropy_forward(const struct jostle_compute *compute,
                                           size_t rows,
                                           size_t vocab,
                                           float *losses,
                                           size_t losses_size,
                                           const float *logits,
                                           size_t logits_size,
                                           const int32_t *targets,
                                           size_t targets_size,
                                           struct jostle_error *error);

// Writes `losses` as jostle_cross_entropy_forward and replaces `logits` by their gradient: of the sum of losses
// divided by `counted`, which for a mean is the number of targets other than -1.
//
// Pointers:
// As for jostle_cross_entropy_forward; `logits` is writable.
jostle_status jostle_cross_entropy_backward(const struct jostle_compute *compute,
                                            size_t rows,
                                            size_t vocab,
                                            size_t counted,
                                            float *losses,
                                            size_t losses_size,
                                            float *logits,
                                            size_t logits_size,
                                            const int32_t *targets,
                                            size_t targets_size,
                                            struct jostle_error *error);

// y = dropout(x), both [rows, width] (Srivastava et al. 2014, inverted). Its own backward: d_x = dropout(d_y) with
// the same mask.
//
// Pointers:
// `compute` and `mask` are NULL or readable; `y` is writable, `x` readable for so many bytes; `error` is NULL or
// writable.
jostle_status jostle_dropout(const struct jostle_compute *compute,
                             size_t rows,
                             size_t width,
                             const struct jostle_mask *mask,
                             float *y,
                             size_t y_size,
                             const float *x,
                             size_t x_size,
                             struct jostle_error *error);

// Writes `x` [rows, width]: the row of `wte` [vocab, width] that each of `tokens` [rows] names, plus the row of
// `wpe` [context, width] of its position, which starts at 0 again every `length` tokens.
//
// Pointers:
// `compute` is NULL or readable; `x` is writable, `tokens`, `wte` and `wpe` readable for so many bytes; `error` is
// NULL or writable.
jostle_status jostle_embedding_forward(const struct jostle_compute *compute,
                                       size_t rows,
                                       size_t length,
                                       size_t width,
                                       size_t vocab,
                                       size_t context,
                                       float *x,
                                       size_t x_size,
                                       const int32_t *tokens,
                                       size_t tokens_size,
                                       const float *wte,
                                       size_t wte_size,
                                       const float *wpe,
                                       size_t wpe_size,
                                       struct jostle_error *error);

// Adds the gradients of the embeddings to `d_wte` [vocab, width] and `d_wpe` [context, width], row after row, from
// `d_x` [rows, width].
//
// Pointers:
// As for jostle_embedding_forward; `d_wte` and `d_wpe` are writable, `d_x` readable for so many bytes.
jostle_status jostle_embedding_backward(const struct jostle_compute *compute,
                                        size_t rows,
                                        size_t length,
                                        size_t width,
                                        size_t vocab,
                                        size_t context,
                                        float *d_wte,
                                        size_t d_wte_size,
                                        float *d_wpe,
                                        size_t d_wpe_size,
                                        const float *d_x,
                                        size_t d_x_size,
                                        const int32_t *tokens,
                                        size_t tokens_size,
                                        struct jostle_error *error);

// y = gelu(x), `count` elements (Hendrycks & Gimpel 2016). `activation`: a jostle_activation.
//
// Pointers:
// `compute` is NULL or readable; `y` is writable, `x` readable for so many bytes; `error` is NULL or writable.
jostle_status jostle_gelu_forward(const struct jostle_compute *compute,
                                  size_t count,
                                  uint32_t activation,
                                  float *y,
                                  size_t y_size,
                                  const float *x,
                                  size_t x_size,
                                  struct jostle_error *error);

// d_x = d_y gelu'(x), `count` elements.
//
// Pointers:
// As for jostle_gelu_forward; `d_x` is writable, `d_y` readable for so many bytes.
jostle_status jostle_gelu_backward(const struct jostle_compute *compute,
                                   size_t count,
                                   uint32_t activation,
                                   float *d_x,
                                   size_t d_x_size,
                                   const float *d_y,
                                   size_t d_y_size,
                                   const float *x,
                                   size_t x_size,
                                   struct jostle_error *error);

// Layer normalisation (Ba, Kiros & Hinton 2016): y = (x - mean) / sqrt(variance + epsilon) * weight + bias, row by
// row. Writes `y` [rows, width], `mean` [rows] and `rstd` [rows] (one over the standard deviation) from `x`,
// `weight` [width] and `bias` [width] (or NULL).
//
// Pointers:
// `compute` is NULL or readable; `y`, `mean` and `rstd` are writable, `x`, `weight` and `bias` readable for so many
// bytes; `error` is NULL or writable.
jostle_status jostle_layer_norm_forward(const struct jostle_compute *compute,
                                        size_t rows,
                                        size_t width,
                                        float epsilon,
                                        float *y,
                                        size_t y_size,
                                        float *mean,
                                        size_t mean_size,
                                        float *rstd,
                                        size_t rstd_size,
                                        const float *x,
                                        size_t x_size,
                                        const float *weight,
                                        size_t weight_size,
                                        const float *bias,
                                        size_t bias_size,
                                        struct jostle_error *error);

// Adds the gradient of the input to `d_x` [rows, width], from `d_y`, `x` and what jostle_layer_norm_forward left.
//
// Pointers:
// As for jostle_layer_norm_forward; `d_x` is writable, `d_y`, `mean` and `rstd` readable for so many bytes.
jostle_status jostle_layer_norm_backward(const struct jostle_compute *compute,
                                         size_t rows,
                                         size_t width,
                                         float *d_x,
                                         size_t d_x_size,
                                         const float *d_y,
                                         size_t d_y_size,
                                         const float *x,
                                         size_t x_size,
                                         const float *mean,
                                         size_t mean_size,
                                         const float *rstd,
                                         size_t rstd_size,
                                         const float *weight,
                                         size_t weight_size,
                                         struct jostle_error *error);

// Adds the gradients of the parameters to `d_weight` [width] and `d_bias` [width] (or NULL), row after row.
//
// Pointers:
// As for jostle_layer_norm_backward; `d_weight` and `d_bias` are writable for so many bytes.
jostle_status jostle_layer_norm_backward_parameters(const struct jostle_compute *compute,
                                                    size_t rows,
                                                    size_t width,
                                                    float *d_weight,
                                                    size_t d_weight_size,
                                                    float *d_bias,
                                                    size_t d_bias_size,
                                                    const float *d_y,
                                                    size_t d_y_size,
                                                    const float *x,
                                                    size_t x_size,
                                                    const float *mean,
                                                    size_t mean_size,
                                                    const float *rstd,
                                                    size_t rstd_size,
                                                    struct jostle_error *error);

// y = x W + b, with y [rows, out], x [rows, in], W [in, out] and b [out] or NULL.
//
// `scratch`: jostle_matmul_scratch_size(rows, out, in) bytes.
//
// Pointers:
// `compute` is NULL or readable; `y` and `scratch` are writable, `x`, `weight` and `bias` readable for so many
// bytes; `error` is NULL or writable.
jostle_status jostle_linear_forward(const struct jostle_compute *compute,
                                    size_t rows,
                                    size_t inputs,
                                    size_t outputs,
                                    float *y,
                                    size_t y_size,
                                    const float *x,
                                    size_t x_size,
                                    const float *weight,
                                    size_t weight_size,
                                    const float *bias,
                                    size_t bias_size,
                                    float *scratch,
                                    size_t scratch_size,
                                    struct jostle_error *error);

// Writes d_x [rows, in] from d_y [rows, out] and W [in, out].
//
// `scratch`: jostle_matmul_scratch_size(rows, in, out) bytes.
//
// Pointers:
// As for jostle_linear_forward.
jostle_status jostle_linear_backward(const struct jostle_compute *compute,
                                     size_t rows,
                                     size_t inputs,
                                     size_t outputs,
                                     float *d_x,
                                     size_t d_x_size,
                                     const float *d_y,
                                     size_t d_y_size,
                                     const float *weight,
                                     size_t weight_size,
                                     float *scratch,
                                     size_t scratch_size,
                                     struct jostle_error *error);

// Adds the gradients of the parameters to d_weight [in, out] and d_bias [out] (or NULL), from x [rows, in] and
// d_y [rows, out].
//
// `scratch`: jostle_matmul_scratch_size(in, out, rows) bytes.
//
// Pointers:
// As for jostle_linear_forward; `d_weight` and `d_bias` are writable for so many bytes.
jostle_status jostle_linear_backward_parameters(const struct jostle_compute *compute,
                                                size_t rows,
                                                size_t inputs,
                                                size_t outputs,
                                                float *d_weight,
                                                size_t d_weight_size,
                                                float *d_bias,
                                                size_t d_bias_size,
                                                const float *x,
                                                size_t x_size,
                                                const float *d_y,
                                                size_t d_y_size,
                                                float *scratch,
                                                size_t scratch_size,
                                                struct jostle_error *error);

// Bytes of scratch that a product of an [m, k] by a [k, n] matrix needs on one thread; a smaller product needs no
// more.
size_t jostle_matmul_scratch_size(size_t m,
                                  size_t n,
                                  size_t k);

// C = start + A B, with C [m, n] of rows `c_stride` elements apart, A [m, k], B [k, n]. Each element is one chain
// of fused multiply-adds over the inner index in ascending order. Transposed matrices have their strides
// exchanged.
//
// `start`: a jostle_start; `bias` [n] is looked at with JOSTLE_START_BIAS only. As many threads work as `scratch`
// has room for, at jostle_matmul_scratch_size bytes each.
//
// Pointers:
// `compute` is NULL or readable; `a` and `b` are readable and their data is; `bias` is readable, `c` and `scratch`
// writable for so many bytes; `error` is NULL or writable.
jostle_status jostle_matmul(const struct jostle_compute *compute,
                            size_t m,
                            size_t n,
                            size_t k,
                            float *c,
                            size_t c_size,
                            size_t c_stride,
                            uint32_t start,
                            const float *bias,
                            size_t bias_size,
                            const struct jostle_matrix *a,
                            const struct jostle_matrix *b,
                            float *scratch,
                            size_t scratch_size,
                            struct jostle_error *error);

// The global norm of `count` gradients, in an order of summation that no number of threads changes.
//
// Pointers:
// `compute` is NULL or readable, `gradients` readable for so many bytes, `norm` writable, `error` NULL or writable.
jostle_status jostle_gradient_norm(const struct jostle_compute *compute,
                                   size_t count,
                                   const float *gradients,
                                   size_t gradients_size,
                                   float *norm,
                                   struct jostle_error *error);

// The factor that brings a gradient of this norm to at most `clip` (PyTorch's clip_grad_norm_).
float jostle_clip_factor(float norm,
                         float clip);

// Changes one tensor `x` of `count` elements along its gradient times `factor` (that of clipping, or 1), at `step`
// counted from 0, by the recipe's optimiser: AdamW, or SGD. The recipe's schedule is not looked at.
//
// `state`: what the optimiser keeps, zero before the first step: for AdamW first moments, then second moments; for
// SGD with momentum, velocities; for SGD without, NULL. `decays`: 1 where weight decay applies, as it does to
// matrices, else 0.
//
// Pointers:
// `compute` is NULL or readable, `recipe` readable; `x` and `state` are writable, `gradient` readable for so many
// bytes; `error` is NULL or writable.
jostle_status jostle_optimizer_update(const struct jostle_compute *compute,
                                      const struct jostle_recipe *recipe,
                                      size_t count,
                                      float *x,
                                      size_t x_size,
                                      const float *gradient,
                                      size_t gradient_size,
                                      float *state,
                                      size_t state_size,
                                      uint32_t decays,
                                      uint64_t step,
                                      float learning_rate,
                                      float factor,
                                      struct jostle_error *error);

// Replaces each row of `x` [rows, width] by its softmax.
//
// Pointers:
// `compute` is NULL or readable, `x` writable for `x_size` bytes, `error` NULL or writable.
jostle_status jostle_softmax_forward(const struct jostle_compute *compute,
                                     size_t rows,
                                     size_t width,
                                     float *x,
                                     size_t x_size,
                                     struct jostle_error *error);

// Writes the gradient of the scores, d_x = y (d_y - sum(d_y y)) row by row; all [rows, width].
//
// Pointers:
// `compute` is NULL or readable; `d_x` is writable, `d_y` and `y` readable for so many bytes; `error` is NULL or
// writable.
jostle_status jostle_softmax_backward(const struct jostle_compute *compute,
                                      size_t rows,
                                      size_t width,
                                      float *d_x,
                                      size_t d_x_size,
                                      const float *d_y,
                                      size_t d_y_size,
                                      const float *y,
                                      size_t y_size,
                                      struct jostle_error *error);

// Sets row i of `scores` [rows, width] to minus infinity after column i + `offset`: the causal mask.
//
// Pointers:
// `scores` is writable for `scores_size` bytes, `error` NULL or writable.
jostle_status jostle_causal_mask(size_t rows,
                                 size_t width,
                                 size_t offset,
                                 float *scores,
                                 size_t scores_size,
                                 struct jostle_error *error);

// Sizes every buffer, or tells what is wrong with the configuration or the options.
//
// Pointers:
// `plan` is writable; `config`, `options` and the names in it are readable; `error` is NULL or writable.
jostle_status jostle_plan_init(struct jostle_plan *plan,
                               const struct jostle_config *config,
                               const struct jostle_options *options,
                               struct jostle_error *error);

// Sizes every buffer for the fastest training that takes at most `budget` bytes, with at most the batch and the threads
// of `options`: of plans that keep all activations and plans that make them again, the one with the fewest
// multiply-adds per thread, then the largest batch; the plan tells which these are. None of it shows in the result of
// training: several micro-batches make one step (jostle_recipe's accumulate). Where none of them does, the update is
// fused into the backward pass, with the whole batch in one pass and without clipping. JOSTLE_BUDGET tells in `error`
// how many bytes the smallest plan wants.
//
// Pointers:
// As for jostle_plan_init.
jostle_status jostle_plan_fit(struct jostle_plan *plan,
                              const struct jostle_config *config,
                              const struct jostle_options *options,
                              size_t budget,
                              struct jostle_error *error);

// Describes a tensor by its number in the plan's tensor_count.
//
// `values`: the parameters, gradients, or one of AdamW's moments, at least `parameters_size` bytes, which are not
// touched; or NULL.
//
// Pointers:
// `plan` is readable, `tensor` writable, `error` NULL or writable.
jostle_status jostle_plan_tensor(const struct jostle_plan *plan,
                                 size_t index,
                                 float *values,
                                 size_t values_size,
                                 struct jostle_tensor *tensor,
                                 struct jostle_error *error);

// Describes a tensor by its name, e.g. "wte.weight". `values` as for jostle_plan_tensor.
//
// Pointers:
// `plan` is readable, `name` zero-terminated, `tensor` writable, `error` NULL or writable.
jostle_status jostle_plan_tensor_named(const struct jostle_plan *plan,
                                       const char *name,
                                       float *values,
                                       size_t values_size,
                                       struct jostle_tensor *tensor,
                                       struct jostle_error *error);

// Fills the parameters with random initial values, a function of the seed: matrices normal(0, 0.02), those that
// end a residual branch scaled by 1 / sqrt(2 L), biases 0, norms 1 (Radford et al. 2019). Which tensors are frozen, and
// so left out, changes no other's values.
//
// Pointers:
// `plan` is readable, `parameters` writable for `parameters_size` bytes, `error` NULL or writable.
jostle_status jostle_initialize(const struct jostle_plan *plan,
                                float *parameters,
                                size_t parameters_size,
                                uint64_t seed,
                                struct jostle_error *error);

// Starts a pool of so many threads, of which the caller's is one. To use it, set a jostle_compute's `threads`,
// its `run` to jostle_pool_run and its `context` to the pool.
//
// Pointers:
// `pool` is writable, `error` NULL or writable.
jostle_status jostle_pool_start(uint32_t threads,
                                struct jostle_pool **pool,
                                struct jostle_error *error);

// Lends a pool's threads: a jostle_run, whose `context` is the pool.
//
// Pointers:
// `pool` was made by jostle_pool_start and not stopped; `task` may be called with `argument` on any thread.
void jostle_pool_run(void *pool,
                     size_t count,
                     jostle_task task,
                     void *argument);

// Ends a pool's threads and frees it. NULL is allowed and does nothing.
//
// Pointers:
// `pool` was made by jostle_pool_start, is not in use, and is not used again.
void jostle_pool_stop(struct jostle_pool *pool);

// The bytes that a slot must have for a checkpoint of `checkpoint_size` bytes, where `write_size` bytes are programmed
// at once.
//
// Pointers:
// `size` is writable, `error` NULL or writable.
jostle_status jostle_slots_size(size_t checkpoint_size,
                                uint32_t write_size,
                                size_t *size,
                                struct jostle_error *error);

// Finds the newest whole checkpoint; JOSTLE_NOT_FOUND where there is none. `block` is memory to work in: 32 bytes, or
// as many as are programmed at once, or more, which is faster.
//
// Pointers:
// `flash` is readable for as many bytes as its `struct_size` says, and its functions may be called; `block` is writable
// for so many bytes, `slot` writable, `error` NULL or writable.
jostle_status jostle_slots_newest(const struct jostle_flash *flash,
                                  uint8_t *block,
                                  size_t block_size,
                                  struct jostle_slot *slot,
                                  struct jostle_error *error);

// Saves a checkpoint, as jostle_checkpoint_write writes it, in the slot that does not hold the newest whole checkpoint,
// and reads it back. Wherever the power fails meanwhile, the newest whole checkpoint is as it was, or this one is whole.
// `block` is as for jostle_slots_newest; between steps, a workspace will do.
//
// Pointers:
// `flash` is readable for as many bytes as its `struct_size` says, and its functions may be called; `block` is writable
// for so many bytes. The other arguments are as for jostle_checkpoint_write.
jostle_status jostle_slots_save(const struct jostle_flash *flash,
                                const struct jostle_plan *plan,
                                const struct jostle_buffers *buffers,
                                const struct jostle_progress *progress,
                                const struct jostle_metadata *metadata,
                                size_t metadata_count,
                                uint8_t *block,
                                size_t block_size,
                                struct jostle_error *error);

// Reads the newest whole checkpoint as jostle_checkpoint_read does; JOSTLE_NOT_FOUND if there is none. `block` is as
// for jostle_slots_newest, and as long as the checkpoint's header: JOSTLE_BUFFER_TOO_SHORT tells that length in `error`.
// JOSTLE_FLASH may leave the buffers written in part; another refusal leaves them as they were.
//
// Pointers:
// `flash` is readable for as many bytes as its `struct_size` says, and its functions may be called; `block` is writable
// for so many bytes. The other arguments are as for jostle_checkpoint_read.
jostle_status jostle_slots_load(const struct jostle_flash *flash,
                                const struct jostle_plan *plan,
                                const struct jostle_buffers *buffers,
                                uint8_t *block,
                                size_t block_size,
                                struct jostle_progress *progress,
                                struct jostle_error *error);

// A sentence without a full stop for a status, static and zero-terminated; "unknown status" for a number that
// is none.
const char *jostle_status_string(int32_t status);

// Writes what `error` tells as a sentence into `text`, zero-terminated and cut off where it doesn't fit.
//
// Pointers:
// `error` was filled by a call that failed; `text` is writable for `text_size` bytes.
jostle_status jostle_error_message(const struct jostle_error *error,
                                   char *text,
                                   size_t text_size);

// Makes a trainer at step 0, with the parameters that the buffer holds. The plan's optimizer must be what the
// recipe's keeps, and `compute` may be NULL.
//
// Pointers:
// `trainer` is writable; `plan`, `recipe` and `buffers` are readable; `compute` is NULL or readable; `error` is
// NULL or writable. The callback in `compute` stays valid as long as the trainer is used.
jostle_status jostle_trainer_init(struct jostle_trainer *trainer,
                                  const struct jostle_plan *plan,
                                  const struct jostle_recipe *recipe,
                                  const struct jostle_buffers *buffers,
                                  const struct jostle_compute *compute,
                                  struct jostle_error *error);

// One step on random windows of a text: as many micro-batches as the recipe says, then the update. Which windows
// is a function of the recipe's seed and the step.
//
// `text`: tokens of `token_type`, a jostle_token_type. JOSTLE_NOT_FINITE leaves parameters and step as they were.
//
// Pointers:
// `trainer` is writable and its buffers are, `text` is readable for `text_size` bytes, `report` writable, `error`
// NULL or writable.
jostle_status jostle_trainer_step(struct jostle_trainer *trainer,
                                  const void *text,
                                  size_t text_size,
                                  uint32_t token_type,
                                  struct jostle_report *report,
                                  struct jostle_error *error);

// One bounded piece of a step: jostle_trainer_step, with the same bits, in many calls with the same text, for callers
// with a watchdog. Sets `done` to 1 where it was the last piece of the step, and writes `report` only then; otherwise
// sets it to 0.
//
// A piece is one stage of one micro-batch (a block forward, half a block backward, ...), which is smallest for a
// batch of 1, or a 64th of the gradient's norm or of the update, but at least 4096 parameters.
//
// Until the step is done, gradients, workspace and batch must stay as they are, and other calls that train or
// evaluate are refused with JOSTLE_UNFINISHED. An error gives the step up, with the parameters as they were before
// it, but for errors in the arguments, which change nothing. So does jostle_trainer_resume; once the update has begun
// (the last pieces, at most 64), that leaves some parameters changed and others not.
//
// Pointers:
// As for jostle_trainer_step; `done` is writable.
jostle_status jostle_trainer_poll(struct jostle_trainer *trainer,
                                  const void *text,
                                  size_t text_size,
                                  uint32_t token_type,
                                  uint32_t *done,
                                  struct jostle_report *report,
                                  struct jostle_error *error);

// Forward and backward on a batch of the caller's: a micro-batch of the current step. `counted` is the number of
// targets other than -1 in all micro-batches of the step, which jostle_trainer_update ends.
//
// Pointers:
// As for jostle_trainer_step; `batch` is readable and its tokens and targets are; `loss` is writable.
jostle_status jostle_trainer_accumulate(struct jostle_trainer *trainer,
                                        const struct jostle_batch *batch,
                                        size_t counted,
                                        struct jostle_loss *loss,
                                        struct jostle_error *error);

// Ends a step: clips the accumulated gradients, changes the parameters along them, and goes on to the next step.
//
// `loss`: the sum of what jostle_trainer_accumulate wrote; only for the report.
//
// Pointers:
// As for jostle_trainer_step; `loss` is readable.
jostle_status jostle_trainer_update(struct jostle_trainer *trainer,
                                    const struct jostle_loss *loss,
                                    struct jostle_report *report,
                                    struct jostle_error *error);

// The loss on a whole text without dropout: windows one behind the other, so that every token but the first is
// predicted once. Gradients, optimiser state and step stay as they are.
//
// Pointers:
// As for jostle_trainer_step; `loss` is writable.
jostle_status jostle_trainer_evaluate(struct jostle_trainer *trainer,
                                      const void *text,
                                      size_t text_size,
                                      uint32_t token_type,
                                      struct jostle_loss *loss,
                                      struct jostle_error *error);

// Writes how many steps are done.
//
// Pointers:
// `trainer` is readable, `steps` writable, `error` NULL or writable.
jostle_status jostle_trainer_steps(const struct jostle_trainer *trainer,
                                   uint64_t *steps,
                                   struct jostle_error *error);

// Goes on from a checkpoint, whose parameters and optimiser state the buffers hold: with the same recipe, the same
// bits as if training had never stopped. What jostle_trainer_poll has done of a step is forgotten.
//
// Pointers:
// `trainer` is writable, `error` NULL or writable.
jostle_status jostle_trainer_resume(struct jostle_trainer *trainer,
                                    uint64_t step,
                                    struct jostle_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* JOSTLE_H */
