//! What is done to a server after its boot, on its host: each operation as its user sees it.

use std::time::Duration;

use nova::conductor::ConductorOptions;
use nova_core::ids::InstanceId;
use nova_core::image::{Image, ImageStatus};
use nova_core::instance::Instance;
use nova_core::state::{Action, PowerState, TaskState, VmState};
use nova_sched::SchedulerOptions;
use nova_virt::{DiskRole, ErrorKind, FakeHypervisor, Operation, StableRescue};
use serde_json::{Value, json};

use crate::support::{Cloud, CloudOptions};

async fn with_server(options: CloudOptions) -> (Cloud, InstanceId) {
    let cloud = Cloud::start(options).await;
    let id = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap()[0];
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    (cloud, id)
}

fn host_of<'a>(cloud: &'a Cloud, server: &Instance) -> &'a FakeHypervisor {
    &cloud.hosts[server.host.as_ref().unwrap()]
}

/// Does it, waits for its end.
async fn done(cloud: &Cloud, id: InstanceId, action: Action) -> Instance {
    assert!(cloud.act(id, action).await, "{action:?} was refused");
    cloud.settle().await;
    cloud.get(id).await
}

async fn post(cloud: &Cloud, id: InstanceId, body: Value) -> (u16, Value) {
    cloud.call("POST", &format!("/compute/v2.1/servers/{id}/action"), Some(body)).await
}

async fn images(cloud: &Cloud) -> Vec<Image> {
    cloud.store.list_images().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_power_operation_ends_in_its_state_with_its_record() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let steps = [
        (Action::Pause, VmState::Paused, PowerState::Paused, "pause", "compute_pause_instance"),
        (Action::Unpause, VmState::Active, PowerState::Running, "unpause", "compute_unpause_instance"),
        (Action::Suspend, VmState::Suspended, PowerState::Suspended, "suspend", "compute_suspend_instance"),
        (Action::Resume, VmState::Active, PowerState::Running, "resume", "compute_resume_instance"),
        (Action::Rescue, VmState::Rescued, PowerState::Running, "rescue", "compute_rescue_instance"),
        (Action::Unrescue, VmState::Active, PowerState::Running, "unrescue", "compute_unrescue_instance"),
        (Action::Rebuild, VmState::Active, PowerState::Running, "rebuild", "compute_rebuild_instance"),
        (Action::ChangePassword, VmState::Active, PowerState::Running, "changePassword", "compute_set_admin_password"),
        (Action::CreateImage, VmState::Active, PowerState::Running, "createImage", "compute_snapshot_instance"),
        (Action::CreateBackup, VmState::Active, PowerState::Running, "createBackup", "compute_backup_instance"),
        (
            Action::TriggerCrashDump,
            VmState::Active,
            PowerState::Running,
            "trigger_crash_dump",
            "compute_trigger_crash_dump",
        ),
    ];
    for (action, vm_state, power_state, record, event) in steps {
        let server = done(&cloud, id, action).await;
        assert_eq!(
            (server.vm_state, server.task_state, server.power_state),
            (vm_state, None, power_state),
            "{action:?}"
        );
        assert_eq!(server.fault, None, "{action:?}");
        let newest = cloud.store.list_actions(id).await.unwrap().remove(0);
        assert_eq!((newest.action.as_str(), newest.message.as_deref()), (record, None));
        assert_eq!(newest.events.len(), 1, "{newest:?}");
        let part = &newest.events[0];
        assert_eq!((part.event.as_str(), part.result.as_deref()), (event, Some("Success")));
        assert_eq!(part.host.as_deref(), server.host.as_ref().map(|host| host.as_str()));
        cloud.check().await;
    }
    let server = cloud.get(id).await;
    assert_eq!(host_of(&cloud, &server).nmis_of(id), 1);
    cloud.stop().await;
}

/// What a driver can't do, or fails at, leaves the server as it was, and says so.
#[tokio::test(start_paused = true)]
async fn what_a_driver_does_not_do_ends_in_a_fault_and_the_state_from_before() {
    let operations = [
        (Action::Pause, Operation::Pause),
        (Action::Suspend, Operation::Suspend),
        (Action::ChangePassword, Operation::SetAdminPassword),
        (Action::CreateImage, Operation::Snapshot),
        (Action::CreateBackup, Operation::Snapshot),
        (Action::Rebuild, Operation::Rebuild),
    ];
    let (cloud, id) = with_server(CloudOptions::default()).await;
    for (action, operation) in operations {
        let before = cloud.get(id).await;
        host_of(&cloud, &before).fail_next(operation, 1, ErrorKind::Unsupported);
        let server = done(&cloud, id, action).await;
        assert_eq!((server.vm_state, server.task_state), (VmState::Active, None), "{action:?}");
        assert_eq!(server.image, before.image, "{action:?}");
        let fault = server.fault.unwrap();
        assert!(fault.message.contains("support"), "{action:?}: {}", fault.message);
        assert_eq!(cloud.store.list_actions(id).await.unwrap()[0].message.as_deref(), Some("Error"));
        cloud.check().await;
    }
    assert!(images(&cloud).await.is_empty(), "no image is left of what failed");
    cloud.stop().await;
}

