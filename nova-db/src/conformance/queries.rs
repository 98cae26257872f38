//! Lists of instances: conditions, order, pages.

use std::sync::Arc;

use nova_core::ids::{FlavorId, HostName, InstanceId, ProjectId, UserId};
use nova_core::instance::Instance;
use nova_core::state::{LockedBy, TaskState, VmState};

use super::fixtures::{Make, active, at, deleted};
use crate::{Deleted, Direction, InstanceQuery, SortKey, Store, StoreError};

async fn ids(store: &dyn Store, query: InstanceQuery) -> Vec<InstanceId> {
    store.list_instances(&query).await.unwrap().into_iter().map(|i| i.id).collect()
}

fn sorted(mut ids: Vec<InstanceId>) -> Vec<InstanceId> {
    ids.sort();
    ids
}

/// Each condition picks exactly its instances, and all together narrow.
pub async fn every_condition_filters(store: &Arc<dyn Store>) {
    let make = Make::new();
    let store = &**store;
    let one = make.created(store, make.instance("p")).await;
    let mut other = make.instance("q");
    other.user_id = UserId::from("someone");
    other.flavor.id = FlavorId::from("2");
    other.created_at = at(1);
    let other = make.created(store, other).await;
    let other = store.update_instance(active(&other, "h1")).await.unwrap();
    let all = InstanceQuery::default;
    let cases = [
        InstanceQuery { project_id: Some(ProjectId::from("q")), ..all() },
        InstanceQuery { user_id: Some(UserId::from("someone")), ..all() },
        InstanceQuery { host: Some(HostName::from("h1")), ..all() },
        InstanceQuery { ids: Some(vec![other.id, make.instance_id()]), ..all() },
        InstanceQuery { states: Some(vec![(VmState::Active, None)]), ..all() },
        InstanceQuery { states: Some(vec![(VmState::Active, Some(vec![None, Some(TaskState::Deleting)]))]), ..all() },
        InstanceQuery { reservation_id: Some(other.reservation_id), ..all() },
        InstanceQuery { image_id: other.image.as_ref().map(|i| i.id), ..all() },
        InstanceQuery { flavor_id: Some(FlavorId::from("2")), ..all() },
        InstanceQuery { changed_since: Some(at(2)), ..all() },
        InstanceQuery { limit: Some(1), ..all() },
    ];
    for query in cases {
        assert_eq!(ids(store, query.clone()).await, [other.id], "{query:?}");
    }
    assert_eq!(ids(store, InstanceQuery { changed_before: Some(at(1)), ..all() }).await, [one.id]);
    for none in [
        InstanceQuery { ids: Some(Vec::new()), ..all() },
        InstanceQuery { states: Some(Vec::new()), ..all() },
        InstanceQuery { states: Some(vec![(VmState::Active, Some(vec![Some(TaskState::Deleting)]))]), ..all() },
        InstanceQuery { project_id: Some(ProjectId::from("p")), host: Some(HostName::from("h1")), ..all() },
        InstanceQuery { limit: Some(0), ..all() },
    ] {
        assert_eq!(ids(store, none.clone()).await, [], "{none:?}");
    }
    assert_eq!(ids(store, all()).await, [other.id, one.id], "newest first");
}

/// Deleted instances are found by who asks for them, and by id always.
pub async fn deleted_instances_are_asked_for(store: &Arc<dyn Store>) {
    let make = Make::new();
    let store = &**store;
    let live = make.created(store, make.instance("p")).await;
    let gone = make.created(store, make.instance("p")).await;
    store.update_instance(deleted(&gone, 5)).await.unwrap();
    let of = |deleted| InstanceQuery { deleted, ..InstanceQuery::default() };
    assert_eq!(ids(store, of(Deleted::No)).await, [live.id]);
    assert_eq!(ids(store, of(Deleted::Only)).await, [gone.id]);
    assert_eq!(sorted(ids(store, of(Deleted::Any)).await), sorted(vec![live.id, gone.id]));
    assert!(store.get_instance(gone.id).await.unwrap().is_deleted());
}

/// A dozen instances with few distinct values each, so that every order has ties.
async fn dozen(make: &Make, store: &dyn Store) -> Vec<Instance> {
    let mut made = Vec::new();
    for n in 0..12_u32 {
        let mut instance = make.instance(if n % 2 == 0 { "p" } else { "q" });
        instance.display_name = ["b", "B", "ä", ""][n as usize % 4].to_owned();
        instance.created_at = at(i64::from(n / 4));
        instance.launched_at = (n % 3 > 0).then(|| at(i64::from(n % 3)));
        instance.launch_index = n % 5;
        instance.locked = (n % 2 == 0).then_some(LockedBy::Owner);
        instance.key_name = (n % 3 == 0).then(|| "key".to_owned());
        instance.flavor.memory_mb = u64::from(n % 3) * 512;
        made.push(make.created(store, instance).await);
    }
    made
}

