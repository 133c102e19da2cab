/*
 * jostle: trains small transformer language models, on buffers that the caller hands over.
 *
 * OUTLINE of a program that trains a model
 *
 *     jostle_config_init      the model's sizes
 *     jostle_options_init     the batch, the optimiser's state, the threads
 *     jostle_plan_init        the size of every buffer
 *     jostle_buffers_size     their sum, for malloc
 *     jostle_buffers_init     the buffers, in one block of memory
 *     jostle_initialize       random parameters; or jostle_checkpoint_read
 *     jostle_recipe_init      the optimiser, the learning rate, the seed
 *     jostle_trainer_init     a trainer of all this
 *     jostle_trainer_step     a step on random windows of a text; call it again and again
 *     jostle_checkpoint_write the result as a file's bytes
 *
 * The functions come in this order: START HERE, TRAIN, USE, KEEP, DEVICES, OPERATIONS.
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
 *             Sizes come from jostle_plan_init and the functions whose names end in _size. What must
 *             be zero at first is the optimiser's state alone; jostle_buffers_init sets it.
 *             Firmware takes the sizes of its static arrays from the header that jostle-plan writes.
 * Structs     that the caller fills in begin with struct_size, which is their sizeof. Those that
 *             have defaults have an init function, which takes the sizeof and writes no byte beyond
 *             it. Later versions of the library only append fields. A program that was built with
 *             an older header keeps working: fields that its struct lacks have the defaults of the
 *             init function, or 0. A struct larger than the library knows is refused with
 *             JOSTLE_STRUCT_TOO_LARGE; one smaller than in the first header, with
 *             JOSTLE_STRUCT_TOO_SMALL. Fields called reserved are 0.
 * Results     Structs that the library writes, handles among them, have no struct_size. Their size and
 *             their fields only change with JOSTLE_VERSION_MAJOR; before version 1, also with
 *             JOSTLE_VERSION_MINOR. The shared library's name has these numbers: libjostle.so.0.1.
 * Choices     cross the border as uint32_t; the enums name their values.
 * Threads     const means: several threads may call with the same argument at once. A trainer or
 *             generator is for one thread at a time. The caller lends threads to compute with
 *             through jostle_compute.
 * Processes   A call uses the caller's memory alone, so functions may be called after fork. The threads
 *             of a jostle_pool stay with the parent; in the child, a trainer computes with the caller's
 *             thread alone, and gets the same bits. The library handles no signals. A signal handler
 *             may not use a handle that its thread was using.
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

#if defined(__GNUC__) && defined(__ARM_FP) && !defined(__ARM_PCS_VFP) && \
    defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
// The calls of functions that take or return floats by value. Programs for Cortex-M that are compiled with
// -mfloat-abi=softfp link the same archive as those with hard, which passes floats in the floating-point unit's registers.
#define JOSTLE_FLOATS __attribute__((pcs("aapcs-vfp")))
#else
#define JOSTLE_FLOATS
#endif

// The version of the header, to compare with jostle_version().
#define JOSTLE_VERSION_MAJOR 0

// The version's second number.
#define JOSTLE_VERSION_MINOR 1

// The version's third number.
#define JOSTLE_VERSION_PATCH 0

// The alignment in bytes of every buffer of numbers. On x86-64, 64 bytes (a cache line) are better: training steps are 3 %
// and generation is up to a fifth faster.
#define JOSTLE_ALIGNMENT 4

// The most metadata entries that jostle_checkpoint_write takes.
#define JOSTLE_METADATA_MOST 16

// How a call ended. A number never changes its meaning, and the number of a removed status is not used again.
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_status : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The call has succeeded.
    JOSTLE_OK = 0,
    // A pointer that must not be NULL is.
    JOSTLE_NULL_POINTER = 1,
    // A pointer is not aligned for what it points to.
    JOSTLE_MISALIGNED = 2,
    // A buffer has fewer bytes than the call needs.
    JOSTLE_BUFFER_TOO_SHORT = 3,
    // A buffer or result to be written shares bytes with another buffer or a handle of the call.
    JOSTLE_OVERLAP = 4,
    // A struct's `struct_size` is smaller than the struct was in the first header.
    JOSTLE_STRUCT_TOO_SMALL = 5,
    // A struct's `struct_size` belongs to a later version, whose fields this library does not know.
    JOSTLE_STRUCT_TOO_LARGE = 6,
    // A plan, trainer or generator was not made by its init function, or that function failed.
    JOSTLE_NOT_INITIALIZED = 7,
    // An integer that stands for a choice has an unknown value.
    JOSTLE_UNKNOWN_CHOICE = 8,
    // A size or number that must be at least 1 is 0.
    JOSTLE_ZERO = 9,
    // A size, or a product of sizes, exceeds what this machine can address.
    JOSTLE_TOO_LARGE = 10,
    // The width is not divisible by the number of heads.
    JOSTLE_HEADS = 11,
    // A number is outside its range.
    JOSTLE_OUT_OF_RANGE = 12,
    // Sizes that must agree do not, or a text does not end with a whole token.
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
    // The plan does not fit the call: it has not reserved the memory that the call needs.
    JOSTLE_PLAN = 19,
    // A part of the learning-rate schedule does not fit into the schedule's steps.
    JOSTLE_STEPS = 20,
    // A tensor or metadata entry of that name or number, or a checkpoint in flash memory, does not exist.
    JOSTLE_NOT_FOUND = 21,
    // A string is not UTF-8.
    JOSTLE_NOT_UTF8 = 22,
    // The system could not start a thread, or they are more than a pool may have.
    JOSTLE_THREADS = 23,
    // A budget of memory is too small for any plan.
    JOSTLE_BUDGET = 24,
    // A step that jostle_trainer_poll has begun is not finished yet.
    JOSTLE_UNFINISHED = 25,
    // The call needs all gradients at once, but the plan has a fused optimizer step.
    JOSTLE_FUSED = 26,
    // A gradient is not finite in a fused optimizer step: some parameters and their optimiser state have changed already.
    // Training can continue from a checkpoint.
    JOSTLE_PARTLY_UPDATED = 27,
    // Sizes inside the library do not match: a bug of jostle, which should be reported. Results of the call are not valid.
    JOSTLE_INTERNAL = 28,
    // The callback `run` of a jostle_compute did not call the task once for each index. The call has done its work all the
    // same, and its results are right.
    JOSTLE_RUN = 29,
    // The processor flushes denormal numbers to zero or does not round to nearest, so training would end in other bits. A
    // program that was linked with -ffast-math or -Ofast begins in such a mode.
    JOSTLE_FLOATING_POINT = 30,
    // The loss of a step is a spike: see jostle_trainer_guard. Parameters, optimiser state and step are as they were.
    JOSTLE_SPIKE = 31,
    // The query heads are not divisible by the key/value heads.
    JOSTLE_KV_HEADS = 32,
    // A combination that is not supported.
    JOSTLE_UNSUPPORTED = 33,
    // A checkpoint ends within its header or its data.
    JOSTLE_CHECKPOINT_TRUNCATED = 40,
    // A checkpoint's header does not have the safetensors format.
    JOSTLE_CHECKPOINT_HEADER = 41,
    // A name occurs twice in a checkpoint.
    JOSTLE_CHECKPOINT_DUPLICATE = 42,
    // A checkpoint's tensors overlap, or leave a gap.
    JOSTLE_CHECKPOINT_OFFSETS = 43,
    // A tensor that the model has is missing from a checkpoint.
    JOSTLE_CHECKPOINT_MISSING = 44,
    // A tensor in a checkpoint has another shape than the model's.
    JOSTLE_CHECKPOINT_SHAPE = 45,
    // A checkpoint was altered: its checksum does not match.
    JOSTLE_CHECKPOINT_CHECKSUM = 46,
    // A metadata entry that a checkpoint needs is missing or malformed.
    JOSTLE_CHECKPOINT_METADATA = 47,
    // A checkpoint belongs to another model.
    JOSTLE_CHECKPOINT_CONFIGURATION = 48,
    // A metadata key is reserved or occurs twice.
    JOSTLE_CHECKPOINT_KEY = 49,
    // A function of a jostle_flash has returned an error.
    JOSTLE_FLASH = 50,
    // Flash memory does not hold the bytes that were just programmed.
    JOSTLE_FLASH_CONTENTS = 51,
    // A safetensors file has a tensor that the model does not have.
    JOSTLE_CHECKPOINT_UNUSED = 52,
    // The numbers of a tensor in a checkpoint are not F32, F16 or BF16.
    JOSTLE_CHECKPOINT_TYPE = 53,
    // A file of llama2.c ends within its header or an entry.
    JOSTLE_LLAMA2C_TRUNCATED = 60,
    // A token's text in a tokenizer of llama2.c is empty, or longer than the file says that its longest is.
    JOSTLE_LLAMA2C_PIECE = 61,
    // A token of a tokenizer of llama2.c does not have the name of the byte that it must stand for, e.g. <0x0A> for token 13.
    JOSTLE_LLAMA2C_BYTE = 62,
    // A tokenizer of llama2.c has too few tokens for all bytes.
    JOSTLE_LLAMA2C_VOCAB = 63,
    // A number in the header of a model of llama2.c is not valid.
    JOSTLE_LLAMA2C_HEADER = 64,
    // A model's file of llama2.c does not have the length that its header states.
    JOSTLE_LLAMA2C_LENGTH = 65,
    // The model in a file of llama2.c has another shape than the plan's.
    JOSTLE_LLAMA2C_CONFIGURATION = 66,
    // Files of llama2.c have no model with this value of the configuration.
    JOSTLE_LLAMA2C_UNSUPPORTED = 67,
    // A refusal that has no number in this version of the header.
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
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_activation : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // x (1 + erf(x / sqrt 2)) / 2, PyTorch's GELU().
    JOSTLE_GELU = 0,
    // The approximation by tanh, PyTorch's GELU(approximate="tanh"). Models in Hugging Face's GPT-2 format were trained
    // with it ("gelu_new").
    JOSTLE_GELU_TANH = 1,
    // silu(gate) * up, of two products (Shazeer 2020): Llama's gated MLP.
    JOSTLE_SWIGLU = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_activation jostle_activation;
#else
typedef uint32_t jostle_activation;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How the learning rate falls after warm-up.
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_decay : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It stays constant.
    JOSTLE_CONSTANT = 0,
    // In a straight line down to final_learning_rate at step `steps`.
    JOSTLE_LINEAR = 1,
    // Along half a cosine, as in nanoGPT.
    JOSTLE_COSINE = 2,
    // Constant until decay_steps before `steps`, then in a straight line.
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
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_instruction_set : uint32_t
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

// The normalisation before each branch and before the head.
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_norm : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Mean zero and variance one (Ba et al. 2016): GPT-2's.
    JOSTLE_NORM_LAYER = 0,
    // Root mean square one (Zhang & Sennrich 2019): Llama's.
    JOSTLE_NORM_RMS = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_norm jostle_norm;
#else
typedef uint32_t jostle_norm;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How gradients change parameters.
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_optimizer : uint32_t
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

// The optimiser's state for each parameter between steps.
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_optimizer_state : uint32_t
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

// How a model knows the positions of tokens.
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_positions : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // A learned vector for each position, added to the token's: GPT-2's.
    JOSTLE_POSITIONS_LEARNED = 0,
    // Queries and keys are rotated by angles that grow with the position (Su et al. 2021): Llama's.
    JOSTLE_POSITIONS_ROTARY = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_positions jostle_positions;
#else
typedef uint32_t jostle_positions;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The value that each element of a product starts from.
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_start : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Zero; C is not read.
    JOSTLE_START_ZERO = 0,
    // The bias of its column; C is not read.
    JOSTLE_START_BIAS = 1,
    // The element of C.
    JOSTLE_START_ACCUMULATE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_start jostle_start;
#else
typedef uint32_t jostle_start;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The place of dropout in the model. Masks of different streams are independent, also with the same seed.
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_stream : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The sum of the embeddings.
    JOSTLE_EMBEDDING_DROPOUT = 4,
    // The attention weights.
    JOSTLE_ATTENTION_DROPOUT = 5,
    // The output of the attention's projection.
    JOSTLE_ATTENTION_PROJECTION_DROPOUT = 6,
    // The output of the MLP's projection.
    JOSTLE_MLP_PROJECTION_DROPOUT = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jostle_stream jostle_stream;
#else
typedef uint32_t jostle_stream;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The integer type of tokens in a text.
enum
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  jostle_token_type : uint32_t
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

// The numbers behind a status other than JOSTLE_OK.
typedef struct jostle_error {
    // The status that the call has returned.
    int32_t status;
    // JOSTLE_OUT_OF_RANGE, JOSTLE_NOT_FINITE, JOSTLE_SPIKE: the number; otherwise 0.
    float value;
    // The name of the refused argument or field, of the tensor of a checkpoint, or the name that was not found;
    // zero-terminated, cut off if it is longer; may be empty.
    char what[64];
    // JOSTLE_OUT_OF_RANGE: the valid range, in words. JOSTLE_CHECKPOINT_SHAPE, JOSTLE_CHECKPOINT_TYPE: the tensor's, and
    // the model's. JOSTLE_NOT_FINITE in training: the step, and the first tensor that is not finite (of parameters for the
    // loss, of gradients for the norm). Zero-terminated; otherwise empty.
    char range[64];
    // JOSTLE_TOKEN, JOSTLE_CHECKPOINT_KEY, JOSTLE_RUN: the index; checkpoints: the byte or the tensor; JOSTLE_FLASH: the
    // slot; JOSTLE_NOT_FINITE: the tensor; JOSTLE_LLAMA2C_PIECE, JOSTLE_LLAMA2C_BYTE: the token; else 0.
    int64_t index;
    // The given number, in bytes for buffers; JOSTLE_FLASH: the function's error; JOSTLE_NOT_FINITE, JOSTLE_SPIKE:
    // the step; otherwise 0.
    int64_t given;
    // The wanted number, in bytes for buffers; JOSTLE_RUN: the number of indices; otherwise 0.
    int64_t wanted;
} jostle_error;

// A model's configuration. jostle_config_init fills in GPT-2's choices, but for the activation, and jostle_config_init_llama
// Llama's. The tensors of a GPT-2 have the names, shapes and order of Hugging Face's GPT-2, those of all other
// configurations Llama's.
typedef struct jostle_config {
    // sizeof(jostle_config).
    uint32_t struct_size;
    // V: the number of different tokens.
    uint32_t vocab;
    // The longest sequence that the model can look at.
    uint32_t context;
    // L: the number of blocks.
    uint32_t layers;
    // H: the number of attention heads.
    uint32_t heads;
    // C: the width of the residual stream.
    uint32_t width;
    // F: the width of the MLP between its products; 4C in GPT-2.
    uint32_t hidden;
    // A jostle_activation.
    uint32_t activation;
    // 1 if products and norms have biases, else 0.
    uint32_t bias;
    // 1 if the output matrix is the token embedding, else 0.
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
    // K: the number of heads of keys and values, each shared by H / K neighbouring query heads (Ainslie et al. 2023); 0 means
    // H.
    uint32_t kv_heads;
    // D: the width of a head; 0 means C / H, which must be whole.
    uint32_t head_width;
    // A jostle_norm.
    uint32_t norm;
    // A jostle_positions.
    uint32_t positions;
    // Rotary positions: the base of the wavelengths; at least 1.
    float rope_theta;
    // Llama 3's scaling of rotary positions: slow rotations become slower by this factor; at least 1, which scales nothing.
    float rope_factor;
    // Rotations with fewer turns than this in the original context are slowed down by the whole factor.
    float rope_low_freq_factor;
    // Rotations with more turns than this keep their frequency; more than rope_low_freq_factor.
    float rope_high_freq_factor;
    // The context of the first training, in positions.
    uint32_t rope_original_context;
    // 1 if queries, keys and values have biases, even if no other product has (Qwen2), else 0.
    uint32_t qkv_bias;
    // 1 if each head's queries and keys are normalised by their root mean square, before the rotation (Qwen3), else 0.
    uint32_t qk_norm;
    // The standard deviation of matrices before training; more than 0.
    float initial_std;
    // The rank of the adapter of c_attn of a GPT-2 (Hu et al. 2021), at most each side of the matrix; 0 for none.
    uint32_t lora_qkv_rank;
    // The same for q_proj.
    uint32_t lora_q_rank;
    // The same for k_proj.
    uint32_t lora_k_rank;
    // The same for v_proj.
    uint32_t lora_v_rank;
    // The same for o_proj (GPT-2: attn.c_proj).
    uint32_t lora_o_rank;
    // The same for gate_proj.
    uint32_t lora_gate_rank;
    // The same for up_proj (GPT-2: c_fc).
    uint32_t lora_up_rank;
    // The same for down_proj (GPT-2: mlp.c_proj).
    uint32_t lora_down_rank;
    // The adapter of c_attn of a GPT-2 is multiplied by this, divided by its rank; more than 0.
    float lora_qkv_alpha;
    // The same for q_proj.
    float lora_q_alpha;
    // The same for k_proj.
    float lora_k_alpha;
    // The same for v_proj.
    float lora_v_alpha;
    // The same for o_proj (GPT-2: attn.c_proj).
    float lora_o_alpha;
    // The same for gate_proj.
    float lora_gate_alpha;
    // The same for up_proj (GPT-2: c_fc).
    float lora_up_alpha;
    // The same for down_proj (GPT-2: mlp.c_proj).
    float lora_down_alpha;
    // 1 if alpha is divided by the root of the rank (Kalajdzievski 2023), else 0.
    uint32_t lora_rslora;
    // Rate of dropout on the inputs of adapters, in [0, 1).
    float lora_dropout;
} jostle_config;

// The settings of training that memory depends on.
typedef struct jostle_options {
    // sizeof(jostle_options).
    uint32_t struct_size;
    // B: the most sequences in one pass.
    uint32_t batch;
    // The most threads that work at once; each has its own scratch.
    uint32_t threads;
    // A jostle_optimizer_state.
    uint32_t optimizer;
    // 1: the backward pass recomputes each block's activations, in the memory of one block (activation recomputation). The
    // bits are the same, memory is less, work is more. 0: all activations are kept.
    uint32_t recompute;
    // 1: the backward pass updates parameters as soon as their gradients are complete (fused optimizer step). Gradients then
    // need memory for some rows of one tensor only. The bits are the same, but a step is one pass without clipping
    // (JOSTLE_FUSED). 0: the update follows the backward pass.
    uint32_t fused;
    // The names of tensors that are not trained, as in jostle_tensor; NULL for none. Only jostle_plan_init and
    // jostle_plan_fit read them.
    const char *const *frozen;
    // The number of names in `frozen`.
    size_t frozen_count;
    // The rows of logits that exist at a time (a chunk of the head); 0 for all rows of a pass. In chunks the bits are the same,
    // memory is less, and work is more if the head's matrix is trained.
    // jostle_model_logits then refuses the plan (JOSTLE_PLAN).
    size_t head_rows;
    // 1: all tensors except adapters are frozen, and `frozen` need not name them. 0: `frozen` names all frozen tensors. Only
    // jostle_plan_init and jostle_plan_fit read it.
    uint32_t freeze_base;
    // 0.
    uint32_t reserved;
} jostle_options;

// The settings of a training run. jostle_recipe_init fills in nanoGPT's choices for small models.
typedef struct jostle_recipe {
    // sizeof(jostle_recipe).
    uint32_t struct_size;
    // A jostle_optimizer.
    uint32_t optimizer;
    // SGD: the decay rate of the velocity, in [0, 1).
    float momentum;
    // AdamW: the decay rate of the first moment, in [0, 1).
    float beta1;
    // AdamW: the decay rate of the second moment, in [0, 1).
    float beta2;
    // AdamW: added to the root of the second moment.
    float epsilon;
    // AdamW: at each step, matrices shrink by this times the learning rate.
    float weight_decay;
    // Gradients with a larger global norm are scaled down to it; 0 for no clipping.
    float clip;
    // The peak learning rate.
    float learning_rate;
    // The learning rate at the end of the decay; at most learning_rate.
    float final_learning_rate;
    // A jostle_decay.
    uint32_t decay;
    // Micro-batches per step of jostle_trainer_step; at least 1.
    uint32_t accumulate;
    // Steps of linear warm-up.
    uint64_t warmup;
    // The step at which the decay ends. JOSTLE_CONSTANT ignores it.
    uint64_t steps;
    // JOSTLE_WARMUP_STABLE_DECAY: the number of steps of the decay.
    uint64_t decay_steps;
    // The seed of batches and dropout.
    uint64_t seed;
} jostle_recipe;

// The settings for drawing a token. jostle_sampling_init fills in the softmax without filters.
typedef struct jostle_sampling {
    // sizeof(jostle_sampling).
    uint32_t struct_size;
    // Divides the logits; 0 takes the token with the largest logit.
    float temperature;
    // The number of largest logits to keep; 0 keeps all.
    uint32_t top_k;
    // Keep the fewest tokens whose probabilities add up to this; in (0, 1], 1 keeps all (Holtzman et al. 2020).
    float top_p;
    // Keep the tokens with at least this share of the largest probability; in [0, 1], 0 keeps all (Nguyen et al. 2024).
    float min_p;
} jostle_sampling;

// The least size of each buffer in bytes, for one configuration and one set of options. All buffers are aligned to
// JOSTLE_ALIGNMENT. A plan may be copied, and several threads may use it at once.
typedef struct jostle_plan {
    // float: the parameters that are trained, tensor after tensor; jostle_plan_tensor tells the place of each.
    size_t parameters_size;
    // float: the frozen parameters, tensor after tensor. They are only read, so they may lie in flash.
    size_t frozen_size;
    // float: a gradient for each parameter, in the same order; with a fused optimizer step, for some rows of one tensor.
    size_t gradients_size;
    // float: the optimiser's state (AdamW: all first moments, then all second moments); may be 0.
    size_t optimizer_size;
    // The part of the workspace for activations, which a forward pass leaves for the backward pass.
    size_t activations_size;
    // The part of the workspace for intermediate results of one layer and for each thread's packed panels.
    size_t scratch_size;
    // float: activations and scratch, one buffer.
    size_t workspace_size;
    // int32_t: tokens and targets of one micro-batch.
    size_t batch_size;
    // The sum of parameters, gradients, optimizer, workspace and batch: all memory of training, except frozen_size.
    size_t training_size;
    // float: a generator's memory.
    size_t generation_size;
    // int32_t: a generator's window of tokens.
    size_t window_size;
    // uint32_t: scratch for drawing a token.
    size_t order_size;
    // The most sequences in one pass.
    size_t batch;
    // The most threads that work at once.
    size_t threads;
    // 1 if the backward pass recomputes activations, else 0.
    size_t recompute;
    // The multiply-adds that recomputation adds to a pass over a full batch.
    size_t recomputed;
    // 1 if the optimizer step is fused into the backward pass, else 0.
    size_t fused;
    // The number of parameters that are trained.
    size_t parameter_count;
    // The number of tensors, trained and frozen.
    size_t tensor_count;
    // The configuration and the options.
    uint64_t opaque[12];
    // Likewise.
    size_t more[70];
} jostle_plan;

// A tensor of the model.
typedef struct jostle_tensor {
    // Hugging Face GPT-2's name, e.g. h.0.attn.c_attn.weight; zero-terminated.
    char name[64];
    // 1 for biases and norms, 2 for matrices.
    uint32_t rank;
    // 1 if it is not trained, else 0.
    uint32_t frozen;
    // The shape [rows, columns] of a matrix, row-major; a vector's length and 1.
    size_t shape[2];
    // The number of elements.
    size_t count;
    // Its offset in the parameters or, if it is frozen, in the frozen parameters, in elements.
    size_t offset;
    // Its elements in the buffer `values`; NULL if that is NULL or the tensor is frozen.
    float *data;
} jostle_tensor;

// The caller's memory for a model. jostle_buffers_init takes it all from one block; firmware fills the struct in with its
// static arrays. Each function says which of the buffers it uses; the others may be NULL. Buffers that a function uses
// must not overlap. Trainers and generators keep using theirs: as long as they are used, the buffers stay where they are,
// and nobody else writes them.
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

// Trains a model. It holds pointers to the caller's buffers and owns nothing, so there is nothing to free.
typedef struct jostle_trainer {
    // Made by jostle_trainer_init.
    uint64_t opaque[12];
    // Likewise.
    size_t more[126];
} jostle_trainer;

// Does the part `index` of some work.
typedef void (*jostle_task)(void *argument,
                            size_t index);

// Lends threads: calls `task(argument, index)` once for each index in 0..count, in any order and on any threads, and
// returns when all these calls have returned. A call may wait for calls that have begun before it, and only for those.
// jostle_pool_run is such a function.
//
// The library counts the calls. Indices that were not called run on the caller's thread, and other calls do nothing. So
// the results are right, but the function that needed the threads returns JOSTLE_RUN. A call of `task` after the return
// is undefined behaviour.
typedef void (*jostle_run)(void *context,
                           size_t count,
                           jostle_task task,
                           void *argument);

// The instruction set and the threads to compute with. jostle_compute_init fills in the fastest instruction set on the
// caller's thread alone. NULL means the same wherever a function takes a `const jostle_compute *`.
typedef struct jostle_compute {
    // sizeof(jostle_compute).
    uint32_t struct_size;
    // A jostle_instruction_set.
    uint32_t instruction_set;
    // How many calls of a task `run` makes at once; at least 1. At most 1024 of them are used, and 32 on bare metal.
    uint32_t threads;
    // 0.
    uint32_t reserved;
    // Lends threads; may be NULL if `threads` is 1.
    jostle_run run;
    // Passed to `run`; may be NULL.
    void *context;
} jostle_compute;

// The results of one step.
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

// Tokens and targets of a pass: `sequences` rows of `length` tokens.
typedef struct jostle_batch {
    // [sequences, length], each in 0..vocab.
    const int32_t *tokens;
    // The size of `tokens` in bytes.
    size_t tokens_size;
    // [sequences, length], each in 0..vocab, or -1, which is ignored. jostle_model_logits does not read them.
    const int32_t *targets;
    // The size of `targets` in bytes.
    size_t targets_size;
    // The number of sequences; at most the plan's batch.
    size_t sequences;
    // The number of tokens in each sequence; at most the context.
    size_t length;
} jostle_batch;

// The loss of a pass, or of several.
typedef struct jostle_loss {
    // The sum over the targets that count, in nats.
    double sum;
    // The number of targets that count, which are those other than -1.
    uint64_t counted;
} jostle_loss;

// Generates text. It holds pointers to the caller's buffers and owns nothing, so there is nothing to free.
typedef struct jostle_generator {
    // Made by jostle_generator_init.
    uint64_t opaque[12];
    // Likewise.
    size_t more[80];
} jostle_generator;

// A tokenizer.bin of llama2.c: byte-pair encoding with scores. It holds pointers to the caller's buffers and owns nothing, so
// there is nothing to free.
typedef struct jostle_llama2c_tokenizer {
    // Made by jostle_llama2c_tokenizer_init.
    uint64_t opaque[1];
    // Likewise.
    size_t more[28];
} jostle_llama2c_tokenizer;

// Selects the dropout masks of a pass: these numbers determine them.
typedef struct jostle_dropout_key {
    // The run's seed.
    uint64_t seed;
    // The step, from 0.
    uint64_t step;
    // The number of the pass's first sequence, counted from 0 over the whole step: micro-batches together then have
    // the masks of one large batch.
    uint64_t first_sequence;
} jostle_dropout_key;

// A metadata entry of the caller's: zero-terminated text in UTF-8. Keys differ from each other, are not "format" and do not
// begin with "jostle.".
typedef struct jostle_metadata {
    // The name.
    const char *key;
    // The text.
    const char *value;
} jostle_metadata;

// The progress of training.
typedef struct jostle_progress {
    // The number of steps done.
    uint64_t step;
    // The seed of batches and dropout.
    uint64_t seed;
} jostle_progress;

// Erases a whole slot, 0 or 1. Returns 0 or its own error code, which jostle_error has as `given`.
typedef int32_t (*jostle_flash_erase)(void *context,
                                      size_t slot);

// Programs `size` erased bytes of a slot, beginning at byte `at`; both are multiples of `write_size`. Returns as
// jostle_flash_erase.
typedef int32_t (*jostle_flash_program)(void *context,
                                        size_t slot,
                                        size_t at,
                                        const uint8_t *bytes,
                                        size_t size);

// Reads `size` bytes of a slot, beginning at byte `at`, whatever the slot holds. Returns as jostle_flash_erase; an error, for
// example, if the memory detects a word that was programmed in part.
typedef int32_t (*jostle_flash_read)(void *context,
                                     size_t slot,
                                     size_t at,
                                     uint8_t *bytes,
                                     size_t size);

// Two slots of flash memory. A slot begins with a record of 32 bytes, or of `write_size` if that is more, and then holds the
// checkpoint. The record has three little-endian numbers: the number of the save (8 bytes), the length of the checkpoint
// (8), and a CRC-32 of both and of the checkpoint (4). The rest of the record is padding.
typedef struct jostle_flash {
    // sizeof(jostle_flash).
    uint32_t struct_size;
    // The number of bytes that are programmed at once; at least 1.
    uint32_t write_size;
    // The size of each slot in bytes, at least as jostle_slots_size says.
    size_t slot_size;
    // Erases.
    jostle_flash_erase erase;
    // Programs.
    jostle_flash_program program;
    // Reads.
    jostle_flash_read read;
    // Passed to the three functions; may be NULL.
    void *context;
} jostle_flash;

// The place of a whole checkpoint in flash memory. If flash is memory-mapped, the jostle_checkpoint functions can read the
// checkpoint there.
typedef struct jostle_slot {
    // The number of the save, counted from 1.
    uint64_t sequence;
    // The slot, 0 or 1.
    size_t index;
    // The offset of the checkpoint in the slot, in bytes.
    size_t offset;
    // The size of the checkpoint in bytes.
    size_t size;
    // The error of reading the other slot; 0 if it could be read. If the error passes, that slot may have a newer checkpoint.
    int32_t other_error;
    // 0.
    uint32_t reserved;
} jostle_slot;

// A dropout mask. These numbers, the row and the column of an element determine whether it is zeroed. The other elements
// are divided by the probability of being kept. NULL instead of a mask drops nothing.
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

// A matrix that is read.
typedef struct jostle_matrix {
    // Its first element.
    const float *data;
    // The size of `data` in bytes.
    size_t size;
    // The distance from one row to the next, in elements.
    size_t row_stride;
    // The distance from one column to the next, in elements; 1 for a row-major matrix.
    size_t column_stride;
} jostle_matrix;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* START HERE: errors, the model's configuration, its plan, its memory */

