/* fuzz_object.c - what lies in a place: whatever it is, only a whole object is taken for one. */
#include <assert.h>
#include <string.h>

#include "store/core/object.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mc_object_header header;
    uint64_t generation = 0;

    if (size >= 56)
        memcpy(&generation, data + 48, sizeof(generation));
    if (object_inspect(data, size, generation, &header) != MC_OK)
        return 0;
    assert(mc_object_bytes(header.length) <= size);
    assert(object_header_check(&header, &header.identity, header.length, generation) == MC_OK);
    return 0;
}
