/* handshake.c - greeting, hello, proof: three things to read, each checked before the next is. */
#include "wire/handshake.h"

#include <assert.h>
#include <openssl/sha.h>
#include <string.h>

#include "base/error.h"

/* What is read next. */
enum { AT_GREETING, AT_HELLO, AT_PROOF, AT_END };

enum {
    HMAC_BLOCK = 64,        /* of SHA-256 */
    OUR_HELLO_MAX = 1200,   /* four texts of 255, two hashes, a number, and their keys and sizes */
    OUTCOME_TEXT_MAX = 500, /* struct mc_error's */
    SIDE_DIALLED = 1,
    SIDE_ACCEPTED = 2,
};

static_assert(WIRE_GREETING_BYTES + WIRE_HEADER_BYTES + OUR_HELLO_MAX /* greeting and hello */
                      + WIRE_HEADER_BYTES + 40                        /* proof */
                      + WIRE_HEADER_BYTES + 20 + OUTCOME_TEXT_MAX     /* or, at last, a refusal */
                  <= WIRE_HANDSHAKE_OUT_MAX,
              "out never overflows");
static_assert(sizeof(struct mc_identity) == SHA256_DIGEST_LENGTH, "a proof is a hash");

/* ------------------------------------------------------------------------------------ the proof */

/** The HMAC's key: the secret, or its hash if it is longer than a block. */
static bool make_key(const void *secret, size_t size, uint8_t key[HMAC_BLOCK])
{
    memset(key, 0, HMAC_BLOCK);
    if (size > HMAC_BLOCK)
        return SHA256(secret, size, key) != NULL;
    if (size != 0)
        memcpy(key, secret, size);
    return true;
}

struct part {
    const uint8_t *bytes;
    size_t size;
};

/** RFC 2104 over side and parts. */
static bool hmac(const uint8_t key[HMAC_BLOCK], uint8_t side, const struct part parts[4],
                 uint8_t out[SHA256_DIGEST_LENGTH])
{
    uint8_t inner[HMAC_BLOCK + 1 + 2 * WIRE_GREETING_BYTES + OUR_HELLO_MAX + WIRE_HELLO_MAX];
    uint8_t outer[HMAC_BLOCK + SHA256_DIGEST_LENGTH];
    size_t size = 0;

    for (size_t i = 0; i < HMAC_BLOCK; i++) {
        inner[size++] = key[i] ^ 0x36;
        outer[i] = key[i] ^ 0x5c;
    }
    inner[size++] = side;
    for (size_t i = 0; i < 4; i++) {
        assert(parts[i].size <= sizeof(inner) - size);
        memcpy(inner + size, parts[i].bytes, parts[i].size);
        size += parts[i].size;
    }
    return SHA256(inner, size, outer + HMAC_BLOCK) && SHA256(outer, sizeof(outer), out);
}

/** Whether 32 bytes are equal, in a time that does not say where they differ. */
static bool equal_in_constant_time(const uint8_t *a, const uint8_t *b)
{
    volatile uint8_t differ = 0;

    for (size_t i = 0; i < SHA256_DIGEST_LENGTH; i++)
        differ = differ | (uint8_t)(a[i] ^ b[i]);
    return differ == 0;
}

/** Our proof, and the one that they must send. */
static mc_status make_proofs(struct wire_handshake *h, const struct wire_frame *hello,
                             struct mc_error *error)
{
    const struct part our_greeting = { h->out, WIRE_GREETING_BYTES };
    const struct part our_hello = { h->out + WIRE_GREETING_BYTES + WIRE_HEADER_BYTES,
                                    h->hello_size };
    const struct part their_greeting = { h->theirs, WIRE_GREETING_BYTES };
    const struct part their_hello = { hello->body, hello->body_size };
    const struct part from_us[4] = { our_greeting, their_greeting, our_hello, their_hello };
    const struct part from_them[4] = { their_greeting, our_greeting, their_hello, our_hello };

    if (!hmac(h->key, h->dialled ? SIDE_DIALLED : SIDE_ACCEPTED, from_us, h->proof) ||
        !hmac(h->key, h->dialled ? SIDE_ACCEPTED : SIDE_DIALLED, from_them, h->expected))
        return error_set(error, MC_E_NOMEM, "out of memory for a proof");
    return MC_OK;
}