/// Pages, one by one, give the whole list, each instance once, in every order: through ties and absent values.
pub async fn pages_make_up_the_list(store: &Arc<dyn Store>) {
    use Direction::{Ascending, Descending};
    let make = Make::new();
    let store = &**store;
    let made = dozen(&make, store).await;
    let orders = [
        vec![],
        vec![(SortKey::DisplayName, Ascending)],
        vec![(SortKey::DisplayName, Descending), (SortKey::LaunchedAt, Ascending)],
        vec![(SortKey::LaunchedAt, Descending)],
        vec![(SortKey::KeyName, Ascending), (SortKey::Locked, Descending), (SortKey::MemoryMb, Ascending)],
        vec![(SortKey::Id, Descending)],
        vec![(SortKey::CreatedAt, Ascending), (SortKey::CreatedAt, Descending)],
    ];
    for sort in orders {
        let whole = ids(store, InstanceQuery { sort: sort.clone(), ..InstanceQuery::default() }).await;
        assert_eq!(sorted(whole.clone()), sorted(made.iter().map(|i| i.id).collect()), "{sort:?}");
        for size in [1, 5] {
            let mut paged = Vec::new();
            loop {
                let (after, limit) = (paged.last().copied(), Some(size));
                let page = ids(store, InstanceQuery { sort: sort.clone(), after, limit, ..Default::default() }).await;
                if page.is_empty() {
                    break;
                }
                paged.extend(page);
                assert!(paged.len() <= whole.len(), "{sort:?} by {size}: pages repeat");
            }
            assert_eq!(paged, whole, "{sort:?} by {size}");
        }
    }
}

/// Every sort key sorts, and its reverse is the reverse where the id breaks no ties.
pub async fn every_key_sorts(store: &Arc<dyn Store>) {
    let make = Make::new();
    let store = &**store;
    dozen(&make, store).await;
    let keys = [
        SortKey::CreatedAt,
        SortKey::UpdatedAt,
        SortKey::LaunchedAt,
        SortKey::DisplayName,
        SortKey::Id,
        SortKey::Host,
        SortKey::Node,
        SortKey::VmState,
        SortKey::TaskState,
        SortKey::PowerState,
        SortKey::ProjectId,
        SortKey::UserId,
        SortKey::KeyName,
        SortKey::AvailabilityZone,
        SortKey::Hostname,
        SortKey::LaunchIndex,
        SortKey::ImageRef,
        SortKey::FlavorId,
        SortKey::MemoryMb,
        SortKey::Vcpus,
        SortKey::RootGb,
        SortKey::Locked,
        SortKey::Progress,
    ];
    for key in keys {
        let up = vec![(key, Direction::Ascending), (SortKey::Id, Direction::Ascending)];
        let down = vec![(key, Direction::Descending), (SortKey::Id, Direction::Descending)];
        let up = ids(store, InstanceQuery { sort: up, ..Default::default() }).await;
        let mut down = ids(store, InstanceQuery { sort: down, ..Default::default() }).await;
        down.reverse();
        assert_eq!(up, down, "{key:?}");
        assert_eq!(up.len(), 12, "{key:?}");
    }
    let by_name = InstanceQuery { sort: vec![(SortKey::DisplayName, Direction::Ascending)], ..Default::default() };
    let names: Vec<_> = store.list_instances(&by_name).await.unwrap().into_iter().map(|i| i.display_name).collect();
    assert_eq!([&names[0], &names[3], &names[6], &names[9]], ["", "B", "b", "ä"], "byte by byte");
}

/// A marker that is not there is told; one that was deleted still marks its place.
pub async fn unknown_marker_is_not_found(store: &Arc<dyn Store>) {
    let make = Make::new();
    let store = &**store;
    let old = make.created(store, make.instance("p")).await;
    let mut new = make.instance("p");
    new.created_at = at(9);
    let new = make.created(store, new).await;
    store.update_instance(deleted(&new, 10)).await.unwrap();
    let after = |id| InstanceQuery { after: Some(id), ..InstanceQuery::default() };
    assert_eq!(ids(store, after(new.id)).await, [old.id]);
    let error = store.list_instances(&after(make.instance_id())).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}");
}
