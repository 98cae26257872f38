//! What every store must do, as checks that any implementation can be held to (feature `conformance`).
//!
//! ```ignore
//! async fn open_memory() -> std::sync::Arc<dyn nova_db::Store> {
//!     std::sync::Arc::new(nova_db::MemoryStore::new())
//! }
//! nova_db::store_conformance!(open_memory());
//! ```
//!
//! Each check wants an empty, migrated store of its own, and fails by panicking.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a check fails by panicking")]

mod aggregates;
mod archive;
mod booking;
mod cells;
mod consoles;
pub(crate) mod fixtures;
mod flavors;
mod hosts;
mod identity;
mod images;
mod instances;
mod migrations;
mod network_fixtures;
mod network_hosts;
mod network_races;
mod networks;
mod queries;
mod quotas;
mod races;
mod rebuild;
mod reset;
mod routers;
mod security_groups;
mod server_groups;
mod tasks;
mod volumes;

use std::any::Any;
use std::sync::Arc;

pub use aggregates::*;
pub use archive::*;
pub use booking::*;
pub use cells::*;
pub use consoles::*;
pub use flavors::*;
pub use hosts::*;
pub use identity::*;
pub use images::*;
pub use instances::*;
pub use migrations::*;
pub use network_hosts::*;
pub use network_races::*;
pub use networks::*;
pub use queries::*;
pub use quotas::*;
pub use races::*;
pub use rebuild::*;
pub use reset::*;
pub use routers::*;
pub use security_groups::*;
pub use server_groups::*;
pub use tasks::*;
pub use volumes::*;

use crate::Store;

/// A store, and what must stay as long as it: a temporary folder.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Dropped after it.
    pub keep: Option<Box<dyn Any + Send>>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("store", &self.store.backend()).finish_non_exhaustive()
    }
}

impl From<Arc<dyn Store>> for Opened {
    fn from(store: Arc<dyn Store>) -> Self {
        Self { store, keep: None }
    }
}

