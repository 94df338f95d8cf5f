/* bpe.c - byte-pair encoding: always merge the pair of lowest rank, the leftmost among equals. */
#include "infer/bpe.h"

#include <assert.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/prng.h"
#include "base/utf8.h"

enum {
    MERGES_MAX = 4 * 1024 * 1024,
    SHORT_PIECE = 48,   /* symbols up to which a scan is faster than a heap */
    BYTE_CODE_END = 324 /* one more than the highest code point that a byte is written as */
};

/* ------------------------------------------------------------------------------------ spelling */

static bool is_printable(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* Printable bytes are themselves; the 68 others are numbered from U+0100, in their order. */
static uint32_t byte_code(uint32_t byte)
{
    if (is_printable(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100 + byte;
    return byte == 0xad ? BYTE_CODE_END - 1 : 0x100 + byte - 0x7f + 0x21;
}

/* The byte that is written as `code`; false if none is. */
static bool code_byte(uint32_t code, unsigned char *byte_p)
{
    uint32_t byte = code;

    if (code >= 0x100)
        byte = code <= 0x120               ? code - 0x100
               : code == BYTE_CODE_END - 1 ? 0xad
                                           : code - 0x121 + 0x7f;
    if (byte > 0xff || byte_code(byte) != code)
        return false;
    *byte_p = (unsigned char)byte;
    return true;
}

void bpe_unspell(const char *spelling, size_t size, struct buf *out)
{
    const size_t start = out->size;

    for (size_t i = 0; i < size;) {
        uint32_t code = 0;
        unsigned char byte;
        const size_t length = utf8_decode(spelling + i, size - i, &code);

        if (length == 0 || !code_byte(code, &byte)) {
            if (out->size >= start)
                buf_truncate(out, start);
            buf_add(out, spelling, size);
            return;
        }
        buf_add_byte(out, byte);
        i += length;
    }
}

static void spell(const char *bytes, size_t size, struct buf *out)
{
    for (size_t i = 0; i < size; i++) {
        char code[4];
        buf_add(out, code, utf8_encode(byte_code((unsigned char)bytes[i]), code));
    }
}

/* ---------------------------------------------------------------------------------------- maps */

static uint32_t text_hash(const char *text, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
    return (uint32_t)(hash ^ hash >> 32);
}

static uint32_t pair_hash(uint32_t left, uint32_t right)
{
    return (uint32_t)(prng_mix((uint64_t)left << 32 | right) >> 32);
}

/* Slots for `count` keys: a power of two, at most half full. */
static uint32_t slots_for(size_t count)
{
    uint32_t slots = 16;

    while (slots < 2 * count)
        slots *= 2;
    return slots;
}

/* The slot that holds this spelling, or the empty one where it belongs. */
static uint32_t word_slot(const struct bpe *bpe, const char *spelling, size_t size)
{
    uint32_t slot = text_hash(spelling, size) & bpe->slot_mask;

    for (uint32_t id; (id = bpe->slots[slot]) != ID_NONE; slot = (slot + 1) & bpe->slot_mask) {
        const struct word *word = &bpe->words[id];
        if (word->size == size && memcmp(bpe->text + word->offset, spelling, size) == 0)
            break;
    }
    return slot;
}

uint32_t bpe_find(const struct bpe *bpe, const char *spelling, size_t size)
{
    return bpe->slots[word_slot(bpe, spelling, size)];
}

static struct pair *pair_slot(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    uint32_t slot = pair_hash(left, right) & bpe->pair_mask;

    for (;; slot = (slot + 1) & bpe->pair_mask) {
        struct pair *pair = &bpe->pairs[slot];
        if (pair->rank == ID_NONE || (pair->left == left && pair->right == right))
            return pair;
    }
}

/* ID_NONE if the two do not merge, which is above every rank. */
static uint32_t pair_rank(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    return pair_slot(bpe, left, right)->rank;
}

/* ---------------------------------------------------------------------------------------- open */

/* A setting that changes what BPE does, and which this code does not do: off, or refused. */
static mc_status refuse_set(const json_t *model, const char *key, const char *name,
                            struct mc_error *error)
{
    const json_t *value = json_object_get(model, key);
    const char *text = json_string_value(value);

    if (!value || json_is_null(value) || json_is_false(value) || (text && text[0] == '\0') ||
        (json_is_number(value) && json_number_value(value) == 0.0))
        return MC_OK;
    return error_set(error, MC_E_UNSUPPORTED,
                     "%s: model.%s is set, but only plain byte-level BPE is supported", name, key);
}

static mc_status check_settings(struct bpe *bpe, const json_t *model, const char *name,
                                struct mc_error *error)
{
    static const char *const refused[] = { "dropout", "unk_token", "continuing_subword_prefix",
                                           "end_of_word_suffix", "byte_fallback" };
    const json_t *type = json_object_get(model, "type");
    const json_t *ignore_merges = json_object_get(model, "ignore_merges");

    if (!json_is_object(model))
        return error_set(error, MC_E_FORMAT, "%s: model is missing or not an object", name);
    if (type && !json_is_string(type))
        return error_set(error, MC_E_FORMAT, "%s: model.type is not a string", name);
    if (type && strcmp(json_string_value(type), "BPE") != 0)
        return error_set(error, MC_E_UNSUPPORTED,
                         "%s: model.type \"%.80s\" is not supported, only \"BPE\"", name,
                         json_string_value(type));
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        const mc_status status = refuse_set(model, refused[i], name, error);
        if (status != MC_OK)
            return status;
    }
    if (ignore_merges && !json_is_boolean(ignore_merges) && !json_is_null(ignore_merges))
        return error_set(error, MC_E_FORMAT, "%s: model.ignore_merges is not true or false", name);
    bpe->ignore_merges = json_is_true(ignore_merges);
    return MC_OK;
}

/* Check every word and find how much memory they all need. */
static mc_status measure_words(const json_t *vocab, const char *name, uint32_t *count_p,
                               size_t *bytes_p, struct mc_error *error)
{
    const char *word;
    json_t *value;

    *count_p = 0;
    *bytes_p = 0;
    json_object_foreach((json_t *)(uintptr_t)vocab, word, value)
    {
        const json_int_t id = json_integer_value(value);
        if (!json_is_integer(value))
            return error_set(error, MC_E_FORMAT, "%s: model.vocab[\"%.80s\"] is not an integer",
                             name, word);
        if (id < 0 || id >= ID_MAX)
            return error_set(error, MC_E_RANGE,
                             "%s: model.vocab[\"%.80s\"] is %lld, but ids are 0 to %d", name, word,
                             (long long)id, ID_MAX - 1);
        if (id >= *count_p)
            *count_p = (uint32_t)id + 1;
        *bytes_p += strlen(word);
    }
    if (*bytes_p >= ID_NONE)
        return error_set(error, MC_E_RANGE, "%s: model.vocab has more than 4 GiB of words", name);
    return MC_OK;
}

static mc_status fill_words(struct bpe *bpe, const json_t *vocab, const char *name,
                            struct mc_error *error)
{
    uint32_t offset = 0;
    const char *word;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)vocab, word, value)
    {
        const uint32_t id = (uint32_t)json_integer_value(value);
        const uint32_t size = (uint32_t)strlen(word);
        const struct word *other = &bpe->words[id];

        if (other->size != ID_NONE)
            return error_set(error, MC_E_FORMAT,
                             "%s: model.vocab[\"%.80s\"] is %u, but so is \"%.*s\"", name, word, id,
                             other->size > 80 ? 80 : (int)other->size, bpe->text + other->offset);
        memcpy(bpe->text + offset, word, size);
        bpe->words[id] = (struct word){ offset, size };
        bpe->slots[word_slot(bpe, word, size)] = id; /* the keys of an object differ */
        offset += size;
    }
    return MC_OK;
}

