/* sim_replay.c - `mooncake sim --replay FILE`: a recorded gateway's decisions, made again and compared. */
#include "base/error.h"
#include "cmd/cmd.h"
#include "cmd/interrupt.h"
#include "cmd/sim_command.h"
#include "cmd/sim_shared.h"
#include "os/clock.h"
#include "os/file.h"
#include "os/sysalloc.h"
#include "sim/rerun.h"

enum { SLICE = 65536 }; /* records between two looks at signals */

static mc_status play_all(struct rerun *rerun, struct mc_error *error)
{
    mc_status status = MC_PENDING;

    while (status == MC_PENDING)
        status = interrupt_pending() ? error_set(error, MC_E_CANCELLED, "interrupted")
                                     : rerun_step(rerun, SLICE, error);
    return status;
}

static bool write_figures(const struct rerun *r, uint64_t took_ns,
                          const struct sim_replay_output *output)
{
    const double recorded_s = (double)(r->end_ns - r->begin_ns) / 1e9;
    const double took_s = (double)took_ns / 1e9;
    struct bench bench;

    if (!output->json)
        return true;
    bench_init(&bench, "sim replay", output->command, output->commit);
    sim_figure(&bench, "replay", "same decisions", "yes", r->first.kind == RERUN_SAME,
               r->decisions);
    sim_figure(&bench, "replay", "events", "", (double)r->events, r->events);
    sim_figure(&bench, "replay", "decisions", "", (double)r->decisions, r->decisions);
    sim_figure(&bench, "replay", "refused", "", (double)r->refused, r->decisions);
    sim_figure(&bench, "replay", "recorded", "s", recorded_s, r->events);
    sim_figure(&bench, "replay", "throughput", "x real time", took_s > 0 ? recorded_s / took_s : 0,
               r->events);
    const bool done = bench_write(&bench, output->json);
    bench_fini(&bench);
    return done;
}

static int tell(const struct rerun *rerun)
{
    struct buf out = BUF_INIT(os_alloc());

    rerun_print(rerun, &out);
    const bool done = !out.failed && command_write("sim", out.data, out.size);
    buf_fini(&out);
    return done && rerun->first.kind == RERUN_SAME ? CMD_OK : CMD_FAILED;
}

int sim_replay_main(const struct sim_replay_output *output)
{
    struct mc_error error = { 0 };
    struct os_map map = { 0 };
    struct rerun rerun = { 0 };
    int code = CMD_FAILED;

    mc_status status = os_map_open(output->file, &map, &error);
    if (status == MC_OK)
        status = rerun_open(&rerun, map.data, map.size, os_alloc(), &error);
    const uint64_t begin_ns = os_now_ns();
    const bool opened = status == MC_OK;
    if (opened)
        status = play_all(&rerun, &error);
    if (opened)
        code = tell(&rerun); /* also of what came before the damage */
    if (status != MC_OK)
        command_complain("sim", "%s: %s", output->file, error.text);
    else if (!write_figures(&rerun, os_now_ns() - begin_ns, output))
        status = MC_E_IO;
    if (status != MC_OK)
        code = interrupt_pending() ? interrupt_exit_code() : CMD_FAILED;
    rerun_close(&rerun);
    os_map_close(&map);
    return code;
}
