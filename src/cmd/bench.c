/* bench.c - mooncake bench: which of the benches. */
#include <string.h>

#include "cmd/bench_serve.h"
#include "cmd/bench_serve_options.h"
#include "cmd/bench_transfer.h"
#include "cmd/bench_transfer_options.h"
#include "cmd/cmd.h"

static void help(struct buf *out)
{
    buf_add_text(out, "usage: mooncake bench transfer [settings]\n"
                      "       mooncake bench serve [settings]\n"
                      "\n"
                      "transfer: what the Transfer Engine moves, beside what could be moved.\n"
                      "serve: how a server answers a trace, a rate, or so many at once.\n"
                      "\n");
    bench_transfer_options_help(out);
    buf_add_text(out, "\n");
    bench_serve_options_help(out);
}

static int bench_main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "transfer") == 0)
        return bench_transfer_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "serve") == 0)
        return bench_serve_main(argc - 1, argv + 1);
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return command_print("bench", help);
    command_complain("bench", "what is to be measured? There are: transfer, serve");
    return CMD_USAGE;
}

const struct command command_bench = { "bench", "Measure transfers, or a server under load.",
                                       bench_main, help };
