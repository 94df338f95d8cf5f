/* object.c - header, payload and sums of an object. */
#include "store/core/object.h"

#include <string.h>

#include "base/crc.h"
#include "wire/bytes.h"

struct mc_key object_key(const struct mc_identity *identity)
{
    struct mc_key key;

    memcpy(key.bytes, identity->bytes, sizeof(key.bytes));
    return key;
}

void object_header_make(struct mc_object_header *header, const struct mc_identity *identity,
                        uint64_t length, uint64_t generation)
{
    *header = (struct mc_object_header){
        .magic = MC_OBJECT_MAGIC,
        .version = MC_OBJECT_VERSION,
        .header_bytes = sizeof(*header),
        .length = length,
        .identity = *identity,
        .generation = generation,
        .piece_bytes = MC_OBJECT_PIECE,
    };
    header->header_crc = crc32c(0, header, offsetof(struct mc_object_header, header_crc));
}

mc_status object_header_whole(const struct mc_object_header *header)
{
    if (header->magic != MC_OBJECT_MAGIC || header->version != MC_OBJECT_VERSION ||
        header->header_bytes != sizeof(*header) || header->piece_bytes != MC_OBJECT_PIECE ||
        header->length > MC_OBJECT_LENGTH_MAX)
        return MC_E_CORRUPT;
    return crc32c(0, header, offsetof(struct mc_object_header, header_crc)) == header->header_crc
               ? MC_OK
               : MC_E_CORRUPT;
}

mc_status object_header_check(const struct mc_object_header *header,
                              const struct mc_identity *identity, uint64_t length,
                              uint64_t generation)
{
    const mc_status status = object_header_whole(header);

    if (status != MC_OK)
        return status;
    if (header->generation != generation || header->length != length ||
        memcmp(&header->identity, identity, sizeof(*identity)) != 0)
        return MC_E_STALE;
    return MC_OK;
}

/** A walk over ranges, piece by piece. */
struct walk {
    const struct mc_range *ranges;
    uint64_t count, at; /* bytes of the first range that are behind */
};

static uint32_t walk_piece(struct walk *walk, uint64_t size)
{
    uint32_t crc = 0;

    while (size > 0 && walk->count > 0) {
        const uint64_t here = walk->ranges->size - walk->at;
        const uint64_t part = here < size ? here : size;
        crc = crc32c(crc, (const uint8_t *)walk->ranges->address + walk->at, (size_t)part);
        size -= part;
        walk->at += part;
        if (walk->at == walk->ranges->size) {
            walk->ranges++;
            walk->count--;
            walk->at = 0;
        }
    }
    return crc;
}

static uint64_t piece_size(uint64_t length, uint64_t done)
{
    return length - done < MC_OBJECT_PIECE ? length - done : MC_OBJECT_PIECE;
}

/** A sum as the trailer has it: under another header it is another one. */
static uint32_t bound(const struct mc_object_header *header, uint32_t sum)
{
    return sum ^ header->header_crc;
}

void object_sum(const struct mc_range *ranges, uint64_t count, uint64_t length, uint32_t *sums)
{
    struct walk walk = { ranges, count, 0 };

    for (uint64_t done = 0; done < length; done += MC_OBJECT_PIECE)
        *sums++ = walk_piece(&walk, piece_size(length, done));
}

void object_trailer_make(const struct mc_object_header *header, const uint32_t *sums,
                         uint64_t pieces, uint8_t *trailer)
{
    for (uint64_t i = 0; i < pieces; i++)
        put_u32(trailer + 4 * i, bound(header, sums[i]));
}

mc_status object_verify(const struct mc_object_header *header, const struct mc_range *ranges,
                        uint64_t count, const uint8_t *trailer)
{
    struct walk walk = { ranges, count, 0 };

    for (uint64_t done = 0; done < header->length; done += MC_OBJECT_PIECE, trailer += 4) {
        const uint32_t sum = walk_piece(&walk, piece_size(header->length, done));
        if (bound(header, sum) != get_u32(trailer))
            return MC_E_CORRUPT;
    }
    return MC_OK;
}

mc_status object_inspect(const void *bytes, uint64_t size, uint64_t generation,
                         struct mc_object_header *header_p)
{
    struct mc_object_header header;

    if (size < sizeof(header))
        return MC_E_CORRUPT;
    memcpy(&header, bytes, sizeof(header));
    if (object_header_whole(&header) != MC_OK || mc_object_bytes(header.length) > size)
        return MC_E_CORRUPT;
    if (header.generation != generation)
        return MC_E_STALE;

    const uint8_t *payload = (const uint8_t *)bytes + sizeof(header);
    const struct mc_range range = { (void *)(uintptr_t)payload, header.length };
    if (object_verify(&header, &range, 1, payload + header.length) != MC_OK)
        return MC_E_CORRUPT;
    *header_p = header;
    return MC_OK;
}
