/* main.c - the process: hand the arguments over, return the exit code. */
#include "cmd/cmd.h"

int main(int argc, char **argv)
{
    return command_main(argc, argv);
}
