/* api_refuse.c - fields that this release cannot do, refused by their names. */
#include <string.h>

#include "gateway/api_reader.h"

/* A value of each that asks for nothing, and so passes. */
enum harmless {
    ABSENT,
    FALSE_ONLY,
    TRUE_ONLY,
    ONE,
    ZERO,
    EMPTY,
    NONE_OR_AUTO,
    TYPE_TEXT,
    TEXT_LIST
};

static const struct refused {
    const char *name;
    enum harmless harmless;
} refused[] = {
    { "n", ONE },
    { "best_of", ONE },
    { "tools", EMPTY },
    { "tool_choice", NONE_OR_AUTO },
    { "functions", EMPTY },
    { "function_call", NONE_OR_AUTO },
    { "response_format", TYPE_TEXT },
    { "structured_outputs", ABSENT },
    { "guided_json", ABSENT },
    { "guided_regex", ABSENT },
    { "guided_choice", ABSENT },
    { "guided_grammar", ABSENT },
    { "logit_bias", EMPTY },
    { "allowed_token_ids", EMPTY },
    { "bad_words", EMPTY },
    { "echo", FALSE_ONLY },
    { "suffix", EMPTY },
    { "presence_penalty", ZERO },
    { "frequency_penalty", ZERO },
    { "repetition_penalty", ONE },
    { "length_penalty", ONE },
    { "min_p", ZERO },
    { "use_beam_search", FALSE_ONLY },
    { "prompt_logprobs", ABSENT },
    { "prompt_embeds", ABSENT },
    { "truncate_prompt_tokens", ABSENT },
    { "modalities", TEXT_LIST },
    { "audio", ABSENT },
    { "prediction", ABSENT },
    { "web_search_options", ABSENT },
    { "documents", EMPTY },
    { "add_generation_prompt", TRUE_ONLY },
    { "continue_final_message", FALSE_ONLY },
    { "chat_template", ABSENT },
    { "chat_template_kwargs", EMPTY },
};

static bool is_text(const json_t *value, const char *text)
{
    const char *found = json_string_value(value);

    return found && strcmp(found, text) == 0;
}

static bool is_empty(const json_t *value)
{
    return (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

static bool is_number(const json_t *value, double number)
{
    return json_is_number(value) && json_number_value(value) == number;
}

static bool asks_for_nothing(const json_t *value, enum harmless harmless)
{
    switch (harmless) {
    case ABSENT:
        return false;
    case FALSE_ONLY:
        return json_is_false(value);
    case TRUE_ONLY:
        return json_is_true(value);
    case ONE:
        return is_number(value, 1);
    case ZERO:
        return is_number(value, 0);
    case EMPTY:
        return is_empty(value);
    case NONE_OR_AUTO: /* tools themselves are refused: there is nothing to choose */
        return is_text(value, "none") || is_text(value, "auto");
    case TYPE_TEXT:
        return is_text(json_object_get(value, "type"), "text");
    case TEXT_LIST:
        return json_array_size(value) == 1 && is_text(json_array_get(value, 0), "text");
    }
    return false;
}

void api_refuse_by_name(struct api_reader *r)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        const json_t *value = api_get(r, refused[i].name);
        if (value && !asks_for_nothing(value, refused[i].harmless))
            api_refuse(r, "unsupported", refused[i].name,
                       "this release does not support what it asks for; leave it out");
    }
}