/* ------------------------------------------------------------------------------------------ out */

/** Put a message behind what is in out. Returns the size of its body; 0: it cannot be encoded. */
static size_t add_frame(struct wire_handshake *h, enum wire_kind kind, const void *message)
{
    uint8_t *head = h->out + h->out_size;
    const size_t room = sizeof(h->out) - h->out_size;
    struct wire_frame frame = { .kind = kind, .body = head + WIRE_HEADER_BYTES };
    size_t size;

    if (room < WIRE_HEADER_BYTES || wire_encode(kind, message, head + WIRE_HEADER_BYTES,
                                                room - WIRE_HEADER_BYTES, &size) != MC_OK)
        return 0;
    frame.body_size = (uint32_t)size;
    wire_header_encode(&frame, head);
    h->out_size += (uint32_t)(WIRE_HEADER_BYTES + size);
    return size;
}

static void add_proof(struct wire_handshake *h)
{
    struct wire_hello_proof proof;

    memcpy(&proof.proof, h->proof, sizeof(h->proof));
    add_frame(h, WIRE_HELLO_PROOF, &proof);
}

static bool has_control(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)text[i] < 0x20 || text[i] == 0x7f)
            return true;
    return false;
}

static mc_status check_text(const char *what, const char *text, struct mc_error *error)
{
    if (strlen(text) > MC_NAME_MAX)
        return error_set(error, MC_E_RANGE, "%s: is longer than %d bytes", what, MC_NAME_MAX);
    if (has_control(text, strlen(text)))
        return error_set(error, MC_E_ARG, "%s: has control characters", what);
    return MC_OK;
}

static mc_status check_self(const struct wire_self *self, struct mc_error *error)
{
    const struct {
        const char *what, *text;
    } texts[] = { { "name", self->name },
                  { "software", self->software },
                  { "segment", self->segment },
                  { "tenant", self->tenant } };

    if (!self->name || self->name[0] == '\0')
        return error_set(error, MC_E_ARG, "name: is empty");
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const mc_status status =
            texts[i].text ? check_text(texts[i].what, texts[i].text, error) : MC_OK;
        if (status != MC_OK)
            return status;
    }
    if (self->secret && (self->secret_size == 0 || self->secret_size > WIRE_SECRET_MAX))
        return error_set(error, MC_E_RANGE, "secret: has %zu bytes; 1 to %d are allowed",
                         self->secret_size, WIRE_SECRET_MAX);
    return MC_OK;
}

static struct wire_slice text_or_none(const char *text)
{
    return text ? wire_text(text) : (struct wire_slice){ 0 };
}

mc_status wire_handshake_init(struct wire_handshake *h, const struct wire_self *self, bool dialled,
                              const struct mc_identity *nonce, struct mc_error *error)
{
    const mc_status status = check_self(self, error);
    struct wire_hello hello;

    if (status != MC_OK)
        return status;
    assert(self->incarnation != 0);
    assert(nonce || !self->secret);
    memset(h, 0, offsetof(struct wire_handshake, out)); /* the buffers may stay as they are */
    h->status = MC_PENDING;
    h->state = AT_GREETING;
    h->dialled = dialled;
    h->secret = self->secret != NULL;
    h->ours = (struct wire_greeting){
        .version = WIRE_VERSION,
        .version_min = WIRE_VERSION_MIN,
        .features = self->features | (h->secret ? WIRE_FEATURE_SECRET : 0),
        .incarnation = self->incarnation,
    };
    if (h->secret && !make_key(self->secret, self->secret_size, h->key))
        return error_set(error, MC_E_NOMEM, "out of memory for a secret");

    hello = (struct wire_hello){
        .name = wire_text(self->name),
        .role = self->role,
        .software = text_or_none(self->software),
        .segment = text_or_none(self->segment),
        .tenant = text_or_none(self->tenant),
        .host = self->host,
    };
    if (h->secret)
        hello.nonce = *nonce;
    wire_greeting_encode(&h->ours, h->out);
    h->out_size = WIRE_GREETING_BYTES;
    h->hello_size = (uint32_t)add_frame(h, WIRE_HELLO, &hello);
    if (h->hello_size == 0) /* they are short enough */
        return error_set(error, MC_E_ARG, "name, software, segment or tenant: is not UTF-8");
    assert(h->hello_size <= OUR_HELLO_MAX);
    wire_reader_init(&h->reader, h->body, sizeof(h->body), WIRE_HELLO_MAX, 0);
    return MC_OK;
}

