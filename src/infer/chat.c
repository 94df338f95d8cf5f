/* chat.c - recognise a chat template by what is in it, and write what it would write. */
#include "infer/chat.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/utf8.h"
#include "infer/normal.h"
#include "os/clock.h"

static const char im_start[] = "<|im_start|>", im_end[] = "<|im_end|>";
static const char header_start[] = "<|start_header_id|>", header_end[] = "<|end_header_id|>\n\n";
static const char eot[] = "<|eot_id|>";
static const char cutoff[] = "Cutting Knowledge Date: December 2023\n";
static const char date_default[] = "26 Jul 2024";

enum { SEEN_MAX = 60 };

/* ----------------------------------------------------------------------------------- recognition */

/* Families are sets of bits while we read, so that one list can say who knows a name. */
enum {
    PLAIN = 1, /* CHAT_CHATML and CHAT_QWEN2, which differ in the default system message only */
    QWEN3 = 2,
    LLAMA3 = 4,
    LLAMA31 = 8,
    CHATML_ALL = PLAIN | QWEN3,
    LLAMA_ALL = LLAMA3 | LLAMA31,
    ALL = CHATML_ALL | LLAMA_ALL
};

/* Every name that a family's templates use. What is not here might change the output. */
static const struct {
    const char *name;
    unsigned families;
} names[] = {
    /* the language */
    { "if", ALL },
    { "elif", ALL },
    { "else", ALL },
    { "endif", ALL },
    { "for", ALL },
    { "endfor", ALL },
    { "in", ALL },
    { "set", ALL },
    { "endset", ALL },
    { "and", ALL },
    { "or", ALL },
    { "not", ALL },
    { "is", ALL },
    { "defined", ALL },
    { "none", ALL },
    { "None", ALL },
    { "true", ALL },
    { "false", ALL },
    { "True", ALL },
    { "False", ALL },
    { "string", ALL },
    { "mapping", ALL },
    { "iterable", ALL },
    { "length", ALL },
    { "loop", ALL },
    { "first", ALL },
    { "last", ALL },
    { "index0", ALL },
    { "generation", ALL },
    { "endgeneration", ALL },
    /* what it is given */
    { "messages", ALL },
    { "message", ALL },
    { "role", ALL },
    { "content", ALL },
    { "add_generation_prompt", ALL },
    { "loop_messages", ALL },
    { "bos_token", LLAMA_ALL },
    /* tools: never given here, so that their branches are not taken */
    { "tools", ALL },
    { "tool", ALL },
    { "tool_calls", ALL },
    { "tool_call", ALL },
    { "function", ALL },
    { "name", ALL },
    { "arguments", ALL },
    { "tojson", ALL },
    { "custom_tools", LLAMA31 },
    { "builtin_tools", LLAMA31 },
    { "tools_in_user_message", LLAMA31 },
    { "first_user_message", LLAMA31 },
    { "t", LLAMA31 },
    { "indent", LLAMA31 },
    { "arg_name", LLAMA31 },
    { "arg_val", LLAMA31 },
    { "items", LLAMA31 },
    { "join", LLAMA31 },
    { "reject", LLAMA31 },
    { "raise_exception", LLAMA31 },
    /* what a family does with the content */
    { "trim", LLAMA_ALL },
    { "system_message", LLAMA31 },
    { "date_string", LLAMA31 },
    { "strftime_now", LLAMA31 },
    { "namespace", QWEN3 },
    { "ns", QWEN3 },
    { "multi_step_tool", QWEN3 },
    { "last_query_index", QWEN3 },
    { "index", QWEN3 },
    { "startswith", QWEN3 },
    { "endswith", QWEN3 },
    { "split", QWEN3 },
    { "strip", QWEN3 },
    { "lstrip", QWEN3 },
    { "rstrip", QWEN3 },
    { "reasoning_content", QWEN3 },
    { "enable_thinking", QWEN3 },
};

/* Where thoughts go, and that they may be switched off. */
static const char *const qwen3_needs[] = { "last_query_index", "split", "lstrip",
                                           "reasoning_content", "enable_thinking" };
enum { QWEN3_NEEDS_ALL = (1 << sizeof(qwen3_needs) / sizeof(qwen3_needs[0])) - 1 };