// The version of the library: major * 65536 + minor * 256 + patch.
uint32_t jostle_version(void);

// A static, zero-terminated sentence without a full stop for a status; "unknown status" for an unknown number.
const char *jostle_status_string(int32_t status);

// Writes an error as a sentence into `text`, zero-terminated, and cut off if it does not fit.
//
// Pointers:
// `error` was filled by a call that failed; `text` is writable for `text_size` bytes.
jostle_status jostle_error_message(const struct jostle_error *error,
                                   char *text,
                                   size_t text_size);

// Fills in a configuration with these sizes and usual choices: hidden width 4C, exact GELU, biases, tied output matrix,
// epsilon 1e-5, no dropout. It checks nothing; jostle_plan_init does. For the parameters of Hugging Face's GPT-2, set
// `activation` to JOSTLE_GELU_TANH: with the exact GELU they give slightly other numbers.
//
// Pointers:
// `config` is writable for `struct_size` bytes, which is sizeof(jostle_config) in the caller's header.
jostle_status jostle_config_init(struct jostle_config *config,
                                 size_t struct_size,
                                 uint32_t vocab,
                                 uint32_t context,
                                 uint32_t layers,
                                 uint32_t heads,
                                 uint32_t width);

// Fills in a configuration with these sizes and Llama's choices: RMS norm, rotary positions with theta 10000, SwiGLU, no
// biases, tied output matrix, epsilon 1e-5, no dropout. `kv_heads` may be 0 for one key/value head for each head. It checks
// nothing; jostle_plan_init does.
//
// Pointers:
// `config` is writable for `struct_size` bytes, which is sizeof(jostle_config) in the caller's header.
jostle_status jostle_config_init_llama(struct jostle_config *config,
                                       size_t struct_size,
                                       uint32_t vocab,
                                       uint32_t context,
                                       uint32_t layers,
                                       uint32_t heads,
                                       uint32_t kv_heads,
                                       uint32_t width,
                                       uint32_t hidden);

