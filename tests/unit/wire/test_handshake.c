/* test_handshake.c - two sides in memory, and what a third one can try. */
#include "test.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/crc.h"
#include "base/prng.h"
#include "wire/bytes.h"
#include "wire/handshake.h"

enum { HELLO_AT = WIRE_GREETING_BYTES + WIRE_HEADER_BYTES };

static const struct mc_identity NONCE_A = { { 1, 2, 3 } }, NONCE_B = { { 9, 8, 7 } };

static struct wire_self self_a(const char *secret)
{
    return (struct wire_self){
        .incarnation = 11,
        .features = WIRE_FEATURE_CHECKSUM | WIRE_FEATURE_SAME_HOST,
        .role = 1,
        .name = "alice",
        .software = "mooncake 0.1.0",
        .segment = "seg-a",
        .tenant = "blue",
        .host = { { 5 } },
        .secret = secret,
        .secret_size = secret ? strlen(secret) : 0,
    };
}

static struct wire_self self_b(const char *secret)
{
    return (struct wire_self){
        .incarnation = 22,
        .features = WIRE_FEATURE_SAME_HOST,
        .role = 2,
        .name = "b\xc3\xb6rje",
        .secret = secret,
        .secret_size = secret ? strlen(secret) : 0,
    };
}

struct side {
    struct wire_handshake h;
    mc_status status;
    struct mc_error error;
    bool proof_came;
};

static void begin(struct side *side, const struct wire_self *self, bool dialled)
{
    side->status = MC_PENDING;
    side->error = (struct mc_error){ 0 };
    assert_int_equal(
        wire_handshake_init(&side->h, self, dialled, dialled ? &NONCE_A : &NONCE_B, NULL), MC_OK);
}

/** Feed all of `bytes` in pieces, as long as the handshake takes them. */
static size_t feed(struct side *side, const uint8_t *bytes, size_t size, size_t piece)
{
    size_t at = 0, used = 1;

    while (at < size && side->status == MC_PENDING && used > 0) {
        const size_t part = size - at < piece ? size - at : piece;
        side->status = wire_handshake_feed(&side->h, bytes + at, part, &used, &side->error);
        assert_true(used <= part);
        at += used;
    }
    return at;
}

/** Carry what `from` has to say; whether it had something. */
static bool carry(struct side *from, struct side *to, size_t piece)
{
    const uint8_t *bytes;
    const size_t size = wire_handshake_out(&from->h, &bytes);
    uint8_t copy[WIRE_HANDSHAKE_OUT_MAX];

    if (size == 0)
        return false;
    memcpy(copy, bytes, size);
    wire_handshake_sent(&from->h, size);
    feed(to, copy, size, piece);
    return true;
}

static void talk(struct side *a, struct side *b, size_t piece)
{
    for (;;) {
        const bool said = carry(a, b, piece), answered = carry(b, a, piece);
        if (!said && !answered)
            return;
    }
}

static void assert_met(const struct side *a, const struct side *b, bool secret)
{
    const struct wire_peer *of_b = wire_handshake_peer(&a->h), *of_a = wire_handshake_peer(&b->h);

    assert_int_equal(of_a->incarnation, 11);
    assert_int_equal(of_a->role, 1);
    assert_string_equal(of_a->name, "alice");
    assert_string_equal(of_a->software, "mooncake 0.1.0");
    assert_string_equal(of_a->segment, "seg-a");
    assert_string_equal(of_a->tenant, "blue");
    assert_int_equal(of_a->host.bytes[0], 5);
    assert_int_equal(of_b->incarnation, 22);
    assert_int_equal(of_b->role, 2);
    assert_string_equal(of_b->name, "b\xc3\xb6rje");
    assert_string_equal(of_b->software, "");
    assert_string_equal(of_b->tenant, "");
    assert_int_equal(of_b->version, WIRE_VERSION);
    assert_int_equal(of_a->features, WIRE_FEATURE_SAME_HOST | (secret ? WIRE_FEATURE_SECRET : 0));
    assert_int_equal(of_b->features, of_a->features);
}

