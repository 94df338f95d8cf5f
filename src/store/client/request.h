/*
 * request.h - a request from inside: begun by a caller's thread, lived in the store's.
 *
 * Threads: the poster's until it is posted, then the store's thread's; `word` says that `status` and
 *          `error` are final and may be read by who sees it. `fd` and `cancelled`: store->lock.
 */
#ifndef STORE_CLIENT_REQUEST_H
#define STORE_CLIENT_REQUEST_H

#include <stdatomic.h>

#include "store/client/store.h"

struct mc_store_request {
    mc_store *store;
    struct store_call call;
    struct os_post begin, cancel, free;
    store_request *core;    /* the loop's; NULL: not begun, or final */
    mc_store_request *next; /* the loop's: in store->done */
    mc_status status;
    struct mc_error error;
    int fd;
    bool cancelled;
    _Atomic uint32_t word; /* 1: final. Set with release, read with acquire */
};

/**
 * Begin a call: its items are the store's until the request is final.
 *
 * Returns MC_OK, MC_E_FULL, MC_E_RANGE (count, placement), MC_E_DENIED (memory of a get or put that is
 * not registered) or MC_E_NOMEM.
 */
mc_status request_begin(mc_store *store, const struct store_call *call,
                        mc_store_request **request_p);

#endif /* STORE_CLIENT_REQUEST_H */