/// A rescue that failed is taken back; a guest of which nobody knows what it is now is in ERROR, and a hard reboot mends it.
#[tokio::test(start_paused = true)]
async fn a_rescue_that_fails_is_taken_back_or_an_error_that_a_reboot_mends() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let host = host_of(&cloud, &cloud.get(id).await);
    host.fail_next_after_effect(Operation::Rescue, 1, ErrorKind::Failed);
    let server = done(&cloud, id, Action::Rescue).await;
    assert_eq!((server.vm_state, server.fault.is_some()), (VmState::Active, true));
    assert!(host.rescue_of(id).is_none(), "it runs from its own disk");
    cloud.check().await;
    host.fail_next(Operation::Rescue, 1, ErrorKind::Failed);
    host.fail_next(Operation::Unrescue, 1, ErrorKind::Failed);
    let server = done(&cloud, id, Action::Rescue).await;
    assert_eq!((server.vm_state, server.task_state), (VmState::Error, None));
    let server = done(&cloud, id, Action::RebootHard).await;
    assert_eq!((server.vm_state, server.power_state), (VmState::Active, PowerState::Running));
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_second_of_two_actions_is_refused_with_its_text() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let (first, second) =
        tokio::join!(post(&cloud, id, json!({"suspend": null})), post(&cloud, id, json!({"pause": null})));
    let mut statuses = [first.0, second.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409]);
    cloud.settle().await;
    done(&cloud, id, if first.0 == 202 { Action::Resume } else { Action::Unpause }).await;
    done(&cloud, id, Action::Pause).await;
    let (status, answer) = post(&cloud, id, json!({"pause": null})).await;
    let text = format!("Cannot 'pause' instance {id} while it is in vm_state paused");
    assert_eq!((status, &answer["conflictingRequest"]["message"]), (409, &json!(text)));
    cloud.stop().await;
}

