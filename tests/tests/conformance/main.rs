//! The conformance suite: what every route promises, written once, and run over each.
//!
//! A test is a function of a [`World`]; the lists below say over which routes it runs.
//! A route that is added is one more line in `over_every_route`.

// The functions are tests, whatever the lint sees of it: a failure is to point at its line.
#![allow(clippy::unwrap_used)]

mod blocking;
mod bounds;
mod bridge;
mod bytes;
mod delivery;
mod ends;
mod in_place;
mod order;
mod presence;
mod readiness;
mod slots;
mod types;

use bus_tests::{Route, World};

/// Makes a `#[test]` of each function, over one route.
macro_rules! over {
    ($route:ident as $name:ident: $($room:ident { $($test:ident)* })*) => {
        mod $name {
            $(mod $room {
                $(#[test]
                fn $test() {
                    let name = concat!(stringify!($name), "::", stringify!($room), "::", stringify!($test));
                    crate::World::run(crate::Route::$route, name, crate::$room::$test);
                })*
            })*
        }
    };
}

macro_rules! over_every_route {
    ($($tests:tt)*) => {
        over!(Local as local: $($tests)*);
        over!(Stream as stream: $($tests)*);
        over!(Lane as lane: $($tests)*);
    };
}

macro_rules! between_processes {
    ($($tests:tt)*) => {
        over!(Stream as stream_only: $($tests)*);
        over!(Lane as lane_only: $($tests)*);
    };
}

