/* policies.h - the placement policies in a line of --help. A test holds it to what the scheduler has. */
#ifndef CMD_POLICIES_H
#define CMD_POLICIES_H

#define POLICIES_HELP \
    "Who places requests: algorithm1 (the default), conductor (our own), local, least-loaded, " \
    "round-robin, random; " \
    "after " \
    "other routers dynamo, lmetric, llm-d, sglang, aibrix, preble."

#endif /* CMD_POLICIES_H */