size_t wire_handshake_out(const struct wire_handshake *h, const uint8_t **bytes_p)
{
    *bytes_p = h->out + h->out_begin;
    return h->out_size - h->out_begin;
}

void wire_handshake_sent(struct wire_handshake *h, size_t size)
{
    assert(size <= h->out_size - h->out_begin);
    h->out_begin += (uint32_t)size;
}

/* ------------------------------------------------------------------------------------------- in */

/** Their greeting is there, whole, in the reader's head. */
static mc_status take_greeting(struct wire_handshake *h, const struct wire_greeting *greeting,
                               struct mc_error *error)
{
    const bool theirs = (greeting->features & WIRE_FEATURE_SECRET) != 0;

    memcpy(h->theirs, h->reader.head, sizeof(h->theirs));
    h->peer.incarnation = greeting->incarnation;
    h->state = AT_HELLO;
    if (theirs != h->secret)
        return error_set(error, MC_E_DENIED,
                         theirs ? "the peer asks for a secret, and none is set here"
                                : "a secret is asked for here, and the peer has none");
    return wire_negotiate(&h->ours, greeting, &h->peer.version, &h->peer.features, error);
}

static mc_status copy_text(const char *what, const struct wire_slice *text,
                           char out[MC_NAME_MAX + 1], struct mc_error *error)
{
    if (text->size > MC_NAME_MAX)
        return error_set(error, MC_E_RANGE, "hello: %s: %u bytes, at most %d are allowed", what,
                         text->size, MC_NAME_MAX);
    if (has_control(text->data, text->size)) /* they end up in logs */
        return error_set(error, MC_E_FORMAT, "hello: %s: has control characters", what);
    if (text->size != 0)
        memcpy(out, text->data, text->size);
    out[text->size] = '\0';
    return MC_OK;
}

static mc_status take_hello(struct wire_handshake *h, const struct wire_frame *frame,
                            struct mc_error *error)
{
    static const struct mc_identity none;
    struct wire_hello hello;
    mc_status status = wire_decode(WIRE_HELLO, frame->body, frame->body_size, &hello, error);

    if (status != MC_OK)
        return status;
    if ((status = copy_text("name", &hello.name, h->peer.name, error)) != MC_OK ||
        (status = copy_text("software", &hello.software, h->peer.software, error)) != MC_OK ||
        (status = copy_text("segment", &hello.segment, h->peer.segment, error)) != MC_OK ||
        (status = copy_text("tenant", &hello.tenant, h->peer.tenant, error)) != MC_OK)
        return status;
    if (hello.name.size == 0)
        return error_set(error, MC_E_FORMAT, "hello: name: is empty");
    h->peer.role = hello.role;
    h->peer.host = hello.host;
    if (!h->secret) {
        h->state = AT_END;
        return MC_OK;
    }
    if (memcmp(&hello.nonce, &none, sizeof(none)) == 0)
        return error_set(error, MC_E_FORMAT, "hello: has no nonce, but a secret");
    h->state = AT_PROOF;
    status = make_proofs(h, frame, error);
    if (status == MC_OK && h->dialled)
        add_proof(h);
    return status;
}

static mc_status take_proof(struct wire_handshake *h, const struct wire_frame *frame,
                            struct mc_error *error)
{
    struct wire_hello_proof proof;
    const mc_status status =
        wire_decode(WIRE_HELLO_PROOF, frame->body, frame->body_size, &proof, error);

    if (status != MC_OK)
        return status;
    if (!equal_in_constant_time((const uint8_t *)&proof.proof, h->expected))
        return error_set(error, MC_E_DENIED, "the proof is wrong: the secrets are not the same");
    if (!h->dialled)
        add_proof(h);
    h->state = AT_END;
    return MC_OK;
}