over_every_route! {
    order {
        messages_of_one_sender_arrive_in_the_order_sent
        clones_share_the_order_of_their_endpoint
        what_was_confirmed_before_another_send_began_arrives_first
        a_new_endpoint_has_an_id_and_a_sequence_of_its_own
        batches_of_many_senders_come_in_the_order_in_which_they_were_sent
    }
    blocking {
        a_try_on_a_full_channel_gives_the_value_back_at_once
        a_try_finds_room_again_after_buffered_messages_filled_the_window
        a_send_that_timed_out_was_never_sent
        a_blocked_send_goes_on_when_a_message_is_received
        ends_wait_as_they_are_told_to
        what_was_received_makes_room_without_another_call
        what_was_acknowledged_makes_room_while_the_next_is_read
        a_receiver_that_takes_some_of_much_makes_room_for_as_many
        a_try_of_a_clone_does_not_keep_a_blocked_send_asleep
        a_blocked_receiver_gets_what_is_sent_later
        an_empty_channel_is_told_from_one_that_took_too_long
        a_deadline_that_has_passed_still_takes_what_is_there
        a_timeout_beyond_all_clocks_waits_for_ever
        what_is_fed_arrives_at_the_latest_after_a_flush
        dropping_a_sender_sends_what_it_had_buffered
        iterators_end_where_the_channel_does
        a_sender_is_used_by_several_threads_at_once
        both_ends_know_how_much_is_on_its_way
    }
    bounds {
        a_batch_is_absorbed_before_any_receiver_is_there
        a_window_holds_back_the_sender_that_used_it_up
        a_message_on_loan_takes_room_until_it_is_acknowledged
        capacity_is_shared_by_all_senders
        many_senders_share_a_small_channel_without_loss
        reject_gives_every_form_of_send_its_value_back
        drop_newest_keeps_the_first_and_counts_the_rest
        drop_oldest_keeps_the_last_and_counts_the_rest
        a_channel_that_drops_never_holds_its_sender_back
        a_channel_is_declared_once_and_with_one_set_of_options
        a_channel_in_use_keeps_its_options
    }
    delivery {
        a_message_says_who_sent_it_when_and_how
        headers_travel_with_their_message_also_when_it_comes_again
        an_acknowledged_message_does_not_come_again
        a_message_given_back_comes_again_first_with_its_attempt_counted
        a_panic_gives_the_delivery_back
        order_waits_for_a_delivery_that_is_kept
        a_delivery_that_is_kept_outlives_its_receiver_and_keeps_the_seat
        the_next_receiver_gets_what_was_not_acknowledged_marked_and_what_was_not_taken_unmarked
        what_a_busy_receiver_never_took_is_not_marked
        attempts_are_counted_on_from_receiver_to_receiver
    }
    slots {
        what_is_written_into_a_slot_arrives_as_any_message_does
        a_slot_that_is_dropped_sends_nothing
        a_slot_takes_its_place_in_the_order_when_it_is_committed
        threads_write_into_slots_of_one_sender_at_the_same_time
        a_loan_waits_for_the_window_as_a_send_does
        a_slot_that_is_dropped_gives_its_room_to_who_waits_for_it
        a_loan_without_the_required_receiver_fails
        deletion_gives_what_was_written_back
        a_full_channel_gives_the_bytes_of_a_slot_back
    }
    in_place {
        a_payload_is_read_where_it_lies
        what_is_read_in_place_comes_again_until_it_is_acknowledged
        values_of_every_size_are_decoded_whole
    }
    presence {
        a_second_receiver_is_refused_and_told_who_holds_the_channel
        a_receiver_in_line_takes_over_when_the_seat_is_given_up
        a_receiver_that_leaves_the_line_is_passed_over
        by_default_a_receiver_waits_for_the_next_sender
        messages_wait_for_the_next_receiver
        a_receiver_that_only_tries_learns_of_the_end
        until_disconnected_ends_when_the_last_sender_has_left_and_all_is_received
        until_disconnected_counts_senders_that_left_before_it_came
        those_in_line_end_after_the_one_that_ended
        the_last_sender_to_leave_wakes_a_receiver_that_waits
        a_receiver_that_ended_gives_up_the_seat
        a_sender_that_requires_a_receiver_fails_while_there_is_none
        the_required_receiver_leaving_wakes_a_blocked_sender
        both_ends_know_who_is_there_and_are_told_when_that_changes
        messages_are_kept_while_the_peers_are_asked_for
        deletion_wakes_a_blocked_sender_with_its_value
        deletion_wakes_a_blocked_receiver_and_those_in_line
        after_deletion_a_confirmation_fails_too
        a_deleted_channel_keeps_nothing_and_its_name_is_free
        a_channel_that_nobody_declared_vanishes_when_empty_and_unattached
        a_channel_that_holds_a_message_stays
        a_channel_is_drained_once_all_is_acknowledged_and_not_before
    }
    bridge {
        what_is_exported_arrives_in_order_and_the_bridge_ends_with_its_source
        what_is_imported_arrives_in_order_and_the_sink_ends_with_the_channel
        a_value_that_comes_alone_passes_at_once
        threads_select_between_channels_of_the_bus
        a_full_channel_holds_back_who_sends_into_the_source
        only_what_the_sink_has_taken_is_acknowledged
        an_import_whose_sink_is_gone_gives_the_next_message_back
        an_import_whose_end_is_dropped_gives_up_the_seat_while_nothing_comes
        an_import_that_waits_for_room_is_stopped_and_gives_the_message_back
        an_import_at_work_is_stopped_all_the_same
        deletion_ends_an_import_and_says_so
        deletion_ends_an_export_that_has_nothing_to_do
        deletion_gives_an_export_its_value_back_and_all_behind_it
        deletion_gives_an_export_what_it_had_taken_together_back
        an_export_goes_on_with_the_ends_that_it_handed_back
    }
    readiness {
        it_is_readable_while_a_message_waits
        what_was_there_before_it_was_asked_for_shows
        who_sleeps_on_it_is_woken_by_each_message
        many_pass_an_event_loop_in_order
        it_rests_while_a_delivery_is_out
        the_end_of_the_channel_shows_and_stays
        deletion_shows_and_stays
        a_receiver_in_line_is_woken_by_its_first_message
        other_calls_leave_it_right
    }
    types {
        every_codec_carries_a_value_whole
        a_value_without_bytes_is_a_message_all_the_same
        another_type_is_refused_at_open_naming_both
        another_codec_is_refused_at_open_naming_both
        a_type_name_that_was_set_counts
        an_idle_channel_forgets_its_type
        a_malformed_name_is_refused_before_anything_is_asked
        raw_ends_exchange_bytes_as_they_are
        bytes_given_back_come_again_first
        many_are_fed_in_order_and_behind_what_was_fed_before
        a_batch_is_acknowledged_as_far_as_it_was_done
    }
}

// Only between processes, over either route.
between_processes! {
    bridge {
        an_import_ends_at_a_message_that_does_not_decode_and_hands_it_over
        an_export_that_ends_at_a_value_sends_what_came_before_it
        an_export_in_which_a_value_panics_sends_what_came_before_it
        an_import_in_which_a_value_panics_keeps_acknowledged_what_came_before_it
    }
    in_place {
        a_large_message_that_does_not_decode_comes_as_an_error_that_carries_it
    }
    slots {
        a_loan_of_more_than_a_message_may_be_is_refused_with_the_limit
    }
}

// Only between processes, where the route between them makes no difference.
over! {
    Stream as stream_once:
    bytes {
        types_of_one_name_meet_whatever_module_they_are_in
        a_raw_receiver_sees_what_a_typed_sender_encoded
        a_raw_sender_reaches_a_typed_receiver
        a_message_that_does_not_decode_comes_as_an_error_that_carries_it
        an_oversize_message_comes_back_with_the_limit_and_the_channel_goes_on
        the_largest_message_passes_an_empty_window
        a_value_that_does_not_encode_comes_back
        capacity_in_bytes_holds_senders_back
        a_receiver_that_was_kicked_says_so_and_the_next_goes_on
        the_ledger_names_where_every_message_is
    }
}