fn deferred(seconds: u64) -> CloudOptions {
    let reclaim_instance_interval = Duration::from_secs(seconds);
    let conductor = ConductorOptions { reclaim_instance_interval, ..ConductorOptions::default() };
    CloudOptions { conductor, ..CloudOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_server_can_be_restored_for_a_while() {
    let (cloud, id) = with_server(CloudOptions { instances: Some(1), ..deferred(3600) }).await;
    let server = done(&cloud, id, Action::Delete).await;
    assert_eq!((server.vm_state, server.power_state), (VmState::SoftDelete, PowerState::Shutdown));
    assert!(!server.is_deleted() && server.soft_deleted_at.is_some());
    cloud.check().await;
    let (_, shown) = cloud.call("GET", &format!("/compute/v2.1/servers/{id}"), None).await;
    assert_eq!(shown["server"]["status"], "SOFT_DELETED");
    // It does not count: another one fits in its place, and then there is none for it.
    let other = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap()[0];
    cloud.settle().await;
    let (status, answer) = post(&cloud, id, json!({"restore": null})).await;
    assert_eq!(status, 403, "{answer}");
    assert_eq!(cloud.get(id).await.task_state, None);
    assert!(cloud.act(other, Action::ForceDelete).await, "forced, it is gone at once");
    cloud.settle().await;
    assert!(cloud.get(other).await.is_deleted());
    let server = done(&cloud, id, Action::Restore).await;
    assert_eq!((server.vm_state, server.power_state), (VmState::Active, PowerState::Running));
    assert_eq!(server.soft_deleted_at, None);
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_restored_it_so_it_goes_for_good() {
    let (cloud, id) = with_server(deferred(600)).await;
    done(&cloud, id, Action::Delete).await;
    cloud.pass(Duration::from_secs(500)).await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::SoftDelete);
    // A second request does not prolong it.
    done(&cloud, id, Action::Delete).await;
    cloud.pass(Duration::from_secs(180)).await;
    cloud.settle().await;
    assert!(cloud.get(id).await.is_deleted());
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rescue_ends_by_itself_where_the_operator_wants_it() {
    let conductor = ConductorOptions { rescue_timeout: Duration::from_secs(300), ..ConductorOptions::default() };
    let (cloud, id) = with_server(CloudOptions { conductor, ..CloudOptions::default() }).await;
    assert_eq!(done(&cloud, id, Action::Rescue).await.vm_state, VmState::Rescued);
    cloud.pass(Duration::from_secs(240)).await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Rescued);
    cloud.pass(Duration::from_secs(180)).await;
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rescued_guest_runs_from_the_other_image_and_its_disk_waits() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let server = cloud.get(id).await;
    let host = host_of(&cloud, &server);
    assert!(host.write_disk(id, DiskRole::Root, "mine"));
    let image = "70a599e0-31e7-49b7-b260-868f441e862b";
    let body = json!({"rescue": {"adminPass": "given", "rescue_image_ref": image}});
    let (status, answer) = post(&cloud, id, body).await;
    assert_eq!((status, answer), (200, json!({"adminPass": "given"})));
    cloud.settle().await;
    assert_eq!(host.rescue_of(id).unwrap().stable, None);
    assert_eq!(post(&cloud, id, json!({"reboot": {"type": "SOFT"}})).await.0, 409, "not while it is rescued");
    done(&cloud, id, Action::Unrescue).await;
    assert!(host.rescue_of(id).is_none());
    assert_eq!(host.disk_of(id, DiskRole::Root).as_deref(), Some("mine"));
    // An image that says where its disk belongs makes a rescue that leaves the guest's own disks in their places.
    let body = json!({"rescue": {"rescue_image_ref": "4e5c0e00-31e7-49b7-b260-868f441e862b"}});
    assert_eq!(post(&cloud, id, body).await.0, 200);
    cloud.settle().await;
    let asked = StableRescue { device: Some("cdrom".into()), bus: Some("sata".into()) };
    assert_eq!(host.rescue_of(id).unwrap().stable, Some(asked));
    done(&cloud, id, Action::Unrescue).await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rebuilt_server_has_what_was_asked_for_and_stays_stopped() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let host = host_of(&cloud, &cloud.get(id).await);
    assert!(host.write_disk(id, DiskRole::Root, "mine"));
    done(&cloud, id, Action::Stop).await;
    let image = "70a599e0-31e7-49b7-b260-868f441e862b";
    let body = json!({"imageRef": image, "name": "new", "metadata": {"a": "b"}, "description": null, "user_data": "eA==",
        "adminPass": "given", "hostname": "new-name"});
    let (status, answer) = post(&cloud, id, json!({ "rebuild": body })).await;
    assert_eq!(status, 202, "{answer}");
    let shown = &answer["server"];
    assert_eq!((&shown["adminPass"], &shown["status"]), (&json!("given"), &json!("REBUILD")));
    assert_eq!(
        (&shown["name"], &shown["user_data"], &shown["key_name"]),
        (&json!("new"), &json!("eA=="), &Value::Null)
    );
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!((server.vm_state, server.power_state), (VmState::Stopped, PowerState::Shutdown));
    assert_eq!(server.image.unwrap().id.to_string(), image);
    assert_eq!((server.hostname.as_str(), server.metadata["a"].as_str()), ("new-name", "b"));
    assert_ne!(host.disk_of(id, DiskRole::Root).as_deref(), Some("mine"));
    cloud.check().await;
    done(&cloud, id, Action::Start).await;
    cloud.check().await;
    cloud.stop().await;
}

/// OSSA-2017-005 (row 12): the scheduler is asked about the host that has the server, and about nothing else.
#[tokio::test(start_paused = true)]
async fn an_image_that_the_host_does_not_run_is_not_rebuilt_from() {
    let mut algorithm = SchedulerOptions::default();
    algorithm.filter.enabled_filters = vec!["ComputeFilter".into(), "AggregateImagePropertiesIsolation".into()];
    let options = CloudOptions { scheduler: "filter", algorithm, ..CloudOptions::default() };
    let (cloud, id) = with_server(options).await;
    let before = cloud.get(id).await;
    let aggregate = json!({"aggregate": {"name": "fedora"}});
    let (status, made) = cloud.call_as_admin("POST", "/compute/v2.1/os-aggregates", Some(aggregate)).await;
    assert_eq!(status, 200, "{made}");
    let path = format!("/compute/v2.1/os-aggregates/{}/action", made["aggregate"]["id"]);
    for body in
        [json!({"add_host": {"host": before.host}}), json!({"set_metadata": {"metadata": {"os_distro": "fedora"}}})]
    {
        assert_eq!(cloud.call_as_admin("POST", &path, Some(body)).await.0, 200);
    }
    cloud.pass(Duration::from_secs(120)).await;
    let body = json!({"rebuild": {"imageRef": "deb10000-31e7-49b7-b260-868f441e862b"}});
    let (status, answer) = post(&cloud, id, body).await;
    assert_eq!(status, 202, "{answer}");
    cloud.settle().await;
    let server = cloud.get(id).await;
    assert_eq!((server.vm_state, server.task_state), (VmState::Active, None));
    assert_eq!(server.image, before.image, "it has the image that it had");
    assert!(server.fault.unwrap().message.starts_with("No valid host"));
    let (status, _) = post(&cloud, id, json!({"rebuild": {"imageRef": "fed00000-31e7-49b7-b260-868f441e862b"}})).await;
    assert_eq!(status, 202);
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.image.unwrap().id.to_string(), "fed00000-31e7-49b7-b260-868f441e862b");
    cloud.check().await;
    cloud.stop().await;
}

/// OSSA-2017-006 (row 12): the host is asked whether it can run the image, not for more room.
#[tokio::test(start_paused = true)]
async fn a_hundred_rebuilds_take_nothing_more() {
    // Room for one of them, and not for two.
    let options = CloudOptions { hosts: 1, vcpus: 1, memory_mb: 1200, ..CloudOptions::default() };
    let (cloud, id) = with_server(options).await;
    let held = async || {
        let used: Vec<_> = cloud.store.list_nodes().await.unwrap().into_iter().map(|node| node.used).collect();
        let project = cloud.get(id).await.project_id;
        (cloud.store.list_allocations(None).await.unwrap(), used, cloud.store.usage(&project).await.unwrap())
    };
    let before = held().await;
    for _ in 0..100 {
        done(&cloud, id, Action::Rebuild).await;
        assert_eq!(cloud.get(id).await.fault, None);
    }
    assert_eq!(held().await, before);
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_password_reaches_the_guest() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let server = done(&cloud, id, Action::ChangePassword).await;
    assert_eq!(host_of(&cloud, &server).password_of(id), Some((None, "secret".to_owned())));
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_is_queued_until_its_data_is_there() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let host = host_of(&cloud, &cloud.get(id).await);
    host.hang(Operation::Snapshot);
    let (status, answer) = post(&cloud, id, json!({"createImage": {"name": "mine", "metadata": {"k": "v"}}})).await;
    assert_eq!(status, 202, "{answer}");
    cloud.pass(Duration::from_secs(1)).await;
    let image = images(&cloud).await.remove(0);
    assert_eq!(answer, json!({"image_id": image.id}));
    assert_eq!((image.status, image.name.as_deref()), (ImageStatus::Queued, Some("mine")));
    let server = cloud.get(id).await;
    assert_eq!(server.task_state, Some(TaskState::ImagePendingUpload));
    let base = server.image.unwrap().id.to_string();
    for (key, value) in [
        ("image_type", "snapshot"),
        ("instance_uuid", &id.to_string()),
        ("base_image_ref", base.as_str()),
        ("k", "v"),
        ("image_location", "snapshot"),
    ] {
        assert_eq!(image.properties[key], value, "{key}");
    }
    assert_eq!(image.min_disk, 1, "as large as the flavor's disk");
    assert_eq!(post(&cloud, id, json!({"createImage": {"name": "second"}})).await.0, 409);
    assert_eq!(images(&cloud).await.len(), 1, "what was refused has described no image");
    host.release(Operation::Snapshot);
    cloud.settle().await;
    let image = images(&cloud).await.remove(0);
    assert_eq!(image.status, ImageStatus::Active);
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_backups_of_a_kind_are_kept() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let backup = |name: &str, kind: &str, rotation: u32| json!({"createBackup": {"name": name, "backup_type": kind, "rotation": rotation}});
    for (name, kind) in [("a", "daily"), ("w", "weekly"), ("b", "daily"), ("c", "daily")] {
        assert_eq!(post(&cloud, id, backup(name, kind, 2)).await.0, 202);
        cloud.settle().await;
        cloud.pass(Duration::from_secs(1)).await;
    }
    let mut names: Vec<String> = images(&cloud).await.into_iter().filter_map(|image| image.name).collect();
    names.sort();
    assert_eq!(names, ["b", "c", "w"]);
    assert_eq!(post(&cloud, id, backup("d", "daily", 0)).await.0, 202);
    cloud.settle().await;
    let names: Vec<String> = images(&cloud).await.into_iter().filter_map(|image| image.name).collect();
    assert_eq!(names, ["w"], "none is to be kept");
    cloud.check().await;
    cloud.stop().await;
}

/// Nothing waits for a copy that nobody wants any more.
#[tokio::test(start_paused = true)]
async fn a_deletion_takes_the_image_in_the_making_with_it() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let host = host_of(&cloud, &cloud.get(id).await);
    host.hang(Operation::Snapshot);
    assert!(cloud.act(id, Action::CreateImage).await);
    cloud.pass(Duration::from_secs(1)).await;
    assert!(cloud.act(id, Action::Delete).await);
    assert!(images(&cloud).await.is_empty());
    host.release(Operation::Snapshot);
    cloud.settle().await;
    assert!(cloud.get(id).await.is_deleted());
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn diagnostics_are_for_administrators_and_of_guests_that_run() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let path = format!("/compute/v2.1/servers/{id}/diagnostics");
    assert_eq!(cloud.call("GET", &path, None).await.0, 403);
    let (status, shown) = cloud.call_as_admin("GET", &path, None).await;
    assert_eq!((status, &shown["state"], &shown["num_cpus"]), (200, &json!("running"), &json!(1)));
    assert_eq!(shown["memory_details"]["maximum"], 512);
    done(&cloud, id, Action::Stop).await;
    let (status, answer) = cloud.call_as_admin("GET", &path, None).await;
    let text = format!("Cannot 'get_diagnostics' instance {id} while it is in power state shutdown");
    assert_eq!((status, &answer["conflictingRequest"]["message"]), (409, &json!(text)));
    cloud.stop().await;
}

