//! Two clients ask for conflicting actions at once: exactly one is accepted, the other is told 409, and what was accepted is
//! done.

use nova_core::ids::{ImageId, InstanceId};
use nova_core::state::{Action, VmState};
use serde_json::{Value, json};

use crate::support::{Cloud, CloudOptions};

/// Whatever occupies a server that runs, and takes nobody's place.
const DEEDS: &[&str] = &[
    "os-stop",
    "reboot",
    "pause",
    "suspend",
    "rescue",
    "rebuild",
    "resize",
    "migrate",
    "os-migrateLive",
    "shelve",
    "createImage",
    "createBackup",
    "changePassword",
];

fn body(cloud: &Cloud, deed: &str) -> Value {
    let content = match deed {
        "reboot" => json!({"type": "SOFT"}),
        "rescue" => json!({}),
        "rebuild" => json!({"imageRef": ImageId::generate(&*cloud.entropy)}),
        "resize" => json!({"flavorRef": "2-512"}),
        "os-migrateLive" => json!({"host": null, "block_migration": "auto"}),
        "createImage" => json!({"name": "image"}),
        "createBackup" => json!({"name": "backup", "backup_type": "daily", "rotation": 1}),
        "changePassword" => json!({"adminPass": "secret"}),
        _ => Value::Null,
    };
    json!({ deed: content })
}

/// The action as it is recorded.
fn record(deed: &str) -> &str {
    match deed {
        "os-stop" => "stop",
        "os-migrateLive" => "live-migration",
        other => other,
    }
}

impl Cloud {
    async fn both(&self, id: InstanceId, one: &str, other: &str) -> [(u16, String); 2] {
        let (first, second) = (self.action(id, body(self, one)), self.action(id, body(self, other)));
        tokio::join!(first, second).into()
    }
}

fn accepted(answer: &(u16, String)) -> bool {
    assert!(matches!(answer.0, 200 | 202 | 409), "{answer:?}");
    answer.0 != 409
}

#[tokio::test(start_paused = true)]
async fn of_two_actions_at_once_one_is_done() {
    let pairs: Vec<_> = DEEDS.iter().flat_map(|one| DEEDS.iter().map(move |other| (*one, *other))).collect();
    let count = u32::try_from(pairs.len()).unwrap();
    let cloud = Cloud::start(CloudOptions { vcpus: 400, memory_mb: 400_000, disk_gb: 4000, ..CloudOptions::default() });
    let cloud = cloud.await;
    cloud.stored_flavor(2, 512).await;
    let servers = cloud.boot(count, cloud.flavor(1, 256)).await.unwrap();
    cloud.settle().await;
    for (id, (one, other)) in servers.iter().zip(&pairs) {
        let answers = cloud.both(*id, one, other).await;
        let [first, second] = [accepted(&answers[0]), accepted(&answers[1])];
        assert!(first != second, "{one} and {other}: {answers:?}");
        let refused = &answers[usize::from(first)];
        assert!(refused.1.contains("while it is in task_state"), "{one} and {other}: {refused:?}");
        let began = cloud.store.list_actions(*id).await.unwrap().remove(0);
        assert_eq!(began.action, record(if first { one } else { other }));
    }
    cloud.settle().await;
    for (id, (one, other)) in servers.iter().zip(&pairs) {
        let server = cloud.get(*id).await;
        assert_eq!((server.task_state, &server.fault), (None, &None), "{one} and {other}");
        let actions = cloud.store.list_actions(*id).await.unwrap();
        assert_eq!(actions.len(), 2, "{one} and {other}: {actions:?}");
    }
    cloud.stop().await;
}

/// What takes another's place is accepted whatever runs, and is what remains.
#[tokio::test(start_paused = true)]
async fn a_deletion_and_a_hard_reboot_take_others_places() {
    let cloud = Cloud::start(CloudOptions { vcpus: 100, memory_mb: 100_000, ..CloudOptions::default() }).await;
    cloud.stored_flavor(2, 512).await;
    let servers = cloud.boot(u32::try_from(DEEDS.len()).unwrap(), cloud.flavor(1, 256)).await.unwrap();
    cloud.settle().await;
    for (id, deed) in servers.iter().zip(DEEDS) {
        assert!(accepted(&cloud.action(*id, body(&cloud, deed)).await));
        assert!(cloud.act(*id, Action::Delete).await, "after {deed}");
        assert!(cloud.act(*id, Action::Delete).await, "a second time after {deed}");
        assert!(!accepted(&cloud.action(*id, body(&cloud, deed)).await), "{deed} of one that is being deleted");
    }
    cloud.settle().await;
    for id in &servers {
        assert!(cloud.get(*id).await.is_deleted());
    }
    let servers = cloud.boot(2, cloud.flavor(1, 256)).await.unwrap();
    cloud.settle().await;
    assert!(accepted(&cloud.action(servers[0], body(&cloud, "reboot")).await));
    assert!(cloud.act(servers[0], Action::RebootHard).await);
    assert!(!cloud.act(servers[0], Action::Pause).await);
    cloud.settle().await;
    assert_eq!(cloud.get(servers[0]).await.vm_state, VmState::Active);
    cloud.stop().await;
}