/* Every byte that UTF-8 can hold needs a token, or text would be lost without a word. */
static mc_status find_bytes(struct bpe *bpe, const char *name, struct mc_error *error)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        const bool is_text = byte < 0xf5 && byte != 0xc0 && byte != 0xc1;
        char code[4];
        const size_t size = utf8_encode(byte_code(byte), code);

        bpe->byte_ids[byte] = bpe_find(bpe, code, size);
        if (bpe->byte_ids[byte] == ID_NONE && is_text)
            return error_set(error, MC_E_FORMAT,
                             "%s: model.vocab has no word for byte 0x%02x, written \"%.*s\"", name,
                             byte, (int)size, code);
    }
    return MC_OK;
}

static mc_status open_vocab(struct bpe *bpe, const json_t *vocab, const char *name,
                            struct mc_error *error)
{
    size_t bytes;

    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return error_set(error, MC_E_FORMAT, "%s: model.vocab is missing, empty or not an object",
                         name);
    mc_status status = measure_words(vocab, name, &bpe->count, &bytes, error);
    if (status != MC_OK)
        return status;

    const uint32_t slots = slots_for(json_object_size(vocab));
    bpe->slot_mask = slots - 1;
    bpe->text = alloc_bytes(bpe->alloc, bytes);
    bpe->words = alloc_zeroed(bpe->alloc, bpe->count, sizeof(*bpe->words));
    bpe->slots = alloc_zeroed(bpe->alloc, slots, sizeof(*bpe->slots));
    if (!bpe->text || !bpe->words || !bpe->slots)
        return error_set(error, MC_E_NOMEM, "%s: no memory for the vocabulary", name);
    memset(bpe->slots, 0xff, slots * sizeof(*bpe->slots));
    for (uint32_t i = 0; i < bpe->count; i++)
        bpe->words[i].size = ID_NONE;