/// Runs the whole list by name, each check on a store that the expression opens: a future of an `Arc<dyn Store>` or of
/// an [`Opened`]. With a list of names, only those. With `ignore = "why";` in front, tests are ignored unless asked for.
#[macro_export]
macro_rules! store_conformance {
    (ignore = $why:literal; $open:expr) => {
        $crate::store_conformance!(@all [#[ignore = $why]] $open);
    };
    (@one [$($attribute:tt)*] $open:expr, $check:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        $($attribute)*
        async fn $check() {
            let opened = $crate::conformance::Opened::from($open.await);
            $crate::conformance::$check(&opened.store).await;
        }
    };
    (@some $attributes:tt $open:expr => $($check:ident),+ $(,)?) => {
        $( $crate::store_conformance!(@one $attributes $open, $check); )+
    };
    (@all $attributes:tt $open:expr) => {
        $crate::store_conformance!(@some $attributes $open =>
            created_instance_is_read_back,
            unknown_instance_is_not_found,
            request_makes_everything,
            repeated_request_creates_once,
            request_ids_are_of_a_project,
            quota_is_exact,
            failed_request_leaves_nothing,
            stale_update_conflicts,
            update_of_unknown_instance_is_not_found,
            usage_follows_instances,
            soft_deleted_servers_do_not_count,
            commits_are_counted,
            quotas_are_kept_by_owner,
            console_grants_are_taken_once,
            console_grants_end,
            one_takes_a_console_grant,
            quotas_set_at_once_add_up,
            a_user_has_limits_in_a_project,
            growth_fits_into_both_limits,
            a_reset_ends_what_is_done,
            a_reset_lets_builds_be_taken_back_and_deletions_end,
            a_reset_ends_a_resize_that_waits,
            a_change_is_recorded_with_its_action,
            actions_are_listed_newest_first,
            every_condition_filters,
            deleted_instances_are_asked_for,
            pages_make_up_the_list,
            every_key_sorts,
            unknown_marker_is_not_found,
            start_raises_the_epoch,
            stale_start_leaves_nothing,
            superseded_task_commits_nothing,
            superseded_task_ends_its_action,
            commit_raises_the_epoch,
            commit_writes_everything,
            done_task_is_gone,
            stale_task_commits_nothing,
            commit_with_stale_instance_leaves_nothing,
            what_was_read_is_written_over,
            leases_exclude,
            renewal_is_of_the_holder,
            due_tasks_come_oldest_lease_first,
            tasks_are_listed_oldest_first,
            migrations_are_numbered,
            stale_migration_commits_nothing,
            superseded_task_ends_its_migration,
            migrations_are_found,
            tasks_are_read_back_equal,
            actions_end_once_nothing_carries_them_out,
            only_a_deletion_ends_what_is_done_to_interfaces,
            booking_is_counted_on_the_node,
            booking_may_be_repeated,
            giving_back_asks_for_nothing,
            no_room_leaves_nothing,
            unknown_host_has_no_room,
            release_makes_room_first,
            cpus_are_given_out_at_the_booking,
            huge_pages_are_given_out_once,
            no_cpu_is_given_out_twice,
            allocations_are_listed_in_order,
            needed_allocation_is_not_deleted,
            beats_make_services,
            late_beats_change_nothing,
            repeated_beats_of_a_batch_are_one_service,
            beats_leave_what_operators_set, stats_are_written_when_they_change,
            deleted_service_is_gone,
            services_are_found,
            reports_make_nodes,
            nodes_are_listed_by_host,
            flavors_live_and_die,
            flavor_names_are_unique,
            keypairs_belong_to_users,
            keypairs_are_limited,
            texts_are_compared_byte_by_byte,
            identity_is_read_back,
            names_are_unique_in_their_domain,
            identity_is_changed,
            grants_are_given_and_taken,
            deletion_takes_grants_along,
            secrets_are_set_once,
            revoked_tokens_expire,
            identity_version_grows,
            images_live_and_die,
            an_image_comes_with_its_task,
            a_superseded_snapshot_takes_its_image_along,
            aggregates_live_and_die,
            aggregates_have_hosts,
            hosts_have_one_zone,
            servers_do_not_change_their_zone,
            bookings_keep_to_their_zone,
            server_groups_live_and_die,
            members_join_and_leave,
            placements_follow_bookings,
            bookings_keep_to_their_group,
            right_accounts_are_left_alone,
            wrong_allocations_are_put_right,
            old_deleted_instances_are_archived,
            open_store_is_healthy,
            one_gets_the_last_of_the_quota,
            usage_adds_up_under_load,
            one_request_many_times_creates_once,
            requests_at_once_are_as_one_by_one,
            one_gets_the_last_of_the_host,
            bookings_and_reports_add_up,
            one_takes_over_a_lease,
            one_wins_a_compare_and_set,
            one_action_begins,
            all_get_the_same_secret,
            first_beats_make_one_service,
            own_writes_are_read,
            repair_and_creates_add_up,
            one_zone_gets_the_host,
            no_host_without_a_service_stays,
            a_booking_knows_the_hosts_zone,
            bookings_and_zones_exclude_each_other,
            group_limits_are_exact,
            anti_affinity_holds_under_load,
            affinity_holds_under_load,
            networks_live_and_die,
            networks_are_listed,
            subnets_do_not_overlap,
            ports_get_addresses,
            addresses_on_request,
            given_addresses_are_free_again,
            ports_change_their_addresses,
            dual_stack_ports_have_both,
            huge_subnets_cost_no_more,
            networks_in_use_stay,
            foreign_networks_are_not_found,
            ports_are_asked_for,
            mac_addresses_are_unique_on_a_network,
            network_quotas_are_exact,
            hosts_say_how_their_ports_work,
            routers_join_subnets,
            floating_ips_stand_for_fixed_ones,
            what_floating_ips_rely_on_stays,
            interfaces_are_their_routers,
            routes_lead_over_the_routers_networks,
            floating_ips_are_of_version_4,
            gateways_come_and_go,
            projects_have_one_default_group,
            rules_are_unique_in_their_group,
            groups_in_use_stay,
            removed_groups_take_rules_along,
            segments_are_one_networks,
            drawn_segments_are_apart,
            network_agents_are_heard,
            books_have_a_version,
            hosts_report_their_own_ports,
            books_of_a_host_are_complete,
            changes_concern_hosts,
            one_gets_the_last_address,
            one_gets_the_asked_address,
            ports_race_for_the_quota,
            one_floating_ip_for_a_fixed_one,
            one_removes_a_port,
            addresses_add_up_under_load,
            networks_and_ports_exclude_each_other,
            groups_and_ports_exclude_each_other,
            volumes_live_and_die,
            volumes_are_listed,
            volume_quotas_are_exact,
            pools_are_not_over_booked,
            late_pools_are_counted,
            snapshots_keep_their_volume,
            attachments_are_their_volumes,
            volume_tasks_have_one_worker,
            volume_types_live_and_die,
            volumes_are_offered_once,
            right_volume_counts_are_left_alone,
            volumes_race_for_the_room,
            one_reserves_a_volume
        );
    };
    ($open:expr) => {
        $crate::store_conformance!(@all [] $open);
    };
    ($open:expr => $($check:ident),+ $(,)?) => {
        $crate::store_conformance!(@some [] $open => $($check),+);
    };
}
