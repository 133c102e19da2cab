/*
 * jostle: trains small transformer language models, on buffers that the caller hands over.
 *
 * CONVENTIONS
 *
 * Names       Everything begins with jostle_ or JOSTLE_.
 * Status      A function that can fail returns a jostle_status, whose numbers never change; 0 is
 *             success. The last argument of most takes a jostle_error, which tells what was given
 *             and what was wanted; it may be NULL.
 * Outputs     are written only on success (but for the error), and are never inputs as well:
 *             structs by pointer are either read (const) or written. Only handles, which their
 *             functions change, and buffers that a comment calls added to or replaced are both.
 * Buffers     are a pointer and a size in BYTES; longer than needed is fine. They must be aligned
 *             to JOSTLE_ALIGNMENT and must not overlap. They stay the caller's: jostle keeps no
 *             pointer to them beyond a call, but for trainers and generators, which use theirs as
 *             long as they are used. A refused call has written nothing but, in part, workspaces.
 * Memory      Nothing is allocated, so nothing is to be freed; jostle_pool_start is the exception.
 *             Sizes come from jostle_plan_init and the functions whose names end in _size; a
 *             firmware's static arrays take them from the header that jostle-plan writes.
 * Structs     that say what is wanted begin with struct_size, and have an init function that takes
 *             sizeof and fills in defaults: a library of another version refuses what it does not
 *             know. Structs that are written never grow. Fields called reserved are 0.
 * Choices     cross the border as uint32_t; the enums name their values.
 * Threads     const means: may be called with the same argument by several threads at once. A
 *             trainer or generator is for one thread at a time. Threads to compute with are lent
 *             through jostle_compute.
 * Failure     Nothing panics, prints, exits, aborts or throws. Null, misaligned, short and
 *             overlapping buffers are refused, each with a status; wild pointers can't be told.
 * Numbers     The same configuration, seed and data give the same bits on every processor, with
 *             every instruction set and number of threads. The processor must round to nearest
 *             and not flush denormals to zero.
 *
 * Shapes: B sequences in a batch, T their length, C the width, F the hidden width, V the
 * vocabulary, L layers, H heads. Matrices are row-major; weights are [in, out].
 */
