/* main.c - `conform VARIANT TOPIC [TESTS]`: one topic of the conformance suite over one way for bytes to
 * travel; of its tests those whose name fits the pattern TESTS. */
#include "world.h"

#include <stdio.h>

static const struct variant variants[] = {
    { .name = "self", .transports = "self", .own = true, .allocated = true, .summed = true },
    { .name = "shm", .transports = "shm", .allocated = true },
    { .name = "attach", .transports = "shm" },
    { .name = "tcp", .transports = "tcp", .summed = true },
    { .name = "hook-self",
      .transports = "hook:self",
      .own = true,
      .allocated = true,
      .summed = true,
      .hook = true },
    { .name = "hook-shm", .transports = "hook:shm", .allocated = true, .hook = true },
    { .name = "hook-attach", .transports = "hook:shm", .hook = true },
    { .name = "hook-tcp", .transports = "hook:tcp", .summed = true, .hook = true },
};

static const struct {
    const char *name;
    int (*run)(void);
} topics[] = {
    { "moves", topic_moves },     { "many", topic_many },         { "large", topic_large },
    { "threads", topic_threads }, { "refusals", topic_refusals }, { "revokes", topic_revokes },
    { "cancels", topic_cancels }, { "peers", topic_peers },       { "faults", topic_faults },
};

int main(int count, char **arguments)
{
    for (size_t v = 0; (count == 3 || count == 4) && v < sizeof(variants) / sizeof(variants[0]);
         v++) {
        if (strcmp(variants[v].name, arguments[1]) != 0)
            continue;
        variant = &variants[v];
        if (count == 4)
            cmocka_set_test_filter(arguments[3]);
        for (size_t t = 0; t < sizeof(topics) / sizeof(topics[0]); t++) {
            if (strcmp(topics[t].name, arguments[2]) == 0)
                return topics[t].run();
        }
    }
    fprintf(stderr, "usage: conform VARIANT TOPIC [TESTS]\n");
    return 2;
}