// Fills in options: `batch` sequences a pass, one thread, AdamW.
//
// Pointers:
// `options` is writable for `struct_size` bytes, which is sizeof(jostle_options) in the caller's header.
jostle_status jostle_options_init(struct jostle_options *options,
                                  size_t struct_size,
                                  uint32_t batch);

// Fills in a recipe: AdamW with betas 0.9 and 0.99, epsilon 1e-8 and weight decay 0.1; the norm clipped at 1; a
// constant learning rate of 1e-3 without warm-up; one micro-batch a step; seed 0.
//
// Pointers:
// `recipe` is writable for `struct_size` bytes, which is sizeof(jostle_recipe) in the caller's header.
jostle_status jostle_recipe_init(struct jostle_recipe *recipe,
                                 size_t struct_size);

// Fills in sampling at temperature 1 without filters.
//
// Pointers:
// `sampling` is writable for `struct_size` bytes, which is sizeof(jostle_sampling) in the caller's header.
jostle_status jostle_sampling_init(struct jostle_sampling *sampling,
                                   size_t struct_size);

// Computes the size of every buffer, or refuses the configuration or the options.
//
// Pointers:
// `plan` is writable; `config`, `options` and the names in it are readable; `error` is NULL or writable.
jostle_status jostle_plan_init(struct jostle_plan *plan,
                               const struct jostle_config *config,
                               const struct jostle_options *options,
                               struct jostle_error *error);

