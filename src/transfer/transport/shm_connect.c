/* shm_connect.c - meeting the owner of memory on its local socket, and what it hands over. */
#define _GNU_SOURCE
#include "transfer/transport/shm_queue.h"

#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"

static mc_status fail(struct shm_queue *queue, mc_status status)
{
    queue->state = SHM_FAILED;
    error_prefix(&queue->error, status, "%s", queue->name);
    return status;
}

static mc_status send_ask(struct shm_queue *queue, const struct shm_key *wanted)
{
    const struct wire_mapping_ask item = { .region = wanted ? wanted->region : 0,
                                           .generation = wanted ? wanted->generation : 0,
                                           .ticket = wanted ? wanted->ticket : 0 };
    struct shm_packet ask = { .greeting = wanted ? 0 : queue->shm->incarnation,
                              .kind = WIRE_SAME_HOST,
                              .id = 1 };

    ask.body.ask = (struct wire_same_host){ .nonce = queue->address.ask,
                                            .incarnation = queue->shm->incarnation };
    if (wanted)
        ask.body.ask.wanted = (struct wire_list){ .items = &item, .count = 1 };
    return shm_socket_send(queue->fd, &ask, &queue->error);
}

static mc_status dial(struct shm_queue *queue)
{
    mc_status status = shm_socket_dial(queue->address.name, &queue->fd, &queue->error);

    if (status == MC_PENDING)
        return MC_PENDING;
    if (status == MC_OK)
        status = send_ask(queue, NULL);
    if (status != MC_OK)
        return fail(queue, status);
    queue->state = SHM_ASKED;
    return MC_PENDING;
}

/* -------------------------------------------------------------------------------- the answer */

/* Both pages, in their order, as big as this release knows them. */
static mc_status map_pages(struct shm_queue *queue, const struct shm_packet *answer)
{
    struct wire_list list = answer->body.proof.mappings;
    const size_t sizes[2] = { sizeof(struct shm_page), sizeof(struct shm_pins) };
    void *pages[2] = { NULL, NULL };
    struct wire_mapping mapping;
    mc_status status = MC_OK;
    uint32_t count = 0;

    while (status == MC_OK && count < 2 && count < answer->fd_count &&
           wire_mapping_next(&list, &mapping) && mapping.region == 0 &&
           mapping.size == sizes[count]) {
        status = shm_memory_map(answer->fds[count], 0, sizes[count], count == 1, &pages[count],
                                &queue->error);
        count += status == MC_OK;
    }
    if (status == MC_OK && count < 2)
        status = error_set(&queue->error, MC_E_FORMAT, "shm: no control page in the answer");
    queue->page = pages[0]; /* what was mapped is ended with the connection, also after an error */
    queue->pins = pages[1];
    if (status == MC_OK && !shm_page_valid(queue->page, queue->incarnation))
        status = error_set(&queue->error, MC_E_FORMAT, "shm: not a control page");
    return status;
}

static mc_status check_proof(struct shm_queue *queue, const struct shm_packet *answer)
{
    const struct wire_same_host_proof *proof = &answer->body.proof;

    if (answer->kind == WIRE_OUTCOME)
        return error_set(&queue->error,
                         answer->body.outcome.status < 0 ? answer->body.outcome.status
                                                         : MC_E_FORMAT,
                         "shm: the peer refused: %.*s", (int)answer->body.outcome.text.size,
                         (const char *)answer->body.outcome.text.data);
    if (answer->kind != WIRE_SAME_HOST_PROOF)
        return error_set(&queue->error, MC_E_FORMAT, "shm: no answer to same_host");
    if (memcmp(&proof->nonce, &queue->address.answer, sizeof(proof->nonce)) != 0)
        return error_set(&queue->error, MC_E_DENIED, "shm: another process has the peer's socket");
    if (proof->incarnation != queue->incarnation)
        return error_set(&queue->error, MC_E_STALE, "shm: the peer has restarted");
    return MC_OK;
}

