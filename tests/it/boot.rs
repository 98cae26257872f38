//! Booting and deleting, with and without failures.

use nova_core::state::{Action, PowerState, TaskState, VmState};
use nova_queue::Chances;
use nova_virt::{ErrorKind, Operation};

use crate::support::{Cloud, CloudOptions};

#[tokio::test(start_paused = true)]
async fn a_server_boots_and_goes() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    let server = cloud.get(ids[0]).await;
    assert_eq!((server.vm_state, server.task_state, server.power_state), (VmState::Active, None, PowerState::Running));
    assert!(server.launched_at.is_some());
    cloud.check().await;
    assert!(cloud.act(ids[0], Action::Delete).await);
    cloud.settle().await;
    assert!(cloud.get(ids[0]).await.is_deleted());
    cloud.check().await;
    let actions = cloud.store.list_actions(ids[0]).await.unwrap();
    assert!(actions.iter().all(|a| a.finished.is_some()), "{actions:?}");
    cloud.stop().await;
}

/// DESIGN's budget: at most 8 broker messages, replies included, and 3 durable transactions.
#[tokio::test(start_paused = true)]
async fn a_boot_costs_few_messages_and_transactions() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    cloud.pass(std::time::Duration::from_millis(300)).await;
    let (commits, sent) = (cloud.store.commits(), cloud.bus.counters());
    let beats = cloud.now();
    cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    let after = cloud.bus.counters();
    assert!(cloud.now().duration_since(beats).as_secs() < 1, "no heartbeat fell into the boot");
    assert_eq!(cloud.store.commits() - commits, 3);
    assert_eq!((after.messages - sent.messages) + (after.replies - sent.replies), 6);
    assert_eq!(after.fanouts, sent.fanouts, "no boot waits for schedulers to be told");
    // The seventh tells all schedulers of the booking, and of all others of that while.
    cloud.pass(std::time::Duration::from_millis(300)).await;
    assert_eq!(cloud.bus.counters().fanouts - sent.fanouts, 1);
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_fails_is_left_for_the_next() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    for host in cloud.hosts.values().take(2) {
        host.fail_next(Operation::Spawn, 1, ErrorKind::Failed);
    }
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    assert_eq!(cloud.get(ids[0]).await.vm_state, VmState::Active);
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_was_made_though_the_spawn_failed_is_removed() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    cloud.hosts.values().next().unwrap().fail_next_after_effect(Operation::Spawn, 1, ErrorKind::TimedOut);
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    let server = cloud.get(ids[0]).await;
    assert_eq!((server.vm_state, server.host), (VmState::Error, None));
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn when_all_hosts_fail_the_server_says_why() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    for host in cloud.hosts.values() {
        host.fail_next(Operation::Spawn, 9, ErrorKind::NoSpace);
    }
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    let server = cloud.get(ids[0]).await;
    assert_eq!(server.vm_state, VmState::Error);
    let fault = server.fault.unwrap();
    assert!(!fault.message.contains("space"), "tenants do not read drivers' texts: {}", fault.message);
    assert!(fault.details.contains("space"), "administrators do: {}", fault.details);
    cloud.check().await;
    assert!(cloud.act(ids[0], Action::Delete).await);
    cloud.settle().await;
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_no_host_takes_is_refused_whole() {
    let cloud = Cloud::start(CloudOptions { hosts: 2, ..CloudOptions::default() }).await;
    let ids = cloud.boot(5, cloud.flavor(1, 3000)).await.unwrap();
    cloud.settle().await;
    for id in ids {
        let server = cloud.get(id).await;
        assert_eq!((server.vm_state, server.host.clone()), (VmState::Error, None), "{server:?}");
        assert!(server.fault.unwrap().message.starts_with("No valid host was found."));
    }
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_servers_of_one_request_fill_the_hosts_exactly() {
    let cloud = Cloud::start(CloudOptions { hosts: 2, ..CloudOptions::default() }).await;
    // 8192 MiB less 512 reserved: 7 of 1 GiB each.
    let ids = cloud.boot(14, cloud.flavor(1, 1024)).await.unwrap();
    cloud.settle().await;
    for id in ids {
        assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    }
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_costs_only_time() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    cloud.set_chances(Chances { lose: 1000, ..Chances::default() });
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.set_chances(Chances::default());
    cloud.settle().await;
    assert_eq!(cloud.get(ids[0]).await.vm_state, VmState::Active);
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_deleted_while_it_is_built() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let host = cloud.hosts.values().next().unwrap().clone();
    host.hang(Operation::Spawn);
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.pass(std::time::Duration::from_secs(2)).await;
    assert_eq!(cloud.get(ids[0]).await.task_state, Some(TaskState::Spawning));
    assert!(cloud.act(ids[0], Action::Delete).await);
    host.release(Operation::Spawn);
    cloud.settle().await;
    assert!(cloud.get(ids[0]).await.is_deleted());
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_build_that_never_ends_is_given_up_at_its_deadline() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let host = cloud.hosts.values().next().unwrap().clone();
    host.hang(Operation::Spawn);
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    let server = cloud.get(ids[0]).await;
    assert_eq!(server.vm_state, VmState::Error);
    host.release(Operation::Spawn);
    cloud.pass(std::time::Duration::from_secs(300)).await;
    cloud.check().await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stop_start_and_reboot() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    let steps = [
        (Action::Stop, VmState::Stopped, PowerState::Shutdown),
        (Action::Start, VmState::Active, PowerState::Running),
        (Action::RebootSoft, VmState::Active, PowerState::Running),
        (Action::RebootHard, VmState::Active, PowerState::Running),
    ];
    for (action, vm_state, power_state) in steps {
        assert!(cloud.act(ids[0], action).await, "{action:?}");
        assert!(!cloud.act(ids[0], Action::Stop).await, "one action at a time");
        cloud.settle().await;
        let server = cloud.get(ids[0]).await;
        assert_eq!((server.vm_state, server.power_state), (vm_state, power_state), "{action:?}");
        cloud.check().await;
    }
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_shuts_down_by_itself_is_a_stopped_server() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    assert!(cloud.hosts.values().next().unwrap().shut_down_guest(ids[0]));
    cloud.pass(std::time::Duration::from_secs(1)).await;
    let server = cloud.get(ids[0]).await;
    assert_eq!((server.vm_state, server.power_state), (VmState::Stopped, PowerState::Shutdown));
    cloud.stop().await;
}

/// A host that missed a deletion removes the guest when it finds it; one that the cloud never heard of it leaves alone.
#[tokio::test(start_paused = true)]
async fn a_guest_of_a_deleted_server_is_removed_and_a_strangers_is_not() {
    use nova_virt::Hypervisor;
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let host = cloud.hosts.values().next().unwrap().clone();
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    assert!(cloud.act(ids[0], Action::Delete).await);
    cloud.settle().await;
    let stranger = nova_core::ids::InstanceId::generate(&*cloud.entropy);
    host.plant_leftover(ids[0]);
    host.plant_leftover(stranger);
    cloud.pass(std::time::Duration::from_secs(120)).await;
    let left: Vec<_> = host.list().await.unwrap().into_iter().map(|guest| guest.instance).collect();
    assert_eq!(left, [stranger]);
    cloud.stop().await;
}

/// A copy of an order that comes after it was done changes nothing, whatever happens then.
#[tokio::test(start_paused = true)]
async fn late_copies_of_orders_change_nothing() {
    let chances = Chances { repeat: 1000, longest_delay: std::time::Duration::from_secs(5), ..Chances::default() };
    let cloud = Cloud::start(CloudOptions { chances, hosts: 6, ..CloudOptions::default() }).await;
    let host = cloud.hosts.values().next().unwrap().clone();
    host.fail_next(Operation::Spawn, 1, ErrorKind::Failed);
    let ids = cloud.boot(3, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    for host in cloud.hosts.values() {
        host.fail_next(Operation::Spawn, 9, ErrorKind::Failed);
    }
    cloud.pass(std::time::Duration::from_secs(300)).await;
    for id in ids {
        let server = cloud.get(id).await;
        assert_eq!(server.vm_state, VmState::Active, "{:?} {:?}", server.fault, cloud.store.list_actions(id).await);
    }
    cloud.check().await;
    cloud.stop().await;
}

/// One that waits for a slot behind hung builds is deleted at once.
#[tokio::test(start_paused = true)]
async fn deletion_passes_builds_that_hang() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, vcpus: 64, memory_mb: 65536, ..CloudOptions::default() }).await;
    let host = cloud.hosts.values().next().unwrap().clone();
    host.hang(Operation::Spawn);
    let ids = cloud.boot(100, cloud.flavor(1, 512)).await.unwrap();
    cloud.pass(std::time::Duration::from_secs(2)).await;
    assert!(cloud.act(ids[99], Action::Delete).await);
    cloud.pass(std::time::Duration::from_secs(2)).await;
    assert!(cloud.get(ids[99]).await.is_deleted());
    host.release(Operation::Spawn);
    cloud.settle().await;
    cloud.check().await;
    cloud.stop().await;
}