    status = fill_words(bpe, vocab, name, error);
    return status == MC_OK ? find_bytes(bpe, name, error) : status;
}

/* The two halves of a merge, from "a b" or ["a", "b"]; borrowed from the JSON value. */
static bool merge_halves(const json_t *merge, const char *halves[2], size_t sizes[2])
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' '))
            return false;
        halves[0] = text;
        halves[1] = space + 1;
        sizes[0] = (size_t)(space - text);
        sizes[1] = strlen(space + 1);
        return true;
    }
    for (size_t i = 0; i < 2; i++) {
        halves[i] = json_string_value(json_array_get(merge, i));
        if (json_array_size(merge) != 2 || !halves[i])
            return false;
        sizes[i] = strlen(halves[i]);
    }
    return true;
}

static mc_status add_merge(struct bpe *bpe, const json_t *merge, uint32_t rank, struct buf *joined,
                           const char *name, struct mc_error *error)
{
    const char *halves[2];
    size_t sizes[2];
    uint32_t ids[2];

    if (!merge_halves(merge, halves, sizes))
        return error_set(error, MC_E_FORMAT,
                         "%s: model.merges[%u]: neither \"a b\" nor [\"a\", \"b\"]", name, rank);
    buf_truncate(joined, 0);
    for (size_t i = 0; i < 2; i++) {
        ids[i] = bpe_find(bpe, halves[i], sizes[i]);
        if (ids[i] == ID_NONE)
            return error_set(error, MC_E_FORMAT,
                             "%s: model.merges[%u]: \"%.*s\" is not in model.vocab", name, rank,
                             sizes[i] > 80 ? 80 : (int)sizes[i], halves[i]);
        buf_add(joined, halves[i], sizes[i]);
    }
    if (joined->failed)
        return error_set(error, MC_E_NOMEM, "%s: no memory for the merges", name);
    bpe->merged[rank] = bpe_find(bpe, joined->data, joined->size);
    if (bpe->merged[rank] == ID_NONE)
        return error_set(error, MC_E_FORMAT,
                         "%s: model.merges[%u]: \"%.80s\" is not in model.vocab", name, rank,
                         joined->data);
    /* A pair that is listed twice has its last rank, as in the `tokenizers` package. */
    *pair_slot(bpe, ids[0], ids[1]) = (struct pair){ ids[0], ids[1], rank };
    return MC_OK;
}

static mc_status open_merges(struct bpe *bpe, const json_t *merges, const char *name,
                             struct mc_error *error)
{
    const size_t count = json_array_size(merges);
    mc_status status = MC_OK;

