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
