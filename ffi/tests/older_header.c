/*
 * A program that was built with an older header: test-ffi.sh compiles it with jostle_options as the first header had it,
 * without what was appended since. The library takes defaults for the rest, and leaves what lies behind the struct alone.
 */
#include "test.h"

enum { GUARD = 64, BEHIND = 0xA5 };

/* The struct of the older header, and what the program keeps behind it. */
static struct {
    jostle_options options;
    unsigned char behind[GUARD];
} kept;

static void behind_is_untouched(const char *what)
{
    for (size_t i = 0; i < GUARD; i++)
        if (!check(kept.behind[i] == BEHIND, "%s wrote byte %zu behind the struct", what, i))
            return;
}

int main(void)
{
    jostle_error e;
    jostle_config config;
    jostle_plan plan;

    check(sizeof kept.options == 4 * sizeof(uint32_t), "the header is not cut short: %zu bytes", sizeof kept.options);
    memset(&kept, BEHIND, sizeof kept);
    need(jostle_options_init(&kept.options, sizeof kept.options, 2) == JOSTLE_OK, "options");
    behind_is_untouched("jostle_options_init");
    check(kept.options.struct_size == sizeof kept.options, "struct_size is %u", (unsigned)kept.options.struct_size);
    check(kept.options.batch == 2 && kept.options.threads == 1, "the fields that the header has");

    need(jostle_config_init(&config, sizeof config, 11, 4, 1, 2, 4) == JOSTLE_OK, "config");
    ok(jostle_plan_init(&plan, &config, &kept.options, &e), &e, "plan");
    behind_is_untouched("jostle_plan_init");
    check(plan.batch == 2 && plan.threads == 1, "the fields that the header has do not reach the plan");
    check(plan.recompute == 0 && plan.fused == 0 && plan.frozen_size == 0, "the others are not the defaults");

    ok(jostle_plan_fit(&plan, &config, &kept.options, 1 << 20, &e), &e, "a plan that fits");
    behind_is_untouched("jostle_plan_fit");

    /* A size that no header has had. */
    const size_t sizes[] = {0, 4, sizeof kept.options - 4, sizeof kept.options - 1, sizeof kept.options + 1};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        jostle_status status = jostle_options_init(&kept.options, sizes[i], 2);
        check(status == JOSTLE_STRUCT_TOO_SMALL, "%zu bytes: status %d", sizes[i], (int)status);
        kept.options.struct_size = (uint32_t)sizes[i];
        status = jostle_plan_init(&plan, &config, &kept.options, &e);
        check(status == JOSTLE_STRUCT_TOO_SMALL, "struct_size %zu: status %d", sizes[i], (int)status);
    }
    behind_is_untouched("a refused call");
    return finish("older header");
}
