/* status.c - names and words of every status, from the one list in mooncake/status.h. */
#include <mooncake/status.h>

const char *mc_status_name(mc_status status)
{
    switch (status) {
#define NAME_CASE(name, number, words) \
    case MC_##name: \
        return "MC_" #name;
        MC_STATUS_MAP(NAME_CASE)
    }
    return "MC_E_?";
}

const char *mc_status_text(mc_status status)
{
    switch (status) {
#define TEXT_CASE(name, number, words) \
    case MC_##name: \
        return words;
        MC_STATUS_MAP(TEXT_CASE)
    }
    return "unknown status";
}

const char *mc_version(void)
{
    return MC_VERSION;
}
