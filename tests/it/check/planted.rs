//! One violation each, as an operation of the store can make it.

use super::*;

#[tokio::test(start_paused = true)]
async fn i2_more_is_booked_than_fits() {
    let still = Still::new().await;
    let mut node = still.store.node_of_host(still.server().host.as_ref().unwrap()).await.unwrap();
    node.inventory.total.memory_mb = node.inventory.reserved.memory_mb + 100;
    still.store.put_node(node).await.unwrap();
    still.finds_and_leaves(&["I2"]).await;
}

#[tokio::test(start_paused = true)]
async fn i2_a_node_counts_wrong() {
    let still = Still::new().await;
    // The bookings of a host count for its first node: with a new first one, they count for the wrong one.
    let node = still.store.node_of_host(still.server().host.as_ref().unwrap()).await.unwrap();
    let id = nova_core::ids::ComputeNodeId::generate(&*still.entropy);
    still.store.put_node(ComputeNode { id, hypervisor_hostname: "a".into(), ..node }).await.unwrap();
    still.finds_and_mends(&["I2", "I2"]).await;
}

#[tokio::test(start_paused = true)]
async fn i3_booked_where_it_is_not() {
    let still = Still::new().await;
    let server = still.server();
    let task = still.begin(server.clone(), Work::Stop).await;
    let allocation = Allocation {
        instance_id: server.id,
        host: still.other_host(&server),
        resources: server.flavor.resources(),
        created_at: still.clock.now(),
        placement: None,
    };
    let mut instance = still.store.get_instance(server.id).await.unwrap();
    instance.task_state = None;
    let mut action = still.store.get_action(server.id, &task.context.request_id).await.unwrap();
    action.finish(None, still.clock.now());
    let commit = TaskCommit {
        done: true,
        instance: Some(instance),
        book: Some(Booking::of(allocation)),
        action: Some(action),
        ..TaskCommit::of(task)
    };
    still.store.commit_task(commit).await.unwrap();
    still.finds_and_mends(&["I3"]).await;
}