static void test_two_sides_meet_however_the_bytes_come(void **state)
{
    (void)state;
    static const char *const secrets[] = {
        NULL,
        "s",
        "a secret of some length",
        "one that is longer than a block of SHA-256, so that its hash takes its place as the key",
    };
    for (size_t s = 0; s < sizeof(secrets) / sizeof(secrets[0]); s++) {
        const struct wire_self one = self_a(secrets[s]), two = self_b(secrets[s]);
        for (size_t piece = 1; piece < 300; piece += piece < 50 ? 1 : 37) {
            struct side a, b;
            begin(&a, &one, true);
            begin(&b, &two, false);
            talk(&a, &b, piece);
            assert_int_equal(a.status, MC_OK);
            assert_int_equal(b.status, MC_OK);
            assert_met(&a, &b, secrets[s] != NULL);
        }
    }
}

static void test_what_follows_is_not_taken(void **state)
{
    (void)state;
    const struct wire_self one = self_a(NULL), two = self_b(NULL);
    struct side a, b;
    uint8_t bytes[WIRE_HANDSHAKE_OUT_MAX + 5];
    const uint8_t *out;

    begin(&a, &one, true);
    begin(&b, &two, false);
    const size_t size = wire_handshake_out(&a.h, &out);
    memcpy(bytes, out, size);
    memcpy(bytes + size, "later", 5);
    assert_int_equal(feed(&b, bytes, size + 5, SIZE_MAX), size);
    assert_int_equal(b.status, MC_OK);
    size_t used = 9;
    assert_int_equal(wire_handshake_feed(&b.h, bytes + size, 5, &used, NULL), MC_OK);
    assert_int_equal(used, 0);
}

/** Where the proof lies that `side` is about to send, or NULL. */
static const uint8_t *proof_of(const struct side *side)
{
    const uint8_t *out;
    const size_t size = wire_handshake_out(&side->h, &out);

    for (size_t at = 0; at + WIRE_HEADER_BYTES + 34 <= size; at++)
        if (get_u32(out + at) == 34 && get_u16(out + at + 4) == WIRE_HELLO_PROOF &&
            get_u32(out + at + 36) == crc32c(0, out + at, 36))
            return out + at + WIRE_HEADER_BYTES + 2;
    return NULL;
}

static void test_the_proof_is_the_hmac_that_is_written_down(void **state)
{
    (void)state;
    static const char *const secrets[] = {
        "short",
        "one that is longer than a block of SHA-256, so that its hash takes its place as key",
    };
    for (size_t s = 0; s < 2; s++) {
        const struct wire_self one = self_a(secrets[s]), two = self_b(secrets[s]);
        struct side a, b;
        begin(&a, &one, true);
        begin(&b, &two, false);

        const uint8_t *of_a, *of_b;
        const size_t a_size = wire_handshake_out(&a.h, &of_a);
        const size_t b_size = wire_handshake_out(&b.h, &of_b);
        uint8_t text[2000] = { 1 }, expected[32];
        size_t size = 1;
        memcpy(text + size, of_a, WIRE_GREETING_BYTES);
        size += WIRE_GREETING_BYTES;
        memcpy(text + size, of_b, WIRE_GREETING_BYTES);
        size += WIRE_GREETING_BYTES;
        memcpy(text + size, of_a + HELLO_AT, a_size - HELLO_AT);
        size += a_size - HELLO_AT;
        memcpy(text + size, of_b + HELLO_AT, b_size - HELLO_AT);
        size += b_size - HELLO_AT;
        assert_non_null(
            HMAC(EVP_sha256(), secrets[s], (int)strlen(secrets[s]), text, size, expected, NULL));

        carry(&b, &a, SIZE_MAX);
        assert_non_null(proof_of(&a));
        assert_memory_equal(proof_of(&a), expected, 32);
    }
}

