/* prompt.c - read a prompt whole; its bytes are nobody's business but the tokenizer's. */
#include "cmd/prompt.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/error.h"
#include "os/file.h"

static mc_status read_stream(FILE *input, const char *name, const struct mc_alloc *alloc,
                             char **text_p, size_t *size_p, struct mc_error *error)
{
    struct buf text = BUF_INIT(alloc);
    char piece[4096];
    size_t n;
    mc_status status = MC_OK;

    while (text.size <= PROMPT_BYTES_MAX && (n = fread(piece, 1, sizeof(piece), input)) > 0)
        buf_add(&text, piece, n);
    if (ferror(input))
        status = errno == EINTR
                     ? error_set(error, MC_E_CANCELLED, "%s: interrupted", name)
                     : error_set(error, MC_E_IO, "%s: cannot read: %s", name, strerror(errno));
    else if (text.size > PROMPT_BYTES_MAX)
        status = error_set(error, MC_E_RANGE, "%s: more than %d bytes", name, PROMPT_BYTES_MAX);
    else if (!(*text_p = buf_take(&text, size_p)))
        status = error_set(error, MC_E_NOMEM, "%s: out of memory", name);
    buf_fini(&text);
    return status;
}

/* A file, or what a shell hands over in place of one: a pipe, <(command). */
static mc_status read_file(const char *path, const struct mc_alloc *alloc, char **text_p,
                           size_t *size_p, struct mc_error *error)
{
    if (!os_is_pipe(path))
        return os_file_read(path, PROMPT_BYTES_MAX, alloc, text_p, size_p, error);
    FILE *pipe = fopen(path, "r");
    if (!pipe)
        return error_set(error, MC_E_IO, "%s: cannot open: %s", path, strerror(errno));
    const mc_status status = read_stream(pipe, path, alloc, text_p, size_p, error);
    fclose(pipe);
    return status;
}

mc_status prompt_read(const char *text, const char *path, FILE *input, const struct mc_alloc *alloc,
                      char **text_p, size_t *size_p, struct mc_error *error)
{
    const char *source = text ? text : path;

    if (strcmp(source, "-") == 0)
        return read_stream(input, "standard input", alloc, text_p, size_p, error);
    if (!text)
        return read_file(path, alloc, text_p, size_p, error);

    const size_t size = strlen(text);
    char *copy = alloc_text(alloc, text, size);
    if (!copy)
        return error_set(error, MC_E_NOMEM, "out of memory for the prompt");
    *text_p = copy;
    *size_p = size;
    return MC_OK;
}
