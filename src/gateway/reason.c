/* reason.c - the table of reasons, searched. */
#include "gateway/reason.h"

#include <stddef.h>

#include <mooncake/sched.h>

static const struct reason {
    uint32_t number;
    const char *name, *words;
} reasons[] = {
#define REASON(name, number, words) { number, #name, words },
    MC_REASON_MAP(REASON)
#undef REASON
};

static const struct reason *find(uint32_t number)
{
    static const struct reason unknown = { 0, "REFUSED", "refused" };

    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (reasons[i].number == number)
            return &reasons[i];
    return &unknown;
}

void gateway_reason_name(uint32_t reason, char name[REASON_NAME])
{
    size_t i = 0;

    for (const char *from = find(reason)->name; *from && i < REASON_NAME - 1; from++, i++)
        name[i] = *from >= 'A' && *from <= 'Z' ? (char)(*from - 'A' + 'a') : *from;
    name[i] = '\0';
}

const char *gateway_reason_words(uint32_t reason)
{
    return find(reason)->words;
}