/* What recognition has learnt. */
struct reader {
    const struct mc_alloc *alloc;
    unsigned families; /* those that everything so far may belong to */
    char why[80];      /* the first thing that left none */
    unsigned trims;    /* uses of the trim filter */
    bool has_end, has_bos, has_prompt, has_cutoff, has_today, has_date, has_think, asks_date;
    unsigned qwen3_needs; /* of the names that Qwen3 cannot do without, those seen: bits */
    char *default_system; /* owned */
    struct buf literal;   /* the string in hand, unescaped */
    /* Within one tag: */
    const char *pending; /* what must follow: a literal that begins so; NULL: anything may */
    bool pending_needed; /* and something must */
    bool prompt_tag, and_tag;
};

static void keep(struct reader *r, unsigned families, const char *what, size_t size)
{
    if (r->families && !(r->families & families))
        snprintf(r->why, sizeof(r->why), "%.*s", (int)(size < 60 ? size : 60), what);
    r->families &= families;
}

static void read_name(struct reader *r, const char *name, size_t size)
{
    unsigned families = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strlen(names[i].name) == size && memcmp(names[i].name, name, size) == 0)
            families = names[i].families;
    keep(r, families, name, size);

    const struct {
        const char *name;
        bool *seen;
    } noted[] = { { "bos_token", &r->has_bos },
                  { "strftime_now", &r->asks_date },
                  { "add_generation_prompt", &r->prompt_tag },
                  { "and", &r->and_tag },
                  { "or", &r->and_tag } };
    for (size_t i = 0; i < sizeof(noted) / sizeof(noted[0]); i++)
        if (strlen(noted[i].name) == size && memcmp(noted[i].name, name, size) == 0)
            *noted[i].seen = true;
    for (unsigned i = 0; i < sizeof(qwen3_needs) / sizeof(qwen3_needs[0]); i++)
        if (strlen(qwen3_needs[i]) == size && memcmp(qwen3_needs[i], name, size) == 0)
            r->qwen3_needs |= 1u << i;
    r->trims += size == 4 && memcmp(name, "trim", 4) == 0;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static bool ends(const char *text, const char *with)
{
    const size_t size = strlen(text), tail = strlen(with);

    return size >= tail && strcmp(text + size - tail, with) == 0;
}

/* "<|im_start|>system\nYOU ARE ...<|im_end|>\n": the message that is written when none is given. */
static bool take_default_system(struct reader *r, const char *text)
{
    static const char head[] = "<|im_start|>system\n", tail[] = "<|im_end|>\n";
    const size_t size = strlen(text);

    if (!begins(text, head) || !ends(text, tail) || size < strlen(head) + strlen(tail))
        return false;
    const size_t length = size - strlen(head) - strlen(tail);
    const char *message = text + strlen(head);
    if (r->default_system) /* said again: it must be the same */
        return strlen(r->default_system) == length &&
               memcmp(r->default_system, message, length) == 0;
    r->default_system = alloc_text(r->alloc, message, length);
    if (!r->default_system)
        r->literal.failed = true;
    return true;
}

/* A string with ChatML's marks in it. */
static void read_chatml(struct reader *r, const char *text)
{
    keep(r, CHATML_ALL, text, strlen(text));
    if (strcmp(text, im_start) == 0)
        r->pending = "\n"; /* <|im_start|> + role + "\n..." */
    else if (strcmp(text, im_end) == 0) {
        r->pending = "\n";
        r->pending_needed = true;
        r->has_end = true;
    } else if (strcmp(text, "<|im_end|>\n") == 0)
        r->has_end = true;
    else if (strcmp(text, "<|im_start|>assistant\n") == 0)
        r->has_prompt = true;
    else if (strcmp(text, "<|im_start|>system\n") != 0 && strcmp(text, "<|im_start|>user") != 0 &&
             strcmp(text, "<|im_start|>user\n<tool_response>\n") != 0 &&
             !ends(text, "</tool_call><|im_end|>\n") && !take_default_system(r, text))
        keep(r, 0, text, strlen(text));
}

