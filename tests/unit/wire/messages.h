/*
 * messages.h - for tests: random messages of every kind, made and compared through the tables.
 *
 * What is made is a function of the seed. Memory comes from one fixed pool; make_message() begins anew.
 */
#ifndef UNIT_WIRE_MESSAGES_H
#define UNIT_WIRE_MESSAGES_H

#include "base/prng.h"
#include "wire/msg.h"

/** Room for one C struct of any kind. */
union any_message {
    unsigned char bytes[WIRE_STRUCT_MAX];
    uint64_t align;
    void *align_pointer;
};

/** How a message is filled. */
enum fill {
    FILL_RANDOM, /* fields left at 0 now and then */
    FILL_ALL,    /* every field set, every list with an element */
};

/** All numbers of messages, rising; 0 at the end. */
extern const uint32_t message_kinds[];

/** Fill `message` for `kind`; what it borrows lives until the next call. */
void make_message(uint32_t kind, enum fill fill, struct prng *prng, union any_message *message);

/** Whether two messages say the same, deeply. */
bool messages_equal(const struct wire_struct *type, const void *a, const void *b);

#endif /* UNIT_WIRE_MESSAGES_H */