// Makes the plan of the fastest training in at most `budget` bytes, with at most the batch and the threads of `options`.
//
// It considers plans with and without activation recomputation, and takes the one with the fewest multiply-adds per
// thread, then the one with the largest batch. This choice does not change the result of training: several micro-batches
// make one step (jostle_recipe's accumulate). If no such plan fits, the plan has a fused optimizer step, with the whole
// batch in one pass and without clipping. JOSTLE_BUDGET tells in `error` how many bytes the smallest plan needs.
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
// `values`: parameters, gradients, or one of AdamW's moments, at least `parameters_size` bytes; or NULL. They are neither
// read nor written.
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

// Fills the parameters with random initial values, which are a function of the seed (Radford et al. 2019): matrices
// normal(0, 0.02), biases 0, norms 1. Matrices that end a residual branch are scaled by 1 / sqrt(2 L). Frozen tensors are
// left out; the values of the other tensors do not depend on that.
//
// Pointers:
// `plan` is readable, `parameters` writable for `parameters_size` bytes, `error` NULL or writable.
jostle_status jostle_initialize(const struct jostle_plan *plan,
                                float *parameters,
                                size_t parameters_size,
                                uint64_t seed,
                                struct jostle_error *error);

// The bytes of memory that jostle_buffers_init needs for a plan; 0 if the plan is not initialised.
//
// Pointers:
// `plan` is readable.
size_t jostle_buffers_size(const struct jostle_plan *plan);

