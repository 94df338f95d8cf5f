/* answer_part.c - the few fields of an event that are counted; the rest is passed over. */
#include "cmd/answer_part.h"

#include <string.h>

#include "sim/scan.h"

/** What the first choice says. */
struct choice {
    bool text, filled; /* there is a text; it is not empty */
    bool role, finished;
};

static void take_text(struct scan *s, struct choice *c)
{
    struct scan_text text;

    if (scan_peek(s) != SCAN_STRING) {
        scan_skip(s); /* null */
        return;
    }
    if (!scan_string(s, &text))
        return;
    c->text = true;
    c->filled = c->filled || text.size > 0;
}

static void take_delta(struct scan *s, struct choice *c)
{
    struct scan_text key;

    if (scan_peek(s) != SCAN_OBJECT) {
        scan_skip(s);
        return;
    }
    for (bool more = scan_object(s); more && scan_key(s, &key);) {
        if (scan_is(&key, "content") || scan_is(&key, "reasoning_content")) {
            take_text(s, c);
            continue;
        }
        c->role = c->role || scan_is(&key, "role");
        scan_skip(s);
    }
}

static void take_choice(struct scan *s, struct choice *c)
{
    struct scan_text key;

    if (scan_peek(s) != SCAN_OBJECT) {
        scan_skip(s);
        return;
    }
    for (bool more = scan_object(s); more && scan_key(s, &key);) {
        if (scan_is(&key, "text"))
            take_text(s, c);
        else if (scan_is(&key, "delta") || scan_is(&key, "message"))
            take_delta(s, c);
        else if (scan_is(&key, "finish_reason")) {
            c->finished = scan_peek(s) == SCAN_STRING;
            scan_skip(s);
        } else
            scan_skip(s);
    }
}

/* An empty text is a token whose characters are not complete yet; with the role it is an opening, with
 * the reason of the end a closing. */
static void take_choices(struct scan *s, struct answer_part *part)
{
    if (scan_peek(s) != SCAN_ARRAY) {
        scan_skip(s);
        return;
    }
    for (bool more = scan_array(s); more && scan_element(s);) {
        struct choice c = { 0 };
        take_choice(s, &c);
        part->token = part->token || c.filled || (c.text && !c.role && !c.finished);
        part->finished = part->finished || c.finished;
    }
}

static bool take_count(struct scan *s, uint64_t *count_p)
{
    struct scan_text number;

    if (scan_peek(s) != SCAN_NUMBER) {
        scan_skip(s);
        return false;
    }
    return scan_number(s, &number) && scan_whole(&number, UINT64_C(1) << 40, count_p);
}

static void take_details(struct scan *s, struct answer_part *part)
{
    struct scan_text key;

    if (scan_peek(s) != SCAN_OBJECT) {
        scan_skip(s);
        return;
    }
    for (bool more = scan_object(s); more && scan_key(s, &key);)
        if (scan_is(&key, "cached_tokens"))
            part->cached = take_count(s, &part->cached_tokens);
        else
            scan_skip(s);
}

static void take_usage(struct scan *s, struct answer_part *part)
{
    struct scan_text key;
    bool prompt = false;

    if (scan_peek(s) != SCAN_OBJECT) {
        scan_skip(s); /* null, in every event but the last */
        return;
    }
    for (bool more = scan_object(s); more && scan_key(s, &key);) {
        if (scan_is(&key, "prompt_tokens"))
            prompt = take_count(s, &part->prompt_tokens);
        else if (scan_is(&key, "completion_tokens"))
            take_count(s, &part->completion_tokens);
        else if (scan_is(&key, "prompt_tokens_details"))
            take_details(s, part);
        else
            scan_skip(s);
    }
    part->usage = prompt;
}

static void copy_text(struct scan *s, char *to, size_t size)
{
    struct scan_text text;

    if (scan_peek(s) != SCAN_STRING)
        scan_skip(s);
    else if (scan_string(s, &text))
        scan_copy(&text, to, size);
}

static void take_error(struct scan *s, struct answer_part *part)
{
    char type[sizeof(part->code)] = "";
    struct scan_text key;

    part->error = true;
    if (scan_peek(s) != SCAN_OBJECT) {
        copy_text(s, part->message, sizeof(part->message));
        return;
    }
    for (bool more = scan_object(s); more && scan_key(s, &key);) {
        if (scan_is(&key, "message"))
            copy_text(s, part->message, sizeof(part->message));
        else if (scan_is(&key, "code"))
            copy_text(s, part->code, sizeof(part->code));
        else if (scan_is(&key, "type"))
            copy_text(s, type, sizeof(type));
        else
            scan_skip(s);
    }
    if (part->code[0] == '\0')
        memcpy(part->code, type, sizeof(type));
}

bool answer_part_read(const char *data, size_t size, struct answer_part *part)
{
    struct scan s = scan_begin(data, size);
    struct scan_text key;

    *part = (struct answer_part){ 0 };
    if (size == 6 && memcmp(data, "[DONE]", 6) == 0) {
        part->done = true;
        return true;
    }
    for (bool more = scan_object(&s); more && scan_key(&s, &key);) {
        if (scan_is(&key, "choices"))
            take_choices(&s, part);
        else if (scan_is(&key, "usage"))
            take_usage(&s, part);
        else if (scan_is(&key, "error") && scan_peek(&s) != SCAN_NULL)
            take_error(&s, part);
        else
            scan_skip(&s);
    }
    return scan_end(&s);
}