#[tokio::test(start_paused = true)]
async fn i3_not_booked_where_it_is() {
    let still = Still::new().await;
    let server = still.server();
    let task = still.begin(server.clone(), Work::Stop).await;
    let mut instance = still.store.get_instance(server.id).await.unwrap();
    instance.task_state = None;
    let mut action = still.store.get_action(server.id, &task.context.request_id).await.unwrap();
    action.finish(None, still.clock.now());
    let release = vec![server.host.clone().unwrap()];
    let commit =
        TaskCommit { done: true, instance: Some(instance), release, action: Some(action), ..TaskCommit::of(task) };
    still.store.commit_task(commit).await.unwrap();
    still.finds_and_mends(&["I3"]).await;
    assert_eq!(still.store.list_allocations(server.host.as_ref()).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn i3_i8_what_a_deleted_server_leaves() {
    let still = Still::new().await;
    let mut server = still.server();
    server.set_states(States { vm_state: VmState::Deleted, task_state: None, power_state: PowerState::NoState });
    server.deleted_at = Some(still.clock.now());
    still.store.update_instance(server.clone()).await.unwrap();
    still.finds_and_mends(&["I3", "I8"]).await;
    assert!(still.host_of(&server).list().await.unwrap().iter().all(|guest| guest.instance != server.id));
}

#[tokio::test(start_paused = true)]
async fn i4_busy_but_nothing_works_on_it() {
    let still = Still::new().await;
    let mut server = still.server();
    server.task_state = Some(TaskState::RebootingHard);
    still.store.update_instance(server.clone()).await.unwrap();
    still.finds_and_mends(&["I4"]).await;
    let mended = still.store.get_instance(server.id).await.unwrap();
    assert_eq!((mended.vm_state, mended.task_state), (VmState::Error, None));
    let fault = mended.fault.unwrap();
    assert_eq!((fault.code, fault.message.contains("interrupted")), (500, true), "{fault:?}");
}

#[tokio::test(start_paused = true)]
async fn i4_a_task_that_never_ends() {
    let still = Still::new().await;
    let task = still.begin(still.server(), Work::Stop).await;
    assert_eq!(still.checker.check().await.unwrap().violations, [], "it has time");
    let overdue = task.deadline.duration_since(still.clock.now()) + SignedDuration::from_mins(1);
    tokio::time::sleep(overdue.unsigned_abs()).await;
    assert_eq!(still.checker.check().await.unwrap().violations, [], "a conductor needs a moment to give it up");
    tokio::time::sleep(Duration::from_secs(120)).await;
    still.finds_and_leaves(&["I4"]).await;
}

#[tokio::test(start_paused = true)]
async fn i4_i10_a_task_and_an_action_outlive_their_server() {
    let still = Still::new().await;
    let mut server = still.server();
    let work = Work::Build {
        spec: Default::default(),
        selection: None,
        admin_password: Some("secret".into()),
        keys: BTreeMap::new(),
        networks: Default::default(),
    };
    let task = still.begin(server.clone(), work).await;
    server = still.store.get_instance(server.id).await.unwrap();
    let host = server.host.clone().unwrap();
    server.set_states(States { vm_state: VmState::Deleted, task_state: None, power_state: PowerState::NoState });
    server.deleted_at = Some(still.clock.now());
    still.store.update_instance(server.clone()).await.unwrap();
    still.store.delete_allocation(server.id, &host).await.unwrap();
    still.hosts[&host].destroy(server.id).await.unwrap();
    let (before, after) = still.mend().await;
    assert_eq!(found(&before), ["I4", "I10"]);
    assert!(before.violations.iter().all(|v| !v.to_string().contains("secret")));
    assert_eq!(after.violations, [], "the action, an orphan once its task was dropped, was ended too");
    let action = still.store.get_action(server.id, &task.context.request_id).await.unwrap();
    assert_eq!(action.message.as_deref(), Some("Error"));
}

/// What was to become an image of a server, and gets no data any more, goes; one that is still described, an upload of a user's
/// and one that is being made stay.
#[tokio::test(start_paused = true)]
async fn i4_an_image_that_nothing_brings() {
    let still = Still::new().await;
    let server = still.server();
    let image = |status, of_server: bool| {
        let mut image = Image {
            id: nova_core::ids::ImageId::generate(&*still.entropy),
            name: Some("copy".into()),
            status,
            owner: server.project_id.clone(),
            created_at: still.clock.now(),
            updated_at: still.clock.now(),
            visibility: Visibility::Private,
            disk_format: Some("raw".into()),
            container_format: Some("bare".into()),
            size: None,
            virtual_size: None,
            checksum: None,
            os_hash_value: None,
            min_ram: 0,
            min_disk: 0,
            protected: false,
            os_hidden: false,
            tags: BTreeSet::new(),
            properties: BTreeMap::new(),
            members: BTreeMap::new(),
            generation: 0,
        };
        if of_server {
            image.properties.insert("image_location".into(), "snapshot".into());
            image.properties.insert("instance_uuid".into(), server.id.to_string());
        }
        image
    };
    let lost = [image(ImageStatus::Queued, true), image(ImageStatus::Saving, true)];
    let theirs = image(ImageStatus::Queued, false);
    let made = image(ImageStatus::Queued, true);
    for one in lost.iter().chain([&theirs, &made]) {
        still.store.create_image(one.clone()).await.unwrap();
    }
    still.begin(server, Work::CreateImage { image_id: made.id }).await;
    assert_eq!(still.checker.check().await.unwrap().violations, [], "its task may still be written");
    tokio::time::sleep(Duration::from_secs(121)).await;
    let (before, after) = still.mend().await;
    assert_eq!((found(&before), after.violations), (vec!["I4", "I4"], vec![]));
    let left: BTreeSet<_> = still.store.list_images().await.unwrap().into_iter().map(|image| image.id).collect();
    assert_eq!(left, BTreeSet::from([theirs.id, made.id]));
}

#[tokio::test(start_paused = true)]
async fn i4_an_action_that_nothing_carries_out() {
    let still = Still::new().await;
    let server = still.server();
    let task = still.begin(server.clone(), Work::Stop).await;
    let mut instance = still.store.get_instance(server.id).await.unwrap();
    instance.task_state = None;
    let commit = TaskCommit { done: true, instance: Some(instance), ..TaskCommit::of(task) };
    still.store.commit_task(commit).await.unwrap();
    still.finds_and_mends(&["I4"]).await;
}

#[tokio::test(start_paused = true)]
async fn i5_a_guest_runs_twice() {
    let still = Still::new().await;
    let server = still.server();
    let twin =
        nova_virt::GuestSpec { instance: server.id, name: "instance-twin".into(), ..nova_virt::testing::guest_spec(1) };
    still.hosts[&still.other_host(&server)].spawn(&twin).await.unwrap();
    still.finds_and_leaves(&["I5", "I8"]).await;
}

#[tokio::test(start_paused = true)]
async fn i5_an_active_server_has_no_guest() {
    let still = Still::new().await;
    let server = still.server();
    assert!(still.host_of(&server).remove_guest(server.id));
    still.finds_and_mends(&["I5"]).await;
    let mended = still.store.get_instance(server.id).await.unwrap();
    assert_eq!((mended.vm_state, mended.power_state), (VmState::Stopped, PowerState::NoState));
}

#[tokio::test(start_paused = true)]
async fn i5_an_active_server_is_off() {
    let still = Still::new().await;
    let server = still.server();
    assert!(still.host_of(&server).crash_guest(server.id));
    still.finds_and_mends(&["I5"]).await;
    let mended = still.store.get_instance(server.id).await.unwrap();
    assert_eq!((mended.vm_state, mended.power_state), (VmState::Stopped, PowerState::Crashed));
}

#[tokio::test(start_paused = true)]
async fn i5_a_guest_is_newer_than_the_records() {
    let still = Still::new().await;
    let server = still.server();
    let spec =
        nova_virt::GuestSpec { instance: server.id, epoch: server.epoch + 5, ..nova_virt::testing::guest_spec(1) };
    still.host_of(&server).spawn(&spec).await.unwrap();
    still.finds_and_leaves(&["I5"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_is_no_violation() {
    let still = Still::new().await;
    let server = still.server();
    still.host_of(&server).remove_guest(server.id);
    still.host_of(&server).set_available(false);
    let report = still.checker.check().await.unwrap();
    assert_eq!(report.violations, []);
    assert_eq!(report.unreached.iter().map(|(host, _)| Some(host)).collect::<Vec<_>>(), [server.host.as_ref()]);
}

#[tokio::test(start_paused = true)]
async fn i8_a_guest_of_nobody() {
    let still = Still::new().await;
    let host = still.hosts.values().next().unwrap();
    host.plant_leftover(InstanceId::generate(&*still.entropy));
    still.finds_and_mends(&["I8"]).await;
}

#[tokio::test(start_paused = true)]
async fn i9_states_that_cannot_stand_together() {
    let still = Still::new().await;
    let mut server = still.server();
    server.task_state = Some(TaskState::Unpausing);
    assert!(!server.states().is_possible(), "or the test has no point");
    still.store.update_instance(server).await.unwrap();
    still.finds_and_mends(&["I4", "I9"]).await;
}

#[tokio::test(start_paused = true)]
async fn i9_deleted_but_alive() {
    let still = Still::new().await;
    let mut server = still.server();
    server.vm_state = VmState::Deleted;
    still.store.update_instance(server).await.unwrap();
    still.finds_and_leaves(&["I9"]).await;
}

#[tokio::test(start_paused = true)]
async fn i9_stopped_but_running() {
    let still = Still::new().await;
    let mut server = still.server();
    server.vm_state = VmState::Stopped;
    still.store.update_instance(server).await.unwrap();
    still.finds_and_leaves(&["I9"]).await;
}

#[tokio::test(start_paused = true)]
async fn i16_a_stopped_server_has_lost_its_guest() {
    let still = Still::new().await;
    let mut server = still.server();
    still.host_of(&server).remove_guest(server.id);
    server.vm_state = VmState::Stopped;
    server.power_state = PowerState::Shutdown;
    still.store.update_instance(server).await.unwrap();
    still.finds_and_leaves(&["I16"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_conductor_beside_guests_is_told() {
    let mut still = Still::new().await;
    let host = still.server().host.unwrap();
    let beat = ServiceBeat {
        new_id: ServiceId::generate(&*still.entropy),
        binary: "nova-conductor".into(),
        host,
        zone: "internal".into(),
        now: still.clock.now(),
        version: 1,
    };
    still.store.record_beats(&[beat]).await.unwrap();
    still.finds_and_leaves(&["config"]).await;
    still.checker.options.bounds.one_process = true;
    assert_eq!(still.checker.check().await.unwrap().violations, [], "one process may");
}