/// A place that was promised and not used does not stand in the way of the next try.
#[tokio::test(start_paused = true)]
async fn the_last_place_is_found_again_after_a_lost_answer() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, memory_mb: 1024, ..CloudOptions::default() }).await;
    cloud.set_chances(Chances { lose: 400, ..Chances::default() });
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.pass(std::time::Duration::from_secs(60)).await;
    cloud.set_chances(Chances::default());
    cloud.settle().await;
    assert_eq!(cloud.get(ids[0]).await.vm_state, VmState::Active);
    cloud.check().await;
    cloud.stop().await;
}

/// Found by the simulation: a host that could not take back a failed build was followed by another one.
#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_undo_is_not_followed_by_another() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    for host in cloud.hosts.values() {
        host.fail_next_after_effect(Operation::Spawn, 1, ErrorKind::TimedOut);
        host.fail_next(Operation::Destroy, 9, ErrorKind::Failed);
    }
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    assert_eq!(cloud.get(ids[0]).await.vm_state, VmState::Error);
    assert_eq!(cloud.world.violations(), vec![]);
    cloud.pass(std::time::Duration::from_secs(900)).await;
    cloud.check().await;
    cloud.stop().await;
}

/// Through the real pipeline, with the real identity: good until its last second, and not after.
#[tokio::test(start_paused = true)]
async fn an_expired_token_is_refused() {
    let token_life = std::time::Duration::from_secs(60);
    let cloud = Cloud::start(CloudOptions { token_life, ..CloudOptions::default() }).await;
    assert_eq!(cloud.call("GET", "/compute/v2.1/servers", None).await.0, 200);
    cloud.pass(std::time::Duration::from_secs(61)).await;
    let commits = cloud.store.commits();
    let (status, answer) = cloud.call("POST", "/compute/v2.1/servers", Some(serde_json::json!({"server": {}}))).await;
    assert_eq!((status, &answer["unauthorized"]["code"]), (401, &serde_json::json!(401)), "{answer}");
    assert_eq!(cloud.store.commits(), commits);
    cloud.stop().await;
}

