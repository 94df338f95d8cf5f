/* messages.c - random messages from the tables of wire/msg.h. */
#include "unit/wire/messages.h"

#include <assert.h>
#include <stdalign.h>
#include <string.h>

const uint32_t message_kinds[] = {
#define MESSAGE(number, NAME, name, words) number,
#include "wire/msg.def"
    0,
};

static alignas(16) unsigned char pool[1 << 20];
static size_t pool_used;

static void *pool_take(size_t size)
{
    void *p = pool + pool_used;

    pool_used += (size + 15) & ~(size_t)15;
    assert(pool_used <= sizeof(pool));
    return p;
}

static void fill_bytes(void *p, size_t size, struct prng *prng)
{
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)p)[i] = (unsigned char)prng_next(prng);
}

static struct wire_slice make_text(struct prng *prng)
{
    static const char *const pieces[] = {
        "a", "mooncake", " ", "\xc3\xa9", "\xe6\x9c\x88", "\xf0\x9f\x8c\x99", "127.0.0.1:8000"
    };
    const uint32_t count = 1 + prng_below(prng, 4);
    char *text = pool_take(64);
    uint32_t size = 0;

    for (uint32_t i = 0; i < count; i++) {
        const char *piece = pieces[prng_below(prng, 7)];
        memcpy(text + size, piece, strlen(piece));
        size += (uint32_t)strlen(piece);
    }
    return (struct wire_slice){ text, size };
}

static struct wire_slice make_bytes(struct prng *prng)
{
    const uint32_t size = 1 + prng_below(prng, 40);
    void *data = pool_take(size);

    fill_bytes(data, size, prng);
    return (struct wire_slice){ data, size };
}

static struct wire_array make_array(uint32_t element, struct prng *prng)
{
    const uint32_t count = 1 + prng_below(prng, 4);
    void *data = pool_take((size_t)count * element);

    fill_bytes(data, (size_t)count * element, prng);
    return (struct wire_array){ data, count };
}

static void fill_struct(const struct wire_struct *type, enum fill fill, struct prng *prng,
                        void *value);

static struct wire_list make_list(const struct wire_struct *inner, enum fill fill,
                                  struct prng *prng)
{
    const uint32_t count = 1 + prng_below(prng, 3);
    char *items = pool_take(count * inner->size);

    for (uint32_t i = 0; i < count; i++)
        fill_struct(inner, fill, prng, items + i * inner->size);
    return (struct wire_list){ .items = items, .count = count };
}

static void fill_field(const struct wire_field *field, enum fill fill, struct prng *prng, void *p)
{
    switch (field->value) {
    case WIRE_VALUE_U32:
    case WIRE_VALUE_F32:
    case WIRE_VALUE_STATUS:
        fill_bytes(p, 4, prng);
        return;
    case WIRE_VALUE_BOOL:
        *(bool *)p = true;
        return;
    case WIRE_VALUE_U64:
        fill_bytes(p, 8, prng);
        return;
    case WIRE_VALUE_KEY:
        fill_bytes(p, 16, prng);
        return;
    case WIRE_VALUE_HASH:
        fill_bytes(p, 32, prng);
        return;
    case WIRE_VALUE_TEXT:
        *(struct wire_slice *)p = make_text(prng);
        return;
    case WIRE_VALUE_BYTES:
        *(struct wire_slice *)p = make_bytes(prng);
        return;
    case WIRE_VALUE_U32S:
        *(struct wire_array *)p = make_array(4, prng);
        return;
    case WIRE_VALUE_U64S:
        *(struct wire_array *)p = make_array(8, prng);
        return;
    case WIRE_VALUE_KEYS:
        *(struct wire_array *)p = make_array(16, prng);
        return;
    case WIRE_VALUE_PART:
        fill_struct(field->inner, fill, prng, p);
        return;
    case WIRE_VALUE_LIST:
        *(struct wire_list *)p = make_list(field->inner, fill, prng);
        return;
    }
}

static void fill_struct(const struct wire_struct *type, enum fill fill, struct prng *prng,
                        void *value)
{
    memset(value, 0, type->size);
    for (uint32_t i = 0; i < type->count; i++)
        if (fill == FILL_ALL || prng_below(prng, 4) != 0)
            fill_field(&type->fields[i], fill, prng, (char *)value + type->fields[i].offset);
}

void make_message(uint32_t kind, enum fill fill, struct prng *prng, union any_message *message)
{
    pool_used = 0;
    fill_struct(wire_message(kind), fill, prng, message->bytes);
}

static bool lists_equal(const struct wire_struct *inner, struct wire_list a, struct wire_list b)
{
    union any_message item_a, item_b;

    if (a.count != b.count)
        return false;
    while (wire_list_next(&a, inner, item_a.bytes)) {
        if (!wire_list_next(&b, inner, item_b.bytes))
            return false;
        if (!messages_equal(inner, item_a.bytes, item_b.bytes))
            return false;
    }
    return !wire_list_next(&b, inner, item_b.bytes);
}

static bool data_equal(const void *a, uint32_t count_a, const void *b, uint32_t count_b,
                       size_t element)
{
    return count_a == count_b && (count_a == 0 || memcmp(a, b, count_a * element) == 0);
}

static bool fields_equal(const struct wire_field *field, const void *a, const void *b)
{
    const struct wire_slice *slice_a = a, *slice_b = b;
    const struct wire_array *array_a = a, *array_b = b;

    switch (field->value) {
    case WIRE_VALUE_U32:
    case WIRE_VALUE_F32:
    case WIRE_VALUE_STATUS:
        return memcmp(a, b, 4) == 0;
    case WIRE_VALUE_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case WIRE_VALUE_U64:
        return memcmp(a, b, 8) == 0;
    case WIRE_VALUE_KEY:
        return memcmp(a, b, 16) == 0;
    case WIRE_VALUE_HASH:
        return memcmp(a, b, 32) == 0;
    case WIRE_VALUE_TEXT:
    case WIRE_VALUE_BYTES:
        return data_equal(slice_a->data, slice_a->size, slice_b->data, slice_b->size, 1);
    case WIRE_VALUE_U32S:
        return data_equal(array_a->data, array_a->count, array_b->data, array_b->count, 4);
    case WIRE_VALUE_U64S:
        return data_equal(array_a->data, array_a->count, array_b->data, array_b->count, 8);
    case WIRE_VALUE_KEYS:
        return data_equal(array_a->data, array_a->count, array_b->data, array_b->count, 16);
    case WIRE_VALUE_PART:
        return messages_equal(field->inner, a, b);
    case WIRE_VALUE_LIST:
        return lists_equal(field->inner, *(const struct wire_list *)a,
                           *(const struct wire_list *)b);
    }
    return false;
}

bool messages_equal(const struct wire_struct *type, const void *a, const void *b)
{
    for (uint32_t i = 0; i < type->count; i++) {
        const size_t offset = type->fields[i].offset;
        if (!fields_equal(&type->fields[i], (const char *)a + offset, (const char *)b + offset))
            return false;
    }
    return true;
}
