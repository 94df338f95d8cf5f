/* msg.c - one encoder and one decoder, driven by the tables that msg.def becomes. */
#include "wire/msg.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "wire/bytes.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "arrays are encoded as they lie in memory");
static_assert(sizeof(float) == 4, "F32 is IEEE 754 single");

enum shape { SHAPE_4, SHAPE_8, SHAPE_16, SHAPE_32, SHAPE_SIZED };
enum { REQUIRED = 1, OPTIONAL = 0 };

/* ----------------------------------------------------------------------------------- the tables */

/* clang-format off */
#define TYPE(name, words) static const struct wire_field fields_##name[] = {
#define MESSAGE(number, NAME, name, words) TYPE(name, words)
#define FIELD(owner, number, type, need, name, words)                                               \
    { #name, words, number, need, WIRE_VALUE_##type, offsetof(struct wire_##owner, name), 0, NULL },
#define PART(owner, number, type, need, name, words)                                                \
    { #name, words, number, need, WIRE_VALUE_PART, offsetof(struct wire_##owner, name), 0,          \
      &wire_struct_##type },
#define LIST(owner, number, type, need, name, max, words)                                           \
    { #name, words, number, need, WIRE_VALUE_LIST, offsetof(struct wire_##owner, name), max,        \
      &wire_struct_##type },
#define END(name) };
#include "wire/msg.def"

#define STRUCT(kind, name, words)                                                                   \
    static_assert(sizeof(struct wire_##name) <= WIRE_STRUCT_MAX, "a struct fits WIRE_STRUCT_MAX");  \
    const struct wire_struct wire_struct_##name = {                                                 \
        #name, words, fields_##name, sizeof(fields_##name) / sizeof(fields_##name[0]), kind,        \
        sizeof(struct wire_##name),                                                                 \
    };
#define TYPE(name, words) STRUCT(WIRE_NONE, name, words)
#define MESSAGE(number, NAME, name, words) STRUCT(number, name, words)
#include "wire/msg.def"
/* clang-format on */

const struct wire_struct *wire_message(uint32_t kind)
{
    switch (kind) {
#define MESSAGE(number, NAME, name, words) \
    case number: \
        return &wire_struct_##name;
#include "wire/msg.def"
    default:
        return NULL;
    }
}

static enum shape shape_of(enum wire_value value)
{
    switch (value) {
    case WIRE_VALUE_U32:
    case WIRE_VALUE_F32:
    case WIRE_VALUE_BOOL:
    case WIRE_VALUE_STATUS:
        return SHAPE_4;
    case WIRE_VALUE_U64:
        return SHAPE_8;
    case WIRE_VALUE_KEY:
        return SHAPE_16;
    case WIRE_VALUE_HASH:
        return SHAPE_32;
    default:
        return SHAPE_SIZED;
    }
}

/** Bytes of a shape's value; the size in front of a sized one. */
static size_t shape_bytes(enum shape shape)
{
    static const uint8_t bytes[] = { 4, 8, 16, 32, 4 };

    return bytes[shape];
}

/** Bytes of an array's element. */
static uint32_t element_bytes(enum wire_value value)
{
    return value == WIRE_VALUE_U32S ? 4 : value == WIRE_VALUE_U64S ? 8 : 16;
}

static bool text_valid(const struct wire_slice *text)
{
    const char *p = text->data;

    for (size_t i = 0; i < text->size;) {
        uint32_t code;
        const size_t length = utf8_decode(p + i, text->size - i, &code);
        if (length == 0 || code == 0)
            return false;
        i += length;
    }
    return true;
}

/* --------------------------------------------------------------------------------------- encode */

/** Counts on when it is full, so that one walk also measures. */
struct writer {
    uint8_t *bytes; /* [capacity] */
    size_t capacity, size;
    mc_status status; /* the first thing that was wrong with the message */
};

static void write_bytes(struct writer *w, const void *data, size_t size)
{
    if (size != 0 && w->size <= w->capacity && size <= w->capacity - w->size)
        memcpy(w->bytes + w->size, data, size);
    w->size += size;
}

static void write_u32(struct writer *w, uint32_t value)
{
    uint8_t bytes[4];

    put_u32(bytes, value);
    write_bytes(w, bytes, sizeof(bytes));
}

/** Leave room for a size; size_end() fills it in with what was written since. */
static size_t size_begin(struct writer *w)
{
    write_u32(w, 0);
    return w->size;
}

static void size_end(struct writer *w, size_t begin)
{
    if (w->size - begin > UINT32_MAX)
        w->status = MC_E_RANGE;
    else if (w->size <= w->capacity)
        put_u32(w->bytes + begin - 4, (uint32_t)(w->size - begin));
}

static void write_struct(struct writer *w, const struct wire_struct *type, const void *value);

static bool all_default(const struct wire_struct *type, const void *value);

/** Whether a field is 0 or empty: then it is not written unless it is required. */
static bool is_default(const struct wire_field *field, const void *p)
{
    static const uint8_t zero[32];

    switch (field->value) {
    case WIRE_VALUE_BOOL:
        return !*(const bool *)p;
    case WIRE_VALUE_TEXT:
    case WIRE_VALUE_BYTES:
        return ((const struct wire_slice *)p)->size == 0;
    case WIRE_VALUE_U32S:
    case WIRE_VALUE_U64S:
    case WIRE_VALUE_KEYS:
        return ((const struct wire_array *)p)->count == 0;
    case WIRE_VALUE_LIST:
        return ((const struct wire_list *)p)->count == 0;
    case WIRE_VALUE_PART:
        return all_default(field->inner, p);
    default:
        return memcmp(p, zero, shape_bytes(shape_of(field->value))) == 0;
    }
}

static bool all_default(const struct wire_struct *type, const void *value)
{
    for (uint32_t i = 0; i < type->count; i++)
        if (!is_default(&type->fields[i], (const char *)value + type->fields[i].offset))
            return false;
    return true;
}

static void write_list(struct writer *w, const struct wire_field *field,
                       const struct wire_list *list)
{
    /* Aligned for any of them: the item is a C struct. */
    union {
        uint8_t bytes[WIRE_STRUCT_MAX];
        uint64_t align64;
        void *align;
    } item;
    struct wire_list rest = *list;

    if (list->count > field->max) {
        w->status = MC_E_RANGE;
        return;
    }
    write_u32(w, list->count);
    while (wire_list_next(&rest, field->inner, item.bytes)) {
        const size_t begin = size_begin(w);
        write_struct(w, field->inner, item.bytes);
        size_end(w, begin);
    }
}

static void write_sized(struct writer *w, const struct wire_field *field, const void *p)
{
    const struct wire_slice *slice = p;
    const struct wire_array *array = p;

    switch (field->value) {
    case WIRE_VALUE_TEXT:
        if (!text_valid(slice))
            w->status = MC_E_ARG;
        write_bytes(w, slice->data, slice->size);
        return;
    case WIRE_VALUE_BYTES:
        write_bytes(w, slice->data, slice->size);
        return;
    case WIRE_VALUE_LIST:
        write_list(w, field, p);
        return;
    case WIRE_VALUE_PART:
        write_struct(w, field->inner, p);
        return;
    default:
        write_bytes(w, array->data, (size_t)array->count * element_bytes(field->value));
    }
}

static void write_field(struct writer *w, const struct wire_field *field, const void *p)
{
    const enum shape shape = shape_of(field->value);
    uint8_t key[2];

    put_u16(key, (uint16_t)((uint32_t)field->number << 3 | (uint32_t)shape));
    write_bytes(w, key, sizeof(key));
    if (shape == SHAPE_SIZED) {
        const size_t begin = size_begin(w);
        write_sized(w, field, p);
        size_end(w, begin);
    } else if (field->value == WIRE_VALUE_BOOL) {
        write_u32(w, *(const bool *)p);
    } else {
        write_bytes(w, p, shape_bytes(shape));
    }
}

static void write_struct(struct writer *w, const struct wire_struct *type, const void *value)
{
    for (uint32_t i = 0; i < type->count; i++) {
        const struct wire_field *field = &type->fields[i];
        const void *p = (const char *)value + field->offset;

        if (field->required || !is_default(field, p))
            write_field(w, field, p);
    }
}

mc_status wire_encode(enum wire_kind kind, const void *message, uint8_t *bytes, size_t capacity,
                      size_t *size_p)
{
    const struct wire_struct *type = wire_message(kind);
    struct writer w = { .bytes = bytes, .capacity = capacity, .status = MC_OK };

    assert(type);
    write_struct(&w, type, message);
    if (w.status != MC_OK)
        return w.status;
    if (w.size > capacity)
        return MC_E_RANGE;
    *size_p = w.size;
    return MC_OK;
}

size_t wire_encoded_size(enum wire_kind kind, const void *message)
{
    const struct wire_struct *type = wire_message(kind);
    struct writer w = { .status = MC_OK };

    assert(type);
    write_struct(&w, type, message);
    return w.size;
}

/* --------------------------------------------------------------------------------------- decode */

/** What is left to read. */
struct reader {
    const uint8_t *bytes;
    size_t size;
};

/** Take `size` bytes off the front, or NULL if there are fewer. */
static const uint8_t *take(struct reader *r, size_t size)
{
    const uint8_t *p = r->bytes;

    if (size > r->size)
        return NULL;
    r->bytes += size;
    r->size -= size;
    return p;
}

/** Check a struct's bytes and fill `value`; NULL: check only. */
static mc_status read_struct(const struct wire_struct *type, struct reader r, void *value,
                             struct mc_error *error);

static mc_status read_list(const struct wire_field *field, struct reader r, void *p,
                           struct mc_error *error)
{
    const uint8_t *head = take(&r, 4);
    const struct reader elements = r;

    if (!head)
        return error_set(error, MC_E_FORMAT, "%s: a list without its count", field->name);
    const uint32_t count = get_u32(head);
    if (count > field->max)
        return error_set(error, MC_E_FORMAT, "%s: %u elements, at most %u are allowed", field->name,
                         count, field->max);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *size = take(&r, 4);
        const uint8_t *bytes = size ? take(&r, get_u32(size)) : NULL;

        if (!bytes)
            return error_set(error, MC_E_FORMAT, "%s[%u]: cut short", field->name, i);
        const mc_status status =
            read_struct(field->inner, (struct reader){ bytes, get_u32(size) }, NULL, error);
        if (status != MC_OK)
            return error_prefix(error, status, "%s[%u]", field->name, i);
    }
    if (r.size != 0)
        return error_set(error, MC_E_FORMAT, "%s: %zu bytes behind its last element", field->name,
                         r.size);
    if (p && count != 0)
        *(struct wire_list *)p = (struct wire_list){ .bytes = elements.bytes,
                                                     .size = (uint32_t)elements.size,
                                                     .count = count };
    return MC_OK;
}

static mc_status read_slice(const struct wire_field *field, struct reader r, void *p,
                            struct mc_error *error)
{
    const struct wire_slice slice = { r.size ? r.bytes : NULL, (uint32_t)r.size };

    if (field->value == WIRE_VALUE_TEXT && !text_valid(&slice))
        return error_set(error, MC_E_FORMAT, "%s: is not UTF-8 text without NUL", field->name);
    if (p)
        *(struct wire_slice *)p = slice;
    return MC_OK;
}

static mc_status read_array(const struct wire_field *field, struct reader r, void *p,
                            struct mc_error *error)
{
    const uint32_t bytes = element_bytes(field->value);

    if (r.size % bytes != 0)
        return error_set(error, MC_E_FORMAT, "%s: %zu bytes are not a multiple of %u", field->name,
                         r.size, bytes);
    if (p)
        *(struct wire_array *)p =
            (struct wire_array){ r.size ? r.bytes : NULL, (uint32_t)(r.size / bytes) };
    return MC_OK;
}

/** A value of the field's own shape, whose bytes are `r`, all of them. */
static mc_status read_value(const struct wire_field *field, struct reader r, void *p,
                            struct mc_error *error)
{
    switch (field->value) {
    case WIRE_VALUE_TEXT:
    case WIRE_VALUE_BYTES:
        return read_slice(field, r, p, error);
    case WIRE_VALUE_U32S:
    case WIRE_VALUE_U64S:
    case WIRE_VALUE_KEYS:
        return read_array(field, r, p, error);
    case WIRE_VALUE_LIST:
        return read_list(field, r, p, error);
    case WIRE_VALUE_PART: {
        const mc_status status = read_struct(field->inner, r, p, error);
        return status == MC_OK ? MC_OK : error_prefix(error, status, "%s", field->name);
    }
    case WIRE_VALUE_BOOL:
        if (get_u32(r.bytes) > 1)
            return error_set(error, MC_E_FORMAT, "%s: %u is neither 0 nor 1", field->name,
                             get_u32(r.bytes));
        if (p)
            *(bool *)p = get_u32(r.bytes) == 1;
        return MC_OK;
    default:
        if (p)
            memcpy(p, r.bytes, r.size);
        return MC_OK;
    }
}

/** A field as it lies in the bytes, known or not. */
struct raw_field {
    uint32_t number;
    enum shape shape;
    struct reader value;
};

/** Take the next field off. */
static mc_status take_field(struct reader *r, struct raw_field *raw_p, struct mc_error *error)
{
    const uint8_t *key = take(r, 2);

    if (!key)
        return error_set(error, MC_E_FORMAT, "cut short in a field's key");
    const uint32_t number = get_u16(key) >> 3, shape = get_u16(key) & 7;
    if (shape > SHAPE_SIZED)
        return error_set(error, MC_E_FORMAT, "field %u: no such shape: %u", number, shape);

    size_t size = shape_bytes((enum shape)shape);
    const uint8_t *value = take(r, size);
    if (value && shape == SHAPE_SIZED) {
        size = get_u32(value);
        value = take(r, size);
    }
    if (!value)
        return error_set(error, MC_E_FORMAT, "field %u: cut short", number);
    *raw_p = (struct raw_field){ number, (enum shape)shape, { value, size } };
    return MC_OK;
}

/** Step *i over the fields before `number`; one of them that is required is missing. */
static mc_status skip_to(const struct wire_struct *type, uint32_t *i, uint32_t number,
                         struct mc_error *error)
{
    for (; *i < type->count && type->fields[*i].number < number; ++*i)
        if (type->fields[*i].required)
            return error_set(error, MC_E_FORMAT, "%s: required and missing", type->fields[*i].name);
    return MC_OK;
}

static mc_status read_struct(const struct wire_struct *type, struct reader r, void *value,
                             struct mc_error *error)
{
    uint32_t i = 0, last = 0;

    while (r.size != 0) {
        struct raw_field raw = { 0 };
        mc_status status = take_field(&r, &raw, error);

        if (status != MC_OK)
            return status;
        if (raw.number <= last)
            return error_set(error, MC_E_FORMAT, "field %u: behind field %u; fields rise",
                             raw.number, last);
        last = raw.number;
        status = skip_to(type, &i, raw.number, error);
        if (status != MC_OK)
            return status;
        if (i == type->count || type->fields[i].number != raw.number)
            continue; /* from a later release */

        const struct wire_field *field = &type->fields[i++];
        if (raw.shape != shape_of(field->value))
            return error_set(error, MC_E_FORMAT, "%s: shape %u, not %u", field->name,
                             (unsigned)raw.shape, (unsigned)shape_of(field->value));
        status = read_value(field, raw.value, value ? (char *)value + field->offset : NULL, error);
        if (status != MC_OK)
            return status;
    }
    return skip_to(type, &i, UINT32_MAX, error);
}

mc_status wire_decode(uint32_t kind, const uint8_t *bytes, size_t size, void *message,
                      struct mc_error *error)
{
    const struct wire_struct *type = wire_message(kind);

    if (!type)
        return error_set(error, MC_E_UNSUPPORTED, "message %u: not known to this release", kind);
    memset(message, 0, type->size);
    if (size > UINT32_MAX)
        return error_set(error, MC_E_FORMAT, "%s: %zu bytes are too many", type->name, size);

    const mc_status status = read_struct(type, (struct reader){ bytes, size }, message, error);
    if (status != MC_OK) {
        memset(message, 0, type->size);
        return error_prefix(error, status, "%s", type->name);
    }
    return MC_OK;
}

bool wire_list_next(struct wire_list *list, const struct wire_struct *type, void *item_p)
{
    if (list->count == 0)
        return false;
    list->count--;
    if (list->items) {
        memcpy(item_p, list->items, type->size);
        list->items = (const char *)list->items + type->size;
        return true;
    }

    const uint32_t size = get_u32(list->bytes);
    const struct reader r = { list->bytes + 4, size };
    memset(item_p, 0, type->size);
    const mc_status status = read_struct(type, r, item_p, NULL);
    assert(status == MC_OK); /* wire_decode() has checked it */
    (void)status;
    list->bytes += 4 + (size_t)size;
    list->size -= 4 + size;
    return true;
}

uint32_t wire_u32_at(const struct wire_array *array, uint32_t index)
{
    assert(index < array->count);
    return get_u32((const uint8_t *)array->data + (size_t)index * 4);
}

uint64_t wire_u64_at(const struct wire_array *array, uint32_t index)
{
    assert(index < array->count);
    return get_u64((const uint8_t *)array->data + (size_t)index * 8);
}

struct mc_key wire_key_at(const struct wire_array *array, uint32_t index)
{
    struct mc_key key;

    assert(index < array->count);
    memcpy(&key, (const uint8_t *)array->data + (size_t)index * sizeof(key), sizeof(key));
    return key;
}

struct wire_slice wire_text(const char *text)
{
    const size_t size = strlen(text);

    assert(size <= UINT32_MAX);
    return (struct wire_slice){ size ? text : NULL, (uint32_t)size };
}
