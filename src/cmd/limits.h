/* limits.h - what clients may take of a gateway: `mooncake gateway` has these settings, `mooncake serve` hands
 * them on. */
#ifndef CMD_LIMITS_H
#define CMD_LIMITS_H

#include "base/setting.h"

/* clang-format off */
#define LIMITS_SETTINGS(X)                                                                          \
    X(requests, "requests", 0, U32, "1024", 1, 65536, NULL, "N", "Limits",                          \
      "Requests at a time; beyond: 429.")                                                           \
    X(connections, "connections", 0, U32, "8192", 1, 1048576, NULL, "N", "Limits",                  \
      "HTTP connections at a time; more wait to be accepted.")                                      \
    X(address_connections, "connections-per-address", 0, U32, "0", 0, 1048576, NULL, "N", "Limits", \
      "Of these from one address that is not loopback; 0: no bound.")                               \
    X(body, "body", 0, SIZE, "8M", 1024, 1073741824, NULL, "SIZE", "Limits",                        \
      "The longest body of a request; beyond: 413.")                                                \
    X(bodies, "bodies", 0, SIZE, "1G", 1024, 1e15, NULL, "SIZE", "Limits",                          \
      "Of all bodies that are held, --body at least; beyond: 503.")                                 \
    X(headers, "headers", 0, SIZE, "32K", 1024, 1048576, NULL, "SIZE", "Limits",                    \
      "The longest request line and headers; beyond: 414 or 431.")                                  \
    X(receive_timeout, "receive-timeout", 0, DURATION, "30s", 1e6, 1e15, NULL, "TIME", "Limits",    \
      "How long a client may take to send a request, however slowly; then 408.")                    \
    X(idle_timeout, "idle-timeout", 0, DURATION, "120s", 1e6, 1e15, NULL, "TIME", "Limits",         \
      "How long a connection without a request stays, and an answer waits to be taken.")            \
    X(request_timeout, "request-timeout", 0, DURATION, "0", 0, 1e15, NULL, "TIME", "Limits",        \
      "How long a request may take; then 504, and 429 if it could not be done by then; 0: no limit.")
/* clang-format on */

#endif /* CMD_LIMITS_H */
