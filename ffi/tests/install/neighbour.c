/* Calls jostle and another library that is written in Rust. */
#include <jostle.h>

int neighbour_sum(int n);

int main(void)
{
    jostle_pool *pool;
    if (jostle_pool_start(2, &pool, NULL) != JOSTLE_OK)
        return 1;
    jostle_pool_stop(pool);
    return neighbour_sum(5) != 10;
}
