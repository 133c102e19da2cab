/* Writes the weights of a model of llama2.c as stories.S has them: in the plan's order, with the rows of queries and keys in
 * halves, so that a device can use them where they lie. Takes the model's file and the file to write. */
#include <jostle.h>
#include <stdio.h>
#include <stdlib.h>

static void check(jostle_status status)
{
    if (status == JOSTLE_OK) return;
    fprintf(stderr, "FAILED: %s\n", jostle_status_string(status));
    exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
    static uint8_t file[1 << 21];
    FILE *stream = argc == 3 ? fopen(argv[1], "rb") : NULL;
    if (!stream) return EXIT_FAILURE;
    const size_t size = fread(file, 1, sizeof file, stream);
    fclose(stream);

    jostle_config config;
    jostle_options options;
    jostle_plan plan;
    check(jostle_llama2c_config(file, size, &config, sizeof config, NULL));
    check(jostle_options_init(&options, sizeof options, 1));
    check(jostle_plan_init(&plan, &config, &options, NULL));
    float *weights = malloc(plan.parameters_size);
    if (!weights) return EXIT_FAILURE;
    check(jostle_llama2c_read(file, size, &plan, weights, plan.parameters_size, NULL));
    stream = fopen(argv[2], "wb");
    if (!stream || fwrite(weights, 1, plan.parameters_size, stream) != plan.parameters_size) return EXIT_FAILURE;
    free(weights);
    return fclose(stream) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
