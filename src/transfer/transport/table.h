/* table.h - the built-in transports, by preference. */
#ifndef TRANSFER_TRANSPORT_TABLE_H
#define TRANSFER_TRANSPORT_TABLE_H

#include "transfer/transport.h"

extern const struct transport_ops transport_self, transport_shm, transport_tcp, transport_hook;

/** Ends with NULL. */
extern const struct transport_ops *const transport_table[];

/** The transport of that name, or NULL. */
const struct transport_ops *transport_find(const char *name, size_t size);

#endif /* TRANSFER_TRANSPORT_TABLE_H */