/// The hypervisor tells of it, and nobody has to look.
#[tokio::test(start_paused = true)]
async fn a_guest_that_stops_itself_is_shutoff_within_two_seconds() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    assert!(host_of(&cloud, &cloud.get(id).await).shut_down_guest(id));
    cloud.pass(Duration::from_secs(2)).await;
    let server = cloud.get(id).await;
    assert_eq!((server.vm_state, server.power_state), (VmState::Stopped, PowerState::Shutdown));
    cloud.check().await;
    cloud.stop().await;
}

/// A crash dump runs beside what else is done to the server; it waits for its turn and gets it.
#[tokio::test(start_paused = true)]
async fn a_crash_dump_waits_for_its_turn() {
    let (cloud, id) = with_server(CloudOptions::default()).await;
    let host = host_of(&cloud, &cloud.get(id).await);
    host.hang(Operation::InjectNmi);
    assert!(cloud.act(id, Action::TriggerCrashDump).await);
    cloud.pass(Duration::from_secs(1)).await;
    assert!(cloud.act(id, Action::Pause).await, "nothing says that it runs");
    cloud.pass(Duration::from_secs(1)).await;
    host.release(Operation::InjectNmi);
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Paused);
    assert!(host.nmis_of(id) >= 1);
    let actions = cloud.store.list_actions(id).await.unwrap();
    assert!(actions.iter().all(|action| action.finished.is_some() && action.message.is_none()), "{actions:?}");
    cloud.stop().await;
}

