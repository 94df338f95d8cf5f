/*
 * msg.h - a message as a C struct, and as bytes. What there is stands in msg.def alone.
 *
 * Life:    values. `struct wire_lookup m = { .keys = … }; wire_encode(WIRE_LOOKUP, &m, …)`.
 * Threads: pure functions; any thread.
 * Memory:  nothing is allocated. A decoded message borrows text, bytes, arrays and lists from the bytes
 *          it was decoded from. A message to be encoded borrows them from wherever the caller keeps
 *          them.
 * Errors:  whatever bytes a peer sends are an event: MC_E_FORMAT with a text that names message and
 *          field; nothing is read out of bounds and the output is all zero. A field that is not known
 *          is skipped; one that is required and not there is an error, as is one that comes twice or
 *          out of order.
 *
 * The bytes of a message's body, all numbers little-endian:
 *
 *      field, field, …                in rising order of their numbers
 *      field  = | key: u16 = number << 3 | shape | value |
 *      value  = 4, 8, 16 or 32 bytes (shapes 0 .. 3), or | size: u32 | size bytes | (shape 4)
 *      part   = sized: its own fields
 *      list   = sized: | count: u32 | (size: u32 | fields) x count |
 *      array  = sized: elements of 4, 8 or 16 bytes
 *
 * An optional field that is 0 or empty is not written. So encode(decode(x)) is one form for all x that
 * mean the same, less what this release does not know.
 */
#ifndef WIRE_MSG_H
#define WIRE_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/store.h>

/** Text (UTF-8 without NUL) or bytes. Borrowed; not terminated. NULL where size is 0. */
struct wire_slice {
    const void *data;
    uint32_t size;
};

/** Numbers or keys side by side, little-endian, not aligned: read with the functions below. On the
 * little-endian machines that this runs on, `data` may be a plain C array when encoding. */
struct wire_array {
    const void *data;
    uint32_t count;
};

/**
 * A list of structs. To encode: `items` is a C array of [count]. Decoded: `bytes`, already checked;
 * walk it with wire_<type>_next(). One of the two is set; a list walked is a list still encodable.
 */
struct wire_list {
    const void *items;
    const uint8_t *bytes;
    uint32_t size; /* of bytes */
    uint32_t count;
};

/* The C side of the types in msg.def. */
#define WIRE_C_U32 uint32_t
#define WIRE_C_U64 uint64_t
#define WIRE_C_F32 float
#define WIRE_C_BOOL bool
#define WIRE_C_STATUS mc_status
#define WIRE_C_KEY struct mc_key       /* 16 bytes */
#define WIRE_C_HASH struct mc_identity /* 32 bytes */
#define WIRE_C_TEXT struct wire_slice
#define WIRE_C_BYTES struct wire_slice
#define WIRE_C_U32S struct wire_array
#define WIRE_C_U64S struct wire_array
#define WIRE_C_KEYS struct wire_array

enum wire_value {
    WIRE_VALUE_U32,
    WIRE_VALUE_U64,
    WIRE_VALUE_F32,
    WIRE_VALUE_BOOL,
    WIRE_VALUE_STATUS,
    WIRE_VALUE_KEY,
    WIRE_VALUE_HASH,
    WIRE_VALUE_TEXT,
    WIRE_VALUE_BYTES,
    WIRE_VALUE_U32S,
    WIRE_VALUE_U64S,
    WIRE_VALUE_KEYS,
    WIRE_VALUE_PART, /* a struct inside */
    WIRE_VALUE_LIST,
};

/* clang-format off */
/* struct wire_hello and so on. */
#define TYPE(name, words) struct wire_##name {
#define MESSAGE(number, NAME, name, words) TYPE(name, words)
#define FIELD(owner, number, type, need, name, words) WIRE_C_##type name;
#define PART(owner, number, type, need, name, words) struct wire_##type name;
#define LIST(owner, number, type, need, name, max, words) struct wire_list name;
#define END(name) };
#include "wire/msg.def"
/* clang-format on */

/** WIRE_HELLO and so on: the number in the frame. */
enum wire_kind {
    WIRE_NONE,
#define MESSAGE(number, NAME, name, words) WIRE_##NAME = (number),
#include "wire/msg.def"
};

/** What is known of a field, from msg.def. */
struct wire_field {
    const char *name, *words;
    uint16_t number;
    bool required;
    enum wire_value value;
    size_t offset;                   /* in the C struct */
    uint32_t max;                    /* elements of a list */
    const struct wire_struct *inner; /* of a part or list */
};

struct wire_struct {
    const char *name, *words;
    const struct wire_field *fields; /* [count], by number */
    uint32_t count;
    uint32_t kind; /* enum wire_kind; 0: a TYPE, not a message */
    size_t size;   /* of the C struct */
};

/** wire_struct_hello and so on. */
#define TYPE(name, words) extern const struct wire_struct wire_struct_##name;
#define MESSAGE(number, NAME, name, words) TYPE(name, words)
#include "wire/msg.def"

/** The table of a kind, or NULL for a number that is not in msg.def. */
const struct wire_struct *wire_message(uint32_t kind);

enum { WIRE_STRUCT_MAX = 1024 }; /* bytes: no C struct above is larger (checked) */

/** Write the body of a message.
 *
 * kind     of `message`, which is the matching struct.
 * bytes    [capacity]; may be NULL when capacity is 0.
 * size_p   set to the bytes written.
 *
 * Returns MC_OK, MC_E_RANGE (capacity is too small, or a list is longer than msg.def says) or MC_E_ARG
 * (text that is not UTF-8 or has a NUL). No other thing than `bytes` is written unless MC_OK.
 */
mc_status wire_encode(enum wire_kind kind, const void *message, uint8_t *bytes, size_t capacity,
                      size_t *size_p);

/** Bytes that wire_encode() would write, at most SIZE_MAX / 2. */
size_t wire_encoded_size(enum wire_kind kind, const void *message);

/**
 * Read the body of a message. Checks everything, lists included, once.
 *
 * message  the struct of `kind`; borrows from `bytes`. All zero unless MC_OK.
 *
 * Returns MC_OK, MC_E_FORMAT, or MC_E_UNSUPPORTED (a kind that is not in msg.def).
 */
mc_status wire_decode(uint32_t kind, const uint8_t *bytes, size_t size, void *message,
                      struct mc_error *error);

/** Take the first element off a list (a copy of it, to keep the whole); false at the end. */
bool wire_list_next(struct wire_list *list, const struct wire_struct *type, void *item_p);

/* wire_replica_next(&list, &replica) and so on: the same, typed. */
#define TYPE(name, words) \
    static inline bool wire_##name##_next(struct wire_list *list, struct wire_##name *item_p) \
    { \
        return wire_list_next(list, &wire_struct_##name, item_p); \
    }
#include "wire/msg.def"

/** Element `index` < count. */
uint32_t wire_u32_at(const struct wire_array *array, uint32_t index);
uint64_t wire_u64_at(const struct wire_array *array, uint32_t index);
struct mc_key wire_key_at(const struct wire_array *array, uint32_t index);

/** Text of at most 4 GiB - 1 as a slice. */
struct wire_slice wire_text(const char *text);

#endif /* WIRE_MSG_H */
