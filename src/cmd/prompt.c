/* prompt.c - read a prompt whole; its bytes are nobody's business but the tokenizer's. */
#include "cmd/prompt.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/error.h"
#include "os/file.h"

static mc_status read_stream(FILE *input, const struct mc_alloc *alloc, char **text_p,
                             size_t *size_p, struct mc_error *error)
{
    struct buf text = BUF_INIT(alloc);
    char piece[4096];
    size_t n;
    mc_status status = MC_OK;

    while (text.size <= PROMPT_BYTES_MAX && (n = fread(piece, 1, sizeof(piece), input)) > 0)
        buf_add(&text, piece, n);
    if (ferror(input))
        status = errno == EINTR ? error_set(error, MC_E_CANCELLED, "standard input: interrupted")
                                : error_set(error, MC_E_IO, "standard input: cannot read: %s",
                                            strerror(errno));
    else if (text.size > PROMPT_BYTES_MAX)
        status =
            error_set(error, MC_E_RANGE, "standard input: more than %d bytes", PROMPT_BYTES_MAX);
    else if (!(*text_p = buf_take(&text, size_p)))
        status = error_set(error, MC_E_NOMEM, "standard input: out of memory");
    buf_fini(&text);
    return status;
}

mc_status prompt_read(const char *text, const char *path, FILE *input, const struct mc_alloc *alloc,
                      char **text_p, size_t *size_p, struct mc_error *error)
{
    const char *source = text ? text : path;

    if (strcmp(source, "-") == 0)
        return read_stream(input, alloc, text_p, size_p, error);
    if (!text)
        return os_file_read(path, PROMPT_BYTES_MAX, alloc, text_p, size_p, error);

    const size_t size = strlen(text);
    char *copy = alloc_text(alloc, text, size);
    if (!copy)
        return error_set(error, MC_E_NOMEM, "out of memory for the prompt");
    *text_p = copy;
    *size_p = size;
    return MC_OK;
}