/* A string with Llama 3's marks in it. */
static void read_llama(struct reader *r, const char *text)
{
    const size_t size = strlen(text);

    keep(r, LLAMA_ALL, text, size);
    if (strcmp(text, header_start) == 0) {
        r->pending = header_end; /* <|start_header_id|> + role + <|end_header_id|> */
        r->pending_needed = true;
    } else if (strcmp(text, eot) == 0)
        r->has_end = true;
    else if (strcmp(text, "<|start_header_id|>assistant<|end_header_id|>\n\n") == 0)
        r->has_prompt = true;
    else if (strcmp(text, header_end) != 0 &&
             strcmp(text, "<|start_header_id|>system<|end_header_id|>\n\n") != 0 &&
             strcmp(text, "<|start_header_id|>user<|end_header_id|>\n\n") != 0 &&
             strcmp(text, "<|start_header_id|>ipython<|end_header_id|>\n\n") != 0)
        keep(r, 0, text, size);
}

/* A string that is written or compared with; not a subscript. */
static void read_literal(struct reader *r, const char *text)
{
    if (r->pending && !begins(text, r->pending))
        keep(r, 0, text, strlen(text));
    r->pending = NULL;
    r->pending_needed = false;

    if (strstr(text, im_start) || strstr(text, im_end))
        read_chatml(r, text);
    else if (strstr(text, "_header_id|>") || strstr(text, eot))
        read_llama(r, text);
    else if (strstr(text, "Cutting Knowledge")) {
        keep(r, strcmp(text, cutoff) == 0 ? LLAMA31 : 0, text, strlen(text));
        r->has_cutoff = true;
    } else if (strstr(text, "think>")) {
        keep(r, QWEN3, text, strlen(text));
        r->has_think = true;
    } else if (strstr(text, "<|") && !begins(text, "<|python_tag|>") && !begins(text, "<|eom_id|>"))
        keep(r, 0, text, strlen(text)); /* a mark that we do not know */
    r->has_today |= strcmp(text, "Today Date: ") == 0;
    r->has_date |= strcmp(text, date_default) == 0;
}