/// `os_require_quiesce`: an image of a running server is one of file systems that stood still, or there is none, and its owner
/// is told why.
#[tokio::test(start_paused = true)]
async fn an_image_that_must_be_quiet_needs_an_agent() {
    for (image, quiet) in
        [("a9e10000-0000-4000-8000-000000000001", true), ("a9e00000-0000-4000-8000-000000000001", false)]
    {
        let cloud = Cloud::start(CloudOptions::default()).await;
        let id = cloud.boot_from(image.parse().unwrap(), 1, cloud.flavor(1, 512)).await.unwrap()[0];
        cloud.settle().await;
        let host = cloud.hosts[&cloud.get(id).await.host.unwrap()].clone();
        assert!(cloud.act(id, Action::CreateImage).await);
        cloud.settle().await;
        let server = cloud.get(id).await;
        assert_eq!((server.vm_state, server.task_state), (VmState::Active, None));
        assert_eq!(cloud.store.list_images().await.unwrap().len(), usize::from(quiet));
        assert_eq!(host.freezes_of(id), u32::from(quiet));
        let fault = server.fault.map(|fault| fault.message);
        assert_eq!(fault, (!quiet).then(|| "QEMU guest agent is not enabled".to_owned()));
        // One that is off needs none.
        assert!(cloud.act(id, Action::Stop).await);
        cloud.settle().await;
        assert!(cloud.act(id, Action::CreateImage).await);
        cloud.settle().await;
        assert_eq!(cloud.store.list_images().await.unwrap().len(), 1 + usize::from(quiet));
        cloud.check().await;
        cloud.stop().await;
    }
}