// Takes all buffers of a trainer from one block of memory with any alignment, of at least jostle_buffers_size bytes. Sets
// the optimiser's state to zero, as the first step needs it; the other buffers are not written. `frozen` is NULL: if the plan has
// frozen tensors, the caller sets it afterwards.
//
// Pointers:
// `buffers` is writable for `struct_size` bytes, which is sizeof(jostle_buffers) in the caller's header. `plan` is
// readable, `memory` writable for `memory_size` bytes, `error` NULL or writable. The block stays the caller's, and in its
// place as long as the buffers are used.
jostle_status jostle_buffers_init(struct jostle_buffers *buffers,
                                  size_t struct_size,
                                  const struct jostle_plan *plan,
                                  void *memory,
                                  size_t memory_size,
                                  struct jostle_error *error);

/* TRAIN: steps, evaluation */

// Makes a trainer at step 0, with the parameters in the buffer. It uses all of `buffers`. The plan's optimiser state must
// be the one that the recipe's optimiser has; `compute` may be NULL.
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

// Runs one step on random windows of a text: as many micro-batches as the recipe says, then the update. The choice of windows
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

// Runs one bounded piece of a step, for callers with a watchdog: many calls with the same text make one
// jostle_trainer_step, with the same bits. Sets `done` to 1 and writes `report` after the last piece of the step; otherwise
// sets `done` to 0.
//
// A piece is one stage of one micro-batch (for example a block forward, or half a block backward), and is smallest for a
// batch of 1. In the gradient's norm and in the update, a piece is a 64th of the parameters, but at least 4096.
//
// Until the step is done, gradients, workspace and batch must stay as they are, and other calls that train or evaluate are
// refused with JOSTLE_UNFINISHED. An error abandons the step and leaves the parameters as they were before it; an error in
// the arguments changes nothing. jostle_trainer_resume abandons the step too. During the update (the last pieces, at most
// 64), that leaves some parameters changed and others not.
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

// Runs forward and backward on a batch of the caller's, which is one micro-batch of the current step (gradient
// accumulation). `counted` is the number of targets other than -1 in all micro-batches of the step. jostle_trainer_update
// ends the step.
//
// Pointers:
// As for jostle_trainer_step; `batch` is readable and its tokens and targets are; `loss` is writable.
jostle_status jostle_trainer_accumulate(struct jostle_trainer *trainer,
                                        const struct jostle_batch *batch,
                                        size_t counted,
                                        struct jostle_loss *loss,
                                        struct jostle_error *error);

// Ends a step: clips the accumulated gradients and updates the parameters.
//
// `loss`: the sum of the losses that jostle_trainer_accumulate wrote; only the report needs it.
//
// Pointers:
// As for jostle_trainer_step; `loss` is readable.
jostle_status jostle_trainer_update(struct jostle_trainer *trainer,
                                    const struct jostle_loss *loss,
                                    struct jostle_report *report,
                                    struct jostle_error *error);

// Computes the loss on a whole text without dropout, in consecutive windows: each token except the first is predicted once.
// Gradients, optimiser state and step stay as they are.
//
// Pointers:
// As for jostle_trainer_step; `loss` is writable.
jostle_status jostle_trainer_evaluate(struct jostle_trainer *trainer,
                                      const void *text,
                                      size_t text_size,
                                      uint32_t token_type,
                                      struct jostle_loss *loss,
                                      struct jostle_error *error);

// Writes the number of steps done.
//
// Pointers:
// `trainer` is readable, `steps` writable, `error` NULL or writable.
jostle_status jostle_trainer_steps(const struct jostle_trainer *trainer,
                                   uint64_t *steps,
                                   struct jostle_error *error);

// Continues from a checkpoint, whose parameters and optimiser state the buffers hold. With the same recipe, training ends in
// the same bits as if it had never stopped. A step that jostle_trainer_poll has begun is abandoned.
//
// Pointers:
// `trainer` is writable, `error` NULL or writable.
jostle_status jostle_trainer_resume(struct jostle_trainer *trainer,
                                    uint64_t step,
                                    struct jostle_error *error);

// Leaves out the current step, for example after JOSTLE_NOT_FINITE or JOSTLE_SPIKE: the next step has other windows and other
// dropout. Gradients that were accumulated for the step are discarded, and pieces of jostle_trainer_poll abandoned.
//
// Pointers:
// As for jostle_trainer_step.
jostle_status jostle_trainer_skip(struct jostle_trainer *trainer,
                                  struct jostle_error *error);

// From now on, refuses the update of a step whose loss is a spike (JOSTLE_SPIKE): more than `limit` standard deviations above
// the mean of the last 100 steps or so. A usual limit is 6. The first 100 steps after this call are never spikes. A `limit`
// of 0 removes the guard.
//
// Pointers:
// As for jostle_trainer_step.
jostle_status jostle_trainer_guard(struct jostle_trainer *trainer,
                                   float limit,
                                   struct jostle_error *error) JOSTLE_FLOATS;

/* USE: text, logits, losses and gradients */

// Makes a generator with an empty text. `compute` may be NULL; only its instruction set is used. Of `buffers`, a generator
// uses `parameters` and `frozen`.
//
// `memory`, `window`: as many bytes as the plan's generation_size and window_size.
//
// Pointers:
// `generator` is writable, `plan` and `buffers` are readable, `compute` is NULL or readable, `error` NULL or writable.
// The parameters and the frozen parameters are readable, `memory` and `window` are writable for the given number of bytes. As long as
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