/// I10: nothing that was secret about a server outlives it.
#[tokio::test(start_paused = true)]
async fn a_deleted_server_keeps_no_secrets() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    let mut server = cloud.get(ids[0]).await;
    (server.user_data, server.key_data) = (Some("c2VjcmV0".into()), Some("ssh-ed25519 AAAA".into()));
    cloud.store.update_instance(server).await.unwrap();
    assert!(cloud.act(ids[0], Action::Delete).await);
    cloud.settle().await;
    let server = cloud.get(ids[0]).await;
    assert_eq!((server.is_deleted(), server.user_data, server.key_data), (true, None, None));
    cloud.stop().await;
}

/// A host that says it is at work is not given the order again, and nobody takes the task over.
#[tokio::test(start_paused = true)]
async fn a_slow_build_is_ordered_once() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let host = cloud.hosts.values().next().unwrap().clone();
    host.hang(Operation::Spawn);
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.pass(std::time::Duration::from_secs(2)).await;
    let ordered = cloud.store.list_tasks(Some(ids[0])).await.unwrap();
    cloud.pass(std::time::Duration::from_secs(200)).await;
    let waiting = cloud.store.list_tasks(Some(ids[0])).await.unwrap();
    assert_eq!(waiting[0].generation, ordered[0].generation, "taken up again");
    assert!(waiting[0].lease_until > ordered[0].lease_until, "prolonged");
    host.release(Operation::Spawn);
    cloud.settle().await;
    assert_eq!(cloud.get(ids[0]).await.vm_state, VmState::Active);
    cloud.check().await;
    cloud.stop().await;
}