    if (!json_is_array(merges))
        return error_set(error, MC_E_FORMAT, "%s: model.merges is missing or not an array", name);
    if (count > MERGES_MAX)
        return error_set(error, MC_E_RANGE, "%s: model.merges has %zu entries, more than %d", name,
                         count, MERGES_MAX);

    const uint32_t slots = slots_for(count);
    bpe->pair_mask = slots - 1;
    bpe->pairs = alloc_zeroed(bpe->alloc, slots, sizeof(*bpe->pairs));
    bpe->merged = alloc_zeroed(bpe->alloc, count, sizeof(*bpe->merged));
    if (!bpe->pairs || !bpe->merged)
        return error_set(error, MC_E_NOMEM, "%s: no memory for the merges", name);
    for (uint32_t i = 0; i < slots; i++)
        bpe->pairs[i].rank = ID_NONE;

    struct buf joined = BUF_INIT(bpe->alloc);
    for (uint32_t rank = 0; rank < count && status == MC_OK; rank++)
        status = add_merge(bpe, json_array_get(merges, rank), rank, &joined, name, error);
    buf_fini(&joined);
    return status;
}

mc_status bpe_open(struct bpe *bpe, const json_t *model, const char *name,
                   const struct mc_alloc *alloc, struct mc_error *error)
{
    *bpe = (struct bpe){ .alloc = alloc };

    mc_status status = check_settings(bpe, model, name, error);
    if (status == MC_OK)
        status = open_vocab(bpe, json_object_get(model, "vocab"), name, error);
    if (status == MC_OK)
        status = open_merges(bpe, json_object_get(model, "merges"), name, error);
    return status;
}

void bpe_close(struct bpe *bpe)
{
    if (!bpe->alloc)
        return;
    alloc_free(bpe->alloc, bpe->text);
    alloc_free(bpe->alloc, bpe->words);
    alloc_free(bpe->alloc, bpe->slots);
    alloc_free(bpe->alloc, bpe->pairs);
    alloc_free(bpe->alloc, bpe->merged);
    *bpe = (struct bpe){ 0 };
}

/* -------------------------------------------------------------------------------------- encode */

/* Few symbols: look at every pair each time. Returns how many symbols are left of `ids`. */
static size_t merge_short(const struct bpe *bpe, uint32_t *ids, size_t count)
{
    uint32_t ranks[SHORT_PIECE];

    assert(count <= SHORT_PIECE);
    for (size_t i = 0; i + 1 < count; i++)
        ranks[i] = pair_rank(bpe, ids[i], ids[i + 1]);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == ID_NONE)
            break;
        ids[best] = bpe->merged[ranks[best]];
        count--;
        memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof(*ids));
        memmove(ranks + best, ranks + best + 1, (count - best - 1) * sizeof(*ranks));
        if (best + 1 < count)
            ranks[best] = pair_rank(bpe, ids[best], ids[best + 1]);
        if (best > 0)
            ranks[best - 1] = pair_rank(bpe, ids[best - 1], ids[best]);
    }
    return count;
}

