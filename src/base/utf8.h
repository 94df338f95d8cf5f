/*
 * utf8.h - one code point at a time, strictly as RFC 3629 says (no surrogates, no overlong forms).
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/** Bytes (1..4) of the code point at `text`, written to *code_p; 0 if the bytes are not UTF-8. */
size_t utf8_decode(const char *text, size_t size, uint32_t *code_p);

/** Writes 1..4 bytes to `out` and returns how many. code <= 0x10ffff and no surrogate. */
size_t utf8_encode(uint32_t code, char out[4]);

/**
 * How many bytes from the start of `text` can be shown now: all complete characters and all bytes
 * that no later byte can complete. The rest (0..3 bytes) is the start of a character that a next
 * token may finish; a stream keeps it back.
 */
size_t utf8_complete(const char *text, size_t size);

#endif /* BASE_UTF8_H */
