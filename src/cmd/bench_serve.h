/* bench_serve.h - `mooncake bench serve`. */
#ifndef CMD_BENCH_SERVE_H
#define CMD_BENCH_SERVE_H

/** argv[0] is "serve". Returns an exit code. */
int bench_serve_main(int argc, char **argv);

#endif /* CMD_BENCH_SERVE_H */
