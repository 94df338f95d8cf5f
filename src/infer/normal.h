/*
 * normal.h - text before it is tokenised: ill-formed bytes repaired, NFC, classes of characters.
 *
 * Threads: functions of their arguments. Memory: what is appended belongs to the buffer; NFC takes
 * scratch from the buffer's allocator and gives it back. Errors: buf->failed, as base/buf.h says.
 */
#ifndef INFER_NORMAL_H
#define INFER_NORMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/** Whether all of it is well-formed UTF-8. */
bool text_is_utf8(const char *text, size_t size);

/** Append `text` with U+FFFD for each maximal ill-formed part, as Python's errors="replace" does. */
void text_repair(const char *text, size_t size, struct buf *out);

/** Append the NFC form of well-formed `text`. Linear in size, whatever the text. */
void text_nfc(const char *text, size_t size, struct buf *out);

/** White_Space of the Unicode character database; what \s means in a tokenizer's pattern. */
bool char_is_blank(uint32_t code);

/** What \w means to Rust's regex: Alphabetic, marks, decimal digits, connectors, joiners. */
bool char_is_word(uint32_t code);

#endif /* INFER_NORMAL_H */
