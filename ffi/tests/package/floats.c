/* The functions that pass floats by value, called from a program of either float ABI. */
#include "board.h"
#include <jostle.h>

static void expect(const char *what, float given, float wanted)
{
    /* PyTorch's clipping adds 1e-6 to the norm. */
    if (given > wanted - 1e-6f && given < wanted + 1e-6f) return;
    board_print(what);
    board_print(" differs\n");
    board_exit(1);
}

int main(void)
{
    static const float x[] = {1, 3}, scale[] = {1, 1}, shift[] = {0, 2}, gradient[] = {0.5f};
    float y[2], means[1], deviations[1], parameter[] = {1};
    jostle_error error;
    jostle_recipe recipe;
    expect("jostle_clip_factor", jostle_clip_factor(4, 1), 0.25f);
    /* The variance is 1, and 1 + 3 has the root 2. */
    expect("jostle_layer_norm_forward",
           (float)jostle_layer_norm_forward(NULL, 1, 2, 3, y, sizeof y, means, sizeof means, deviations, sizeof deviations, x,
                                            sizeof x, scale, sizeof scale, shift, sizeof shift, &error),
           JOSTLE_OK);
    expect("the first normalised element", y[0], -0.5f);
    expect("the second normalised element", y[1], 2.5f);
    if (jostle_recipe_init(&recipe, sizeof recipe) != JOSTLE_OK) board_exit(1);
    recipe.optimizer = JOSTLE_SGD;
    recipe.momentum = 0;
    expect("jostle_optimizer_update",
           (float)jostle_optimizer_update(NULL, &recipe, 1, parameter, sizeof parameter, gradient, sizeof gradient, NULL, 0, 0,
                                          0, 0.5f, 0.25f, &error),
           JOSTLE_OK);
    return parameter[0] == 1 - 0.5f * 0.25f * 0.5f ? 0 : 1;
}