static void test_different_secrets_are_denied_on_both_sides_and_give_no_proof_away(void **state)
{
    (void)state;
    const struct wire_self one = self_a("right"), two = self_b("wrong");
    struct side a, b;

    begin(&a, &one, true);
    begin(&b, &two, false);
    assert_true(carry(&a, &b, SIZE_MAX));
    assert_null(proof_of(&b)); /* who accepts gives none before it has one */
    assert_true(carry(&b, &a, SIZE_MAX));
    assert_non_null(proof_of(&a));
    assert_true(carry(&a, &b, SIZE_MAX));
    assert_int_equal(b.status, MC_E_DENIED);
    assert_null(proof_of(&b));
    assert_true(carry(&b, &a, SIZE_MAX)); /* the refusal */
    assert_int_equal(a.status, MC_E_DENIED);
    assert_non_null(strstr(a.error.text, "refuses"));
    assert_non_null(strstr(a.error.text, "secrets are not the same"));
    size_t used;
    assert_int_equal(wire_handshake_feed(&a.h, (const uint8_t *)"x", 1, &used, NULL), MC_E_DENIED);
}

static void test_a_secret_and_none_are_denied_on_both_sides(void **state)
{
    (void)state;
    for (int who = 0; who < 2; who++) {
        const struct wire_self one = self_a(who ? "s" : NULL), two = self_b(who ? NULL : "s");
        struct side a, b;
        begin(&a, &one, true);
        begin(&b, &two, false);
        talk(&a, &b, SIZE_MAX);
        assert_int_equal(a.status, MC_E_DENIED);
        assert_int_equal(b.status, MC_E_DENIED);
        assert_non_null(strstr(a.error.text, "secret"));
        assert_non_null(strstr(b.error.text, "secret"));
    }
}

static void test_who_is_given_his_own_bytes_back_believes_nothing(void **state)
{
    (void)state;
    const struct wire_self one = self_a("s");

    for (int dialled = 0; dialled < 2; dialled++) {
        struct side a;
        begin(&a, &one, dialled);
        while (carry(&a, &a, SIZE_MAX) && a.status == MC_PENDING)
            ;
        assert_int_not_equal(a.status, MC_OK);
    }
}

static void test_two_who_accept_cannot_be_made_to_vouch_for_each_other(void **state)
{
    (void)state;
    const struct wire_self one = self_a("s"), two = self_b("s");

    for (int dialled = 0; dialled < 2; dialled++) {
        struct side a, b;
        begin(&a, &one, dialled);
        begin(&b, &two, dialled);
        talk(&a, &b, SIZE_MAX);
        assert_int_not_equal(a.status, MC_OK);
        assert_int_not_equal(b.status, MC_OK);
    }
}

/** The sums of greeting and hello, as who changes them on the way would make them. */
static void repair(uint8_t *bytes)
{
    put_u32(bytes + 28, crc32c(0, bytes, 28));
    uint8_t *head = bytes + WIRE_GREETING_BYTES;
    put_u32(head + 32, crc32c(0, head + WIRE_HEADER_BYTES, get_u32(head)));
    put_u32(head + 36, crc32c(0, head, 36));
}

static void test_no_bit_of_greeting_or_hello_can_be_changed_on_the_way(void **state)
{
    (void)state;
    const struct wire_self one = self_a("s"), two = self_b("s");
    struct side a, b;
    const uint8_t *out;

    begin(&a, &one, true);
    const size_t size = wire_handshake_out(&a.h, &out);
    for (size_t bit = 0; bit < size * 8; bit++) {
        const size_t at = bit / 8;
        if ((at >= 24 && at < 32) || (at >= WIRE_GREETING_BYTES && at < HELLO_AT))
            continue; /* reserved and sums; the frame's header, which is not part of it */
        uint8_t bytes[WIRE_HANDSHAKE_OUT_MAX];
        begin(&a, &one, true);
        begin(&b, &two, false);
        wire_handshake_out(&a.h, &out);
        memcpy(bytes, out, size);
        bytes[at] ^= (uint8_t)(1 << bit % 8);
        repair(bytes);
        wire_handshake_sent(&a.h, size);
        feed(&b, bytes, size, SIZE_MAX);
        talk(&b, &a, SIZE_MAX);
        assert_int_not_equal(b.status, MC_OK);
        assert_int_not_equal(a.status, MC_OK);
        assert_string_not_equal(b.error.text, "");
    }
}

