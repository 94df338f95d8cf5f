/* table.c - the built-in transports. */
#include "transfer/transport/table.h"

#include <string.h>

const struct transport_ops *const transport_table[] = {
    &transport_self,
#ifdef MC_TRANSPORT_SHM
    &transport_shm,
#endif
#ifdef MC_TRANSPORT_TCP
    &transport_tcp,
#endif
#ifdef MC_TRANSPORT_HOOK
    &transport_hook,
#endif
    NULL,
};

const struct transport_ops *transport_find(const char *name, size_t size)
{
    for (uint32_t i = 0; transport_table[i]; i++) {
        if (strlen(transport_table[i]->name) == size &&
            memcmp(transport_table[i]->name, name, size) == 0)
            return transport_table[i];
    }
    return NULL;
}
