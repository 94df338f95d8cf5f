/* answers.c - samples as messages and back, and the tokens of an answer on their way to its gateway. */
#include <math.h>
#include <string.h>

#include "worker/state.h"

/* wire's names of how an answer ends (tokens.finish) */
enum { FINISH_GOES_ON, FINISH_STOP, FINISH_LENGTH, FINISH_FAILED, FINISH_CANCELLED };

struct wire_sample answer_sample(const struct mc_sample *sample,
                                 struct wire_token_logprob top[MC_TOP_LOGPROBS_MAX])
{
    for (uint32_t i = 0; i < sample->top_count; i++)
        top[i] = (struct wire_token_logprob){ sample->top[i].token, sample->top[i].logprob };
    return (struct wire_sample){ .token = sample->chosen.token,
                                 .logprob = sample->chosen.logprob,
                                 .top = { .items = top, .count = sample->top_count } };
}

bool answer_read_sample(const struct wire_sample *message, struct mc_sample *sample_p)
{
    struct wire_list top = message->top;
    struct wire_token_logprob item;
    struct mc_sample sample = { .chosen = { message->token, message->logprob } };

    if (top.count > MC_TOP_LOGPROBS_MAX || isnan(message->logprob))
        return false;
    while (wire_token_logprob_next(&top, &item))
        sample.top[sample.top_count++] = (struct mc_token_logprob){ item.token, item.logprob };
    *sample_p = sample;
    return true;
}

static bool send(struct answer *answer, const struct wire_tokens *message)
{
    struct gateway_link *gateway = answer->gateway;

    if (!gateway)
        return true; /* nobody listens, and whoever ends the request knows */
    return net_send(gateway->conn, WIRE_TOKENS, message) == MC_OK;
}

bool answer_token(struct answer *answer, const struct mc_sample *sample, enum request_finish finish,
                  uint64_t step_ns)
{
    struct wire_token_logprob top[MC_TOP_LOGPROBS_MAX];
    const struct wire_sample item = answer_sample(sample, top);
    const struct wire_tokens message = {
        .request = answer->request,
        .index = answer->index++,
        .samples = { .items = &item, .count = 1 },
        .finish = finish == REQUEST_STOP     ? FINISH_STOP
                  : finish == REQUEST_LENGTH ? FINISH_LENGTH
                                             : FINISH_GOES_ON,
        .step_ns = step_ns,
    };

    worker_count(answer->worker, METRIC_output_tokens, 1);
    return send(answer, &message);
}

void answer_failed(struct answer *answer, mc_status status, const char *text)
{
    const struct wire_tokens message = { .request = answer->request,
                                         .index = answer->index,
                                         .finish = FINISH_FAILED,
                                         .status = status,
                                         .text = wire_text(text) };

    worker_count(answer->worker, METRIC_failed, 1);
    if (!send(answer, &message)) /* the connection is going down or its queue is full of answers */
        worker_log(answer->worker, MC_LOG_WARN, "event=failure_not_told request=%llu status=%s",
                   (unsigned long long)answer->request, mc_status_name(status));
}