/** Feed a greeting and one frame. */
static void feed_frame(struct side *side, uint64_t features, uint32_t kind, const void *body,
                       size_t size, uint64_t payload)
{
    uint8_t bytes[HELLO_AT + WIRE_HELLO_MAX + 1];
    const struct wire_greeting greeting = { 1, 1, features, 33 };
    const struct wire_frame frame = {
        .kind = kind, .body = body, .body_size = (uint32_t)size, .payload = payload
    };

    assert_true(size <= WIRE_HELLO_MAX + 1);
    wire_greeting_encode(&greeting, bytes);
    wire_header_encode(&frame, bytes + WIRE_GREETING_BYTES);
    if (size)
        memcpy(bytes + HELLO_AT, body, size);
    feed(side, bytes, HELLO_AT + size, SIZE_MAX);
}

static void feed_message(struct side *side, uint64_t features, enum wire_kind kind,
                         const void *message)
{
    uint8_t body[WIRE_HELLO_MAX + 1];
    size_t size;

    assert_int_equal(wire_encode(kind, message, body, sizeof(body), &size), MC_OK);
    feed_frame(side, features, kind, body, size, 0);
}

/** What it says last: the refusal's status. */
static mc_status refusal_of(const struct side *side)
{
    const uint8_t *out;
    const size_t size = wire_handshake_out(&side->h, &out);
    struct wire_outcome outcome;

    const size_t first = HELLO_AT + side->h.hello_size; /* greeting and hello were not sent yet */
    assert_true(size > first + WIRE_HEADER_BYTES);
    assert_int_equal(get_u16(out + first + 4), WIRE_OUTCOME);
    assert_int_equal(wire_decode(WIRE_OUTCOME, out + first + WIRE_HEADER_BYTES,
                                 size - first - WIRE_HEADER_BYTES, &outcome, NULL),
                     MC_OK);
    return outcome.status;
}

