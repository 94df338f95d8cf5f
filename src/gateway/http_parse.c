/* http_parse.c - a request's head, byte by byte as it comes and then line by line; chunks. */
#include "gateway/http_parse.h"

#include <string.h>

enum { BLANK_LINES_MAX = 4, SIZE_LINE_MAX = 256, TRAILER_MAX = 4096, SIZE_DIGITS_MAX = 15 };

static const char BAD[] = "bad_request";

static bool wrong(struct http_wrong *w, unsigned status, const char *code, const char *text)
{
    *w = (struct http_wrong){ status, code, text };
    return false;
}

static bool bad(struct http_wrong *w, const char *text)
{
    return wrong(w, 400, BAD, text);
}

/* ---------------------------------------------------------------------------------- characters */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool is_letter(char c)
{
    return lower(c) >= 'a' && lower(c) <= 'z';
}

/* Of methods and names of fields. */
static bool is_token(char c)
{
    return is_letter(c) || is_digit(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_control(char c)
{
    return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

static int hex(char c)
{
    if (is_digit(c))
        return c - '0';
    return lower(c) >= 'a' && lower(c) <= 'f' ? lower(c) - 'a' + 10 : -1;
}

static bool same(const char *a, const char *b)
{
    while (*a && lower(*a) == lower(*b)) {
        a++;
        b++;
    }
    return *a == *b;
}

/* ---------------------------------------------------------------------------------- first line */

/* The parts of "METHOD target HTTP/1.1", [size] bytes. */
struct first {
    size_t method_size, target_size; /* the target begins one behind the method */
    bool is_1_1;
};

static bool read_version(const char *at, size_t size, struct first *f, struct http_wrong *w)
{
    if (size != 8 || memcmp(at, "HTTP/", 5) != 0 || !is_digit(at[5]) || at[6] != '.' ||
        !is_digit(at[7]))
        return bad(w, "the request's first line does not end with HTTP/1.1");
    if (at[5] != '1')
        return wrong(w, 505, "http_version", "this server speaks HTTP/1.1 and HTTP/1.0");
    f->is_1_1 = at[7] != '0';
    return true;
}

static bool read_first(const char *line, size_t size, struct first *f, struct http_wrong *w)
{
    size_t at = 0;

    while (at < size && is_token(line[at]))
        at++;
    f->method_size = at;
    if (at == 0 || at > HTTP_METHOD_MAX || at == size || line[at] != ' ')
        return bad(w, "the request's first line is not METHOD TARGET HTTP/1.1");
    const size_t target = ++at;
    while (at < size && (unsigned char)line[at] > 0x20 && (unsigned char)line[at] < 0x7f)
        at++;
    f->target_size = at - target;
    if (f->target_size == 0 || at == size || line[at] != ' ')
        return bad(w, "the request's first line is not METHOD TARGET HTTP/1.1");
    return read_version(line + at + 1, size - at - 1, f, w);
}

/* ---------------------------------------------------------------------------------------- scan */

/* A line [begin, end) is whole. */
static enum http_scanned end_line(struct http_scan *s, const char *bytes, size_t end,
                                  struct http_wrong *w)
{
    const size_t begin = s->line;
    struct first first;

    s->at = s->line = end + 2;
    if (begin == end && s->lines > 0)
        return HTTP_SCAN_WHOLE;
    if (begin == end) { /* left by an earlier request's sloppy client */
        if (++s->blank <= BLANK_LINES_MAX)
            return HTTP_SCAN_MORE;
        bad(w, "empty lines before the request");
        return HTTP_SCAN_WRONG;
    }
    if (++s->lines == 1)
        return read_first(bytes + begin, end - begin, &first, w) ? HTTP_SCAN_MORE : HTTP_SCAN_WRONG;
    if (s->lines <= HTTP_FIELDS_MAX + 1)
        return HTTP_SCAN_MORE;
    wrong(w, 431, "headers_too_large", "more than 100 header fields");
    return HTTP_SCAN_WRONG;
}

static bool check_byte(const struct http_scan *s, char c, size_t max, struct http_wrong *w)
{
    if (s->at >= max)
        return s->lines == 0 ? wrong(w, 414, "uri_too_long", "the request's first line is too long")
                             : wrong(w, 431, "headers_too_large", "the header fields are too long");
    if (s->lines == 0 && s->at == s->line && !is_token(c))
        return bad(w, "this is not HTTP; is it TLS? This port speaks plain HTTP");
    if (c == '\n')
        return bad(w, "a line ends without a carriage return");
    if (is_control(c))
        return bad(w, "a control character in the request's head");
    return true;
}

enum http_scanned http_scan(struct http_scan *s, const char *bytes, size_t size, size_t max,
                            struct http_wrong *w)
{
    while (s->at < size) {
        const char c = bytes[s->at];
        if (c == '\r' && s->at < max) {
            if (s->at + 1 == size)
                return HTTP_SCAN_MORE;
            if (bytes[s->at + 1] != '\n') {
                bad(w, "a carriage return that ends no line");
                return HTTP_SCAN_WRONG;
            }
            const enum http_scanned scanned = end_line(s, bytes, s->at, w);
            if (scanned != HTTP_SCAN_MORE)
                return scanned;
            continue;
        }
        if (!check_byte(s, c, max, w))
            return HTTP_SCAN_WRONG;
        s->at++;
    }
    return HTTP_SCAN_MORE;
}

/* --------------------------------------------------------------------------------------- target */

/* %41 becomes A, in place. A NUL or another control character is never meant well. */
static bool decode(char *path, struct http_wrong *w)
{
    char *out = path;

    for (const char *at = path; *at; at++) {
        char c = *at;
        if (c == '%') {
            const int high = hex(at[1]), low = high < 0 ? -1 : hex(at[2]);
            if (low < 0)
                return bad(w, "a % in the path that two hexadecimal digits do not follow");
            c = (char)(high * 16 + low);
            at += 2;
        }
        if ((unsigned char)c < 0x20 || c == 0x7f)
            return bad(w, "a control character in the path");
        *out++ = c;
    }
    *out = '\0';
    return true;
}

/* http://host/path is what proxies are asked; the host is the Host field's matter. NULL: no path follows. */
static char *skip_origin(char *target)
{
    char *at = strstr(target, "://");

    if (!is_letter(target[0]) || !at)
        return target;
    at += 3;
    at += strcspn(at, "/?#");
    return *at == '/' ? at : NULL;
}

static bool read_target(char *target, struct http_head *h, struct http_wrong *w)
{
    char *path = skip_origin(target);

    if (!path) {
        h->path = "/";
        return true;
    }
    if (path[0] != '/' && strcmp(path, "*") != 0)
        return bad(w, "the target is neither a path nor a URL");
    path[strcspn(path, "?#")] = '\0';
    h->path = path;
    return decode(path, w);
}

/* --------------------------------------------------------------------------------------- fields */

/* Move "Name: value" to `out` as name, NUL, value, NUL; *out_p is behind it. out <= line. */
static bool cut_field(char *line, size_t size, char **out_p, struct http_wrong *w)
{
    size_t name = 0, begin;
    char *out = *out_p;

    if (line[0] == ' ' || line[0] == '\t')
        return bad(w, "a header field that is folded over lines");
    while (name < size && is_token(line[name]))
        name++;
    if (name == 0 || name == size || line[name] != ':')
        return bad(w, "a header field that is not Name: value");
    for (begin = name + 1; begin < size && (line[begin] == ' ' || line[begin] == '\t'); begin++)
        ;
    while (size > begin && (line[size - 1] == ' ' || line[size - 1] == '\t'))
        size--;
    memmove(out, line, name);
    out[name] = '\0';
    memmove(out + name + 1, line + begin, size - begin);
    out[name + 1 + size - begin] = '\0';
    *out_p = out + name + 1 + (size - begin) + 1;
    return true;
}

static bool cut_fields(char *at, char *end, struct http_head *h, struct http_wrong *w)
{
    char *out = at;

    h->fields = at;
    while (at < end && *at != '\r') {
        char *stop = memchr(at, '\r', (size_t)(end - at));
        if (!stop)
            return bad(w, "a header field without end");
        char *const next = stop + 2;
        if (!cut_field(at, (size_t)(stop - at), &out, w))
            return false;
        at = next;
    }
    h->fields_size = (size_t)(out - h->fields);
    return true;
}

const char *http_head_field(const struct http_head *h, const char *name, uint32_t *count_p)
{
    const char *at = h->fields, *end = at + h->fields_size, *found = NULL;
    uint32_t count = 0;

    while (at < end) {
        const char *value = at + strlen(at) + 1;
        if (same(at, name)) {
            found = found ? found : value;
            count++;
        }
        at = value + strlen(value) + 1;
    }
    if (count_p)
        *count_p = count;
    return found;
}

/* ------------------------------------------------------------------------------------- framing */

static bool read_length(const char *text, uint64_t *length_p)
{
    uint64_t length = 0;
    size_t digits = 0;

    for (; is_digit(text[digits]); digits++)
        if (digits < 18)
            length = length * 10 + (uint64_t)(text[digits] - '0');
        else
            length = UINT64_MAX / 2; /* more than anybody takes */
    *length_p = length;
    return digits > 0 && text[digits] == '\0';
}

static bool read_framing(struct http_head *h, struct http_wrong *w)
{
    uint32_t lengths, codings;
    const char *length = http_head_field(h, "Content-Length", &lengths);
    const char *coding = http_head_field(h, "Transfer-Encoding", &codings);

    if (length && coding)
        return bad(w, "both Content-Length and Transfer-Encoding");
    if (lengths > 1 || codings > 1)
        return bad(w, "more than one Content-Length or Transfer-Encoding");
    if (coding && !h->is_1_1)
        return bad(w, "Transfer-Encoding in HTTP/1.0");
    if (coding && !same(coding, "chunked"))
        return wrong(w, 501, "unsupported", "Transfer-Encoding: only chunked is taken");
    if (length && !read_length(length, &h->length))
        return bad(w, "Content-Length is not a number");
    h->chunked = coding != NULL;
    return true;
}

/* Whether a list like "keep-alive, Upgrade" has `word`. */
static bool has_word(const char *list, const char *word)
{
    const size_t size = strlen(word);

    while (list && *list) {
        list += strspn(list, " \t,");
        size_t i = 0;
        while (i < size && lower(list[i]) == word[i])
            i++;
        if (i == size && strchr(" \t,", list[i]))
            return true;
        list += strcspn(list, ",");
    }
    return false;
}

static bool read_expectations(struct http_head *h, struct http_wrong *w)
{
    uint32_t hosts;
    const char *expect = http_head_field(h, "Expect", NULL);
    const char *coding = http_head_field(h, "Content-Encoding", NULL);
    const char *connection = http_head_field(h, "Connection", NULL);

    h->keep = h->is_1_1 ? !has_word(connection, "close") : has_word(connection, "keep-alive");
    http_head_field(h, "Host", &hosts);
    if (hosts > 1 || (h->is_1_1 && hosts == 0))
        return bad(w, hosts ? "more than one Host" : "no Host");
    if (expect && !same(expect, "100-continue"))
        return wrong(w, 417, "unsupported", "Expect: only 100-continue is known");
    if (coding && !same(coding, "identity"))
        return wrong(w, 415, "unsupported", "Content-Encoding: bodies are taken as they are only");
    h->expects = expect != NULL && h->is_1_1;
    return true;
}

bool http_head_read(char *bytes, size_t size, struct http_head *h, struct http_wrong *w)
{
    char *line = bytes, *const end = bytes + size;
    struct first first;

    *h = (struct http_head){ .method = "", .path = "", .fields = "" };
    while (line < end && *line == '\r') /* empty lines before it */
        line += 2;
    char *stop = line < end ? memchr(line, '\r', (size_t)(end - line)) : NULL;
    if (!stop || !read_first(line, (size_t)(stop - line), &first, w))
        return stop ? false : bad(w, "no request");
    char *target = line + first.method_size + 1;
    line[first.method_size] = '\0';
    target[first.target_size] = '\0';
    h->method = line;
    h->is_1_1 = first.is_1_1;
    return read_target(target, h, w) && cut_fields(stop + 2, end, h, w) && read_framing(h, w) &&
           read_expectations(h, w);
}

/* --------------------------------------------------------------------------------------- chunks */

enum {
    CHUNK_SIZE, /* `extra` counts its digits */
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER, /* at the beginning of a line */
    CHUNK_TRAILER_LINE,
    CHUNK_TRAILER_LF,
    CHUNK_LAST_LF,
    CHUNK_DONE,
    CHUNK_WRONG,
};

bool http_chunks_done(const struct http_chunks *c)
{
    return c->state == CHUNK_DONE;
}

bool http_chunks_wrong(const struct http_chunks *c)
{
    return c->state == CHUNK_WRONG;
}

static uint32_t step_size(struct http_chunks *c, char byte)
{
    const int digit = hex(byte);

    if (digit >= 0 && c->extra < SIZE_DIGITS_MAX) {
        c->left = c->left * 16 + (uint64_t)digit;
        c->extra++;
        return CHUNK_SIZE;
    }
    if (digit >= 0 || c->extra == 0)
        return CHUNK_WRONG;
    if (byte == '\r')
        return CHUNK_SIZE_LF;
    return byte == ';' || byte == ' ' || byte == '\t' ? CHUNK_EXTENSION : CHUNK_WRONG;
}

static uint32_t step_extension(struct http_chunks *c, char byte)
{
    if (byte == '\r')
        return CHUNK_SIZE_LF;
    return is_control(byte) || ++c->extra > SIZE_LINE_MAX ? CHUNK_WRONG : CHUNK_EXTENSION;
}

static uint32_t step_trailer(struct http_chunks *c, char byte)
{
    if (byte == '\r')
        return c->state == CHUNK_TRAILER ? CHUNK_LAST_LF : CHUNK_TRAILER_LF;
    return is_control(byte) || ++c->extra > TRAILER_MAX ? CHUNK_WRONG : CHUNK_TRAILER_LINE;
}

/* Between data: one byte. */
static uint32_t step(struct http_chunks *c, char byte)
{
    switch (c->state) {
    case CHUNK_SIZE:
        return step_size(c, byte);
    case CHUNK_EXTENSION:
        return step_extension(c, byte);
    case CHUNK_SIZE_LF:
        c->extra = 0;
        if (byte != '\n')
            return CHUNK_WRONG;
        return c->left ? CHUNK_DATA : CHUNK_TRAILER;
    case CHUNK_DATA_CR:
        return byte == '\r' ? CHUNK_DATA_LF : CHUNK_WRONG;
    case CHUNK_DATA_LF:
        return byte == '\n' ? CHUNK_SIZE : CHUNK_WRONG;
    case CHUNK_TRAILER:
    case CHUNK_TRAILER_LINE:
        return step_trailer(c, byte);
    case CHUNK_TRAILER_LF:
        return byte == '\n' ? CHUNK_TRAILER : CHUNK_WRONG;
    case CHUNK_LAST_LF:
        return byte == '\n' ? CHUNK_DONE : CHUNK_WRONG;
    default:
        return CHUNK_WRONG;
    }
}

size_t http_chunks_take(struct http_chunks *c, const char *bytes, size_t size, const char **data_p,
                        size_t *data_size_p)
{
    size_t at = 0;

    *data_p = bytes;
    *data_size_p = 0;
    while (at < size && c->state < CHUNK_DONE) {
        if (c->state == CHUNK_DATA) {
            const size_t n = c->left < size - at ? (size_t)c->left : size - at;
            *data_p = bytes + at;
            *data_size_p = n;
            c->left -= n;
            c->state = c->left ? CHUNK_DATA : CHUNK_DATA_CR;
            return at + n;
        }
        c->state = step(c, bytes[at++]);
    }
    return at;
}
