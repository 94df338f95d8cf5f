/* test_layout.c - the sizes of public structs, which callers are compiled against, stay as they are. */
#include "test.h"

#include <mooncake/p2p.h>
#include <mooncake/sched.h>
#include <mooncake/store.h>
#include <mooncake/transfer.h>

/* A later release names a reserved field; it never makes a struct larger or moves a field. */
static void test_public_structs_keep_their_sizes(void **state)
{
    (void)state;
#define SIZE(type, bytes) assert_int_equal(sizeof(struct type), bytes)
    if (sizeof(void *) != 8)
        skip();
    SIZE(mc_log, 24);
    SIZE(mc_resolver, 72);
    SIZE(mc_transfer_options, 200);
    SIZE(mc_transfer_info, 40);
    SIZE(mc_range, 16);
    SIZE(mc_region_options, 72);
    SIZE(mc_region, 16);
    SIZE(mc_window_options, 96);
    SIZE(mc_window, 64);
    SIZE(mc_segment_info, 72);
    SIZE(mc_segment_region, 176);
    SIZE(mc_xfer, 120);
    SIZE(mc_batch_options, 56);
    SIZE(mc_xfer_result, 64);
    SIZE(mc_notice, 528);
    SIZE(mc_transfer_stats, 224);
    SIZE(mc_p2p_options, 96);
    SIZE(mc_digest, 32);
    SIZE(mc_p2p_object, 328);
    SIZE(mc_p2p_progress, 72);
    SIZE(mc_identity, 32);
    SIZE(mc_key, 16);
    SIZE(mc_object_header, 64);
    SIZE(mc_store_options, 152);
    SIZE(mc_placement, 48);
    SIZE(mc_put, 72);
    SIZE(mc_get, 88);
    SIZE(mc_exist, 32);
    SIZE(mc_remove, 24);
    SIZE(mc_replica, 112);
    SIZE(mc_lease, 24);
    SIZE(mc_lookup, 88);
    SIZE(mc_token, 32);
    SIZE(mc_allot, 112);
    SIZE(mc_commit, 56);
    SIZE(mc_store_event, 64);
    SIZE(mc_store_stats, 232);
    SIZE(mc_store_node_options, 72);
    SIZE(mc_cost, 128);
    SIZE(mc_sched_instance, 224);
    SIZE(mc_sched_load, 104);
    SIZE(mc_sched_blocks, 32);
    SIZE(mc_sched_slo, 16);
    SIZE(mc_sched_request, 136);
    SIZE(mc_sched_progress, 72);
    SIZE(mc_sched_transfer, 48);
    SIZE(mc_sched_event, 232);
    SIZE(mc_prediction, 96);
    SIZE(mc_decision, 232);
    SIZE(mc_view_instance, 160);
    SIZE(mc_view, 152);
    SIZE(mc_policy, 80);
    SIZE(mc_length_predictor, 48);
    SIZE(mc_sched_options, 192);
    SIZE(mc_sched_stats, 712);
#undef SIZE
}

static void test_an_object_is_header_payload_and_a_checksum_for_each_piece(void **state)
{
    (void)state;
    assert_int_equal(mc_object_bytes(0), 64);
    assert_int_equal(mc_object_bytes(1), 64 + 1 + 4);
    assert_int_equal(mc_object_bytes(65536), 64 + 65536 + 4);
    assert_int_equal(mc_object_bytes(65537), 64 + 65537 + 8);
    assert_int_equal(mc_object_bytes(MC_OBJECT_LENGTH_MAX),
                     64 + (UINT64_C(1) << 40) + 4 * (UINT64_C(1) << 24));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_public_structs_keep_their_sizes),
        cmocka_unit_test(test_an_object_is_header_payload_and_a_checksum_for_each_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