/** They refuse, and say why. */
static mc_status take_outcome(const struct wire_frame *frame, struct mc_error *error)
{
    struct wire_outcome outcome;
    char text[200];
    const mc_status status =
        wire_decode(WIRE_OUTCOME, frame->body, frame->body_size, &outcome, error);

    if (status != MC_OK)
        return status;
    const uint32_t size =
        outcome.text.size < sizeof(text) - 1 ? outcome.text.size : (uint32_t)sizeof(text) - 1;
    for (uint32_t i = 0; i < size; i++) { /* it is a stranger's: nothing that a terminal obeys */
        const char c = ((const char *)outcome.text.data)[i];
        text[i] = c >= 0x20 && c < 0x7f ? c : '?';
    }
    text[size] = '\0';
    const bool known = outcome.status == MC_E_DENIED || outcome.status == MC_E_UNSUPPORTED;
    return error_set(error, known ? outcome.status : MC_E_PEER, "the peer refuses: %s: %s",
                     mc_status_name(outcome.status), text);
}

static mc_status take_frame(struct wire_handshake *h, const struct wire_frame *frame,
                            bool *refused_p, struct mc_error *error)
{
    *refused_p = frame->kind == WIRE_OUTCOME;
    if (frame->kind == WIRE_OUTCOME)
        return take_outcome(frame, error);
    if (h->state == AT_HELLO && frame->kind == WIRE_HELLO)
        return take_hello(h, frame, error);
    if (h->state == AT_PROOF && frame->kind == WIRE_HELLO_PROOF)
        return take_proof(h, frame, error);
    return error_set(error, MC_E_FORMAT, "a message of kind %u where a %s is due", frame->kind,
                     h->state == AT_HELLO ? "hello" : "hello_proof");
}

/** Read the next thing, if it is there: MC_OK says that it was. */
static mc_status step(struct wire_handshake *h, const uint8_t *bytes, size_t size, size_t *used_p,
                      bool *refused_p, struct mc_error *error)
{
    struct wire_greeting greeting;
    struct wire_frame frame;
    mc_status status;

    *refused_p = false;
    if (h->state == AT_GREETING) {
        status = wire_reader_greet(&h->reader, bytes, size, used_p, &greeting, error);
        return status == MC_OK ? take_greeting(h, &greeting, error) : status;
    }
    status = wire_reader_feed(&h->reader, bytes, size, used_p, &frame, error);
    return status == MC_OK ? take_frame(h, &frame, refused_p, error) : status;
}

/** Say why we go, if there is somebody who speaks this at all. */
static void refuse(struct wire_handshake *h, const struct mc_error *error)
{
    const struct wire_outcome outcome = { .status = error->status, .text = wire_text(error->text) };

    if (h->state != AT_GREETING)
        add_frame(h, WIRE_OUTCOME, &outcome);
}

mc_status wire_handshake_feed(struct wire_handshake *h, const uint8_t *bytes, size_t size,
                              size_t *used_p, struct mc_error *error)
{
    struct mc_error why = { 0 };
    mc_status status = MC_OK;
    bool refused = false;

    *used_p = 0;
    if (h->status != MC_PENDING) {
        if (h->status != MC_OK)
            error_set(error, h->status, "this connection has ended");
        return h->status;
    }
    while (status == MC_OK && h->state != AT_END) {
        size_t used;
        status = step(h, bytes ? bytes + *used_p : NULL, size - *used_p, &used, &refused, &why);
        *used_p += used;
    }
    h->status = status;
    if (status != MC_PENDING) { /* what is freed later must not hold what gives the secret away */
        memset(h->key, 0, sizeof(h->key));
        memset(h->proof, 0, sizeof(h->proof));
        memset(h->expected, 0, sizeof(h->expected));
    }
    if (status != MC_OK && status != MC_PENDING) {
        if (!refused)
            refuse(h, &why);
        error_set(error, status, "%s", why.text);
    }
    return status;
}

const struct wire_peer *wire_handshake_peer(const struct wire_handshake *h)
{
    assert(h->status == MC_OK);
    return &h->peer;
}