// Appends tokens, at least one, to the text. On success `logits` points to the logits [vocab] of the next token. They lie in
// the generator's memory, where they may be changed, and stay until the generator is used again.
//
// Once the text is longer than the context, each token is computed anew from the last `context` tokens.
//
// Pointers:
// `generator` is writable and its buffers are as they were at its init; `tokens` is readable for `tokens_size`
// bytes; `logits` is writable; `error` is NULL or writable.
jostle_status jostle_generator_feed(struct jostle_generator *generator,
                                    const int32_t *tokens,
                                    size_t tokens_size,
                                    float **logits,
                                    struct jostle_error *error);

// Draws the next token from the logits of the last jostle_generator_feed, which it overwrites. It does not feed the token.
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

// Checks a tokenizer.bin of llama2.c. Computes its number of tokens, and the size in bytes of the index that
// jostle_llama2c_tokenizer_init fills.
//
// Pointers:
// `file` is readable for `file_size` bytes; `vocab` and `index_size` are writable; `error` is NULL or writable.
jostle_status jostle_llama2c_tokenizer_size(const uint8_t *file,
                                            size_t file_size,
                                            size_t *vocab,
                                            size_t *index_size,
                                            struct jostle_error *error);

// Makes a tokenizer of a tokenizer.bin, whose tokens are looked up where they lie.
//
// `index`: as many bytes as jostle_llama2c_tokenizer_size says.
//
// Pointers:
// `tokenizer` is writable, `file` readable for `file_size` bytes, `index` writable for `index_size` bytes, `error` NULL or
// writable. As long as the tokenizer is used, file and index stay where they are, and nobody writes them.
jostle_status jostle_llama2c_tokenizer_init(struct jostle_llama2c_tokenizer *tokenizer,
                                            const uint8_t *file,
                                            size_t file_size,
                                            uint32_t *index,
                                            size_t index_size,
                                            struct jostle_error *error);

// Writes the tokens of a text to the front of `tokens`, and their number into `count`. They begin with BOS (1) if `bos` is 1,
// and end with EOS (2) if `eos` is 1. A character that has no token becomes its bytes. The text need not be UTF-8 or end
// with a zero.
//
// `tokens`: 16 `text_size` + 24 bytes. The bytes behind the tokens are scratch memory.
//
// Pointers:
// `tokenizer` is readable and its buffers are as they were at its init; `text` is readable for `text_size` bytes, `tokens`
// writable for `tokens_size` bytes; `count` is writable; `error` is NULL or writable.
jostle_status jostle_llama2c_encode(const struct jostle_llama2c_tokenizer *tokenizer,
                                    const uint8_t *text,
                                    size_t text_size,
                                    uint32_t bos,
                                    uint32_t eos,
                                    int32_t *tokens,
                                    size_t tokens_size,
                                    size_t *count,
                                    struct jostle_error *error);

// Writes the text of tokens to the front of `text`, without a zero at its end, and its length into `length`. BOS (1) and EOS
// (2) have no text. After BOS, a space in front is removed; `previous` is the token before the first one, or -1 if there is
// none. A piece of a text may end within a character.
//
// Pointers:
// `tokenizer` is readable and its buffers are as they were at its init; `tokens` is readable for `tokens_size` bytes, `text`
// writable for `text_size` bytes; `length` is writable; `error` is NULL or writable.
jostle_status jostle_llama2c_decode(const struct jostle_llama2c_tokenizer *tokenizer,
                                    int32_t previous,
                                    const int32_t *tokens,
                                    size_t tokens_size,
                                    uint8_t *text,
                                    size_t text_size,
                                    size_t *length,
                                    struct jostle_error *error);

// Writes a tokenizer.bin to the front of `file`, and its size into `written`. `texts` has the texts of all tokens, one
// behind the other.
//
// `lengths`, `scores` [vocab]: the length of each token's text in bytes, and its score. `file`: as many bytes as `texts`,
// and 8 for each token and 4.
//
// Pointers:
// `texts` is readable for `texts_size` bytes, `lengths` and `scores` are readable for `vocab` numbers, `file` is writable
// for `file_size` bytes; `written` is writable; `error` is NULL or writable.
jostle_status jostle_llama2c_tokenizer_write(const uint8_t *texts,
                                             size_t texts_size,
                                             const uint32_t *lengths,
                                             size_t lengths_size,
                                             const float *scores,
                                             size_t scores_size,
                                             size_t vocab,
                                             uint8_t *file,
                                             size_t file_size,
                                             size_t *written,
                                             struct jostle_error *error);

// Writes the configuration of the model in a file of llama2.c (version 0 or 1) of exactly `file_size` bytes.
// JOSTLE_STRUCT_TOO_SMALL if the caller's header lacks a field that the model needs.
//
// Pointers:
// `file` is readable for `file_size` bytes; `config` is writable for `struct_size` bytes, which is sizeof(jostle_config) in the
// caller's header; `error` is NULL or writable.
jostle_status jostle_llama2c_config(const uint8_t *file,
                                    size_t file_size,
                                    struct jostle_config *config,
                                    size_t struct_size,
                                    struct jostle_error *error);

// Reads the parameters of a model in a file of llama2.c, except frozen ones. The rows of query and key matrices are put in
// Hugging Face's order. A file that is refused leaves the parameters as they were.
//
// Pointers:
// `file` is readable for `file_size` bytes, `plan` is readable, `parameters` is writable for `parameters_size` bytes, `error`
// is NULL or writable.
jostle_status jostle_llama2c_read(const uint8_t *file,
                                  size_t file_size,
                                  const struct jostle_plan *plan,
                                  float *parameters,
                                  size_t parameters_size,
                                  struct jostle_error *error);

// Computes the size in bytes of the file of llama2.c that jostle_llama2c_write writes. JOSTLE_LLAMA2C_UNSUPPORTED if such
// files have no model of that configuration.
//
// Pointers:
// `plan` is readable, `size` writable, `error` NULL or writable.
jostle_status jostle_llama2c_size(const struct jostle_plan *plan,
                                  uint32_t version,
                                  size_t *size,
                                  struct jostle_error *error);