static void test_hellos_that_may_not_be_are_refused_with_their_reason(void **state)
{
    (void)state;
    char longest[MC_NAME_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    longest[MC_NAME_MAX + 1] = '\0';
    const struct wire_hello hellos[] = {
        { .name = wire_text(longest) },
        { .name = wire_text("n"), .software = wire_text(longest) },
        { .name = wire_text("n"), .segment = wire_text(longest) },
        { .name = wire_text("n"), .tenant = wire_text(longest) },
        { .name = wire_text("two\nlines") },
        { .name = wire_text("n"), .tenant = wire_text("\x1b[2J") },
        { .name = wire_text("") },
    };
    static const mc_status expected[] = { MC_E_RANGE,  MC_E_RANGE,  MC_E_RANGE, MC_E_RANGE,
                                          MC_E_FORMAT, MC_E_FORMAT, MC_E_FORMAT };
    const struct wire_self one = self_a(NULL);

    for (size_t i = 0; i < sizeof(hellos) / sizeof(hellos[0]); i++) {
        struct side a;
        begin(&a, &one, i % 2);
        feed_message(&a, 0, WIRE_HELLO, &hellos[i]);
        assert_int_equal(a.status, expected[i]);
        assert_int_equal(refusal_of(&a), expected[i]);
        assert_ptr_equal(strstr(a.error.text, "hello: "), a.error.text);
    }
    longest[MC_NAME_MAX] = '\0'; /* and the longest that may be */
    const struct wire_hello longest_hello = { .name = wire_text(longest) };
    struct side a;
    begin(&a, &one, true);
    feed_message(&a, 0, WIRE_HELLO, &longest_hello);
    assert_int_equal(a.status, MC_OK);
    assert_string_equal(wire_handshake_peer(&a.h)->name, longest);
}

static void test_a_secret_without_a_nonce_is_refused(void **state)
{
    (void)state;
    const struct wire_self one = self_a("s");
    const struct wire_hello hello = { .name = wire_text("n") };
    struct side a;

    begin(&a, &one, true);
    feed_message(&a, WIRE_FEATURE_SECRET, WIRE_HELLO, &hello);
    assert_int_equal(a.status, MC_E_FORMAT);
    assert_null(proof_of(&a));
}

static void test_what_is_out_of_turn_is_refused(void **state)
{
    (void)state;
    const struct wire_ping ping = { 5 };
    const struct wire_hello_proof proof = { { { 0 } } };
    const struct wire_hello hello = { .name = wire_text("n"), .nonce = NONCE_B };
    const struct wire_self open = self_a(NULL), closed = self_a("s");
    struct side a;

    begin(&a, &open, true);
    feed_message(&a, 0, WIRE_PING, &ping);
    assert_int_equal(a.status, MC_E_FORMAT);
    begin(&a, &closed, true);
    feed_message(&a, WIRE_FEATURE_SECRET, WIRE_HELLO_PROOF, &proof);
    assert_int_equal(a.status, MC_E_FORMAT);
    begin(&a, &closed, true); /* a hello where the proof is due */
    feed_message(&a, WIRE_FEATURE_SECRET, WIRE_HELLO, &hello);
    assert_int_equal(a.status, MC_PENDING);
    struct side b = { .status = MC_PENDING };
    b.h = a.h;
    uint8_t frame[200];
    size_t size;
    assert_int_equal(wire_encode(WIRE_HELLO, &hello, frame + WIRE_HEADER_BYTES, 160, &size), MC_OK);
    wire_header_encode(&(struct wire_frame){ .kind = WIRE_HELLO,
                                             .body = frame + WIRE_HEADER_BYTES,
                                             .body_size = (uint32_t)size },
                       frame);
    feed(&a, frame, WIRE_HEADER_BYTES + size, SIZE_MAX);
    assert_int_equal(a.status, MC_E_FORMAT);
    /* A wrong proof where it is due. */
    assert_int_equal(wire_encode(WIRE_HELLO_PROOF, &proof, frame + WIRE_HEADER_BYTES, 160, &size),
                     MC_OK);
    wire_header_encode(&(struct wire_frame){ .kind = WIRE_HELLO_PROOF,
                                             .body = frame + WIRE_HEADER_BYTES,
                                             .body_size = (uint32_t)size },
                       frame);
    b.h.reader.body = b.h.body;
    feed(&b, frame, WIRE_HEADER_BYTES + size, SIZE_MAX);
    assert_int_equal(b.status, MC_E_DENIED);
}

static void test_what_is_too_large_is_refused_before_it_is_read(void **state)
{
    (void)state;
    static const uint8_t zeros[WIRE_HELLO_MAX + 1];
    const struct wire_self one = self_a(NULL);
    struct side a;

    begin(&a, &one, true);
    feed_frame(&a, 0, WIRE_HELLO, zeros, WIRE_HELLO_MAX + 1, 0);
    assert_int_equal(a.status, MC_E_RANGE);
    begin(&a, &one, true);
    feed_frame(&a, 0, WIRE_HELLO, NULL, 0, 1);
    assert_int_equal(a.status, MC_E_RANGE);
    begin(&a, &one, true);
    feed_frame(&a, 0, WIRE_HELLO, zeros, WIRE_HELLO_MAX, 0); /* read, and not a hello */
    assert_int_equal(a.status, MC_E_FORMAT);
}

static void test_a_hello_with_fields_from_later_is_understood(void **state)
{
    (void)state;
    const struct wire_hello hello = { .name = wire_text("n") };
    const struct wire_self one = self_a(NULL);
    uint8_t body[3000];
    size_t size;
    struct side a;

    assert_int_equal(wire_encode(WIRE_HELLO, &hello, body, sizeof(body), &size), MC_OK);
    put_u16(body + size, 99 << 3 | 4);
    put_u32(body + size + 2, 2000);
    memset(body + size + 6, 7, 2000);
    begin(&a, &one, true);
    feed_frame(&a, 0, WIRE_HELLO, body, size + 6 + 2000, 0);
    assert_int_equal(a.status, MC_OK);
}

static void test_features_that_we_do_not_know_and_they_insist_on_are_refused(void **state)
{
    (void)state;
    const struct wire_hello hello = { .name = wire_text("n") };
    const struct wire_self one = self_a(NULL);
    struct side a;

    begin(&a, &one, true);
    feed_message(&a, UINT64_C(1) << 40, WIRE_HELLO, &hello);
    assert_int_equal(a.status, MC_E_UNSUPPORTED);
    assert_int_equal(refusal_of(&a), MC_E_UNSUPPORTED);
}

static void test_who_does_not_speak_this_gets_no_answer(void **state)
{
    (void)state;
    const struct wire_self one = self_a(NULL);
    struct side a;
    const uint8_t *out;
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost:8000\r\n\r\n";

    begin(&a, &one, false);
    const size_t before = wire_handshake_out(&a.h, &out);
    feed(&a, (const uint8_t *)http, sizeof(http) - 1, SIZE_MAX);
    assert_int_equal(a.status, MC_E_FORMAT);
    assert_int_equal(wire_handshake_out(&a.h, &out), before);
}

static void test_a_refusal_is_passed_on_without_what_a_terminal_obeys(void **state)
{
    (void)state;
    static const struct {
        mc_status theirs, ours;
    } cases[] = { { MC_E_DENIED, MC_E_DENIED },
                  { MC_E_UNSUPPORTED, MC_E_UNSUPPORTED },
                  { MC_E_NOMEM, MC_E_PEER },
                  { MC_OK, MC_E_PEER },
                  { (mc_status)12345, MC_E_PEER } };
    const struct wire_self one = self_a(NULL);
    char text[600];
    memset(text, 'y', sizeof(text) - 1);
    text[599] = '\0';
    memcpy(text, "no\x1b[2J\n", 7);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct wire_outcome outcome = { .status = cases[i].theirs,
                                              .text = wire_text(i ? text : "") };
        struct side a;
        begin(&a, &one, true);
        feed_message(&a, 0, WIRE_OUTCOME, &outcome);
        assert_int_equal(a.status, cases[i].ours);
        assert_non_null(strstr(a.error.text, mc_status_name(cases[i].theirs)));
        if (i)
            assert_non_null(strstr(a.error.text, "no?[2J?yyy"));
        const uint8_t *out; /* a refusal is not answered by one */
        assert_int_equal(wire_handshake_out(&a.h, &out), HELLO_AT + a.h.hello_size);
    }
}

