/* fuzz_safetensors.c - any bytes as a safetensors file: refused, or every tensor lies inside. */
#include <stdint.h>
#include <stdlib.h>

#include "infer/safetensors.h"
#include "os/sysalloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors st;
    struct mc_error error;

    if (safetensors_parse(data, size, "fuzz", os_alloc(), &st, &error) != MC_OK)
        return 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < st.count; i++) {
        const struct st_entry *entry = &st.entries[i];
        const uint8_t *begin = entry->data;
        if (safetensors_find(&st, entry->name) != entry || begin < data ||
            begin + entry->bytes > data + size)
            abort();
        bytes += entry->bytes;
    }
    if (bytes > size)
        abort(); /* tensors overlap */
    safetensors_fini(&st);
    return 0;
}