/* A binary heap of numbers, the least first: rank above, position below. */
static void heap_push(uint64_t *heap, size_t *count, uint64_t key)
{
    size_t i = (*count)++;

    for (; i > 0 && heap[(i - 1) / 2] > key; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count)
{
    const uint64_t top = heap[0], last = heap[--*count];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < *count; i = child) {
        if (child + 1 < *count && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= last)
            break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

/* Many symbols: a linked list of them and a heap of the pairs that merge. A pair whose symbols have
 * changed stays in the heap and is known by its rank, which belongs to one pair only. */
static size_t merge_long(const struct bpe *bpe, struct bpe_scratch *s, size_t count)
{
    uint32_t *ids = s->ids, *previous = s->previous, *next = s->next;
    const uint32_t end = (uint32_t)count;
    size_t waiting = 0;

    for (uint32_t i = 0; i < end; i++) {
        previous[i] = i - 1; /* of the first: ID_NONE */
        next[i] = i + 1;
        const uint32_t rank = i + 1 < end ? pair_rank(bpe, ids[i], ids[i + 1]) : ID_NONE;
        if (rank != ID_NONE)
            heap_push(s->heap, &waiting, (uint64_t)rank << 32 | i);
    }
    while (waiting > 0) {
        const uint64_t top = heap_pop(s->heap, &waiting);
        const uint32_t rank = (uint32_t)(top >> 32), at = (uint32_t)top, right = next[at];

        /* ids[at] is ID_NONE once a symbol was merged into the one before it. */
        if (ids[at] == ID_NONE || right == end || pair_rank(bpe, ids[at], ids[right]) != rank)
            continue;
        ids[at] = bpe->merged[rank];
        ids[right] = ID_NONE;
        next[at] = next[right];
        if (next[at] != end) {
            previous[next[at]] = at;
            const uint32_t after = pair_rank(bpe, ids[at], ids[next[at]]);
            if (after != ID_NONE)
                heap_push(s->heap, &waiting, (uint64_t)after << 32 | at);
        }
        if (previous[at] != ID_NONE) {
            const uint32_t before = pair_rank(bpe, ids[previous[at]], ids[at]);
            if (before != ID_NONE)
                heap_push(s->heap, &waiting, (uint64_t)before << 32 | previous[at]);
        }
    }
    size_t left = 0;
    for (uint32_t i = 0; i < end; i = next[i])
        ids[left++] = ids[i];
    return left;
}

static bool scratch_reserve(struct bpe_scratch *s, size_t count)
{
    if (count <= s->capacity)
        return true;

    size_t capacity = s->capacity < 256 ? 256 : s->capacity;
    while (capacity < count)
        capacity *= 2;
    uint32_t *block = alloc_zeroed(s->alloc, capacity, 3 * sizeof(*block));
    /* Each of count - 1 merges takes one candidate out and puts at most two in. */
    uint64_t *heap = alloc_zeroed(s->alloc, capacity, 2 * sizeof(*heap));
    if (!block || !heap) {
        alloc_free(s->alloc, block);
        alloc_free(s->alloc, heap);
        return false;
    }
    alloc_free(s->alloc, s->ids);
    alloc_free(s->alloc, s->heap);
    s->ids = block;
    s->previous = block + capacity;
    s->next = block + 2 * capacity;
    s->heap = heap;
    s->capacity = capacity;
    return true;
}

void bpe_scratch_fini(struct bpe_scratch *scratch)
{
    alloc_free(scratch->alloc, scratch->ids);
    alloc_free(scratch->alloc, scratch->heap);
    buf_fini(&scratch->spelled);
    *scratch = (struct bpe_scratch){ .alloc = scratch->alloc };
}

/* With ignore_merges, the word that the whole piece is, or ID_NONE. */
static mc_status find_whole(const struct bpe *bpe, const char *bytes, size_t size,
                            struct bpe_scratch *scratch, uint32_t *id_p)
{
    *id_p = ID_NONE;
    if (!bpe->ignore_merges)
        return MC_OK;
    scratch->spelled.alloc = scratch->alloc;
    buf_truncate(&scratch->spelled, 0);
    spell(bytes, size, &scratch->spelled);
    if (scratch->spelled.failed)
        return MC_E_NOMEM;
    *id_p = bpe_find(bpe, scratch->spelled.data, scratch->spelled.size);
    return MC_OK;
}

mc_status bpe_encode(const struct bpe *bpe, const char *bytes, size_t size,
                     struct bpe_scratch *scratch, struct tokens *out)
{
    uint32_t whole;
    size_t count = 0;

    if (size >= ID_NONE)
        return MC_E_RANGE;
    const mc_status status = find_whole(bpe, bytes, size, scratch, &whole);
    if (status != MC_OK)
        return status;
    if (whole != ID_NONE)
        return tokens_add(out, &whole, 1);

    if (!scratch_reserve(scratch, size))
        return MC_E_NOMEM;
    for (size_t i = 0; i < size; i++) {
        scratch->ids[count++] = bpe->byte_ids[(unsigned char)bytes[i]];
        assert(scratch->ids[count - 1] != ID_NONE); /* text is UTF-8 */
    }
    count = count <= SHORT_PIECE ? merge_short(bpe, scratch->ids, count)
                                 : merge_long(bpe, scratch, count);
    return tokens_add(out, scratch->ids, count);
}