static void test_random_bytes_end_without_harm(void **state)
{
    (void)state;
    const struct wire_self one = self_a("s");
    struct prng prng = { .seed = 5 };

    for (int round = 0; round < 2000; round++) {
        uint8_t bytes[300];
        struct side a;
        begin(&a, &one, round % 2);
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)prng_next(&prng);
        if (round % 4 == 0) /* behind a greeting that is right */
            wire_greeting_encode(&(struct wire_greeting){ 1, 1, WIRE_FEATURE_SECRET, 9 }, bytes);
        feed(&a, bytes, sizeof(bytes), 1 + prng_below(&prng, 300));
        assert_true(a.status < 0);
    }
}

static void test_a_self_that_may_not_be_is_refused_by_field(void **state)
{
    (void)state;
    char longest[MC_NAME_MAX + 2];
    static const char secret[WIRE_SECRET_MAX + 1];
    static struct wire_handshake h;
    memset(longest, 'x', sizeof(longest));
    longest[MC_NAME_MAX + 1] = '\0';
    const struct {
        struct wire_self self;
        mc_status status;
        const char *what;
    } cases[] = {
        { { .incarnation = 1 }, MC_E_ARG, "name" },
        { { .incarnation = 1, .name = "" }, MC_E_ARG, "name" },
        { { .incarnation = 1, .name = longest }, MC_E_RANGE, "name" },
        { { .incarnation = 1, .name = "n", .tenant = longest }, MC_E_RANGE, "tenant" },
        { { .incarnation = 1, .name = "n", .segment = "a\tb" }, MC_E_ARG, "segment" },
        { { .incarnation = 1, .name = "\xff" }, MC_E_ARG, "UTF-8" },
        { { .incarnation = 1, .name = "n", .secret = secret, .secret_size = sizeof(secret) },
          MC_E_RANGE,
          "secret" },
        { { .incarnation = 1, .name = "n", .secret = secret }, MC_E_RANGE, "secret" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mc_error error = { 0 };
        assert_int_equal(wire_handshake_init(&h, &cases[i].self, true, &NONCE_A, &error),
                         cases[i].status);
        assert_non_null(strstr(error.text, cases[i].what));
    }
}

static void test_the_largest_handshake_fits(void **state)
{
    (void)state;
    char longest[MC_NAME_MAX + 1];
    static const char secret[WIRE_SECRET_MAX];
    memset(longest, 'x', sizeof(longest));
    longest[MC_NAME_MAX] = '\0';
    const struct wire_self one = { .incarnation = UINT64_MAX,
                                   .role = UINT32_MAX,
                                   .name = longest,
                                   .software = longest,
                                   .segment = longest,
                                   .tenant = longest,
                                   .host = NONCE_A,
                                   .secret = secret,
                                   .secret_size = sizeof(secret) };
    struct side a, b;

    begin(&a, &one, true);
    begin(&b, &one, false);
    talk(&a, &b, 7);
    assert_int_equal(a.status, MC_OK);
    assert_int_equal(b.status, MC_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_sides_meet_however_the_bytes_come),
        cmocka_unit_test(test_what_follows_is_not_taken),
        cmocka_unit_test(test_the_proof_is_the_hmac_that_is_written_down),
        cmocka_unit_test(test_different_secrets_are_denied_on_both_sides_and_give_no_proof_away),
        cmocka_unit_test(test_a_secret_and_none_are_denied_on_both_sides),
        cmocka_unit_test(test_who_is_given_his_own_bytes_back_believes_nothing),
        cmocka_unit_test(test_two_who_accept_cannot_be_made_to_vouch_for_each_other),
        cmocka_unit_test(test_no_bit_of_greeting_or_hello_can_be_changed_on_the_way),
        cmocka_unit_test(test_hellos_that_may_not_be_are_refused_with_their_reason),
        cmocka_unit_test(test_a_secret_without_a_nonce_is_refused),
        cmocka_unit_test(test_what_is_out_of_turn_is_refused),
        cmocka_unit_test(test_what_is_too_large_is_refused_before_it_is_read),
        cmocka_unit_test(test_a_hello_with_fields_from_later_is_understood),
        cmocka_unit_test(test_features_that_we_do_not_know_and_they_insist_on_are_refused),
        cmocka_unit_test(test_who_does_not_speak_this_gets_no_answer),
        cmocka_unit_test(test_a_refusal_is_passed_on_without_what_a_terminal_obeys),
        cmocka_unit_test(test_random_bytes_end_without_harm),
        cmocka_unit_test(test_a_self_that_may_not_be_is_refused_by_field),
        cmocka_unit_test(test_the_largest_handshake_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