/* The string from the quote at `at`; returns where it ends, or NULL if it does not. */
static const char *unescape(struct reader *r, const char *at)
{
    const char quote = *at++;

    buf_truncate(&r->literal, 0);
    buf_add(&r->literal, "", 0);
    for (; *at && *at != quote; at++) {
        if (*at == '\\' && at[1]) {
            at++;
            buf_add_byte(&r->literal, (unsigned char)(*at == 'n' ? '\n' : *at == 't' ? '\t' : *at));
        } else
            buf_add_byte(&r->literal, (unsigned char)*at);
    }
    return *at ? at + 1 : NULL;
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The inside of a tag, up to its `%}` or `}}`; returns that, or NULL if there is none. */
static const char *read_tag(struct reader *r, const char *at, const char *close)
{
    char before = ' '; /* the last character that is no blank */

    r->pending = NULL;
    r->pending_needed = r->prompt_tag = r->and_tag = false;
    while (*at && !r->literal.failed && !begins(at, close)) {
        const char first = *at;
        if (first == '"' || first == '\'') {
            at = unescape(r, at);
            if (!at || r->literal.failed)
                return NULL;
            if (before != '[')
                read_literal(r, r->literal.data);
        } else if (is_name(first)) {
            size_t size = 1;
            while (is_name(at[size]))
                size++;
            if (first < '0' || first > '9')
                read_name(r, at, size);
            at += size;
        } else
            at++;
        if (first != ' ' && first != '\n')
            before = first;
    }
    if (r->pending && r->pending_needed)
        keep(r, 0, "end of turn", 11);
    if (r->prompt_tag && r->and_tag)
        keep(r, 0, "add_generation_prompt and", 25);
    return *at ? at : NULL;
}

/* What surrounds text outside of tags decides what is left of it (trim_blocks and lstrip_blocks are
 * on, as `transformers` sets them). */
enum edge { EDGE_TEXT, EDGE_EXPRESSION, EDGE_BLOCK, EDGE_STRIP };

static bool leaves_text(const char *text, size_t size, enum edge before, enum edge after)
{
    bool line_start = before == EDGE_TEXT;

    for (size_t i = 0; i < size; i++)
        if (!strchr(" \t\r\n", text[i]))
            return true;
    if (before == EDGE_STRIP || after == EDGE_STRIP)
        return false;
    if (before == EDGE_BLOCK && size && text[0] == '\n') {
        text++;
        size--;
        line_start = true;
    }
    if (after == EDGE_TEXT && size && text[size - 1] == '\n')
        size--; /* the newline at the end of a file is not kept */
    if (after == EDGE_BLOCK) {
        size_t kept = size;
        while (kept && (text[kept - 1] == ' ' || text[kept - 1] == '\t'))
            kept--;
        if (kept ? text[kept - 1] == '\n' : line_start)
            size = kept;
    }
    return size > 0;
}

/* The next tag's opening, or the end. */
static const char *find_tag(const char *at)
{
    for (; *at; at++)
        if (*at == '{' && (at[1] == '{' || at[1] == '%' || at[1] == '#'))
            break;
    return at;
}

/* Read the whole program; what no family has leaves r->families empty. */
static void read_template(struct reader *r, const char *at)
{
    enum edge before = EDGE_TEXT;

    while (*at && r->families && !r->literal.failed) {
        const char *tag = find_tag(at);
        const char kind = *tag ? tag[1] : ' ';
        const enum edge open = !*tag           ? EDGE_TEXT
                               : tag[2] == '-' ? EDGE_STRIP
                               : kind == '{'   ? EDGE_EXPRESSION
                                               : EDGE_BLOCK;
        if (leaves_text(at, (size_t)(tag - at), before, open))
            keep(r, 0, "text outside of tags", 20);
        if (!*tag)
            return;
        const char *close = kind == '{' ? "}}" : kind == '%' ? "%}" : "#}";
        const char *end = kind == '#' ? strstr(tag + 2, close) : read_tag(r, tag + 2, close);
        if (!end) {
            keep(r, 0, "a tag that does not end", 23);
            return;
        }
        before = end > tag + 2 && end[-1] == '-' ? EDGE_STRIP
                 : kind == '{'                   ? EDGE_EXPRESSION
                                                 : EDGE_BLOCK;
        at = end + 2;
    }
}

/* The one family that has all that was found and of which nothing is missing. */
static enum chat_family decide(const struct reader *r)
{
    if (!r->families || !r->has_end || !r->has_prompt)
        return CHAT_OTHER;
    if (r->has_cutoff || r->asks_date)
        return r->families & LLAMA31 && r->has_cutoff && r->has_today && r->has_date &&
                       r->has_bos && r->trims >= 2
                   ? CHAT_LLAMA31
                   : CHAT_OTHER;
    if (r->families & LLAMA3)
        return r->has_bos && r->trims >= 1 ? CHAT_LLAMA3 : CHAT_OTHER;
    if (r->families & PLAIN)
        return r->default_system ? CHAT_QWEN2 : CHAT_CHATML;
    return r->families & QWEN3 && r->has_think && r->qwen3_needs == QWEN3_NEEDS_ALL &&
                   !r->default_system
               ? CHAT_QWEN3
               : CHAT_OTHER;
}

/* The first characters, whole ones, for an error. */
static char *first_characters(const char *template, const struct mc_alloc *alloc)
{
    size_t size = strlen(template);

    if (size > SEEN_MAX)
        size = utf8_complete(template, SEEN_MAX);
    return alloc_text(alloc, template, size);
}

mc_status chat_init(struct chat *chat, const char *template, const char *bos,
                    const struct mc_alloc *alloc)
{
    struct reader r = { .alloc = alloc, .families = ALL, .literal = BUF_INIT(alloc) };

    *chat = (struct chat){ .family = CHAT_NONE };
    if (!template)
        return MC_OK;
    read_template(&r, template);
    bool failed = r.literal.failed;
    chat->family = decide(&r);
    chat->default_system = r.default_system;
    chat->dated = r.asks_date;
    buf_fini(&r.literal);
    chat->bos = alloc_text(alloc, bos ? bos : "", bos ? strlen(bos) : 0);
    if (chat->family == CHAT_OTHER) {
        const char *why = r.why[0] ? r.why : "a part of it is missing";
        chat->seen = first_characters(template, alloc);
        chat->why = alloc_text(alloc, why, utf8_complete(why, strlen(why)));
        failed |= !chat->seen || !chat->why;
    }
    if (failed || !chat->bos) {
        chat_fini(chat, alloc);
        return MC_E_NOMEM;
    }
    return MC_OK;
}

void chat_fini(struct chat *chat, const struct mc_alloc *alloc)
{
    alloc_free(alloc, chat->bos);
    alloc_free(alloc, chat->default_system);
    alloc_free(alloc, chat->seen);
    alloc_free(alloc, chat->why);
    *chat = (struct chat){ .family = CHAT_NONE };
}

char *chat_date(uint64_t date_s, char buffer[CHAT_DATE_SIZE])
{
    char iso[21];
    static const char months[][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };

    os_date_text(date_s, iso); /* "2024-07-26T..." */
    const int month = (iso[5] - '0') * 10 + iso[6] - '0';
    assert(month >= 1 && month <= 12);
    snprintf(buffer, CHAT_DATE_SIZE, "%.2s %s %.4s", iso + 8, months[month - 1], iso);
    return buffer;
}

/* ------------------------------------------------------------------------------------- rendering */

/* A stretch of text; the string functions below are Python's. */
struct span {
    const char *text;
    size_t size;
};

static struct span span_of(const char *text)
{
    return (struct span){ text, strlen(text) };
}

static void add_span(struct buf *out, struct span s)
{
    buf_add(out, s.text, s.size);
}

static bool span_begins(struct span s, const char *with)
{
    return s.size >= strlen(with) && memcmp(s.text, with, strlen(with)) == 0;
}

static bool span_ends(struct span s, const char *with)
{
    const size_t size = strlen(with);

    return s.size >= size && memcmp(s.text + s.size - size, with, size) == 0;
}

/* Where `what` first begins in s, or s.size if nowhere. */
static size_t span_find(struct span s, const char *what)
{
    const size_t size = strlen(what);

    for (size_t i = 0; i + size <= s.size; i++)
        if (memcmp(s.text + i, what, size) == 0)
            return i;
    return s.size;
}

/* What lies behind the last `what`: s.split(what)[-1]. */
static struct span after_last(struct span s, const char *what)
{
    for (size_t at; (at = span_find(s, what)) < s.size;) {
        s.text += at + strlen(what);
        s.size -= at + strlen(what);
    }
    return s;
}

static struct span strip_left(struct span s)
{
    while (s.size && s.text[0] == '\n') {
        s.text++;
        s.size--;
    }
    return s;
}

static struct span strip_right(struct span s)
{
    while (s.size && s.text[s.size - 1] == '\n')
        s.size--;
    return s;
}

/* str.isspace: White_Space, and four separators of ASCII. */
static bool is_python_blank(uint32_t code)
{
    return char_is_blank(code) || (code >= 0x1c && code <= 0x1f);
}

/* Jinja's trim: str.strip(). */
static struct span trim(struct span s)
{
    uint32_t code;

    for (size_t size; (size = utf8_decode(s.text, s.size, &code)) && is_python_blank(code);) {
        s.text += size;
        s.size -= size;
    }
    while (s.size) {
        size_t size = 1;
        while (size < s.size && size < 4 && ((unsigned char)s.text[s.size - size] & 0xc0) == 0x80)
            size++;
        if (utf8_decode(s.text + s.size - size, size, &code) != size || !is_python_blank(code))
            break;
        s.size -= size;
    }
    return s;
}

static void add_chatml(struct buf *out, const char *role, struct span content)
{
    buf_add_text(out, im_start);
    buf_add_text(out, role);
    buf_add_byte(out, '\n');
    add_span(out, content);
    buf_add_text(out, im_end);
    buf_add_byte(out, '\n');
}

static void render_chatml(const struct chat *chat, const struct mc_chat_message *messages,
                          size_t count, struct buf *out)
{
    if (chat->default_system && strcmp(messages[0].role, "system") != 0)
        add_chatml(out, "system", span_of(chat->default_system));
    for (size_t i = 0; i < count; i++)
        add_chatml(out, messages[i].role, span_of(messages[i].content));
    buf_add_text(out, "<|im_start|>assistant\n");
}

/* The last message that a user wrote and no tool answered with; the last of all if there is none. */
static size_t last_query(const struct mc_chat_message *messages, size_t count)
{
    for (size_t i = count; i-- > 0;) {
        const struct span content = span_of(messages[i].content);
        if (strcmp(messages[i].role, "user") == 0 &&
            !(span_begins(content, "<tool_response>") && span_ends(content, "</tool_response>")))
            return i;
    }
    return count - 1;
}

/* An answer: its thoughts are dropped, but for those since the last query. */
static void add_qwen3_answer(struct buf *out, struct span content, bool since_query, bool last)
{
    struct span thoughts = { "", 0 };
    const size_t thought_end = span_find(content, "</think>");

    if (thought_end < content.size) {
        thoughts = strip_right((struct span){ content.text, thought_end });
        thoughts = strip_left(after_last(thoughts, "<think>"));
        content = strip_left(after_last(content, "</think>"));
    }
    buf_add_text(out, "<|im_start|>assistant\n");
    if (since_query && (last || thoughts.size)) {
        buf_add_text(out, "<think>\n");
        add_span(out, strip_left(strip_right(thoughts)));
        buf_add_text(out, "\n</think>\n\n");
        content = strip_left(content);
    }
    add_span(out, content);
    buf_add_text(out, "<|im_end|>\n");
}

static void render_qwen3(const struct mc_chat_message *messages, size_t count, struct buf *out)
{
    const size_t query = last_query(messages, count);

    for (size_t i = 0; i < count; i++) {
        const struct span content = span_of(messages[i].content);
        if (strcmp(messages[i].role, "assistant") == 0)
            add_qwen3_answer(out, content, i > query, i + 1 == count);
        else
            add_chatml(out, messages[i].role, content);
    }
    buf_add_text(out, "<|im_start|>assistant\n");
}

static void add_header(struct buf *out, const char *role)
{
    buf_add_text(out, header_start);
    buf_add_text(out, role);
    buf_add_text(out, header_end);
}

static void render_llama3(const struct chat *chat, const struct mc_chat_message *messages,
                          size_t count, struct buf *out)
{
    buf_add_text(out, chat->bos);
    for (size_t i = 0; i < count; i++) {
        add_header(out, messages[i].role);
        add_span(out, trim(span_of(messages[i].content)));
        buf_add_text(out, eot);
    }
    add_header(out, "assistant");
}

static void render_llama31(const struct chat *chat, const struct mc_chat_message *messages,
                           size_t count, const char *date, struct buf *out)
{
    const bool has_system = strcmp(messages[0].role, "system") == 0;

    buf_add_text(out, chat->bos);
    add_header(out, "system");
    buf_add_text(out, cutoff);
    buf_add_text(out, "Today Date: ");
    buf_add_text(out, date ? date : date_default);
    buf_add_text(out, "\n\n");
    if (has_system)
        add_span(out, trim(span_of(messages[0].content)));
    buf_add_text(out, eot);
    for (size_t i = has_system; i < count; i++) {
        add_header(out, messages[i].role);
        add_span(out, trim(span_of(messages[i].content)));
        buf_add_text(out, eot);
    }
    add_header(out, "assistant");
}

static mc_status check_messages(const struct mc_chat_message *messages, size_t count,
                                struct mc_error *error)
{
    if (count == 0)
        return error_set(error, MC_E_ARG, "messages: at least one is needed");
    for (size_t i = 0; i < count; i++) {
        const char *role = messages[i].role;
        if (!role || (strcmp(role, "system") != 0 && strcmp(role, "user") != 0 &&
                      strcmp(role, "assistant") != 0))
            return error_set(error, MC_E_ARG,
                             "messages[%zu].role \"%.80s\" is none of \"system\", \"user\", "
                             "\"assistant\"",
                             i, role ? role : "");
        if (!messages[i].content)
            return error_set(error, MC_E_ARG, "messages[%zu].content is missing", i);
    }
    return MC_OK;
}

mc_status chat_render(const struct chat *chat, const struct mc_chat_message *messages, size_t count,
                      const char *date, struct buf *out, struct mc_error *error)
{
    if (chat->family == CHAT_NONE)
        return error_set(error, MC_E_UNSUPPORTED,
                         "the model has no chat template: send a prompt instead of messages");
    if (chat->family == CHAT_OTHER)
        return error_set(error, MC_E_UNSUPPORTED,
                         "the chat template beginning \"%s\" is none of those supported (ChatML, "
                         "Qwen2.5, Qwen3, Llama 3, Llama 3.1 to 3.3), because of \"%s\"",
                         chat->seen, chat->why);
    const mc_status status = check_messages(messages, count, error);
    if (status != MC_OK)
        return status;

    if (chat->family == CHAT_QWEN3)
        render_qwen3(messages, count, out);
    else if (chat->family == CHAT_LLAMA3)
        render_llama3(chat, messages, count, out);
    else if (chat->family == CHAT_LLAMA31)
        render_llama31(chat, messages, count, date, out);
    else
        render_chatml(chat, messages, count, out);
    return out->failed ? error_set(error, MC_E_NOMEM, "no memory for the prompt") : MC_OK;
}
