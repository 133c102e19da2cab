/*
 * Training with the pool's threads. After fork, a child trains on with its own thread alone, and gets the parent's bits.
 * Helgrind and DRD run this program too.
 */
#include "test.h"

#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    static uint8_t text[400];
    jostle_error e;
    jostle_config config;
    jostle_options options;
    jostle_plan plan;
    jostle_buffers buffers;
    jostle_recipe recipe;
    jostle_compute compute;
    jostle_pool *pool;
    jostle_trainer trainer;
    jostle_report report;

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i * 7 % 23);
    need(jostle_config_init(&config, sizeof config, 23, 8, 1, 2, 16) == JOSTLE_OK, "config");
    need(jostle_options_init(&options, sizeof options, 4) == JOSTLE_OK, "options");
    options.threads = 2;
    ok(jostle_plan_init(&plan, &config, &options, &e), &e, "plan");
    const size_t size = jostle_buffers_size(&plan);
    void *memory = malloc(size);
    ok(jostle_buffers_init(&buffers, sizeof buffers, &plan, memory, size, &e), &e, "buffers");
    ok(jostle_initialize(&plan, buffers.parameters, buffers.parameters_size, 1, &e), &e, "initialize");
    need(jostle_recipe_init(&recipe, sizeof recipe) == JOSTLE_OK, "recipe");
    ok(jostle_pool_start(2, &pool, &e), &e, "pool");
    need(jostle_compute_init(&compute, sizeof compute) == JOSTLE_OK, "compute");
    compute.threads = 2;
    compute.run = jostle_pool_run;
    compute.context = pool;
    ok(jostle_trainer_init(&trainer, &plan, &recipe, &buffers, &compute, &e), &e, "trainer");
    ok(jostle_trainer_step(&trainer, text, sizeof text, JOSTLE_U8, &report, &e), &e, "a step before fork");

    int ends[2];
    need(pipe(ends) == 0, "a pipe");
    const pid_t child = fork();
    need(child >= 0, "a child");
    for (int i = 0; i < 2; i++)
        ok(jostle_trainer_step(&trainer, text, sizeof text, JOSTLE_U8, &report, &e), &e, "a step after fork");
    if (child == 0) {
        need(write(ends[1], buffers.parameters, plan.parameters_size) == (ssize_t)plan.parameters_size, "the child's write");
        _exit(0);
    }
    jostle_pool_stop(pool);
    /* A pipe holds 64 KiB, more than these parameters. */
    float *others = malloc(plan.parameters_size);
    need(read(ends[0], others, plan.parameters_size) == (ssize_t)plan.parameters_size, "the parent's read");
    check(memcmp(others, buffers.parameters, plan.parameters_size) == 0, "the child has other parameters");
    int status;
    check(waitpid(child, &status, 0) == child && status == 0, "the child's status is %d", status);
    free(others);
    free(memory);
    return finish("threads");
}