// Writes a model as a file of llama2.c, and its size into `written`. `version` is 0, which llama2.c runs, or 1. Of `buffers`, it
// uses `parameters` and `frozen`.
//
// `file`: as many bytes as jostle_llama2c_size says.
//
// Pointers:
// `plan` and `buffers` are readable, and so are the buffers that it uses; `file` is writable for `file_size` bytes; `written`
// is writable; `error` is NULL or writable.
jostle_status jostle_llama2c_write(const struct jostle_plan *plan,
                                   const struct jostle_buffers *buffers,
                                   uint32_t version,
                                   uint8_t *file,
                                   size_t file_size,
                                   size_t *written,
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

/* KEEP: checkpoints in memory and in flash */

// Computes the exact size of a checkpoint in bytes, with these metadata entries. The checkpoint has the optimiser's state if
// `optimizer` is 1, and does not if it is 0.
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
// state, configuration, progress and metadata. `written` receives the number of bytes, the same as jostle_checkpoint_size
// tells.
//
// Of `buffers`, it uses `parameters`, `frozen` and `optimizer`. If `optimizer` is NULL, the file has no optimiser state:
// it can be used, but training cannot continue from it.
//
// Pointers:
// `plan`, `buffers` and `progress` are readable. The buffers that it uses are readable, `bytes` is writable for the given
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

// Writes the configuration of the model in a checkpoint of exactly `bytes_size` bytes. JOSTLE_STRUCT_TOO_SMALL if the model
// needs a field that the caller's header lacks.
//
// Pointers:
// `bytes` is readable for the given number of bytes, `config` is writable for `struct_size` bytes, which is sizeof(jostle_config) in
// the caller's header, `error` is NULL or writable.
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
// `bytes` is readable for the given number of bytes, `buffers` and `plan` are readable, the buffers that it uses are writable,
// `progress` is writable, `error` NULL or writable.
jostle_status jostle_checkpoint_read(const uint8_t *bytes,
                                     size_t bytes_size,
                                     const struct jostle_plan *plan,
                                     const struct jostle_buffers *buffers,
                                     struct jostle_progress *progress,
                                     struct jostle_error *error);

// Reads only the parameters of a safetensors file of exactly `bytes_size` bytes, which another program may have written:
// GPT-2's names, with or without "transformer." before them, as F32, F16 or BF16. It may have causal masks, and, if the
// model's head is tied, a "lm_head.weight" that equals "wte.weight". Other tensors that the model does not have are
// refused.
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
// JOSTLE_BUFFER_TOO_SHORT tells in `error` how many bytes it needs.
//
// Pointers:
// `bytes` is readable and `text` writable for the given number of bytes, `key` is zero-terminated, `length` writable, `error`
// NULL or writable.
jostle_status jostle_checkpoint_metadata(const uint8_t *bytes,
                                         size_t bytes_size,
                                         const char *key,
                                         char *text,
                                         size_t text_size,
                                         size_t *length,
                                         struct jostle_error *error);

// Computes the size in bytes that a slot needs for a checkpoint of `checkpoint_size` bytes, if `write_size` bytes are
// programmed at once.
//
// Pointers:
// `size` is writable, `error` NULL or writable.
jostle_status jostle_slots_size(size_t checkpoint_size,
                                uint32_t write_size,
                                size_t *size,
                                struct jostle_error *error);

// Finds the newest whole checkpoint; JOSTLE_NOT_FOUND if there is none. A slot that cannot be read counts as one without a
// checkpoint, because memory with error detection refuses words that were programmed in part. `slot` tells so or, if there
// is no checkpoint, `error`: its `given` is the error of reading, its `index` the slot. `block` is memory to work in: at least 32 bytes and at
// least `write_size`; more is faster.
//
// Pointers:
// `flash` is readable for as many bytes as its `struct_size` says, and its functions may be called; `block` is writable
// for the given number of bytes, `slot` writable, `error` NULL or writable.
jostle_status jostle_slots_newest(const struct jostle_flash *flash,
                                  uint8_t *block,
                                  size_t block_size,
                                  struct jostle_slot *slot,
                                  struct jostle_error *error);

// Saves a checkpoint, as jostle_checkpoint_write writes it, in the slot that does not hold the newest whole checkpoint,
// and reads it back. If the power fails meanwhile, either the newest whole checkpoint is as it was or this one is whole.
// `block` is as for jostle_slots_newest; between steps, a workspace will do.
//
// Pointers:
// `flash` is readable for as many bytes as its `struct_size` says, and its functions may be called; `block` is writable
// for the given number of bytes. The other arguments are as for jostle_checkpoint_write.
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
// for the given number of bytes. The other arguments are as for jostle_checkpoint_read.
jostle_status jostle_slots_load(const struct jostle_flash *flash,
                                const struct jostle_plan *plan,
                                const struct jostle_buffers *buffers,
                                uint8_t *block,
                                size_t block_size,
                                struct jostle_progress *progress,
                                struct jostle_error *error);

/* DEVICES: instruction sets and threads */

// Fills in the fastest instruction set on the caller's thread alone.
//
// Pointers:
// `compute` is writable for `struct_size` bytes, which is sizeof(jostle_compute) in the caller's header.
jostle_status jostle_compute_init(struct jostle_compute *compute,
                                  size_t struct_size);

// Refuses an instruction set that this processor or this build does not have.
//
// Pointers:
// `error` is NULL or writable.
jostle_status jostle_instruction_set_check(uint32_t instruction_set,
                                           struct jostle_error *error);

// Starts a pool of `threads` threads, including the caller's, at most 1024. To use it, set a jostle_compute's `threads`, its `run` to
// jostle_pool_run and its `context` to the pool.
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

// Ends a pool's threads and frees the pool. NULL does nothing.
//
// Pointers:
// `pool` was made by jostle_pool_start, is not in use, and is not used again.
void jostle_pool_stop(struct jostle_pool *pool);

// The size in bytes of the scratch that the attention functions need.
size_t jostle_attention_scratch_size(size_t length,
                                     size_t width);

/* OPERATIONS: for programs with a model of their own */

// Causal multi-head attention over one sequence (Vaswani et al. 2017). For each head: scores q k^T / sqrt(C / H), minus
// infinity for keys later than the query, softmax, dropout, times v.
//
// Writes `out` [length, width] and `stats` [heads, length, 2] from `qkv` [length, 3 width]. The stats of a row are its
// largest score and one over its sum of exponentials; jostle_attention_backward needs them.
//
// `scratch`: jostle_attention_scratch_size bytes.
//
// Pointers:
// `compute` and `mask` are NULL or readable; `out`, `stats` and `scratch` are writable, `qkv` readable for the given
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

// Writes `d_qkv` [length, 3 width] from `d_out` [length, width] and from the inputs and outputs of
// jostle_attention_forward, with the same mask.
//
// Pointers:
// As for jostle_attention_forward; `d_qkv` is writable, `d_out`, `out` and `stats` readable for the given number of bytes.
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

// Writes the attention weights [heads, length, length] of one sequence before dropout, to inspect a model.
//
// Pointers:
// As for jostle_attention_forward; `weights` is writable for the given number of bytes.
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

// As jostle_attention_forward, for query heads that share keys and values (Ainslie et al. 2023). Query head h uses
// key/value head h / (heads / kv_heads). `kv_heads` divides `heads`.
//
// Writes `out` [length, heads, head_width] and `stats` [heads, length, 2] from `qkv` [length, heads + 2 kv_heads,
// head_width]. A row holds queries, then keys, then values.
//
// `scratch`: jostle_attention_scratch_size(length, heads * head_width) bytes.
//
// Pointers:
// As for jostle_attention_forward.
jostle_status jostle_grouped_attention_forward(const struct jostle_compute *compute,
                                               size_t length,
                                               size_t heads,
                                               size_t kv_heads,
                                               size_t head_width,
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

// Writes `d_qkv`, of the shape of `qkv`, from `d_out`, of the shape of `out`, and from the inputs and outputs of
// jostle_grouped_attention_forward, with the same mask. The query heads of a group add to the gradients of their
// keys and values in ascending order.
//
// Pointers:
// As for jostle_attention_backward.
jostle_status jostle_grouped_attention_backward(const struct jostle_compute *compute,
                                                size_t length,
                                                size_t heads,
                                                size_t kv_heads,
                                                size_t head_width,
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

// Writes `losses` [rows], minus the logarithm of each target's probability, from `logits` [rows, vocab] and `targets`
// [rows]. Targets are in 0..vocab, or -1, which is ignored and has the loss 0.
//
// Pointers:
// `compute` is NULL or readable; `losses` is writable, `logits` and `targets` readable for the given number of bytes; `error`
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

// Writes `losses` as jostle_cross_entropy_forward does, and replaces `logits` by the gradient of the sum of losses divided by
// `counted`. For the mean loss, `counted` is the number of targets other than -1.
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

// y = dropout(x), both [rows, width] (Srivastava et al. 2014, inverted). It is its own backward: d_x = dropout(d_y) with the
// same mask.
//
// Pointers:
// `compute` and `mask` are NULL or readable; `y` is writable, `x` readable for the given number of bytes; `error` is NULL or
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

// Writes `x` [rows, width]: for each of `tokens` [rows], its row of `wte` [vocab, width] plus its position's row of `wpe`
// [context, width]. Positions start again at 0 after every `length` tokens.
//
// Pointers:
// `compute` is NULL or readable; `x` is writable, `tokens`, `wte` and `wpe` readable for the given number of bytes; `error` is
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
// As for jostle_embedding_forward; `d_wte` and `d_wpe` are writable, `d_x` readable for the given number of bytes.
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
// `compute` is NULL or readable; `y` is writable, `x` readable for the given number of bytes; `error` is NULL or writable.
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
// As for jostle_gelu_forward; `d_x` is writable, `d_y` readable for the given number of bytes.
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
// `compute` is NULL or readable; `y`, `mean` and `rstd` are writable, `x`, `weight` and `bias` readable for the given
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
                                        struct jostle_error *error) JOSTLE_FLOATS;

// Adds the gradient of the input to `d_x` [rows, width], from `d_y`, `x` and what jostle_layer_norm_forward left.
//
// Pointers:
// As for jostle_layer_norm_forward; `d_x` is writable, `d_y`, `mean` and `rstd` readable for the given number of bytes.
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
// As for jostle_layer_norm_backward; `d_weight` and `d_bias` are writable for the given number of bytes.
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
// `compute` is NULL or readable; `y` and `scratch` are writable, `x`, `weight` and `bias` readable for the given
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
// As for jostle_linear_forward; `d_weight` and `d_bias` are writable for the given number of bytes.
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

// The size in bytes of the scratch that a product of an [m, k] by a [k, n] matrix needs on one thread. A smaller product
// does not need more.
size_t jostle_matmul_scratch_size(size_t m,
                                  size_t n,
                                  size_t k);

// C = start + A B, with C [m, n] of rows `c_stride` elements apart, A [m, k], B [k, n]. Each element is one chain
// of fused multiply-adds over the inner index in ascending order. To transpose a matrix, exchange its strides.
//
// `start`: a jostle_start; `bias` [n] is only read with JOSTLE_START_BIAS. Each thread needs jostle_matmul_scratch_size bytes
// of `scratch`, whose size limits the number of threads that work.
//
// Pointers:
// `compute` is NULL or readable; `a` and `b` are readable and their data is; `bias` is readable, `c` and `scratch`
// writable for the given number of bytes; `error` is NULL or writable.
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

// Computes the global norm of `count` gradients. The order of summation does not depend on the number of threads.
//
// Pointers:
// `compute` is NULL or readable, `gradients` readable for the given number of bytes, `norm` writable, `error` NULL or writable.
jostle_status jostle_gradient_norm(const struct jostle_compute *compute,
                                   size_t count,
                                   const float *gradients,
                                   size_t gradients_size,
                                   float *norm,
                                   struct jostle_error *error);

// The factor that scales a gradient of this norm to a norm of at most `clip` (PyTorch's clip_grad_norm_).
float jostle_clip_factor(float norm,
                         float clip) JOSTLE_FLOATS;

// Updates one tensor `x` of `count` elements by the recipe's optimiser, AdamW or SGD. The gradient is multiplied by `factor`,
// which is the factor of clipping or 1. `step` counts from 0. The recipe's schedule is ignored.
//
// `state`: the optimiser's state, zero before the first step. AdamW has first moments, then second moments; SGD with
// momentum has velocities; SGD without momentum has none: NULL. `decays`: 1 if weight decay applies, as it does to matrices,
// else 0.
//
// Pointers:
// `compute` is NULL or readable, `recipe` readable; `x` and `state` are writable, `gradient` readable for the given
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
                                      struct jostle_error *error) JOSTLE_FLOATS;

// Root mean square normalisation (Zhang & Sennrich 2019): y = x / sqrt(mean(x^2) + epsilon) * weight, row by row.
// Writes `y` [rows, width] and `rstd` [rows] (one over the root mean square) from `x` and `weight` [width].
//
// Pointers:
// `compute` is NULL or readable; `y` and `rstd` are writable, `x` and `weight` readable for the given number of bytes;
// `error` is NULL or writable.
jostle_status jostle_rms_norm_forward(const struct jostle_compute *compute,
                                      size_t rows,
                                      size_t width,
                                      float epsilon,
                                      float *y,
                                      size_t y_size,
                                      float *rstd,
                                      size_t rstd_size,
                                      const float *x,
                                      size_t x_size,
                                      const float *weight,
                                      size_t weight_size,
                                      struct jostle_error *error) JOSTLE_FLOATS;

// Adds the gradient of the input to `d_x` [rows, width], from `d_y`, `x` and what jostle_rms_norm_forward left.
//
// Pointers:
// As for jostle_rms_norm_forward; `d_x` is writable, `d_y` and `rstd` readable for the given number of bytes.
jostle_status jostle_rms_norm_backward(const struct jostle_compute *compute,
                                       size_t rows,
                                       size_t width,
                                       float *d_x,
                                       size_t d_x_size,
                                       const float *d_y,
                                       size_t d_y_size,
                                       const float *x,
                                       size_t x_size,
                                       const float *rstd,
                                       size_t rstd_size,
                                       const float *weight,
                                       size_t weight_size,
                                       struct jostle_error *error);

// Adds the gradient of the weight to `d_weight` [width], row after row.
//
// Pointers:
// As for jostle_rms_norm_backward; `d_weight` is writable for the given number of bytes.
jostle_status jostle_rms_norm_backward_parameters(const struct jostle_compute *compute,
                                                  size_t rows,
                                                  size_t width,
                                                  float *d_weight,
                                                  size_t d_weight_size,
                                                  const float *d_y,
                                                  size_t d_y_size,
                                                  const float *x,
                                                  size_t x_size,
                                                  const float *rstd,
                                                  size_t rstd_size,
                                                  struct jostle_error *error);

// Writes the cosines and sines [length, head_width / 2] of rotary positions (Su et al. 2021). Pair i of position p has the
// angle p / theta^(2 i / head_width). `theta` is at least 1; `head_width` is even.
//
// `original` is 0, or the original context of Llama 3's scaling, which uses `factor`, `low` and `high`. Frequencies with fewer
// than `low` turns in the original context are divided by `factor`. Those with more than `high` turns stay.
//
// Pointers:
// `cos` and `sin` are writable for the given number of bytes; `error` is NULL or writable.
jostle_status jostle_rotary_table(size_t length,
                                  size_t head_width,
                                  float theta,
                                  float factor,
                                  float low,
                                  float high,
                                  size_t original,
                                  float *cos,
                                  size_t cos_size,
                                  float *sin,
                                  size_t sin_size,
                                  struct jostle_error *error) JOSTLE_FLOATS;

// Rotates `x` [rows, heads, head_width] in place: in each head, element i together with element i + head_width / 2. Row r has
// the angles of row r of the table, `cos` and `sin` [rows, head_width / 2].
//
// Pointers:
// `compute` is NULL or readable; `x` is readable and writable, `cos` and `sin` readable for the given number of bytes;
// `error` is NULL or writable.
jostle_status jostle_rotary_forward(const struct jostle_compute *compute,
                                    size_t rows,
                                    size_t heads,
                                    size_t head_width,
                                    float *x,
                                    size_t x_size,
                                    const float *cos,
                                    size_t cos_size,
                                    const float *sin,
                                    size_t sin_size,
                                    struct jostle_error *error);

// Turns the gradient of the output into the gradient of the input, `d_x` [rows, heads, head_width], in place.
//
// Pointers:
// As for jostle_rotary_forward; `d_x` is readable and writable for the given number of bytes.
jostle_status jostle_rotary_backward(const struct jostle_compute *compute,
                                     size_t rows,
                                     size_t heads,
                                     size_t head_width,
                                     float *d_x,
                                     size_t d_x_size,
                                     const float *cos,
                                     size_t cos_size,
                                     const float *sin,
                                     size_t sin_size,
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
// `compute` is NULL or readable; `d_x` is writable, `d_y` and `y` readable for the given number of bytes; `error` is NULL or
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

// y = silu(gate) up, `count` elements, with silu(x) = x / (1 + e^-x) (Shazeer 2020).
//
// Pointers:
// `compute` is NULL or readable; `y` is writable, `gate` and `up` readable for the given number of bytes; `error` is NULL
// or writable.
jostle_status jostle_swiglu_forward(const struct jostle_compute *compute,
                                    size_t count,
                                    float *y,
                                    size_t y_size,
                                    const float *gate,
                                    size_t gate_size,
                                    const float *up,
                                    size_t up_size,
                                    struct jostle_error *error);

// d_gate = d_y up silu'(gate) and d_up = d_y silu(gate), `count` elements.
//
// Pointers:
// As for jostle_swiglu_forward; `d_gate` and `d_up` are writable, `d_y` readable for the given number of bytes.
jostle_status jostle_swiglu_backward(const struct jostle_compute *compute,
                                     size_t count,
                                     float *d_gate,
                                     size_t d_gate_size,
                                     float *d_up,
                                     size_t d_up_size,
                                     const float *d_y,
                                     size_t d_y_size,
                                     const float *gate,
                                     size_t gate_size,
                                     const float *up,
                                     size_t up_size,
                                     struct jostle_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* JOSTLE_H */