static mc_status take_proof(struct shm_queue *queue)
{
    struct shm_packet answer;
    mc_status status = shm_socket_receive(queue->fd, true, 2, &answer, &queue->error);

    if (status == MC_PENDING)
        return MC_PENDING;
    if (status != MC_OK)
        return fail(queue, status);
    status = check_proof(queue, &answer);
    if (status == MC_OK && answer.greeting != queue->incarnation)
        status = error_set(&queue->error, MC_E_STALE, "shm: the peer has restarted");
    if (status == MC_OK)
        status = map_pages(queue, &answer);
    shm_packet_close(&answer);
    if (status != MC_OK)
        return fail(queue, status);

    const uint64_t attach = answer.body.proof.attach;
    queue->process = shm_socket_process(queue->fd);
    queue->attach = queue->shm->attach && attach != 0 &&
                    shm_attach_proves(queue->process.pid, attach, &queue->address.answer,
                                      sizeof(queue->address.answer));
    queue->state = SHM_READY;
    return MC_OK;
}

mc_status shm_connect_step(struct shm_queue *queue)
{
    mc_status status = MC_PENDING;

    if (queue->state == SHM_DIALLING)
        status = dial(queue);
    if (queue->state == SHM_ASKED)
        status = take_proof(queue);
    return queue->state == SHM_READY ? MC_OK : status;
}

/* ---------------------------------------------------------------------------------- mappings */

mc_status shm_connect_ask(struct shm_queue *queue, const struct shm_key *key)
{
    assert(queue->asked.region == 0);
    const mc_status status = send_ask(queue, key);

    if (status != MC_OK)
        return fail(queue, status);
    queue->asked = *key;
    return MC_OK;
}

/* An answer that does not fit is a peer to leave; a region that cannot be mapped is reached through
 * the kernel. */
static mc_status take_mapping(struct shm_queue *queue, const struct shm_packet *answer)
{
    struct wire_list list = answer->body.proof.mappings;
    struct wire_mapping mapping = { 0 };

    if (answer->kind != WIRE_SAME_HOST_PROOF)
        return shm_map_add(queue, &queue->asked, -1, 0, 0, &queue->error);
    if (answer->fd_count != 1 || !wire_mapping_next(&list, &mapping) ||
        mapping.region != queue->asked.region || mapping.generation != queue->asked.generation)
        return error_set(&queue->error, MC_E_FORMAT, "shm: a mapping that was not asked for");
    const mc_status status = shm_map_add(queue, &queue->asked, answer->fds[0], mapping.offset,
                                         mapping.size, &queue->error);
    if (status == MC_OK || status == MC_E_FORMAT)
        return status;
    return shm_map_add(queue, &queue->asked, -1, 0, 0, &queue->error);
}

/* Whether anybody is still there: one call for socket and process. */
static bool peer_gone(const struct shm_queue *queue)
{
    struct pollfd fds[2] = { { .fd = queue->fd, .events = POLLRDHUP },
                             { .fd = queue->process.pidfd, .events = POLLIN } };

    return poll(fds, 2, 0) > 0 && (fds[0].revents != 0 || fds[1].revents != 0);
}

mc_status shm_connect_answer(struct shm_queue *queue)
{
    struct shm_packet answer;

    if (queue->asked.region != 0) {
        mc_status status = shm_socket_receive(queue->fd, false, 1, &answer, &queue->error);
        if (status == MC_PENDING && !peer_gone(queue))
            return MC_PENDING;
        if (status == MC_OK) {
            status = take_mapping(queue, &answer);
            shm_packet_close(&answer);
            queue->asked = (struct shm_key){ 0 };
        } else if (status == MC_PENDING) {
            status = error_set(&queue->error, MC_E_PEER, "shm: the peer is gone");
        }
        return status == MC_OK ? MC_OK : fail(queue, status);
    }
    if (!peer_gone(queue))
        return MC_OK;
    error_set(&queue->error, MC_E_PEER, "shm: the peer is gone");
    return fail(queue, MC_E_PEER);
}

void shm_connect_end(struct shm_queue *queue)
{
    if (queue->page)
        munmap(queue->page, sizeof(*queue->page));
    if (queue->pins)
        munmap(queue->pins, sizeof(*queue->pins));
    queue->page = NULL;
    queue->pins = NULL;
    shm_close(&queue->fd);
    shm_close(&queue->process.pidfd);
}
