/* bench_transfer.h - `mooncake bench transfer`. */
#ifndef CMD_BENCH_TRANSFER_H
#define CMD_BENCH_TRANSFER_H

/** argv[0] is "transfer". Returns an exit code. */
int bench_transfer_main(int argc, char **argv);

#endif /* CMD_BENCH_TRANSFER_H */
